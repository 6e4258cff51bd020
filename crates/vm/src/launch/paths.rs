//! Descriptors that processes open by a path of the host or of their jail: files, named pipes, listening sockets. They
//! belong to the user of the process, and to nobody else.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use super::descriptors::{failed, fill};
use super::{LaunchError, LaunchErrorKind};
use crate::places::Owner;
use crate::spec::InitrdPart;

/// A new file with these parts, which its user may read and nobody change but us.
pub(super) fn file(
    name: &str,
    path: &Path,
    parts: &[InitrdPart],
    owner: Option<Owner>,
) -> Result<OwnedFd, LaunchError> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o400);
    let opened = options.open(path);
    let mut file = opened
        .map_err(|e| LaunchError::io(LaunchErrorKind::Write(path.to_owned()), e))?
        .into_file();
    fill(&mut file, name, parts)?;
    give(path, owner, 0o400)?;
    Ok(file.into())
}

/// A named pipe: its end to read from and its end to write to.
pub(super) fn named_pipe(
    name: &str,
    path: &Path,
    owner: Option<Owner>,
) -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let failed = |error: rustix::io::Errno| failed(name, error.into());
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).map_err(failed)?;
    // Without waiting for somebody who writes; who writes later finds this reader.
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let read = rustix::fs::open(
        path,
        flags | OFlags::RDONLY | OFlags::NONBLOCK,
        Mode::empty(),
    );
    let read = read.map_err(failed)?;
    let write = rustix::fs::open(path, flags | OFlags::WRONLY, Mode::empty()).map_err(failed)?;
    give(path, owner, 0o600)?;
    Ok((read, write))
}

/// A socket that listens for one connection.
pub(super) fn listener(
    name: &str,
    path: &Path,
    owner: Option<Owner>,
) -> Result<OwnedFd, LaunchError> {
    let failed = |error: rustix::io::Errno| failed(name, error.into());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    give(path, owner, 0o600)?;
    listen(&socket, 1).map_err(failed)?;
    Ok(socket)
}

fn give(path: &Path, owner: Option<Owner>, mode: u32) -> Result<(), LaunchError> {
    let written = |e| LaunchError::io(LaunchErrorKind::Write(path.to_owned()), e);
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(written)?;
    let Some(owner) = owner else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chown(path, Some(uid), Some(gid)).map_err(|e| written(e.into()))
}
