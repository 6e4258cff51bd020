//! An answer that can be left at any moment.
//!
//! A blocking request cannot be interrupted: who waits for a silent server waits until its time-out. So each request is
//! made, and its answer read, by a thread of its own; whoever wants the answer waits for that thread and may stop waiting.
//! A thread that nobody waits for any more ends with its connection: at the next byte, or at the stall time-out. It keeps
//! nothing but the connection.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use reqwest::blocking::{Client, Request, Response};
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait to be taken; more make the thread wait, and with it the server.
const QUEUE: usize = 4;
/// How often a wait looks whether it should go on.
const LOOK: Duration = Duration::from_millis(25);

/// Asks whether work should stop. The default never stops.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Work stops as soon as `asked` says so; it is called often, from the thread that waits.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(asked)))
    }

    /// Whether work should stop.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked())
    }

    /// Sleeps, unless a stop is asked for.
    pub(super) fn pause(&self, time: Duration) {
        let end = std::time::Instant::now() + time;
        while !self.is_asked() {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Stop(…)")
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Somebody asked for a stop.
    Stopped,
    /// The request failed.
    Failed(reqwest::Error),
    /// No thread could be started, or it died.
    Thread(io::Error),
}

/// The head of an answer, and its body as a reader.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    url: Url,
    length: Option<u64>,
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// What was received and not taken yet.
    chunk: Vec<u8>,
    taken: usize,
    ended: bool,
    stop: Stop,
}

impl Answer {
    /// Sends a request and waits for the head of its answer.
    pub(super) fn of(client: Client, request: Request, stop: &Stop) -> Result<Self, NoAnswer> {
        if stop.is_asked() {
            return Err(NoAnswer::Stopped);
        }
        let (heads, head) = sync_channel(1);
        let (sender, chunks) = sync_channel(QUEUE);
        let work = move || {
            let outcome = client.execute(request);
            let response = match outcome {
                Ok(response) => response,
                Err(error) => {
                    let _ = heads.send(Err(error));
                    return;
                }
            };
            let parts = (
                response.status(),
                response.headers().clone(),
                response.url().clone(),
                response.content_length(),
            );
            if heads.send(Ok(parts)).is_ok() {
                pump(response, &sender);
            }
        };
        std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(work)
            .map_err(NoAnswer::Thread)?;
        let parts = match wait(&head, stop) {
            Waited::Here(parts) => parts.map_err(NoAnswer::Failed)?,
            Waited::Stopped => return Err(NoAnswer::Stopped),
            Waited::Gone => return Err(NoAnswer::Thread(gone())),
        };
        let (status, headers, url, length) = parts;
        Ok(Self {
            status,
            headers,
            url,
            length,
            chunks,
            chunk: Vec::new(),
            taken: 0,
            ended: false,
            stop: stop.clone(),
        })
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The address that answered.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Bytes of the body, if the server tells.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.length
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            match wait(&self.chunks, &self.stop) {
                Waited::Here(Ok(chunk)) if chunk.is_empty() => self.ended = true,
                Waited::Here(Ok(chunk)) => {
                    self.chunk = chunk;
                    self.taken = 0;
                }
                Waited::Here(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Waited::Stopped => return Err(io::Error::other(StoppedReading)),
                Waited::Gone => return Err(gone()),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.taken);
        buffer[..count].copy_from_slice(&self.chunk[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// What a read of an [`Answer`] fails with after a stop.
#[derive(Debug, thiserror::Error)]
#[error("it was asked to stop")]
pub(super) struct StoppedReading;

/// Reads the body into the queue; an empty chunk is its end, so that a thread that died is not taken for one.
fn pump(mut response: Response, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = match response.read(&mut chunk) {
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let over = !matches!(&read, Ok(chunk) if !chunk.is_empty());
        if sender.send(read).is_err() || over {
            return;
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread of the connection is gone")
}

enum Waited<T> {
    Here(T),
    Stopped,
    Gone,
}

fn wait<T>(queue: &Receiver<T>, stop: &Stop) -> Waited<T> {
    loop {
        match queue.recv_timeout(LOOK) {
            Ok(value) => return Waited::Here(value),
            Err(RecvTimeoutError::Timeout) if stop.is_asked() => return Waited::Stopped,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Waited::Gone,
        }
    }
}
