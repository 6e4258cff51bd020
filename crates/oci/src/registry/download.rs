//! Blobs: streamed, counted, hashed, and resumed where the connection broke.

use std::io::{self, Read, Write};

use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;

use super::Registry;
use super::answer::{Answer, StoppedReading};
use super::auth::Action;
use super::error::{RegistryError, RegistryErrorKind as Kind};
use super::transport::{Tries, check, stopped};
use crate::{Descriptor, Hasher, Reference};

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;
/// A connection that brought less than this before it broke counts as one more failure.
const PROGRESS: u64 = 1 << 20;

impl Registry {
    /// Downloads a blob into `sink`, in order, each byte once, and verifies size and digest.
    ///
    /// `progress` is called with the number of bytes so far. When the result is an error, `sink` holds a part of the
    /// blob or a wrong one and must be thrown away. An error of `sink` ends the download, which is also the way to stop it.
    ///
    /// # Errors
    /// The text names reference and digest; [`RegistryError::kind`] tells the cases apart.
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        self.download(reference, descriptor, sink, progress)
            .map_err(|error| {
                error.during(format!("cannot fetch {} of {reference}", descriptor.digest))
            })
    }

    pub(super) fn download(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let mut state = State {
            wanted: descriptor,
            hasher: Hasher::new(),
            sink,
            progress,
        };
        let mut tries = Tries::new(self.transport.options());
        loop {
            let before = state.hasher.len();
            match self.fetch(reference, &mut state) {
                Ok(()) => break,
                Err(error) => {
                    if state.hasher.len() - before >= PROGRESS {
                        tries.progressed();
                    }
                    tries.again(error)?;
                }
            }
        }
        let found = state.hasher.finish();
        if found != descriptor.digest {
            return Err(RegistryError::new(
                Kind::Corrupt,
                format!(
                    "the registry sent content with digest {found} for {}",
                    descriptor.digest
                ),
            ));
        }
        Ok(())
    }

    /// One connection: from where the last one ended to the end, or until it breaks.
    fn fetch(&self, reference: &Reference, state: &mut State<'_>) -> Result<(), RegistryError> {
        let done = state.hasher.len();
        // Nothing is left to ask for; a range beyond the end would be an error.
        if done == state.wanted.size && done > 0 {
            return Ok(());
        }
        let mut call = self.get(reference, &format!("blobs/{}", state.wanted.digest))?;
        call.from = done;
        let response = check(self.request(reference, Action::Pull, &call)?)?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                check_range(&response, done, state.wanted)?;
                0
            }
            // The server knows no ranges: what we have comes again.
            StatusCode::OK => done,
            status => {
                return Err(RegistryError::new(
                    Kind::Protocol,
                    format!("the registry answers a download with {status}"),
                ));
            }
        };
        let expected = state.wanted.size - done + skip;
        if let Some(length) = response.content_length()
            && length != expected
        {
            return Err(wrong_size(state.wanted, done - skip + length));
        }
        state.copy(reference, response, skip)
    }
}

/// What one download carries from connection to connection.
struct State<'a> {
    wanted: &'a Descriptor,
    /// Over all that went into the sink.
    hasher: Hasher,
    sink: &'a mut dyn Write,
    progress: &'a dyn Fn(u64),
}

impl State<'_> {
    fn copy(
        &mut self,
        reference: &Reference,
        mut from: impl Read,
        skip: u64,
    ) -> Result<(), RegistryError> {
        // The sink and the hasher have these bytes already. Were they others this time, the digest would tell.
        let passed = io::copy(&mut (&mut from).take(skip), &mut io::sink())
            .map_err(|error| broken(reference, error))?;
        if passed < skip {
            return Err(short(self.wanted, passed));
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(reference, error)),
            };
            let left = self.wanted.size - self.hasher.len();
            if count as u64 > left {
                return Err(RegistryError::new(
                    Kind::Corrupt,
                    format!(
                        "the registry sends more than the {} bytes that the manifest says",
                        self.wanted.size
                    ),
                ));
            }
            self.sink.write_all(&buffer[..count]).map_err(|error| {
                RegistryError::with(Kind::Local, "cannot write what was downloaded", error)
            })?;
            self.hasher.update(&buffer[..count]);
            (self.progress)(self.hasher.len());
        }
        if self.hasher.len() < self.wanted.size {
            return Err(short(self.wanted, self.hasher.len()));
        }
        Ok(())
    }
}

fn short(wanted: &Descriptor, found: u64) -> RegistryError {
    RegistryError::new(
        Kind::Dropped,
        format!(
            "the connection ended after {found} of {} bytes",
            wanted.size
        ),
    )
}

fn wrong_size(wanted: &Descriptor, found: u64) -> RegistryError {
    RegistryError::new(
        Kind::Corrupt,
        format!(
            "the registry has {found} bytes where the manifest says {}",
            wanted.size
        ),
    )
}

/// A read that failed: a stop, silence, or a connection that broke.
pub(super) fn broken(reference: &Reference, error: io::Error) -> RegistryError {
    lost(reference.registry(), error)
}

/// The same for any host.
pub(super) fn lost(host: &str, error: io::Error) -> RegistryError {
    let inner = error.get_ref();
    if inner.is_some_and(|inner| inner.is::<StoppedReading>()) {
        return stopped();
    }
    let timeout = inner
        .and_then(|inner| inner.downcast_ref::<reqwest::Error>())
        .map_or(
            error.kind() == io::ErrorKind::TimedOut,
            reqwest::Error::is_timeout,
        );
    if timeout {
        RegistryError::with(Kind::Timeout, format!("{host} stopped sending"), error)
    } else {
        RegistryError::with(
            Kind::Dropped,
            format!("lost the connection to {host}"),
            error,
        )
    }
}

/// `Content-Range: bytes 5-9/10` must begin where we are and be of the blob that we want.
fn check_range(response: &Answer, from: u64, wanted: &Descriptor) -> Result<(), RegistryError> {
    let text = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let parsed = parse_range(text);
    let good = parsed.is_some_and(|(start, total)| {
        start == from && total.is_none_or(|total| total == wanted.size)
    });
    if !good {
        return Err(RegistryError::new(
            Kind::Protocol,
            format!("the registry answers a request for bytes from {from} with range {text:?}"),
        ));
    }
    Ok(())
}

fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("5-9/10", None),
            ("", None),
            ("bytes x-9/10", None),
        ] {
            assert_eq!(parse_range(text), wanted, "{text}");
        }
    }
}
