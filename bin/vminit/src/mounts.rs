//! Mounts: the few that the init needs first, the root file system, and what a program expects to find in it.
//!
//! ```text
//!   initramfs /                     kept until the move, then emptied: it is memory
//!   ├── dev  (devtmpfs)  sys (sysfs)
//!   └── firebuild
//!       ├── image    ◀── the image's disk, read-only
//!       ├── scratch  ◀── the scratch disk: upper/ and work/
//!       └── root     ◀── overlay of both, or the private copy      moved to / , chroot
//! ```

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use firebuild_guest_proto::{DiskRef, FailureReason, RootLayout};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use crate::disks;
use crate::error::InitError;
use crate::journal::Journal;
use crate::sweep;
use crate::wait::Devices;

const IMAGE: &str = "/firebuild/image";
const SCRATCH: &str = "/firebuild/scratch";
const ROOT: &str = "/firebuild/root";

/// The file systems that are written to, to be made read-only at the end: the root first, then what it lies on.
#[derive(Debug, Default)]
pub(crate) struct Writable {
    /// Each with its mount's root.
    pub(crate) filesystems: Vec<OwnedFd>,
}

/// Mounts what the init needs to find its devices.
pub(crate) fn early() -> Result<(), InitError> {
    for (place, filesystem) in [("/dev", "devtmpfs"), ("/sys", "sysfs")] {
        make_directory(place, 0o755)?;
        mount(filesystem, place, filesystem, MountFlags::NOSUID, None).map_err(|error| {
            let remedy = match error {
                Errno::NODEV => "; the kernel was built without it, and a guest needs it",
                _ => "",
            };
            InitError::setup(
                format!("cannot mount {filesystem} on {place}{remedy}"),
                error,
            )
        })?;
    }
    Ok(())
}

/// Makes the root file system of the layout and moves into it.
pub(crate) fn enter_root(
    layout: &RootLayout,
    devices: &Devices,
    journal: &mut Journal,
) -> Result<Writable, InitError> {
    let mut writable = Writable::default();
    match layout {
        RootLayout::Initrd => {
            sweep::remove(Path::new("/firebuild"), journal);
            return Ok(writable);
        }
        RootLayout::Overlay {
            image,
            filesystem,
            scratch,
        } => {
            mount_disk(image, filesystem, IMAGE, MountFlags::RDONLY, devices)?;
            journal.debug("the image is mounted");
            mount_disk(scratch, "ext4", SCRATCH, MountFlags::empty(), devices)?;
            journal.debug("the scratch disk is mounted");
            overlay(journal)?;
            journal.debug("the overlay is laid");
            writable.filesystems = vec![open_root(ROOT)?, open_root(SCRATCH)?];
        }
        RootLayout::Private { disk, filesystem } => {
            mount_disk(disk, filesystem, ROOT, MountFlags::empty(), devices)?;
            writable.filesystems = vec![open_root(ROOT)?];
            journal.warning(
                "the root file system is a private copy of the image, because the kernel has no overlayfs",
            );
        }
        RootLayout::Steps { image, scratch } => steps_root(image.as_ref(), scratch, devices)?,
    }
    for place in ["/dev", "/sys"] {
        // The devices that are open stay open; the new root gets mounts of its own.
        let _ = unmount(place, UnmountFlags::DETACH);
    }
    sweep::remove(Path::new("/"), journal);
    let moved = rustix::process::chdir(ROOT)
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| rustix::process::chroot("."))
        .and_then(|()| rustix::process::chdir("/"));
    moved.map_err(|error| InitError::setup("cannot move into the root file system", error))?;
    Ok(writable)
}

/// The root of a guest that runs steps: memory, with the disks in it where tasks look for them.
fn steps_root(
    image: Option<&DiskRef>,
    scratch: &DiskRef,
    devices: &Devices,
) -> Result<(), InitError> {
    make_directory(ROOT, 0o755)?;
    mount(
        "tmpfs",
        ROOT,
        "tmpfs",
        MountFlags::NOSUID,
        Some(c"mode=755"),
    )
    .map_err(|error| InitError::setup("cannot mount memory as the root", error))?;
    let place = |name: &str| format!("{ROOT}{name}");
    if let Some(image) = image {
        let base = place(firebuild_sandbox::task::BASE);
        mount_disk(image, "ext4", &base, MountFlags::RDONLY, devices)?;
    }
    let files = place(firebuild_sandbox::task::SCRATCH);
    mount_disk(scratch, "ext4", &files, MountFlags::NOATIME, devices)
}

fn mount_disk(
    disk: &DiskRef,
    filesystem: &str,
    place: &str,
    flags: MountFlags,
    devices: &Devices,
) -> Result<(), InitError> {
    let node = disks::find(disk, devices)?;
    make_directory(place, 0o755)?;
    mount(&node, place, filesystem, flags, None).map_err(|error| {
        let text = format!(
            "cannot mount the {filesystem} file system of {}",
            node.display()
        );
        InitError::caused(FailureReason::Disk, text, error)
    })
}

/// Lays the overlay. Its root directory is the upper one, so that one gets the owner, mode and times of the image's.
fn overlay(journal: &mut Journal) -> Result<(), InitError> {
    let (upper, work) = (format!("{SCRATCH}/upper"), format!("{SCRATCH}/work"));
    if !Path::new(&upper).exists() {
        make_directory(&upper, 0o755)?;
        copy_attributes(IMAGE, &upper)
            .map_err(|error| InitError::setup("cannot prepare the scratch disk", error))?;
    }
    make_directory(&work, 0o700)?;
    make_directory(ROOT, 0o755)?;
    let base = format!("lowerdir={IMAGE},upperdir={upper},workdir={work}");
    // Renames of directories, hard links and changes of owner behave as on one file system; a kernel that lacks one of
    // these gives EINVAL and gets the plain form.
    let full = format!("{base},redirect_dir=on,index=on,metacopy=on");
    let outcome = mount_overlay(&full).or_else(|error| match error {
        Errno::INVAL | Errno::OPNOTSUPP => {
            journal.debug("overlay without redirect_dir, index and metacopy");
            mount_overlay(&base)
        }
        error => Err(error),
    });
    outcome.map_err(|error| match error {
        Errno::NODEV => InitError::new(
            FailureReason::OverlayMissing,
            "the kernel has no overlayfs; the machine needs a private copy of the image",
        ),
        error => InitError::caused(
            FailureReason::Disk,
            "cannot lay an overlay over the image",
            error,
        ),
    })
}

fn mount_overlay(options: &str) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
}

fn copy_attributes(from: &str, to: &str) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(from)?;
    rustix::fs::chown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::empty())
}

fn open_root(place: &str) -> Result<OwnedFd, InitError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(place, flags, Mode::empty())
        .map_err(|error| InitError::setup(format!("cannot open {place}"), error))
}

/// A mount that programs expect.
struct Expected {
    place: &'static str,
    filesystem: &'static str,
    flags: MountFlags,
    data: Option<&'static std::ffi::CStr>,
    /// Without it the init itself cannot go on.
    needed: bool,
}

const NO_SPECIALS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

const EXPECTED: [Expected; 7] = [
    Expected {
        place: "/proc",
        filesystem: "proc",
        flags: NO_SPECIALS,
        data: None,
        needed: true,
    },
    Expected {
        place: "/sys",
        filesystem: "sysfs",
        flags: NO_SPECIALS,
        data: None,
        needed: true,
    },
    Expected {
        place: "/dev",
        filesystem: "devtmpfs",
        flags: MountFlags::NOSUID,
        data: Some(c"mode=755"),
        needed: true,
    },
    Expected {
        place: "/dev/pts",
        filesystem: "devpts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: Some(c"gid=5,mode=620,ptmxmode=666"),
        needed: false,
    },
    Expected {
        place: "/dev/shm",
        filesystem: "tmpfs",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: Some(c"mode=1777"),
        needed: false,
    },
    Expected {
        place: "/dev/mqueue",
        filesystem: "mqueue",
        flags: NO_SPECIALS,
        data: None,
        needed: false,
    },
    Expected {
        place: "/sys/fs/cgroup",
        filesystem: "cgroup2",
        flags: NO_SPECIALS,
        data: None,
        needed: false,
    },
];

/// Mounts what a program expects to find, in the root that is entered.
pub(crate) fn expected(journal: &mut Journal) -> Result<(), InitError> {
    for entry in &EXPECTED {
        let Expected {
            place,
            filesystem,
            flags,
            data,
            needed,
        } = entry;
        let made = if *place == "/sys/fs/cgroup" {
            Ok(())
        } else {
            make_directory(place, 0o755)
        };
        let mounted = made.and_then(|()| {
            match mount(*filesystem, *place, *filesystem, *flags, *data) {
                // In the initrd's own root the early mounts are still there.
                Ok(()) | Err(Errno::BUSY) => Ok(()),
                Err(error) => Err(InitError::setup(
                    format!("cannot mount {filesystem} on {place}"),
                    error,
                )),
            }
        });
        match mounted {
            Ok(()) => {}
            Err(error) if *needed => return Err(error),
            Err(error) => journal.debug(&error.chain()),
        }
    }
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/core", "/proc/kcore"),
    ] {
        match rustix::fs::symlink(target, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => journal.debug(&format!("cannot make {name}: {error}")),
        }
    }
    for (place, mode) in [("/run", 0o755), ("/tmp", 0o1777)] {
        if let Err(error) = make_directory(place, mode) {
            journal.warning(&error.chain());
        }
    }
    Ok(())
}

/// Makes a directory and those above it; one that is there stays as it is.
pub(crate) fn make_directory(path: &str, mode: u32) -> Result<(), InitError> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs_err::create_dir_all(path)
        .and_then(|()| {
            fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        })
        .map_err(|error| InitError::setup(format!("cannot make the directory {path}"), error))
}

/// Makes everything durable and the file systems clean, as far as that goes.
pub(crate) fn settle(writable: &Writable, journal: &mut Journal) {
    rustix::fs::sync();
    for filesystem in &writable.filesystems {
        if let Err(error) = make_read_only(filesystem) {
            // What was synced is safe; the journal of the file system covers the rest.
            journal.debug(&format!("a file system stays writable: {error}"));
        }
    }
}

fn make_read_only(root: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let filesystem = fspick(root, c"", flags)?;
    fsconfig_set_flag(&filesystem, c"ro")?;
    fsconfig_reconfigure(&filesystem)
}

/// The device that a path lies on.
pub(crate) fn device_of(path: &Path) -> std::io::Result<u64> {
    Ok(fs_err::symlink_metadata(path)?.dev())
}
