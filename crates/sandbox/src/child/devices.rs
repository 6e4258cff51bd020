//! The step's `/dev`: memory with the standard nodes, terminals, shared memory and message queues.

use std::os::fd::{AsFd, OwnedFd};

use firebuild_sys::mount::{Attributes, RESTRICTED, attach, copy_of, filesystem};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat, symlinkat};

use super::Result;
use super::place::Want;
use super::root::Root;
use crate::job::{Failure, FailureKind, Scope};

/// The standard nodes.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

fn host<E: std::error::Error + 'static>(message: impl Into<String>) -> impl FnOnce(E) -> Failure {
    Failure::because(FailureKind::Host, message)
}

/// Mounts `/dev` and gives its directory.
pub(super) fn mount(root: &mut Root, scope: Scope) -> Result<OwnedFd> {
    let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    let tmpfs = filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)
        .map_err(host("cannot mount /dev for the step"))?;
    root.show(tmpfs, "/dev", Want::Directory)?;
    let dev = super::place::find(
        root.fd.as_fd(),
        std::path::Path::new("/dev"),
        OFlags::RDONLY | OFlags::DIRECTORY,
    )
    .map_err(host("cannot open the step's /dev"))?
    .ok_or_else(|| Failure::new(FailureKind::Host, "the step's /dev is not there"))?;

    for name in NODES {
        node(&dev, name)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).map_err(host(format!("cannot make /dev/{name}")))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(mode))
            .map_err(host(format!("cannot make /dev/{name}")))?;
    }

    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if scope != Scope::Single {
        // The group `tty` of every distribution.
        options.push(("gid", "5"));
    }
    let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
    below(
        &dev,
        "pts",
        filesystem("devpts", &options, attributes)
            .map_err(host("cannot mount /dev/pts for the step"))?,
    )?;
    let shm = filesystem("tmpfs", &[("mode", "1777"), ("size", "65536k")], RESTRICTED);
    below(
        &dev,
        "shm",
        shm.map_err(host("cannot mount /dev/shm for the step"))?,
    )?;
    // A kernel without POSIX message queues has nobody who misses them.
    if let Ok(mqueue) = filesystem("mqueue", &[], RESTRICTED) {
        below(&dev, "mqueue", mqueue)?;
    }
    Ok(dev)
}

fn below(dev: &OwnedFd, name: &str, mount: OwnedFd) -> Result<()> {
    let place = openat(
        dev,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(host(format!("cannot open /dev/{name}")))?;
    attach(mount, place).map_err(host(format!("cannot mount at /dev/{name}")))
}

/// Shows a node of the host's. Nodes of the step's own would be easier, but then `/dev` would be a place where a step that
/// runs as the host's root can make and use any device.
fn node(dev: &OwnedFd, name: &str) -> Result<()> {
    let path = format!("/dev/{name}");
    let original = openat(
        CWD,
        path.as_str(),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(host(format!("cannot open the host's {path}")))?;
    let mount =
        copy_of(&original, false).map_err(host(format!("cannot show {path} to the step")))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(dev, name, flags, Mode::from_raw_mode(0o666))
        .map_err(host(format!("cannot make a place for {path}")))?;
    below(dev, name, mount)
}

/// Writes a file below `/dev/pipes`, where a heredoc's script is found by the command that was made for it.
pub(super) fn put_pipe_file(dev: &OwnedFd, path: &str, data: &[u8], mode: u32) -> Result<()> {
    let wrong = || {
        Failure::new(
            FailureKind::Step,
            format!("a file for the step has to be right below /dev/pipes: {path}"),
        )
    };
    let name = path
        .strip_prefix("/dev/pipes/")
        .filter(|name| !name.contains('/'))
        .ok_or_else(wrong)?;
    if name.is_empty() || name == "." || name == ".." {
        return Err(wrong());
    }
    match rustix::fs::mkdirat(dev, "pipes", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(host("cannot make /dev/pipes")(error)),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(
        dev,
        format!("pipes/{name}"),
        flags,
        Mode::from_raw_mode(mode & 0o7777),
    )
    .map_err(host(format!("cannot make {path}")))?;
    write_all(file, data).map_err(host(format!("cannot write {path}")))
}

fn write_all(file: OwnedFd, data: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::File::from(file).write_all(data)
}

/// The name of a file in `/dev` while it is being mounted elsewhere.
const PASSING: &str = ".file";

/// A mount of one file with this content, which has a name in `/dev` until [`forget_file`].
pub(super) fn file_in_memory(
    dev: &OwnedFd,
    data: &[u8],
    mode: u32,
    owner: (u32, u32),
) -> Result<OwnedFd> {
    let fail = "cannot make a file in memory for the step";
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dev, PASSING, flags, Mode::from_raw_mode(0o600)).map_err(host(fail))?;
    if owner != (0, 0) {
        rustix::fs::fchown(
            &file,
            Some(Uid::from_raw(owner.0)),
            Some(Gid::from_raw(owner.1)),
        )
        .map_err(Failure::because(
            FailureKind::Ids,
            format!("no user {}:{} can be given a file", owner.0, owner.1),
        ))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(host(fail))?;
    let mount = copy_of(&file, false).map_err(host(fail))?;
    write_all(file, data).map_err(host(fail))?;
    Ok(mount)
}

/// Takes the name away from a file that is mounted where it belongs. Before that it cannot be mounted without one.
pub(super) fn forget_file(dev: &OwnedFd) -> Result<()> {
    rustix::fs::unlinkat(dev, PASSING, rustix::fs::AtFlags::empty())
        .map_err(host("cannot hide a file in memory from the step"))
}
