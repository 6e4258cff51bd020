//! Readers, writers and contents that end their work when the build is stopped.

use std::io::{self, Write};

use firebuild_rootfs::tree::{Content, Contents, Opened};

use crate::cancel::Cancel;

/// A writer that refuses once a stop was asked for.
pub(crate) struct Stoppable<W> {
    inner: W,
    cancel: Cancel,
}

impl<W> Stoppable<W> {
    pub(crate) fn new(inner: W, cancel: &Cancel) -> Self {
        Self {
            inner,
            cancel: cancel.clone(),
        }
    }
}

impl<W: Write> Write for Stoppable<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.cancel.is_raised() {
            return Err(stopped());
        }
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that refuses once a stop was asked for.
pub(crate) struct StoppableRead<R> {
    inner: R,
    cancel: Cancel,
}

impl<R> StoppableRead<R> {
    pub(crate) fn new(inner: R, cancel: &Cancel) -> Self {
        Self {
            inner,
            cancel: cancel.clone(),
        }
    }
}

impl<R: io::Read> io::Read for StoppableRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_raised() {
            return Err(stopped());
        }
        self.inner.read(buffer)
    }
}

/// Contents that are no longer given once a stop was asked for, not even the rest of a long file.
pub(crate) struct StoppableContents<'a, C> {
    pub(crate) inner: C,
    pub(crate) cancel: &'a Cancel,
}

impl<C: Contents> Contents for StoppableContents<'_, C> {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        self.check()?;
        self.inner.open(content)
    }

    fn check(&self) -> io::Result<()> {
        if self.cancel.is_raised() {
            return Err(stopped());
        }
        Ok(())
    }
}

/// Not `Interrupted`: that would be tried again.
pub(crate) fn stopped() -> io::Error {
    io::Error::other("stopped")
}
