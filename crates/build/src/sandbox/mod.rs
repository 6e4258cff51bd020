//! The default executor: RUN in namespaces, as root or as an ordinary user, with no runtime and no daemon.
//!
//! ```text
//!  Chain ──tree, snapshot_layer──▶ snapshots (one directory per layer, made once)      snapshots
//!                                      │ lower directories of an overlay
//!  Step ──job, over a socket──▶ inner half: namespaces, mounts, user, filter, exec     child
//!                                      │ upper directory, walked
//!  Layer ◀──upper_layer, store_layer── difference to the tree that the step was given  capture
//! ```
//!
//! - One process per step does everything that needs the step's ids; this side decides, reads no foreign directory by
//!   itself in a user namespace, and writes the store.
//! - An ordinary user's build works in one user namespace, made for the first step and kept by descriptor
//!   (`userns`). Without ranges of ids one id is mapped; what that cannot hold stays in the tree.
//! - The upper directory of a successful step becomes the snapshot of its layer, so nothing is unpacked twice.
//! - Where overlayfs cannot be mounted, a step runs on a complete copy. That is slower and said once.
//! - Steps share a network of their own where passt works (`network`).
//! - Whatever ends the builder ends everything that a step has started (see `child`).

mod capture;
mod ids;
mod network;
mod process;
mod snapshots;
mod userns;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firebuild_oci::Digest;
use firebuild_store::Store;

pub use capture::store_changes;
pub use firebuild_sandbox::child_main;
pub use ids::IdSpace;
pub use process::error as exec_error;
pub use snapshots::below as subtree;

use crate::cancel::Cancel;
use crate::chain::Chain;
use crate::event::Stream;
use crate::exec::{
    ExecError, ExecErrorKind, Executed, Executor, Exit, Step, StepMount, StepMountKind,
};
use crate::graph::{NetworkMode, SecurityMode};
use firebuild_sandbox::job::{
    Failure, FailureKind, Job, MountJob, MountJobKind, RootJob, Scope, Status, StepJob, UPPER,
};
use network::{Networks, OwnNetwork};
use process::Running;
use snapshots::Snapshots;
use userns::Namespace;

/// The host name of a step that has none, the one that BuildKit gives.
const HOSTNAME: &str = "buildkitsandbox";

/// The executor. One for a build; threads share it.
#[derive(Debug)]
pub struct Sandbox<'a> {
    store: &'a Store,
    ids: IdSpace,
    networks: Networks,
    /// Whether what dead processes left was looked for.
    swept: AtomicBool,
    without_overlay: AtomicBool,
    /// How many snapshots lie under a step at most.
    most_lowers: usize,
    /// What the snapshots lack that this build has used (see [`snapshots`]): each is looked at once.
    used: Mutex<HashMap<Digest, Arc<str>>>,
    notices: Mutex<Vec<String>>,
}

impl<'a> Sandbox<'a> {
    /// An executor that keeps its snapshots in `store`.
    ///
    /// The inner half is this very program: its `main` has to begin with [`child_main`].
    #[must_use]
    pub fn new(store: &'a Store) -> Self {
        Self {
            store,
            ids: IdSpace::new(),
            networks: Networks::default(),
            swept: AtomicBool::new(false),
            without_overlay: AtomicBool::new(false),
            most_lowers: snapshots::most_lowers(),
            used: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    /// Gives steps a network of their own where that can be had, by the program `passt`. Without this they have the host's.
    #[must_use]
    pub fn with_network(self, passt: PathBuf) -> Self {
        Self {
            networks: Networks::behind(passt),
            ..self
        }
    }

    /// Says, once, why steps have the host's network.
    #[must_use]
    pub fn without_network(self, why: String) -> Self {
        Self {
            networks: Networks::of_the_host(why),
            ..self
        }
    }

    /// Lets every step run on a complete copy, as where overlayfs cannot be mounted.
    #[must_use]
    pub fn without_overlay(self) -> Self {
        self.without_overlay.store(true, Ordering::Relaxed);
        self
    }

    /// Lets at most this many snapshots lie under a step, as for a kernel that takes no more. At least 2.
    #[must_use]
    pub fn with_most_lowers(mut self, most: usize) -> Self {
        self.most_lowers = most.max(2);
        self
    }

    /// The network of this build's steps, made by whoever is first; none is the host's.
    fn network(&self) -> Option<&OwnNetwork> {
        self.networks.own(&self.ids, |text| self.notice(text))
    }

    /// As [`IdSpace::remove`].
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self, paths: &[PathBuf]) -> Result<(), ExecError> {
        self.ids.remove(paths)
    }

    fn start(&self, job: Job) -> Result<Running, ExecError> {
        self.ids.start(job)
    }

    fn namespace(&self) -> Result<&Namespace, ExecError> {
        self.ids.namespace()
    }

    fn hint(&self) -> Option<String> {
        self.ids.hint()
    }

    /// Removes, once, what dead processes left and the store could not remove, since it belongs to lent ids.
    fn sweep(&self) {
        if !self.swept.swap(true, Ordering::Relaxed)
            && let Ok(stale) = self.store.stale_snapshots()
        {
            // What stays is found again the next time.
            let _ = self.remove(&stale);
        }
    }

    /// Whether a snapshot is known to be there.
    fn has_used(&self, name: &Digest) -> bool {
        self.used().contains_key(name)
    }

    /// What a snapshot lacks, which is there.
    fn lacking(&self, name: &Digest) -> Arc<str> {
        if let Some(known) = self.used().get(name) {
            return Arc::clone(known);
        }
        let path = self.store.snapshot_path(name);
        // So that garbage collection sees what was used lately; a hint, which may fail.
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty());
        let text = fs_err::read_to_string(path.join(snapshots::SKIPPED)).unwrap_or_default();
        let text: Arc<str> = text.into();
        self.used().insert(*name, Arc::clone(&text));
        text
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Digest, Arc<str>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notice(&self, text: impl Into<String>) {
        self.notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.into());
    }

    fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Executor for Sandbox<'_> {
    fn expect(&self) {
        self.network();
    }

    fn run(
        &self,
        base: &Arc<Chain>,
        step: &Step,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Executed, ExecError> {
        let copy = self.without_overlay.load(Ordering::Relaxed);
        match self.attempt(base, step, output, cancel, copy) {
            Err(Attempt::NoOverlay(error)) if !copy => {
                if !self.without_overlay.swap(true, Ordering::Relaxed) {
                    let why = std::error::Error::source(&error)
                        .map(|source| format!(" ({source})"))
                        .unwrap_or_default();
                    self.notice(format!(
                        "overlayfs cannot be mounted here{why}: each step runs on a complete copy"
                    ));
                }
                self.attempt(base, step, output, cancel, true)
                    .map_err(Attempt::into_error)
            }
            result => result.map_err(Attempt::into_error),
        }
    }
}

/// Why an attempt to run a step ended.
enum Attempt {
    /// The overlay could not be mounted; nothing of the step has run.
    NoOverlay(ExecError),
    Failed(ExecError),
}

impl From<ExecError> for Attempt {
    fn from(error: ExecError) -> Self {
        Self::Failed(error)
    }
}

impl Attempt {
    fn into_error(self) -> ExecError {
        match self {
            Self::NoOverlay(error) | Self::Failed(error) => error,
        }
    }

    fn of(failure: Failure, hint: Option<String>) -> Self {
        let no_overlay = failure.kind == FailureKind::NoOverlay;
        let error = process::error(failure, hint);
        if no_overlay {
            Self::NoOverlay(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl Sandbox<'_> {
    fn attempt(
        &self,
        base: &Arc<Chain>,
        step: &Step,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
        copy: bool,
    ) -> Result<Executed, Attempt> {
        self.sweep();
        let snapshots = Snapshots::new(self, cancel);
        let tree = snapshots.tree(base)?;
        let active = self.store.prepare_snapshot().map_err(|error| {
            ExecError::caused(
                ExecErrorKind::Host,
                "cannot make a directory for the step",
                error,
            )
        })?;
        let mut guard = Leftover {
            sandbox: self,
            path: Some(active.path().to_owned()),
        };
        // What could not be shown to the step counts as unchanged, whichever way it was made.
        let (lowers, skipped) = if copy {
            (
                Vec::new(),
                snapshots.copy(&tree, &active.path().join(UPPER))?,
            )
        } else {
            let (mut lowers, skipped) = snapshots.chain(base)?;
            lowers.insert(0, snapshots.places()?);
            (lowers, skipped)
        };
        let root = RootJob {
            lowers,
            directory: active.path().to_owned(),
            copy,
        };
        // Who was told to expect this step makes it meanwhile.
        let network = match step.network {
            NetworkMode::Default => self.network(),
            NetworkMode::None | NetworkMode::Host => None,
        };
        let job = self.step_job(step, root, &snapshots, network)?;
        let namespace = network.map(|network| &network.namespace);
        let mut running = self.ids.start_step(Job::Step(Box::new(job)), namespace)?;
        let status = match running.pump(output, cancel)? {
            Ok(status) => status,
            Err(failure) => {
                running.end()?;
                return Err(Attempt::of(failure, self.hint()));
            }
        };
        let status = match status {
            Status::Code(code) => Exit::Code(code),
            Status::Signal(signal) => Exit::Signal(signal),
        };
        if status != Exit::Code(0) {
            running.expect_done()?;
            running.finish()?;
            return Ok(Executed {
                status,
                layer: None,
                notices: self.take_notices(),
                hint: self.hint(),
            });
        }

        let layer = capture::layer(
            self,
            &mut running,
            &tree,
            &skipped,
            &active.path().join(UPPER),
            copy,
            cancel,
        )
        .map_err(|error| {
            if cancel.is_raised() {
                ExecError::new(ExecErrorKind::Cancelled, "the step was stopped")
            } else {
                error
            }
        })?;
        running.expect_done()?;
        running.finish()?;
        if !copy {
            guard.path = snapshots.adopt(active.path(), base, layer.diff_id);
        }
        Ok(Executed {
            status,
            layer: Some(layer),
            notices: self.take_notices(),
            hint: None,
        })
    }

    fn step_job(
        &self,
        step: &Step,
        root: RootJob,
        snapshots: &Snapshots<'_>,
        network: Option<&OwnNetwork>,
    ) -> Result<StepJob, ExecError> {
        let directory = root.directory.clone();
        let mut mounts = Vec::new();
        for (number, mount) in step.mounts.iter().enumerate() {
            let kind = mount_kind(mount, &directory.join(format!("mount-{number}")), snapshots)?;
            mounts.push(MountJob {
                target: mount.target.clone(),
                read_only: mount.read_only,
                kind,
            });
        }
        Ok(StepJob {
            root,
            resolv_conf: network.map_or_else(firebuild_usernet::host::resolv_conf, |network| {
                network.resolv_conf.clone()
            }),
            capture: self.namespace()?.scope != Scope::Host,
            mounts,
            ..plain_job(step)
        })
    }
}

/// The job of a step as far as it does not matter where it runs: without a root, mounts and a resolver.
#[must_use]
pub fn plain_job(step: &Step) -> StepJob {
    let hostname = if step.hostname.is_empty() {
        HOSTNAME.to_owned()
    } else {
        step.hostname.clone()
    };
    StepJob {
        argv: step.argv.clone(),
        env: step.env.clone(),
        cwd: step.cwd.clone(),
        user: step.user.clone(),
        hosts: hosts(&hostname, &step.extra_hosts),
        hostname,
        own_network: step.network == NetworkMode::None,
        insecure: step.security == SecurityMode::Insecure,
        files: step
            .files
            .iter()
            .map(|file| (file.path.clone(), file.data.clone(), file.mode))
            .collect(),
        ..StepJob::default()
    }
}

fn mount_kind(
    mount: &StepMount,
    directory: &Path,
    snapshots: &Snapshots<'_>,
) -> Result<MountJobKind, ExecError> {
    Ok(match &mount.kind {
        StepMountKind::Bind { chain, source } => MountJobKind::Bind {
            lowers: snapshots.chain(chain)?.0,
            source: source.clone(),
            directory: directory.to_owned(),
        },
        StepMountKind::Cache {
            directory,
            seed,
            mode,
            uid,
            gid,
        } => {
            let path = directory.join(UPPER);
            if let Some((chain, source)) = seed {
                snapshots.seed(chain, source, directory)?;
            }
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
        StepMountKind::Ssh { socket, .. } => MountJobKind::Socket {
            path: socket.clone(),
        },
    })
}

/// `/etc/hosts` of a step.
fn hosts(hostname: &str, extra: &[(String, String)]) -> Vec<u8> {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (address, names) in extra {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    text.into_bytes()
}

/// A directory that is removed at the end, if it is there by then.
struct Leftover<'a> {
    sandbox: &'a Sandbox<'a>,
    path: Option<PathBuf>,
}

impl Drop for Leftover<'_> {
    fn drop(&mut self) {
        // Mostly the inner half has removed it.
        if let Some(path) = self.path.take()
            && rustix::fs::lstat(&path).is_ok()
        {
            // What stays is removed with the session that it belongs to.
            let _ = self.sandbox.remove(&[path]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hosts;

    #[test]
    fn hosts_are_those_of_other_builders() {
        let text = hosts("box", &[("10.0.0.1".into(), "db db.local".into())]);
        let expected = "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb db.local\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
