//! One step in a guest, and what it changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::{Chain, ChainLayer};
use firebuild_build::event::Stream;
use firebuild_build::exec::{
    ExecError, ExecErrorKind, Executed, Exit, NewLayer, Step, StepMount, StepMountKind,
};
use firebuild_build::graph::NetworkMode;
use firebuild_build::sandbox::{plain_job, store_changes};
use firebuild_guest_proto::TaskSocket;
use firebuild_guest_proto::message::task_socket_path;
use firebuild_rootfs::overlay::upper_layer;
use firebuild_rootfs::tar::{ReadOptions, Whiteouts, read_layer};
use firebuild_rootfs::tree::Tree;
use firebuild_rootfs::unpack::Skipped;
use firebuild_sandbox::job::{MountJob, MountJobKind, RootJob, StepJob, UPPER};
use firebuild_sandbox::task::{Answer, SCRATCH, Spooled, Task};
use firebuild_store::Store;

use super::launch::resolv_conf;
use super::task::{self, With};
use super::vm::Vm;
use super::{caches, host, layers};

/// What a step needs beside its job.
#[derive(Default)]
struct Needs {
    sockets: Vec<(PathBuf, TaskSocket)>,
    /// Cache mounts: the host's directory and the guest's.
    caches: Vec<(PathBuf, PathBuf)>,
}

/// Runs a step.
pub(super) fn run(
    store: &Store,
    vm: &Vm,
    base: &Arc<Chain>,
    step: &Step,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Executed, ExecError> {
    let given = base.tree(store).map_err(layers::base)?;
    let lowers = layers::lowers(store, vm, base, cancel)?;
    let number = vm.number();
    let directory = Path::new(SCRATCH).join(format!("steps/{number}"));
    let mut needs = Needs::default();
    let mut mounts = Vec::new();
    for (index, mount) in step.mounts.iter().enumerate() {
        let own = directory.join(format!("mount-{index}"));
        let kind = mount_kind(store, vm, number, mount, own, &mut needs, cancel)?;
        mounts.push(MountJob {
            target: mount.target.clone(),
            read_only: mount.read_only,
            kind,
        });
    }
    let job = StepJob {
        root: RootJob {
            lowers,
            directory: directory.clone(),
            copy: false,
        },
        resolv_conf: resolv_conf(),
        mounts,
        ..plain_job(step)
    };

    let place = store
        .temporary()
        .map_err(|error| host("cannot keep what the step changes", error))?;
    let mut spool = crate::sparse::create(&place)
        .map_err(|error| host("cannot keep what the step changes", error))?;
    // Its descriptor is enough, and whatever ends this process frees it.
    let _ = fs_err::remove_file(&place);
    let with = With {
        spool: Some((&mut spool, vm.disk_bytes)),
        output: Some(output),
        sockets: needs.sockets,
        ..With::default()
    };
    let task = Task::Step(Box::new(job));
    let answer = task::run(vm, number, &task, with, cancel).map_err(remedy)?;
    let Answer::Ended { status, sockets } = answer else {
        return Err(ExecError::new(
            ExecErrorKind::Host,
            "the VM of the build answered something else than how the step ended",
        ));
    };
    let mut notices = vm.take_notices();
    if step.network == NetworkMode::Host {
        notices.push(
            "--network=host is the network of the VM: a step in a VM never has the host's"
                .to_owned(),
        );
    }
    for (host, guest) in &needs.caches {
        if let Err(error) = caches::leave(vm, host, guest, cancel) {
            if error.kind() == ExecErrorKind::Cancelled {
                return Err(error);
            }
            // The step's result is whole without it; the next build finds an older cache.
            notices.push(format!("a cache mount was not kept: {error}"));
        }
    }
    let status = Exit::from(status);
    if status != Exit::Code(0) {
        return Ok(Executed {
            status,
            layer: None,
            notices,
            hint: None,
        });
    }
    for socket in sockets {
        notices.push(format!("socket not kept in the layer: /{socket}"));
    }
    let layer = layer(store, &given, spool)?;
    let above = base.push(ChainLayer {
        diff_id: layer.diff_id,
        created: None,
    });
    vm.held
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .adopt(&above, directory.join(UPPER));
    Ok(Executed {
        status,
        layer: Some(layer),
        notices,
        hint: None,
    })
}

/// The difference between what the step was given and the archive of its upper directory.
fn layer(store: &Store, given: &Tree, mut spool: File) -> Result<NewLayer, ExecError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        ExecError::caused(
            ExecErrorKind::Layer,
            "cannot use what the VM of the build says that the step has changed",
            error,
        )
    };
    std::io::Seek::rewind(&mut spool).map_err(|error| failed(error.into()))?;
    let reader = spool.try_clone().map_err(|error| failed(error.into()))?;
    // Names that look like removals are names: this is a directory as it is.
    let options = ReadOptions {
        whiteouts: Whiteouts::Keep,
        ..ReadOptions::default()
    };
    let entries = read_layer(reader, [0; 32], &options).map_err(|error| failed(error.into()))?;
    let mut upper = Tree::new();
    upper
        .apply(&entries)
        .map_err(|error| failed(error.into()))?;
    let layer = upper_layer(&upper, given, &Skipped::default());
    store_changes(store, &layer, &Spooled(Arc::new(spool)))
}

fn mount_kind(
    store: &Store,
    vm: &Vm,
    number: u32,
    mount: &StepMount,
    directory: PathBuf,
    needs: &mut Needs,
    cancel: &Cancel,
) -> Result<MountJobKind, ExecError> {
    Ok(match &mount.kind {
        StepMountKind::Bind { chain, source } => MountJobKind::Bind {
            lowers: layers::lowers(store, vm, chain, cancel)?,
            source: source.clone(),
            directory,
        },
        StepMountKind::Cache {
            directory,
            seed,
            mode,
            uid,
            gid,
        } => {
            let path = caches::enter(store, vm, directory, seed.as_ref(), cancel)?;
            needs.caches.push((directory.clone(), path.clone()));
            MountJobKind::Directory {
                path,
                mode: *mode,
                uid: *uid,
                gid: *gid,
            }
        }
        StepMountKind::Tmpfs { size } => MountJobKind::Tmpfs { size: *size },
        StepMountKind::Secret {
            data,
            mode,
            uid,
            gid,
        } => MountJobKind::File {
            data: data.clone(),
            mode: *mode,
            uid: *uid,
            gid: *gid,
        },
        StepMountKind::Ssh {
            socket,
            mode,
            uid,
            gid,
        } => {
            let index = u32::try_from(needs.sockets.len()).unwrap_or(u32::MAX);
            let looks = TaskSocket {
                mode: *mode,
                uid: *uid,
                gid: *gid,
            };
            needs.sockets.push((socket.clone(), looks));
            MountJobKind::Socket {
                path: PathBuf::from(task_socket_path(number, index)),
            }
        }
    })
}

/// A full disk in the guest is the guest's.
fn remedy(error: ExecError) -> ExecError {
    if error.kind() == ExecErrorKind::NoSpace {
        error.with_hint(
            "the scratch disk of the build's VM may be full: --disk-size makes it larger",
        )
    } else {
        error
    }
}
