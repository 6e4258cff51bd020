//! A client for QEMU's control protocol (QMP, `docs/interop/qmp-spec.txt` of QEMU): JSON objects, one a line.
//!
//! Replies are matched by id; events that come in between are kept, up to a limit. QEMU is ours, but what drives it is a
//! guest: lines have a limit, so a broken VMM cannot fill the host.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hardware::{BALLOON, balloon_statistics};
use crate::backend::{Control, ControlError, ControlErrorKind};
use crate::hardware::BalloonStatistics;

/// Longest line that is read, in bytes. QEMU's own greeting and replies to what is asked here are below 4 KiB.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Events kept until they are taken; older ones are dropped.
const MAX_EVENTS: usize = 64;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A control connection in command mode.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    next_id: u64,
    events: VecDeque<Event>,
}

/// Something that QEMU reports by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// Its name, like `STOP`, `SHUTDOWN` or `GUEST_PANICKED`.
    pub event: String,
    /// What belongs to it.
    #[serde(default)]
    pub data: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        _version: Value,
    },
    Event(Event),
    Success {
        #[serde(rename = "return")]
        value: Value,
        id: Option<u64>,
    },
    Failure {
        error: Failure,
        id: Option<u64>,
    },
}

#[derive(Deserialize)]
struct Failure {
    desc: String,
}

impl Qmp {
    /// Waits for the greeting and enters command mode.
    ///
    /// # Errors
    /// When QEMU ends, does not greet, or greets as no QEMU does.
    pub fn connect(connection: OwnedFd) -> Result<Self, ControlError> {
        let stream = UnixStream::from(connection);
        let mut qmp = Self {
            stream,
            buffer: Vec::new(),
            next_id: 0,
            events: VecDeque::new(),
        };
        let deadline = Instant::now() + TIMEOUT;
        match qmp.receive("greeting", deadline)? {
            Message::Greeting { .. } => {}
            _ => return Err(protocol("greeting", "something other than a greeting")),
        }
        qmp.execute("qmp_capabilities", None)?;
        Ok(qmp)
    }

    /// Runs a command and waits for its answer.
    ///
    /// # Errors
    /// What QEMU refuses, in its words; a connection that ends or is silent for 10 s.
    pub fn execute(
        &mut self,
        command: &str,
        arguments: Option<Value>,
    ) -> Result<Value, ControlError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({ "execute": command, "id": id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let deadline = Instant::now() + TIMEOUT;
        self.send(command, format!("{request}\n").as_bytes())?;
        loop {
            match self.receive(command, deadline)? {
                Message::Event(event) => self.keep(event),
                Message::Success {
                    value,
                    id: Some(answered),
                } if answered == id => return Ok(value),
                Message::Failure {
                    error,
                    id: answered,
                } if answered.is_none_or(|answered| answered == id) => {
                    return Err(ControlError::new(
                        command.to_owned(),
                        ControlErrorKind::Refused(error.desc),
                    ));
                }
                // An answer to a command that was given up on.
                Message::Success { .. } | Message::Failure { .. } => {}
                Message::Greeting { .. } => return Err(protocol(command, "a second greeting")),
            }
        }
    }

    /// The oldest event that was not taken yet, of those that came with the answers so far.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn send(&mut self, command: &str, mut bytes: &[u8]) -> Result<(), ControlError> {
        let failed = |error| ControlError::io(command.to_owned(), error);
        self.stream
            .set_write_timeout(Some(TIMEOUT))
            .map_err(failed)?;
        while !bytes.is_empty() {
            // Not `write`: a QEMU that has ended is an error here, no SIGPIPE.
            match rustix::net::send(&self.stream, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    return Err(ControlError::new(
                        command.to_owned(),
                        ControlErrorKind::Closed,
                    ));
                }
                Err(Errno::AGAIN) => {
                    return Err(ControlError::new(
                        command.to_owned(),
                        ControlErrorKind::Timeout,
                    ));
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn receive(&mut self, command: &str, deadline: Instant) -> Result<Message, ControlError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map_err(|_| protocol(command, "a line that is no message"));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(protocol(command, "a line without an end"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ControlError::new(
                    command.to_owned(),
                    ControlErrorKind::Timeout,
                ));
            }
            let failed = |error| ControlError::io(command.to_owned(), error);
            self.stream.set_read_timeout(Some(left)).map_err(failed)?;
            let mut chunk = [0; 4096];
            match io::Read::read(&mut self.stream, &mut chunk) {
                Ok(0) => {
                    return Err(ControlError::new(
                        command.to_owned(),
                        ControlErrorKind::Closed,
                    ));
                }
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ControlError::new(
                        command.to_owned(),
                        ControlErrorKind::Closed,
                    ));
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn protocol(command: &str, problem: &'static str) -> ControlError {
    ControlError::new(command.to_owned(), ControlErrorKind::Protocol(problem))
}

impl Control for Qmp {
    fn pause(&mut self) -> Result<(), ControlError> {
        self.execute("stop", None).map(drop)
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.execute("cont", None).map(drop)
    }

    fn balloon_statistics(&mut self) -> Result<BalloonStatistics, ControlError> {
        let wanted = json!({ "path": BALLOON, "property": "guest-stats" });
        let told = self.execute("qom-get", Some(wanted))?;
        let left = self.execute("query-balloon", None)?;
        let whole = self.execute("query-memory-size-summary", None)?;
        Ok(balloon_statistics(
            &told["stats"],
            left["actual"].as_u64(),
            whole["base-memory"].as_u64(),
        ))
    }

    fn quit(&mut self) -> Result<(), ControlError> {
        match self.execute("quit", None) {
            // It may end before its answer is out.
            Err(error) if *error.kind() == ControlErrorKind::Closed => Ok(()),
            result => result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::{MAX_LINE_BYTES, Qmp};
    use crate::backend::{Control, ControlErrorKind};

    const GREETING: &str =
        "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n";

    /// A QEMU that answers each request with the next script line, `ID` replaced by the request's id.
    fn fake(script: &'static [&'static str]) -> Qmp {
        try_fake(GREETING, script).unwrap()
    }

    fn try_fake(
        greeting: &'static str,
        script: &'static [&'static str],
    ) -> Result<Qmp, crate::backend::ControlError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let _ = writer.write_all(greeting.as_bytes());
            let mut lines = BufReader::new(theirs).lines();
            for answer in ["{\"return\": {}, \"id\": ID}\r\n"].iter().chain(script) {
                let Some(Ok(request)) = lines.next() else {
                    return;
                };
                let request: serde_json::Value = serde_json::from_str(&request).unwrap();
                if writer
                    .write_all(answer.replace("ID", &request["id"].to_string()).as_bytes())
                    .is_err()
                {
                    return;
                }
            }
        });
        Qmp::connect(ours.into())
    }

    #[test]
    fn answers_are_matched_and_events_kept() {
        let mut qmp = fake(&[
            "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n{\"return\": 1, \"id\": 77}\r\n\
             {\"return\": {}, \"id\": ID}\r\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": ID}\r\n",
        ]);
        qmp.pause().unwrap();
        assert_eq!(qmp.take_event().unwrap().event, "STOP");
        assert!(qmp.take_event().is_none());
        let error = qmp.resume().unwrap_err();
        assert_eq!(*error.kind(), ControlErrorKind::Refused("no".to_owned()));
        assert_eq!(error.to_string(), "the VMM refused cont: no");
    }

    #[test]
    fn an_end_is_told_but_a_quit_that_ends_is_none() {
        assert_eq!(
            *fake(&[]).pause().unwrap_err().kind(),
            ControlErrorKind::Closed
        );
        fake(&[]).quit().unwrap();
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(
            try_fake("hello\r\n", &[]).unwrap_err().kind(),
            ControlErrorKind::Protocol(_)
        ));
        assert!(matches!(
            try_fake("{\"return\": {}}\r\n", &[]).unwrap_err().kind(),
            ControlErrorKind::Protocol(_)
        ));
    }

    #[test]
    fn a_line_has_a_limit() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = thread::spawn(move || {
            let _ = theirs.write_all(&vec![b'x'; 2 * MAX_LINE_BYTES]);
        });
        let error = Qmp::connect(ours.into()).unwrap_err();
        assert_eq!(
            *error.kind(),
            ControlErrorKind::Protocol("a line without an end")
        );
        writer.join().unwrap();
    }
}
