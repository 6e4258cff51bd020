//! Control messages: small JSON documents in frames of their own, never held up by stream data.
//!
//! ```text
//!   guest                                   host
//!   Hello ───────────────────────────────▶
//!   ConfigAck ───────────────────────────▶  removes the configuration and the initrd that held it
//!         ◀─────────────────────────────── Hello (with the host's time)
//!   Log* ────────────────────────────────▶
//!   Started ─────────────────────────────▶
//!         ◀─────────────────────────────── Signal, WindowSize, Shutdown (any number)
//!   …stream data both ways…
//!   Exit (after the end of stdout, stderr) ▶ writes out what it holds, records the exit
//!         ◀─────────────────────────────── ExitAck
//!   restarts, which ends the machine
//! ```
//!
//! A guest that cannot start the application sends `Exit` with [`ExitStatus::Failed`] in place of `Started`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::WindowSize;
use crate::frame::MAX_PAYLOAD_BYTES;
use crate::health::HealthReport;
use crate::metadata::Document;
use crate::session::SessionOrder;
use crate::signal::Signal;

/// The oldest version of the protocol that this build speaks.
pub const PROTOCOL_VERSION_MIN: u32 = 1;
/// The newest version of the protocol that this build speaks.
pub const PROTOCOL_VERSION_MAX: u32 = 1;
/// The longest text of one [`GuestMessage::Log`] and of one failure, in bytes; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;

/// What each side says first about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version it speaks.
    pub version_min: u32,
    /// The newest version it speaks.
    pub version_max: u32,
    /// Names of what it can do beyond the version; names that the other side does not know are skipped.
    #[serde(default)]
    pub features: Vec<String>,
    /// Nanoseconds since 1970 by its clock; the guest follows the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_ns: Option<u64>,
}

impl Hello {
    /// The versions that this build speaks.
    #[must_use]
    pub fn new(features: Vec<String>, unix_ns: Option<u64>) -> Hello {
        Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            features,
            unix_ns,
        }
    }

    /// The newest version that both speak.
    ///
    /// # Errors
    /// [`MessageError::Version`] if there is none.
    pub fn negotiate(&self, peer: &Hello) -> Result<u32, MessageError> {
        let newest = self.version_max.min(peer.version_max);
        let oldest = self.version_min.max(peer.version_min);
        if newest < oldest {
            return Err(MessageError::Version {
                ours: self.version_max,
                theirs: peer.version_max,
            });
        }
        Ok(newest)
    }
}

/// What the host tells the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum HostMessage {
    /// The first message; the answer to the guest's.
    Hello(Hello),
    /// Sends a signal to the application.
    Signal {
        /// The signal.
        signal: Signal,
    },
    /// The caller's terminal has another size.
    WindowSize(WindowSize),
    /// The application shall end: the stop signal now, SIGKILL after the grace period.
    Shutdown {
        /// The grace period in milliseconds.
        grace_ms: u64,
    },
    /// The exit record is safe and all output is written: the machine may end.
    ExitAck,
    /// Starts a task of a build ([`crate::config::RootLayout::Steps`]).
    Task(TaskOrder),
    /// A connection that the guest asked for by [`GuestMessage::Connect`] is there; the host has opened its streams.
    Connected {
        /// The task.
        task: u32,
        /// Which of its sockets.
        socket: u32,
        /// Stream to the guest.
        to_guest: u32,
        /// Stream to the host.
        to_host: u32,
    },
    /// The metadata document is another one from now on.
    Metadata {
        /// The document.
        document: Document,
    },
    /// Is the guest init alive? It answers with [`GuestMessage::Pong`].
    Ping,
    /// Opens a session beside the application ([`crate::session`]).
    Session(SessionOrder),
    /// Sends a signal to the process group of a session.
    SessionSignal {
        /// The session.
        session: u32,
        /// The signal.
        signal: Signal,
    },
    /// The terminal of whoever asked for a session has another size.
    SessionWindowSize {
        /// The session.
        session: u32,
        /// The size.
        size: WindowSize,
    },
    /// Whoever asked for a session has gone: its processes are killed, and no more is heard of it.
    SessionClose {
        /// The session.
        session: u32,
    },
    /// The host's time; for a machine whose clock stood still while it was paused.
    Clock {
        /// Nanoseconds since 1970.
        unix_ns: u64,
    },
}

/// A task of a build: a process of the guest init, with streams that the host has opened.
///
/// What it does stands at the beginning of its input; its answer at the beginning of its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOrder {
    /// Its number, never used before.
    pub task: u32,
    /// Stream to the guest: what it reads.
    pub input: u32,
    /// Stream to the host: what its program prints.
    pub stdout: u32,
    /// Stream to the host: its program's standard error.
    pub stderr: u32,
    /// Stream to the host: what came of it. The host stops it to end the task.
    pub result: u32,
    /// Sockets of the host that the task's program can reach, at most [`MAX_TASK_SOCKETS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<TaskSocket>,
}

/// How a socket of the host looks in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSocket {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Most sockets of one task.
pub const MAX_TASK_SOCKETS: usize = 64;

/// Where a task finds one of its sockets in the guest.
#[must_use]
pub fn task_socket_path(task: u32, socket: u32) -> String {
    format!("/run/sockets/{task}-{socket}")
}

/// What the guest tells the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum GuestMessage {
    /// The first message.
    Hello(Hello),
    /// The configuration has been read; the host may remove it.
    ConfigAck,
    /// A line of diagnostics of the guest init (not of the application).
    Log {
        /// How grave it is.
        level: MessageLevel,
        /// One line, without a line feed.
        text: String,
    },
    /// The application runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
        /// Nanoseconds since 1970 by the guest's clock.
        unix_ns: u64,
        /// Nanoseconds from the start of the guest's kernel to the exec.
        uptime_ns: u64,
    },
    /// A probe of the application's health has ended.
    Health(HealthReport),
    /// The application has ended, or could not be started. Nothing follows on any stream.
    Exit(ExitRecord),
    /// The guest of a build takes tasks from now on.
    Ready,
    /// Somebody in the guest has connected to a socket of a task.
    Connect {
        /// The task.
        task: u32,
        /// Which of its sockets.
        socket: u32,
    },
    /// The answer to [`HostMessage::Ping`].
    Pong,
    /// The process of a session runs.
    SessionStarted {
        /// The session.
        session: u32,
        /// Its process id in the guest.
        pid: u32,
    },
    /// A session is over, or its process could not be started. Nothing follows on its streams.
    SessionEnded {
        /// The session.
        session: u32,
        /// How.
        record: ExitRecord,
    },
}

/// How grave a line of diagnostics is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageLevel {
    /// The machine fails by it.
    Error,
    /// Something is not as it was asked for.
    Warning,
    /// For those who look into a problem.
    Debug,
}

/// How the application ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Its status.
    pub status: ExitStatus,
    /// Whether the kernel killed it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// When it ended: nanoseconds since 1970 by the guest's clock.
    pub finished_unix_ns: u64,
}

/// The status of an application that has ended or never began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It returned a code.
    Exited {
        /// The code.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// The signal.
        signal: Signal,
        /// Whether it left a core dump.
        #[serde(default)]
        core_dumped: bool,
    },
    /// It was never started.
    Failed {
        /// Why, for programs.
        reason: FailureReason,
        /// Why, for people: the whole chain of causes in one line.
        message: String,
    },
}

/// Why an application could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureReason {
    /// The program is there and cannot be executed: code 126.
    CannotExecute,
    /// The program, or the interpreter that it names, is not there: code 127.
    NotFound,
    /// USER names a user or group that the image does not have: code 125.
    UnknownUser,
    /// The kernel has no overlayfs, so the disk must be a private copy: code 125.
    OverlayMissing,
    /// A disk is missing or cannot be mounted: code 125.
    Disk,
    /// Anything else before the start: code 125.
    Setup,
}

impl FailureReason {
    /// The exit code that Docker gives for it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            FailureReason::CannotExecute => 126,
            FailureReason::NotFound => 127,
            FailureReason::UnknownUser
            | FailureReason::OverlayMissing
            | FailureReason::Disk
            | FailureReason::Setup => 125,
        }
    }
}

impl ExitRecord {
    /// The exit code that `docker run` would return: the application's own, 128 + the signal, or 125 to 127.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match &self.status {
            ExitStatus::Exited { code } => *code,
            ExitStatus::Signaled { signal, .. } => 128 + signal.number(),
            ExitStatus::Failed { reason, .. } => reason.exit_code(),
        }
    }
}

/// A control message that cannot be sent or understood.
#[derive(Debug)]
pub enum MessageError {
    /// It is not the JSON of a message that this version has.
    Json(serde_json::Error),
    /// It is longer than a frame.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Both sides speak no common version.
    Version {
        /// Our newest version.
        ours: u32,
        /// The peer's newest version.
        theirs: u32,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Json(_) => f.write_str("control message cannot be read"),
            MessageError::TooLong { bytes } => {
                write!(
                    f,
                    "control message of {bytes} bytes is too long (at most {MAX_PAYLOAD_BYTES})"
                )
            }
            MessageError::Version { ours, theirs } => {
                write!(
                    f,
                    "no common version of the guest protocol (we speak up to {ours}, the peer {theirs})"
                )
            }
        }
    }
}

impl std::error::Error for MessageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MessageError::Json(error) => Some(error),
            MessageError::TooLong { .. } | MessageError::Version { .. } => None,
        }
    }
}

impl HostMessage {
    /// The bytes of a control frame.
    ///
    /// # Errors
    /// A message longer than a frame.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self)
    }

    /// Reads the bytes of a control frame.
    ///
    /// # Errors
    /// Bytes that are no message of the host.
    pub fn decode(bytes: &[u8]) -> Result<HostMessage, MessageError> {
        serde_json::from_slice(bytes).map_err(MessageError::Json)
    }
}

impl GuestMessage {
    /// The bytes of a control frame.
    ///
    /// # Errors
    /// A message longer than a frame.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self)
    }

    /// Reads the bytes of a control frame.
    ///
    /// # Errors
    /// Bytes that are no message of a guest.
    pub fn decode(bytes: &[u8]) -> Result<GuestMessage, MessageError> {
        serde_json::from_slice(bytes).map_err(MessageError::Json)
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = serde_json::to_vec(message).map_err(MessageError::Json)?;
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(MessageError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// `text` as one line of at most [`MAX_TEXT_BYTES`]: control characters become spaces, the rest is cut.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_TEXT_BYTES));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if line.len() + c.len_utf8() > MAX_TEXT_BYTES {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests;
