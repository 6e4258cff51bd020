//! Sessions: what is asked of a guest while its application runs.
//!
//! ```text
//!   host                                             guest
//!   opens three streams
//!   Session { session, input, stdout, stderr } ───▶
//!   input: head (u32 length, JSON of the work) ───▶  starts a process for it
//!                                              ◀───  SessionStarted
//!   input: the rest, stdout, stderr            ◀──▶  pipes of that process, or its terminal
//!   SessionSignal, SessionWindowSize (any number) ▶
//!                                              ◀───  SessionEnded (after the ends of stdout and stderr)
//!   SessionClose ─────────────────────────────────▶  whoever asked has gone: the process is killed
//! ```
//!
//! Every session is a process of the guest, so none holds up another one, and a session that nobody reads waits alone.
//! The work stands in the stream because a command line and its environment may be longer than a control message.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{EnvVar, WindowSize};
use crate::frame::StreamId;

/// The feature that a guest names in its hello when it takes sessions.
pub const FEATURE_SESSIONS: &str = "sessions";
/// Sessions of one guest that may be open at once.
pub const MAX_SESSIONS: usize = 64;
/// The longest work, in bytes of JSON. The kernel takes command lines and environments of 2 MiB; text doubles at most.
pub const MAX_WORK_BYTES: usize = 4 << 20;

/// Opens a session: its number and its streams, which the host has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOrder {
    /// Its number, never used before.
    pub session: u32,
    /// Stream to the guest: the work, then what its process reads.
    pub input: u32,
    /// Stream to the host: what the process prints; all that a terminal shows.
    pub stdout: u32,
    /// Stream to the host: its standard error; with a terminal it ends at once.
    pub stderr: u32,
}

impl SessionOrder {
    /// The three streams, in the order of the fields.
    #[must_use]
    pub fn streams(&self) -> [StreamId; 3] {
        [self.input, self.stdout, self.stderr].map(StreamId::from_raw)
    }
}

/// What a session is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "kebab-case")]
pub enum SessionWork {
    /// Runs a program beside the application.
    Exec(ExecWork),
    /// Gives a file or directory as an archive: on stdout a head (u32 length, JSON of a [`CopySource`]), then tar.
    CopyOut {
        /// Where it is in the guest; relative paths begin at `/`.
        path: String,
        /// Whether a link that `path` ends in is followed.
        follow: bool,
    },
    /// Puts the archive that follows into the guest's file system.
    CopyIn {
        /// Where to; relative paths begin at `/`.
        path: String,
        /// What comes, as [`CopyOut`](Self::CopyOut) says it of a guest's file. Without it the archive is any archive,
        /// and `path` a directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<CopySource>,
        /// Whether owners are those of the archive; else everything belongs to root.
        keep_owners: bool,
    },
    /// Tells what the machine uses: a [`Sample`](crate::sample::Sample) a line on stdout.
    Stats {
        /// Milliseconds between two samples; 0 for a single one.
        interval_ms: u64,
    },
    /// Tells which processes there are: a [`ProcessList`](crate::sample::ProcessList) on stdout.
    Processes,
}

/// A program to run. Whatever is not given is as the application has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecWork {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside or in place of the application's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Variables of the application that it does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// The user, as USER of a Dockerfile writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The working directory, absolute; it must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// A terminal of this size; without it, pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<WindowSize>,
    /// Whether it reads the rest of the input; if not, it reads from `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Whether nobody waits for it: its streams are `/dev/null`, the session ends when it has begun.
    #[serde(default)]
    pub detach: bool,
}

/// The file or directory that an archive is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// The name that its entries begin with: the last component of the path as it was given, links not followed. Empty
    /// where the path has none (`/`, `.`).
    #[serde(with = "crate::hex")]
    pub name: Vec<u8>,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether only what is in the directory was asked for (`path/.`).
    pub contents_only: bool,
}

/// Work that cannot be sent or understood.
#[derive(Debug)]
pub enum WorkError {
    /// It is longer than [`MAX_WORK_BYTES`].
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It is not the JSON of a [`SessionWork`] that this version has.
    Json(serde_json::Error),
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkError::TooLong { bytes } => write!(
                f,
                "the command and its environment take {bytes} bytes (at most {MAX_WORK_BYTES})"
            ),
            WorkError::Json(_) => f.write_str("the work of a session cannot be read"),
        }
    }
}

impl std::error::Error for WorkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WorkError::Json(error) => Some(error),
            WorkError::TooLong { .. } => None,
        }
    }
}

/// The head of a stream: the length of a document in four bytes, little-endian, and its JSON.
///
/// # Errors
/// A document that is too long.
pub fn head(document: &impl Serialize) -> Result<Vec<u8>, WorkError> {
    let json = serde_json::to_vec(document).map_err(WorkError::Json)?;
    let bytes = json.len();
    let length = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= MAX_WORK_BYTES);
    let length = length.ok_or(WorkError::TooLong { bytes })?;
    Ok([&length.to_le_bytes()[..], &json].concat())
}

/// Takes the head of a stream as it comes, in pieces of any size.
#[derive(Debug, Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
}

impl HeadReader {
    /// Takes what belongs to the head of these bytes, and says how many those were; with the document when it is whole.
    ///
    /// # Errors
    /// A head that is too long or not the JSON of `T`.
    pub fn take<T: for<'de> Deserialize<'de>>(
        &mut self,
        bytes: &[u8],
    ) -> Result<(usize, Option<T>), WorkError> {
        let mut used = 0;
        loop {
            let wanted = match self.bytes.first_chunk::<4>() {
                None => 4,
                Some(length) => {
                    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
                    if length > MAX_WORK_BYTES {
                        return Err(WorkError::TooLong { bytes: length });
                    }
                    4 + length
                }
            };
            if self.bytes.len() >= 4 && self.bytes.len() == wanted {
                let document = serde_json::from_slice(&self.bytes[4..]).map_err(WorkError::Json)?;
                return Ok((used, Some(document)));
            }
            let count = (wanted - self.bytes.len()).min(bytes.len() - used);
            if count == 0 {
                return Ok((used, None));
            }
            self.bytes.extend_from_slice(&bytes[used..used + count]);
            used += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CopySource, ExecWork, HeadReader, MAX_WORK_BYTES, SessionWork, WorkError, head};
    use crate::config::EnvVar;

    fn exec() -> SessionWork {
        SessionWork::Exec(ExecWork {
            argv: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
            env: vec![EnvVar {
                name: "A".to_owned(),
                value: "b".to_owned(),
            }],
            ..ExecWork::default()
        })
    }

    #[test]
    fn a_head_comes_in_pieces_of_any_size_and_leaves_the_rest() {
        let bytes = [&head(&exec()).unwrap()[..], b"and the rest"].concat();
        for size in 1..bytes.len() {
            let mut reader = HeadReader::default();
            let mut at = 0;
            let work = loop {
                let piece = &bytes[at..bytes.len().min(at + size)];
                let (used, work) = reader.take::<SessionWork>(piece).unwrap();
                at += used;
                if let Some(work) = work {
                    break work;
                }
            };
            assert_eq!(work, exec());
            assert_eq!(&bytes[at..], b"and the rest");
        }
    }

    #[test]
    fn heads_are_bounded_and_checked() {
        let take = |bytes: &[u8]| HeadReader::default().take::<SessionWork>(bytes);
        assert!(matches!(take(&[0xff; 8]), Err(WorkError::TooLong { .. })));
        assert!(matches!(take(&[0, 0, 0, 0]), Err(WorkError::Json(_))));
        assert!(matches!(take(b"\x02\0\0\0{}"), Err(WorkError::Json(_))));
        assert!(matches!(take(b"\x02\0\0\0{"), Ok((5, None))));
        let long = "x".repeat(MAX_WORK_BYTES);
        assert!(matches!(head(&long), Err(WorkError::TooLong { .. })));
    }

    #[test]
    fn the_text_form_is_the_documented_one() {
        let text = |work: &SessionWork| serde_json::to_string(work).unwrap();
        assert_eq!(
            text(&exec()),
            r#"{"work":"exec","argv":["sh","-c","true"],"env":[{"name":"A","value":"b"}],"stdin":false,"detach":false}"#
        );
        let source = CopySource {
            name: b"a\xff".to_vec(),
            is_dir: true,
            contents_only: false,
        };
        let copy = SessionWork::CopyIn {
            path: "/srv".to_owned(),
            source: Some(source),
            keep_owners: true,
        };
        assert_eq!(
            text(&copy),
            r#"{"work":"copy-in","path":"/srv","source":{"name":"61ff","is_dir":true,"contents_only":false},"keep_owners":true}"#
        );
        assert_eq!(text(&SessionWork::Processes), r#"{"work":"processes"}"#);
        // A value of a variable is shown to nobody.
        assert!(!format!("{:?}", exec()).contains("\"b\""));
    }
}
