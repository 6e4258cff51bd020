//! Archives as build contexts: a file, standard input, or a fetched document.

use std::io::{self, BufReader, Cursor, Read};
use std::os::fd::AsFd;
use std::sync::Arc;

use firebuild_oci::Digest;
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::tree::{Inode, Tree};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Fetched, Remote, RemoteError, RemoteErrorKind as Failed};
use crate::archive::{self, HEAD};
use crate::cancel::Cancel;
use crate::key::KeyWriter;
use crate::stoppable::{StoppableRead, stopped};

/// What a stream turned out to be.
#[derive(Debug)]
pub enum Stream {
    /// An archive, plain or compressed: its files, all of 0:0.
    Files(Fetched),
    /// Something else, which is short: a Dockerfile.
    Text(Vec<u8>),
}

impl Remote<'_> {
    /// Reads a stream that is an archive or a text of at most `limit` bytes. `name` is for errors.
    ///
    /// # Errors
    /// When it cannot be read, is a damaged archive or a too large one, or is neither.
    pub fn stream(&self, reader: impl Read, name: &str, limit: u64) -> Result<Stream, RemoteError> {
        let failed = |error: io::Error| {
            if self.cancel.is_raised() {
                return RemoteError::cancelled();
            }
            RemoteError::caused(
                Failed::Address,
                format!("cannot use {name} as a build context"),
                error,
            )
        };
        let mut reader = StoppableRead::new(reader, self.cancel);
        let mut head = Vec::with_capacity(HEAD);
        (&mut reader)
            .take(HEAD as u64)
            .read_to_end(&mut head)
            .map_err(failed)?;
        if !archive::may_be_archive(&head) {
            let size = limit.saturating_sub(head.len() as u64) + 1;
            reader.take(size).read_to_end(&mut head).map_err(failed)?;
            if head.len() as u64 > limit {
                let message = format!(
                    "{name} is no archive, and too large for a Dockerfile: more than {limit} bytes"
                );
                return Err(RemoteError::new(Failed::TooLarge, message));
            }
            return Ok(Stream::Text(head));
        }
        let whole = BufReader::with_capacity(256 << 10, Cursor::new(head).chain(reader));
        match archive::unpack(self.store, whole, self.cancel).map_err(failed)? {
            Some((blob, layer)) => self
                .unpacked(&blob, layer)
                .map(Stream::Files)
                .map_err(failed),
            None => {
                self.check_cancel()?;
                let message = format!("{name} is compressed, but there is no tar archive inside");
                Err(RemoteError::new(Failed::Address, message))
            }
        }
    }

    /// A fetched document, if it is an archive.
    ///
    /// # Errors
    /// As [`Remote::stream`].
    pub fn document_stream(
        &self,
        document: &super::Document,
        name: &str,
        limit: u64,
    ) -> Result<Stream, RemoteError> {
        let file = self
            .store
            .read_blob_file(&document.blob)
            .map_err(RemoteError::store)?;
        self.stream(file, name, limit)
    }

    fn unpacked(&self, blob: &Digest, mut layer: Layer) -> io::Result<Fetched> {
        let mut newest = None;
        for entry in &mut layer.entries {
            if let Change::Node(inode) = &mut entry.change {
                let meta = &mut inode.meta;
                (meta.uid, meta.gid) = (0, 0);
                newest = newest.max(Some(meta.mtime.secs));
            }
        }
        let mut tree = Tree::new();
        tree.apply(&layer).map_err(io::Error::other)?;
        *tree.meta_mut(firebuild_rootfs::tree::InodeId::ROOT) = Inode::dir(0o755).meta;
        let mut key = KeyWriter::new("archive/1");
        key.digest(blob);
        Ok(Fetched {
            tree: Arc::new(tree),
            id: Digest::from_bytes(key.finish().0),
            time: newest,
            cached: false,
        })
    }
}

/// A file that may let its reader wait, such as standard input or a pipe: the wait ends when the build is stopped.
#[derive(Debug)]
pub struct Polled<'a, F> {
    /// What is read.
    pub file: F,
    /// Who may stop it.
    pub cancel: &'a Cancel,
}

impl<F: AsFd> Read for Polled<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = [
                PollFd::new(&self.file, PollFlags::IN),
                PollFd::new(self.cancel, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) if self.cancel.is_raised() => {
                    return Err(stopped());
                }
                Ok(_) => {}
            }
            // Not through the buffer of `Stdin`: what is in it would not wake the poll.
            match rustix::io::read(&self.file, &mut *buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                count => return Ok(count?),
            }
        }
    }
}
