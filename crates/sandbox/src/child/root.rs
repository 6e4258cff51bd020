//! The root of a step: an overlay, what every Linux program expects to find in it, and the step's own mounts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use firebuild_sys::mount::{
    Attributes, Propagation, RESTRICTED, attach, copy_of, filesystem, set_attributes,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;

use super::overlay::{self, Upper};
use super::place::{self, Stub, Want};
use super::{Result, devices};
use crate::job::{
    Failure, FailureKind, MOUNTPOINT, MountJob, MountJobKind, Scope, StepJob, UPPER, WORK,
};

/// What of `/proc` and `/sys` a step does not see, as other builders hide it (containerd `oci/spec.go`).
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What of `/proc` a step cannot write.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn host<E: std::error::Error + 'static>(message: impl Into<String>) -> impl FnOnce(E) -> Failure {
    Failure::because(FailureKind::Host, message)
}

/// A root that is ready to be entered.
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    /// What was made in it for mounts.
    pub(super) stubs: Vec<Stub>,
}

/// Builds the root in the mount namespace of the caller, which is its own already.
pub(super) fn build(job: &StepJob, scope: Scope) -> Result<Root> {
    let slash = rustix::fs::openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(host("cannot open the host's root"))?;
    set_attributes(
        slash.as_fd(),
        c"",
        true,
        Attributes::empty(),
        Some(Propagation::Private),
    )
    .map_err(host("cannot separate the step's mounts from the host's"))?;

    let upper = job.root.directory.join(UPPER);
    // An overlay covers its own upper directory, which has been opened by then: no place has to be made for it.
    let at = if job.root.copy {
        job.root.directory.join(MOUNTPOINT)
    } else {
        upper.clone()
    };
    if job.root.copy {
        let files = overlay::open_directory(&upper, FailureKind::Host)?;
        let mount =
            copy_of(&files, false).map_err(host("cannot make a mount of the step's root"))?;
        if !job.insecure {
            set_attributes(
                mount.as_fd(),
                c"",
                false,
                Attributes::MOUNT_ATTR_NODEV,
                None,
            )
            .map_err(host("cannot protect the step's root"))?;
        }
        attach(mount, overlay::open_directory(&at, FailureKind::Host)?)
            .map_err(host("cannot mount the step's root"))?;
    } else {
        let work = job.root.directory.join(WORK);
        overlay::mount(
            &job.root.lowers,
            Some(&Upper {
                files: &upper,
                work: &work,
            }),
            &at,
            scope,
            job.insecure,
        )?;
    }
    let mut root = Root {
        fd: overlay::open_directory(&at, FailureKind::Host)?,
        stubs: Vec::new(),
    };

    root.proc()?;
    root.sys(job.insecure)?;
    let dev = devices::mount(&mut root, scope)?;
    for (path, data, mode) in &job.files {
        devices::put_pipe_file(&dev, path, data, *mode)?;
    }
    root.file(&dev, "/etc/hosts", &job.hosts, 0o644, (0, 0), true)?;
    root.file(
        &dev,
        "/etc/resolv.conf",
        &job.resolv_conf,
        0o644,
        (0, 0),
        true,
    )?;
    for mount in &job.mounts {
        root.step_mount(&dev, mount, scope)?;
    }
    if !job.insecure {
        root.mask()?;
    }
    Ok(root)
}

impl Root {
    /// Shows a mount at a path in the root.
    pub(super) fn show(&mut self, mount: impl AsFd, path: &str, want: Want) -> Result<()> {
        let place = place::make(self.fd.as_fd(), Path::new(path), want, &mut self.stubs)?;
        attach(mount, place).map_err(Failure::because(
            FailureKind::Step,
            format!("cannot mount at {path}"),
        ))
    }

    fn proc(&mut self) -> Result<()> {
        let mount = match filesystem("proc", &[], RESTRICTED) {
            Ok(mount) => mount,
            // Inside of a container that hides parts of /proc the kernel gives no fresh one to a user namespace.
            Err(error) if error.errno() == Some(Errno::PERM) => copy_of_path("/proc", true)?,
            Err(error) => return Err(host("cannot mount /proc for the step")(error)),
        };
        self.show(mount, "/proc", Want::Directory)
    }

    fn sys(&mut self, insecure: bool) -> Result<()> {
        let mut attributes = RESTRICTED;
        if !insecure {
            attributes |= Attributes::MOUNT_ATTR_RDONLY;
        }
        let mount = match filesystem("sysfs", &[], attributes) {
            Ok(mount) => mount,
            // sysfs belongs to the network namespace, which is the host's: a user namespace can only show that one.
            Err(error) if error.errno() == Some(Errno::PERM) => {
                let mount = copy_of_path("/sys", true)?;
                set_attributes(mount.as_fd(), c"", true, attributes, None)
                    .map_err(host("cannot make /sys read-only for the step"))?;
                mount
            }
            Err(error) => return Err(host("cannot mount /sys for the step")(error)),
        };
        self.show(mount, "/sys", Want::Directory)
    }

    /// Shows bytes as a file. They are kept in the memory that is the step's `/dev`, under no name there.
    fn file(
        &mut self,
        dev: &OwnedFd,
        path: &str,
        data: &[u8],
        mode: u32,
        owner: (u32, u32),
        read_only: bool,
    ) -> Result<()> {
        let file = devices::file_in_memory(dev, data, mode, owner)?;
        let mut attributes = RESTRICTED;
        if read_only {
            attributes |= Attributes::MOUNT_ATTR_RDONLY;
        }
        set_attributes(file.as_fd(), c"", false, attributes, None)
            .map_err(host(format!("cannot protect {path} of the step")))?;
        self.show(file, path, Want::File)?;
        devices::forget_file(dev)
    }

    fn step_mount(&mut self, dev: &OwnedFd, mount: &MountJob, scope: Scope) -> Result<()> {
        let target = mount.target.as_str();
        let made = match &mount.kind {
            MountJobKind::Bind {
                lowers,
                source,
                directory,
            } => bind_of_snapshots(lowers, source, directory, mount, scope)?,
            MountJobKind::Directory {
                path,
                mode,
                uid,
                gid,
            } => cache(path, *mode, *uid, *gid)?,
            MountJobKind::Tmpfs { size } => {
                let size = size.map(|bytes| bytes.to_string());
                let mut options = vec![("mode", "1777")];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
                filesystem("tmpfs", &options, attributes)
                    .map_err(host(format!("cannot mount memory at {target}")))?
            }
            MountJobKind::File {
                data,
                mode,
                uid,
                gid,
            } => {
                return self.file(dev, target, data, *mode, (*uid, *gid), true);
            }
            MountJobKind::Socket { path } => {
                let socket =
                    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                        .map_err(Failure::because(
                            FailureKind::Step,
                            format!("cannot open {}", path.display()),
                        ))?;
                copy_of(&socket, false).map_err(host(format!("cannot show {}", path.display())))?
            }
        };
        let mut attributes = Attributes::MOUNT_ATTR_NODEV;
        if mount.read_only {
            attributes |= Attributes::MOUNT_ATTR_RDONLY;
        }
        set_attributes(made.as_fd(), c"", true, attributes, None)
            .map_err(host(format!("cannot protect what is shown at {target}")))?;
        let stat = rustix::fs::fstat(&made)
            .map_err(host(format!("cannot look at what is shown at {target}")))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.show(
            made,
            target,
            if is_directory {
                Want::Directory
            } else {
                Want::File
            },
        )
    }

    /// Hides and protects parts of `/proc` and `/sys`, where they are.
    fn mask(&self) -> Result<()> {
        let null = self.existing("/dev/null")?;
        for path in MASKED {
            let Some(place) = self.existing(path)? else {
                continue;
            };
            let stat = rustix::fs::fstat(&place).map_err(host(format!("cannot look at {path}")))?;
            let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                filesystem("tmpfs", &[], RESTRICTED | Attributes::MOUNT_ATTR_RDONLY)
                    .map_err(host(format!("cannot hide {path}")))?
            } else {
                let Some(null) = &null else { continue };
                copy_of(null, false).map_err(host(format!("cannot hide {path}")))?
            };
            attach(cover, place).map_err(host(format!("cannot hide {path}")))?;
        }
        for path in READ_ONLY {
            let Some(place) = self.existing(path)? else {
                continue;
            };
            let cover = copy_of(&place, true).map_err(host(format!("cannot protect {path}")))?;
            set_attributes(
                cover.as_fd(),
                c"",
                true,
                RESTRICTED | Attributes::MOUNT_ATTR_RDONLY,
                None,
            )
            .map_err(host(format!("cannot protect {path}")))?;
            attach(cover, place).map_err(host(format!("cannot protect {path}")))?;
        }
        Ok(())
    }

    fn existing(&self, path: &str) -> Result<Option<OwnedFd>> {
        place::find(self.fd.as_fd(), Path::new(path), OFlags::PATH)
            .or_else(|error| match error {
                // Not there for us is not there for the step.
                Errno::ACCESS | Errno::NOTDIR | Errno::LOOP => Ok(None),
                error => Err(error),
            })
            .map_err(host(format!("cannot look for {path}")))
    }
}

fn copy_of_path(path: &str, recursive: bool) -> Result<OwnedFd> {
    let directory = overlay::open_directory(Path::new(path), FailureKind::Host)?;
    copy_of(&directory, recursive).map_err(host(format!("cannot show {path} to the step")))
}

/// A file or directory of a stack of snapshots as a mount of its own. Writes, when allowed, go to `directory`.
fn bind_of_snapshots(
    lowers: &[std::path::PathBuf],
    source: &str,
    directory: &Path,
    mount: &MountJob,
    scope: Scope,
) -> Result<OwnedFd> {
    if !mount.needs_directory(lowers) {
        return bind_from(
            overlay::open_directory(&lowers[0], FailureKind::Base)?.as_fd(),
            source,
            mount,
        );
    }
    let at = directory.join(MOUNTPOINT);
    let (files, work) = (directory.join(UPPER), directory.join(WORK));
    let upper = Upper {
        files: &files,
        work: &work,
    };
    overlay::mount(
        lowers,
        (!mount.read_only).then_some(&upper),
        &at,
        scope,
        false,
    )?;
    bind_from(
        overlay::open_directory(&at, FailureKind::Host)?.as_fd(),
        source,
        mount,
    )
}

fn bind_from(root: BorrowedFd<'_>, source: &str, mount: &MountJob) -> Result<OwnedFd> {
    let found = place::find(root, Path::new(source), OFlags::PATH).map_err(Failure::because(
        FailureKind::Step,
        format!("cannot open {source} to mount it at {}", mount.target),
    ))?;
    let found = found.ok_or_else(|| {
        Failure::new(
            FailureKind::Step,
            format!("cannot mount {source} at {}: not found", mount.target),
        )
    })?;
    copy_of(&found, false).map_err(host(format!("cannot show {source} at {}", mount.target)))
}

/// The directory of a cache mount, made when it is new.
fn cache(path: &Path, mode: u32, uid: u32, gid: u32) -> Result<OwnedFd> {
    let fail = |message: &str| format!("{message} the cache directory {}", path.display());
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            rustix::fs::chown(
                path,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
            )
            .map_err(Failure::because(
                FailureKind::Ids,
                fail("cannot give its owner to"),
            ))?;
            rustix::fs::chmod(path, Mode::from_raw_mode(mode & 0o7777))
                .map_err(host(fail("cannot set the mode of")))?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(host(fail("cannot make"))(error)),
    }
    let directory = overlay::open_directory(path, FailureKind::Host)?;
    copy_of(&directory, false).map_err(host(fail("cannot show")))
}

/// Makes the root the one and only root of the calling process and of its mount namespace.
pub(super) fn enter(root: &Root) -> Result<()> {
    rustix::process::fchdir(&root.fd).map_err(host("cannot go to the step's root"))?;
    rustix::process::pivot_root(".", ".").map_err(host("cannot make the step's root the root"))?;
    // Both roots are stacked at "." now, the host's on top.
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .map_err(host("cannot let go of the host's root"))?;
    rustix::process::chdir("/").map_err(host("cannot go to the step's root"))
}

/// Reads a regular file of the root, up to a limit; links stay inside.
pub(super) fn read_file(root: BorrowedFd<'_>, path: &str, limit: usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let stat = {
        let found = openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .ok()?;
        statat(&found, "", AtFlags::EMPTY_PATH).ok()?
    };
    // A pipe in this place would let us wait for ever.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = place::find(root, Path::new(path), flags).ok()??;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(limit as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}
