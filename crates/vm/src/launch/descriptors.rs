//! The descriptors of a plan, made or opened.

use std::collections::BTreeMap;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{MemfdFlags, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{LaunchError, LaunchErrorKind, paths};
use crate::net::bridge;
use crate::plan::{Access, Descriptor, RunAs};
use crate::spec::InitrdPart;

/// Open descriptors by their names in the plan.
pub(super) struct Descriptors(BTreeMap<String, OwnedFd>);

impl Descriptors {
    pub(super) fn open(planned: &[Descriptor], user: Option<&RunAs>) -> Result<Self, LaunchError> {
        let mut made = BTreeMap::new();
        for descriptor in planned {
            match descriptor {
                Descriptor::Open { name, path, access } => {
                    made.insert(name.clone(), open_file(path, *access, name, user)?);
                }
                Descriptor::Tap {
                    name,
                    link,
                    netns,
                    plain,
                } => {
                    let tap = bridge::open_tap(link, netns.as_deref(), *plain);
                    made.insert(name.clone(), tap.map_err(|e| failed(name, e))?);
                }
                Descriptor::Memory { name, parts } => {
                    made.insert(name.clone(), fill_memory(name, parts, user)?);
                }
                Descriptor::SocketPair {
                    names: [a, b],
                    send_buffer_bytes,
                } => {
                    let pair = socketpair(
                        AddressFamily::UNIX,
                        SocketType::STREAM,
                        SocketFlags::CLOEXEC,
                        None,
                    );
                    let (one, other) = pair.map_err(|e| failed(a, e.into()))?;
                    for end in [&one, &other] {
                        if let Some(bytes) = send_buffer_bytes {
                            set_send_buffer(end, *bytes);
                        }
                    }
                    made.insert(a.clone(), one);
                    made.insert(b.clone(), other);
                }
                Descriptor::Pipe { read, write } => {
                    let (one, other) =
                        pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(read, e.into()))?;
                    if let Some(user) = user {
                        // A child that opens it by /proc/self/fd needs to own it.
                        give_to(&other, user).map_err(|e| failed(write, e))?;
                    }
                    made.insert(read.clone(), one);
                    made.insert(write.clone(), other);
                }
                Descriptor::File {
                    name,
                    path,
                    parts,
                    owner,
                } => {
                    made.insert(name.clone(), paths::file(name, path, parts, *owner)?);
                }
                Descriptor::NamedPipe {
                    write,
                    read,
                    path,
                    owner,
                } => {
                    let (one, other) = paths::named_pipe(read, path, *owner)?;
                    made.insert(read.clone(), one);
                    made.insert(write.clone(), other);
                }
                Descriptor::Listener { name, path, owner } => {
                    made.insert(name.clone(), paths::listener(name, path, *owner)?);
                }
            }
        }
        Ok(Self(made))
    }

    pub(super) fn get(&self, name: &str) -> Option<&OwnedFd> {
        self.0.get(name)
    }

    pub(super) fn take_if_there(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    pub(super) fn take(&mut self, name: &str) -> Result<OwnedFd, LaunchError> {
        self.0
            .remove(name)
            .ok_or_else(|| LaunchError::new(LaunchErrorKind::Descriptor(name.to_owned())))
    }
}

/// Asks for a send buffer of this size. A smaller one costs speed and nothing else.
fn set_send_buffer(socket: &OwnedFd, bytes: usize) {
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, bytes);
    }
}

pub(super) fn failed(name: &str, source: io::Error) -> LaunchError {
    LaunchError::io(LaunchErrorKind::Descriptor(name.to_owned()), source)
}

fn open_file(
    path: &Path,
    access: Access,
    name: &str,
    user: Option<&RunAs>,
) -> Result<OwnedFd, LaunchError> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite);
    // A disk image may be replaced by a FIFO while it is looked at; opening must not wait.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options
        .open(path)
        .map_err(|e| LaunchError::io(LaunchErrorKind::Open(path.to_owned()), e))?;
    let found = file.metadata().map_err(|e| failed(name, e))?;
    if let Some(user) = user
        && name == "kernel"
        && !may_read(&found, user)
    {
        return Err(LaunchError::new(LaunchErrorKind::NotReadable {
            path: path.to_owned(),
            uid: user.uid,
        }));
    }
    Ok(file.into_file().into())
}

/// Whether this user may open the file anew, as QEMU does with its kernel.
pub(super) fn may_read(found: &std::fs::Metadata, user: &RunAs) -> bool {
    let mode = found.permissions().mode();
    if found.uid() == user.uid {
        mode & 0o400 != 0
    } else if found.gid() == user.gid || user.groups.contains(&found.gid()) {
        mode & 0o040 != 0
    } else {
        mode & 0o004 != 0
    }
}

fn fill_memory(
    name: &str,
    parts: &[InitrdPart],
    user: Option<&RunAs>,
) -> Result<OwnedFd, LaunchError> {
    let fd =
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|e| failed(name, e.into()))?;
    let mut memory = std::fs::File::from(fd);
    fill(&mut memory, name, parts)?;
    memory
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(|e| failed(name, e))?;
    let fd = OwnedFd::from(memory);
    if let Some(user) = user {
        give_to(&fd, user).map_err(|e| failed(name, e))?;
    }
    Ok(fd)
}

/// Writes archives one after the other.
pub(super) fn fill(
    memory: &mut std::fs::File,
    name: &str,
    parts: &[InitrdPart],
) -> Result<(), LaunchError> {
    for part in parts {
        match part {
            InitrdPart::File { path } => {
                let opened = fs::File::open(path);
                let mut file =
                    opened.map_err(|e| LaunchError::io(LaunchErrorKind::Open(path.clone()), e))?;
                io::copy(&mut file, memory).map_err(|e| failed(name, e))?;
            }
            InitrdPart::Private { contents, .. } => {
                for piece in contents.expose() {
                    memory.write_all(piece).map_err(|e| failed(name, e))?;
                }
            }
        }
        // A cpio archive begins at a multiple of four bytes; the kernel skips zeros between two of them.
        let length = memory.stream_position().map_err(|e| failed(name, e))?;
        let padding = usize::try_from(length.next_multiple_of(4) - length).expect("less than four");
        memory
            .write_all(&[0; 4][..padding])
            .map_err(|e| failed(name, e))?;
    }
    memory.rewind().map_err(|e| failed(name, e))
}

fn give_to(fd: &OwnedFd, user: &RunAs) -> io::Result<()> {
    let uid = rustix::fs::Uid::from_raw(user.uid);
    let gid = rustix::fs::Gid::from_raw(user.gid);
    Ok(rustix::fs::fchown(fd, Some(uid), Some(gid))?)
}
