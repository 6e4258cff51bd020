//! The writing end of an image: a thread of its own, so that reading the sources and writing the image overlap.
//!
//! Buffers go round: the producer fills one, the thread writes it and gives it back. There are [`BUFFERS`] of them, so
//! memory does not depend on how much is written. A digest of what is written is computed by whoever has the time: by the
//! producer when it would have to wait for an empty buffer, else by the thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::{Digest, Sha256};

/// Bytes of a block, in all images that are written here.
pub(crate) const BLOCK: usize = 4096;
/// Blocks of a buffer.
pub(crate) const CHUNK_BLOCKS: usize = 128;
/// How many buffers there are.
const BUFFERS: usize = 12;

/// The thread has ended early: the disk refused. Whoever joins the thread learns why and reports that instead.
#[derive(Debug)]
pub(crate) struct Gone;

enum Job {
    Write {
        offset: u64,
        data: Vec<u8>,
        len: usize,
        /// The CRC of the data, where the producer has it.
        crc: Option<u32>,
    },
    /// Tell the digest of all that was written before.
    Digest(SyncSender<Sha256>),
}

/// Where the producer puts what is to be written.
pub(crate) struct Sink {
    jobs: SyncSender<Job>,
    empty: Receiver<Vec<u8>>,
    digesting: bool,
}

/// Drops what a file holds. An empty one is left alone: ext4 takes any truncation to nothing for a file that is being
/// replaced, and sends its blocks to the disk when it is closed.
pub(crate) fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    Ok(())
}

/// What the writing thread runs.
pub(crate) struct Work {
    jobs: Receiver<Job>,
    empty: Sender<Vec<u8>>,
    digesting: bool,
}

/// The two ends. Only with `digesting` is there a digest.
pub(crate) fn pair(digesting: bool) -> (Sink, Work) {
    let (to_write, jobs) = sync_channel(BUFFERS);
    let (give_back, empty) = channel();
    for _ in 0..BUFFERS {
        // The other end is alive: it is returned below.
        let _ = give_back.send(vec![0; CHUNK_BLOCKS * BLOCK]);
    }
    let sink = Sink {
        jobs: to_write,
        empty,
        digesting,
    };
    let work = Work {
        jobs,
        empty: give_back,
        digesting,
    };
    (sink, work)
}

impl Work {
    /// Writes until the producer is gone.
    pub(crate) fn run(self, out: &File) -> io::Result<u64> {
        let mut written = 0;
        let mut digest = Sha256::new();
        for job in self.jobs {
            match job {
                Job::Write {
                    offset,
                    data,
                    len,
                    crc,
                } => {
                    if self.digesting {
                        let crc = crc.unwrap_or_else(|| crc32c::crc32c(&data[..len]));
                        // The SHA-256 is over CRCs: it tells images apart, it does not guard against forgery.
                        digest.update(offset.to_le_bytes());
                        digest.update(crc.to_le_bytes());
                    }
                    out.write_all_at(&data[..len], offset)?;
                    written += len as u64;
                    // A producer that has finished wants no buffer back, nor an answer.
                    let _ = self.empty.send(data);
                }
                Job::Digest(answer) => {
                    let _ = answer.send(digest.clone());
                }
            }
        }
        Ok(written)
    }
}

impl Sink {
    /// An empty buffer; waits until there is one.
    pub(crate) fn buffer(&self) -> Result<Vec<u8>, Gone> {
        self.empty.recv().map_err(|_| Gone)
    }

    /// Has the first `len` bytes of a buffer written at `offset`.
    pub(crate) fn write(&self, offset: u64, data: Vec<u8>, len: usize) -> Result<(), Gone> {
        let job = Job::Write {
            offset,
            data,
            len,
            crc: None,
        };
        self.jobs.send(job).map_err(|_| Gone)
    }

    /// As [`Sink::write`], and gives the next empty buffer.
    pub(crate) fn exchange(&self, offset: u64, data: Vec<u8>, len: usize) -> Result<Vec<u8>, Gone> {
        let next = self.empty.try_recv().ok();
        let crc = (self.digesting && next.is_none()).then(|| crc32c::crc32c(&data[..len]));
        let job = Job::Write {
            offset,
            data,
            len,
            crc,
        };
        self.jobs.send(job).map_err(|_| Gone)?;
        next.map_or_else(|| self.buffer(), Ok)
    }

    /// A digest of all that was written so far: where, and its CRC32C. It depends on how the writes were cut, which is
    /// the same for the same image.
    pub(crate) fn digest(&self) -> Result<Sha256, Gone> {
        let (answer, digest) = sync_channel(1);
        self.jobs.send(Job::Digest(answer)).map_err(|_| Gone)?;
        digest.recv().map_err(|_| Gone)
    }
}
