//! One layer on its way in: decompressed as its first bytes say, bounded, hashed.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use firebuild_oci::media_type::{Compression, sniff_compression};
use firebuild_store::BlobWriter;

/// Bytes that tell the compression.
const HEAD: usize = 4;

/// Takes a layer as it is stored elsewhere. What ended it early is found again by [`Stop::of`].
///
/// The bytes decide about the compression and not the media type: registries hold layers that are not what they are
/// called, and every other client copes.
pub(super) struct Intake<'a> {
    state: State<'a>,
}

enum State<'a> {
    /// Too few bytes to know.
    Undecided(Vec<u8>, Bounded<'a>),
    Plain(Bounded<'a>),
    Gzip(Box<flate2::write::MultiGzDecoder<Bounded<'a>>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Bounded<'a>>>),
    /// A decoder could not be made.
    Failed,
}

impl<'a> Intake<'a> {
    /// Writes into `blob`, at most `limit` bytes, until `ended` says so.
    pub(super) fn new(blob: BlobWriter<'a>, limit: u64, ended: &'a dyn Fn() -> bool) -> Self {
        Self {
            state: State::Undecided(
                Vec::with_capacity(HEAD),
                Bounded {
                    blob,
                    left: limit,
                    limit,
                    ended,
                },
            ),
        }
    }

    /// The blob with all that came, for its commit.
    pub(super) fn finish(mut self) -> io::Result<BlobWriter<'a>> {
        self.decide()?;
        let bounded = match self.state {
            State::Plain(inner) | State::Undecided(_, inner) => inner,
            State::Gzip(decoder) => decoder.finish().map_err(damaged)?,
            State::Zstd(mut decoder) => {
                decoder.flush().map_err(damaged)?;
                decoder.into_inner()
            }
            State::Failed => return Err(failed()),
        };
        Ok(bounded.blob)
    }

    fn decide(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Undecided(head, inner) => {
                self.state = match sniff_compression(&head) {
                    Compression::None => State::Plain(inner),
                    Compression::Gzip => {
                        State::Gzip(Box::new(flate2::write::MultiGzDecoder::new(inner)))
                    }
                    Compression::Zstd => {
                        State::Zstd(Box::new(zstd::stream::write::Decoder::new(inner)?))
                    }
                };
                self.decided()?.write_all(&head).map_err(damaged)
            }
            decided => {
                self.state = decided;
                Ok(())
            }
        }
    }

    fn decided(&mut self) -> io::Result<&mut dyn Write> {
        match &mut self.state {
            State::Undecided(_, inner) | State::Plain(inner) => Ok(inner),
            State::Gzip(decoder) => Ok(decoder),
            State::Zstd(decoder) => Ok(decoder),
            State::Failed => Err(failed()),
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("the layer failed before")
}

impl Write for Intake<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let State::Undecided(head, _) = &mut self.state {
            let count = bytes.len().min(HEAD - head.len());
            head.extend_from_slice(&bytes[..count]);
            if head.len() == HEAD {
                self.decide()?;
            }
            return Ok(count);
        }
        self.decided()?.write_all(bytes).map_err(damaged)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The uncompressed end.
struct Bounded<'a> {
    blob: BlobWriter<'a>,
    left: u64,
    limit: u64,
    ended: &'a dyn Fn() -> bool,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.ended)() {
            return Err(io::Error::other(Stop::Cancelled));
        }
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other(Stop::TooLarge(self.limit)))?;
        self.blob.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a layer was not taken, as it travels inside an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// It unpacks to more than so many bytes.
    TooLarge(u64),
    /// It cannot be decompressed.
    Damaged(String),
    /// No space on the disk.
    NoSpace,
}

impl Stop {
    /// Looks for the reason in an error and its causes.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut at = Some(error);
        while let Some(error) = at {
            if let Some(stop) = error.downcast_ref::<Self>() {
                return Some(stop.clone());
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                if matches!(
                    io.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) {
                    return Some(Self::NoSpace);
                }
                if let Some(stop) = io.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
                    return Some(stop.clone());
                }
            }
            at = error.source();
        }
        None
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => out.write_str("cancelled"),
            Self::TooLarge(limit) => write!(out, "it unpacks to more than {limit} bytes"),
            Self::Damaged(what) => write!(out, "it cannot be decompressed: {what}"),
            Self::NoSpace => out.write_str("no space is left on the disk of the store"),
        }
    }
}

impl Error for Stop {}

/// Errors of decoders become [`Stop::Damaged`]; those of the disk, and ours, pass.
fn damaged(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() || Stop::of(&error).is_some() {
        return error;
    }
    io::Error::new(io::ErrorKind::InvalidData, Stop::Damaged(error.to_string()))
}
