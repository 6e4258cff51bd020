//! A client for an HTTP/1.1 API on a connected Unix socket: one request after the other on one connection, JSON both ways.
//!
//! This is all of HTTP that Firecracker's API speaks (`micro_http`): no chunks, no compression, no redirects. Heads are
//! parsed by the `httparse` crate. Firecracker is ours, but what drives it is a guest: heads and bodies have limits, and
//! every answer has a deadline.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::Value;

use super::api::Fault;
use crate::backend::{ControlError, ControlErrorKind};

/// Longest head of an answer; Firecracker's have some 150 bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Longest body of an answer; a metadata document may be as large as the user made it.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Most lines of a head.
const MAX_HEADERS: usize = 32;
/// How long an answer may take. Starting a guest with much memory of large pages takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the API of a VMM.
#[derive(Debug)]
pub struct ApiClient {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head itself.
    bytes: usize,
    /// Bytes of the body.
    body: usize,
}

impl ApiClient {
    /// Takes over a connection.
    #[must_use]
    pub fn new(connection: OwnedFd) -> Self {
        Self {
            stream: UnixStream::from(connection),
            buffer: Vec::new(),
        }
    }

    /// Gives the connection back; there must be no answer left to read.
    #[must_use]
    pub fn into_connection(self) -> OwnedFd {
        self.stream.into()
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends a request and waits for its answer: the body of it, `null` where there is none.
    ///
    /// # Errors
    /// What the VMM refuses, in its words; a connection that ends or is silent for 30 s; an answer that is none.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ControlError> {
        let deadline = Instant::now() + TIMEOUT;
        let failed = |kind| ControlError::new(format!("{method} {path}"), kind);
        let (status, body) = self
            .exchange(&request_bytes(method, path, body), deadline)
            .map_err(|error| match error {
                Failure::Kind(kind) => failed(kind),
                Failure::Io(source) => ControlError::io(format!("{method} {path}"), source),
            })?;
        match status {
            200..=299 if body.is_empty() => Ok(Value::Null),
            200..=299 => serde_json::from_slice(&body)
                .map_err(|_| failed(ControlErrorKind::Protocol("a body that is not JSON"))),
            _ => {
                let words = serde_json::from_slice(&body).map_or_else(
                    |_| format!("status {status}"),
                    |fault: Fault| fault.fault_message,
                );
                Err(failed(ControlErrorKind::Refused(words)))
            }
        }
    }

    fn exchange(&mut self, request: &[u8], deadline: Instant) -> Result<(u16, Vec<u8>), Failure> {
        self.send(request)?;
        let head = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(protocol("a head without an end"));
            }
            self.receive(deadline)?;
        };
        if head.body > MAX_BODY_BYTES {
            return Err(protocol("a body without measure"));
        }
        let end = head.bytes + head.body;
        while self.buffer.len() < end {
            self.receive(deadline)?;
        }
        let rest = self.buffer.split_off(end);
        let body = std::mem::replace(&mut self.buffer, rest).split_off(head.bytes);
        Ok((head.status, body))
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.stream.set_write_timeout(Some(TIMEOUT))?;
        while !bytes.is_empty() {
            // Not `write`: a VMM that has ended is an error here, no SIGPIPE.
            match rustix::net::send(&self.stream, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    return Err(Failure::Kind(ControlErrorKind::Closed));
                }
                Err(Errno::AGAIN) => return Err(Failure::Kind(ControlErrorKind::Timeout)),
                Err(error) => return Err(Failure::Io(error.into())),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Kind(ControlErrorKind::Timeout));
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Failure::Kind(ControlErrorKind::Closed)),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(()),
                io::ErrorKind::ConnectionReset => Err(Failure::Kind(ControlErrorKind::Closed)),
                _ => Err(Failure::Io(error)),
            },
        }
    }
}

enum Failure {
    Kind(ControlErrorKind),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn protocol(problem: &'static str) -> Failure {
    Failure::Kind(ControlErrorKind::Protocol(problem))
}

fn request_bytes(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    text.push_str("\r\n");
    text.push_str(&body);
    text.into_bytes()
}

/// The head at the start of these bytes; `None` when it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(bytes)
        .map_err(|_| protocol("something other than HTTP"))?;
    let (httparse::Status::Complete(end), Some(status)) = (parsed, response.code) else {
        return Ok(None);
    };
    let mut body = 0;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(protocol("a body in pieces"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            body = std::str::from_utf8(header.value)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| protocol("a length that is no number"))?;
        }
    }
    Ok(Some(Head {
        status,
        bytes: end,
        body,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;

    use serde_json::{Value, json};

    use super::{ApiClient, MAX_HEAD_BYTES};
    use crate::backend::ControlErrorKind;

    /// A stand-in that answers with these bytes, in these pieces, to whatever it reads: what it read.
    fn vmm(pieces: &[&str]) -> (ApiClient, JoinHandle<String>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let pieces: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
        let thread = std::thread::spawn(move || {
            let mut asked = vec![0; 4096];
            let count = theirs.read(&mut asked).unwrap();
            for piece in pieces {
                // The client may have had enough.
                let _ = theirs.write_all(piece.as_bytes());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            String::from_utf8(asked[..count].to_vec()).unwrap()
        });
        (ApiClient::new(ours.into()), thread)
    }

    fn answer(pieces: &[&str]) -> Result<Value, ControlErrorKind> {
        let (mut client, thread) = vmm(pieces);
        let answer = client.request("GET", "/", None);
        thread.join().unwrap();
        answer.map_err(|error| error.kind().clone())
    }

    #[test]
    fn a_request_is_http() {
        let (mut client, thread) = vmm(&["HTTP/1.1 204 \r\nServer: Firecracker API\r\n\r\n"]);
        let body = json!({ "state": "Paused" });
        assert_eq!(
            client.request("PATCH", "/vm", Some(&body)).unwrap(),
            Value::Null
        );
        assert_eq!(
            thread.join().unwrap(),
            "PATCH /vm HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
        );
    }

    #[test]
    fn answers_come_in_any_pieces() {
        let pieces = [
            "HTTP/1.1 200 OK\r\nContent-Le",
            "ngth: 13\r\n",
            "\r\n{\"id\":",
            " \"abc\"}",
        ];
        assert_eq!(answer(&pieces), Ok(json!({ "id": "abc" })));
    }

    #[test]
    fn two_answers_on_one_connection_are_told_apart() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let one = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1";
        let two = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2";
        theirs.write_all(format!("{one}{two}").as_bytes()).unwrap();
        let mut client = ApiClient::new(ours.into());
        assert_eq!(client.request("GET", "/", None).unwrap(), json!(1));
        assert_eq!(client.request("GET", "/", None).unwrap(), json!(2));
    }

    #[test]
    fn what_is_refused_is_told_in_the_vmms_words() {
        let fault = "HTTP/1.1 400 \r\nContent-Length: 28\r\n\r\n{\"fault_message\":\"no disk.\"}";
        assert_eq!(
            answer(&[fault]),
            Err(ControlErrorKind::Refused("no disk.".to_owned()))
        );
        assert_eq!(
            answer(&["HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n"]),
            Err(ControlErrorKind::Refused("status 413".to_owned()))
        );
    }

    #[test]
    fn what_is_not_http_is_an_error_and_no_flood() {
        let protocol =
            |pieces: &[&str]| matches!(answer(pieces), Err(ControlErrorKind::Protocol(_)));
        assert!(protocol(&["\u{1}\u{2}\u{3}\r\n\r\n"]));
        assert!(protocol(&["HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]));
        assert!(protocol(&[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        ]));
        assert!(protocol(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
        ]));
        assert!(protocol(&["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"]));
        let endless = format!(
            "HTTP/1.1 200 OK\r\nX: {}",
            "a".repeat(MAX_HEAD_BYTES + 4096)
        );
        assert!(protocol(&[&endless]));
        assert_eq!(
            answer(&["HTTP/1.1 200 OK\r\nContent-"]),
            Err(ControlErrorKind::Closed)
        );
    }
}
