//! The application's streams on their way between pipes (or a terminal) and the multiplexer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use firebuild_guest_proto::{Incoming, Mux, StreamId};
use rustix::event::PollFlags;
use rustix::io::Errno;

/// How much is read at once. A pipe holds as much.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a terminal takes for the end of its input (`VEOF`, Ctrl+D).
const END_OF_INPUT: &[u8] = &[4];

/// Which streams of the multiplexer carry them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) stdin: StreamId,
    pub(crate) stdout: StreamId,
    pub(crate) stderr: StreamId,
}

impl Ids {
    /// Those of the application.
    pub(crate) const APPLICATION: Ids = Ids {
        stdin: StreamId::STDIN,
        stdout: StreamId::STDOUT,
        stderr: StreamId::STDERR,
    };

    fn outputs(self) -> [StreamId; 2] {
        [self.stdout, self.stderr]
    }
}

/// The streams that are open.
#[derive(Debug)]
pub(crate) struct Stdio {
    ids: Ids,
    outputs: Vec<(StreamId, OwnedFd)>,
    input: Option<OwnedFd>,
    /// Whether the input is a terminal, which cannot be closed but told.
    is_terminal: bool,
    buffer: Vec<u8>,
}

impl Stdio {
    /// Takes over what the application was started with, and closes the streams that it does not have.
    pub(crate) fn new(
        ids: Ids,
        outputs: Vec<(StreamId, OwnedFd)>,
        input: Option<OwnedFd>,
        is_terminal: bool,
        mux: &mut Mux,
    ) -> Stdio {
        for id in ids.outputs() {
            if !outputs.iter().any(|(open, _)| *open == id) {
                mux.end(id);
            }
        }
        if input.is_none() {
            mux.stop(ids.stdin);
        }
        Stdio {
            ids,
            outputs,
            input,
            is_terminal,
            buffer: vec![0; CHUNK_BYTES],
        }
    }

    /// The descriptors to wait for. An output whose stream is full, and an input for which nothing is there, are left
    /// out: a descriptor that cannot be served now would wake us for nothing.
    pub(crate) fn interest<'a>(&'a self, mux: &Mux) -> Vec<(BorrowedFd<'a>, PollFlags)> {
        let mut fds = Vec::with_capacity(3);
        for (id, fd) in &self.outputs {
            if mux.room(*id) != Some(0) {
                fds.push((fd.as_fd(), PollFlags::IN));
            }
        }
        if let Some(input) = &self.input
            && matches!(mux.peek(self.ids.stdin), Incoming::Bytes(_))
        {
            fds.push((input.as_fd(), PollFlags::OUT));
        }
        fds
    }

    /// Moves what can be moved without waiting; says whether anything was.
    pub(crate) fn turn(&mut self, mux: &mut Mux) -> bool {
        let read = self.read(mux);
        self.write(mux) || read
    }

    /// Whether all outputs have ended.
    pub(crate) fn outputs_ended(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Whether an output waits for room in its stream: there may be more of it than can be seen.
    pub(crate) fn is_blocked(&self, mux: &Mux) -> bool {
        let full = |id: &StreamId| mux.room(*id) == Some(0);
        self.outputs.iter().any(|(id, _)| full(id))
    }

    /// Ends the outputs that are still open: whoever holds their other ends has had his time.
    pub(crate) fn abandon(&mut self, mux: &mut Mux) {
        for (id, _) in self.outputs.drain(..) {
            mux.end(id);
        }
    }

    fn read(&mut self, mux: &mut Mux) -> bool {
        let mut moved = false;
        let (buffer, is_terminal) = (&mut self.buffer, self.is_terminal);
        self.outputs.retain(|(id, fd)| {
            let room = match mux.room(*id) {
                Some(room) => room,
                // The host wants no more. A terminal goes on and what it shows is lost; else the application finds a
                // closed pipe.
                None if is_terminal => buffer.len(),
                None => {
                    moved = true;
                    return false;
                }
            };
            let most = room.min(buffer.len());
            if most == 0 {
                return true;
            }
            match rustix::io::read(fd, &mut buffer[..most]) {
                Ok(count) if count > 0 => {
                    moved = true;
                    mux.write(*id, &buffer[..count]).is_ok() || is_terminal
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                // The end; a terminal that nobody holds open gives EIO.
                Ok(_) | Err(_) => {
                    moved = true;
                    mux.end(*id);
                    false
                }
            }
        });
        moved
    }

    fn write(&mut self, mux: &mut Mux) -> bool {
        let Some(input) = &self.input else {
            return false;
        };
        match mux.peek(self.ids.stdin) {
            Incoming::Pending => false,
            Incoming::Bytes(bytes) => match rustix::io::write(input, bytes) {
                Ok(count) => {
                    mux.consume(self.ids.stdin, count);
                    true
                }
                Err(Errno::AGAIN | Errno::INTR) => false,
                // The application reads no more.
                Err(_) => {
                    mux.stop(self.ids.stdin);
                    self.input = None;
                    true
                }
            },
            Incoming::Ended => {
                if self.is_terminal {
                    let _ = rustix::io::write(input, END_OF_INPUT);
                }
                self.input = None;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
