//! SHA-256 beside the reading and writing: a thread of its own, once there is enough to be worth it.
//!
//! The writer hands full buffers over and gets hashed ones back, so that at most [`BUFFERS`] are in use.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use sha2::{Digest, Sha256};

/// Buffers that are waiting to be hashed, beside the one that is filled.
const BUFFERS: usize = 2;
/// Zeros are hashed in pieces of this size.
pub(super) const PIECE: usize = 64 << 10;
pub(super) static ZEROS: [u8; PIECE] = [0; PIECE];

pub(super) enum Job {
    Bytes(Box<[u8]>, usize),
    Zeros(u64),
}

pub(super) enum Hasher {
    /// Nobody wants to know.
    Nobody,
    /// Nothing was large yet, or there is no thread to be had.
    Inline { hash: Sha256, may_spawn: bool },
    Thread {
        jobs: SyncSender<Job>,
        done: Receiver<Box<[u8]>>,
        thread: JoinHandle<Sha256>,
        /// Buffers that exist, the writer's own included.
        buffers: usize,
    },
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self::Inline {
            hash: Sha256::new(),
            may_spawn: true,
        }
    }

    /// Hashes the first `used` bytes of a buffer and gives one of the same size to be filled next.
    pub(super) fn bytes(&mut self, buffer: Box<[u8]>, used: usize) -> io::Result<Box<[u8]>> {
        if used == buffer.len() {
            self.spawn();
        }
        match self {
            Self::Nobody => Ok(buffer),
            Self::Inline { hash, .. } => {
                hash.update(&buffer[..used]);
                Ok(buffer)
            }
            Self::Thread {
                jobs,
                done,
                buffers,
                ..
            } => {
                let size = buffer.len();
                jobs.send(Job::Bytes(buffer, used)).map_err(|_| gone())?;
                if let Ok(free) = done.try_recv() {
                    return Ok(free);
                }
                if *buffers <= BUFFERS {
                    *buffers += 1;
                    return Ok(vec![0; size].into_boxed_slice());
                }
                done.recv().map_err(|_| gone())
            }
        }
    }

    pub(super) fn zeros(&mut self, count: u64) -> io::Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Inline { hash, .. } => {
                update_zeros(hash, count);
                Ok(())
            }
            Self::Thread { jobs, .. } => jobs.send(Job::Zeros(count)).map_err(|_| gone()),
        }
    }

    pub(super) fn finish(self) -> io::Result<[u8; 32]> {
        let hash = match self {
            Self::Nobody => return Ok([0; 32]),
            Self::Inline { hash, .. } => hash,
            Self::Thread { jobs, thread, .. } => {
                drop(jobs);
                thread.join().map_err(|_| gone())?
            }
        };
        Ok(hash.finalize().into())
    }

    fn spawn(&mut self) {
        let Self::Inline { hash, may_spawn } = self else {
            return;
        };
        if !*may_spawn {
            return;
        }
        let (jobs, todo) = sync_channel(BUFFERS);
        let (back, done) = channel();
        let start = hash.clone();
        let spawned = Builder::new()
            .name("layer digest".to_owned())
            .spawn(move || work(start, &todo, &back));
        match spawned {
            Ok(thread) => {
                *self = Self::Thread {
                    jobs,
                    done,
                    thread,
                    buffers: 1,
                };
            }
            Err(_) => *may_spawn = false,
        }
    }
}

fn work(mut hash: Sha256, todo: &Receiver<Job>, back: &Sender<Box<[u8]>>) -> Sha256 {
    for job in todo {
        match job {
            Job::Bytes(buffer, used) => {
                hash.update(&buffer[..used]);
                // The writer may have finished; it does not need the buffer then.
                let _ = back.send(buffer);
            }
            Job::Zeros(count) => update_zeros(&mut hash, count),
        }
    }
    hash
}

fn update_zeros(hash: &mut Sha256, mut count: u64) {
    while count > 0 {
        let n = usize::try_from(count).unwrap_or(PIECE).min(PIECE);
        hash.update(&ZEROS[..n]);
        count -= n as u64;
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that computes the digest has ended")
}
