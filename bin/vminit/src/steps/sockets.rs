//! Sockets of tasks: whoever connects to one talks to a socket of the host.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use firebuild_guest_proto::TaskSocket;
use firebuild_guest_proto::message::task_socket_path;
use rustix::fs::{Gid, Mode, Uid};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

/// Connections that the host has not answered yet, for each socket.
const WAITING: usize = 16;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Listener {
    /// The task, and which of its sockets.
    pub(super) name: (u32, u32),
    fd: OwnedFd,
    path: String,
    /// Accepted, and waiting for the host's streams.
    waiting: VecDeque<OwnedFd>,
}

impl Listener {
    pub(super) fn open(task: u32, number: u32, looks: TaskSocket) -> io::Result<Listener> {
        let path = task_socket_path(task, number);
        if let Some((directory, _)) = path.rsplit_once('/') {
            fs_err::create_dir_all(directory)?;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&fd, &SocketAddrUnix::new(path.as_str())?)?;
        let (uid, gid) = (Uid::from_raw(looks.uid), Gid::from_raw(looks.gid));
        rustix::fs::chown(path.as_str(), Some(uid), Some(gid))?;
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(looks.mode & 0o7777))?;
        listen(&fd, 16)?;
        Ok(Listener {
            name: (task, number),
            fd,
            path,
            waiting: VecDeque::new(),
        })
    }

    /// The descriptor to wait for; none while enough connections wait.
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        (self.waiting.len() < WAITING).then(|| self.fd.as_fd())
    }

    /// Takes a connection; says whether there was one.
    pub(super) fn accept(&mut self) -> bool {
        if self.waiting.len() >= WAITING {
            return false;
        }
        match accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => {
                self.waiting.push_back(connection);
                true
            }
            Err(_) => false,
        }
    }

    /// The connection that waits longest.
    pub(super) fn take(&mut self) -> Option<OwnedFd> {
        self.waiting.pop_front()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.path);
    }
}
