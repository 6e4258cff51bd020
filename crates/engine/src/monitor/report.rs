//! What the monitor of a detached instance tells the `run` that started it, until the application runs:
//! lines of JSON through a pipe.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::run::{RunError, RunErrorKind};

/// Longest line: a chain of causes with the last words of a VMM.
const LONGEST: u64 = 256 << 10;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "kebab-case")]
pub(crate) enum News {
    /// Something to tell once.
    Notice { text: String },
    /// The machine is launched: its kernel and its disks are open.
    Launched,
    /// The application runs; the last line.
    Started,
    /// The application could not be executed; the last line.
    Exited { code: u8, error: String },
    /// The machine could not be started; the last line.
    Failed {
        kind: Kind,
        message: String,
        causes: Vec<String>,
    },
}

/// [`RunErrorKind`] as it crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Machine,
    Port,
    NoSpace,
    Launch,
    Io,
    Other,
}

/// The monitor's end.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

impl Reporter {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self(pipe)
    }

    /// Tells one piece. That nobody listens is no error: the monitor sees it in its poll.
    pub(crate) fn tell(&self, news: &News) {
        if let (Ok(mut line), Ok(pipe)) = (serde_json::to_vec(news), self.0.try_clone()) {
            line.push(b'\n');
            let _ = std::fs::File::from(pipe).write_all(&line);
        }
    }

    /// Tells an error with its causes.
    pub(crate) fn fail(&self, error: &RunError) {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        self.tell(&News::Failed {
            kind: Kind::of(error.kind()),
            message: error.to_string(),
            causes,
        });
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads until the last line, handing the others on. `None` when the monitor ended without it.
pub(crate) fn listen(pipe: OwnedFd, earlier: &mut dyn FnMut(News)) -> Option<News> {
    let mut pipe = BufReader::new(std::fs::File::from(pipe));
    loop {
        let mut line = Vec::new();
        let count = (&mut pipe)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .ok()?;
        if count == 0 {
            return None;
        }
        match serde_json::from_slice(&line).ok()? {
            news @ (News::Notice { .. } | News::Launched) => earlier(news),
            last => return Some(last),
        }
    }
}

impl Kind {
    fn of(kind: RunErrorKind) -> Self {
        match kind {
            RunErrorKind::Machine => Kind::Machine,
            RunErrorKind::Port => Kind::Port,
            RunErrorKind::NoSpace => Kind::NoSpace,
            RunErrorKind::Launch => Kind::Launch,
            RunErrorKind::Io => Kind::Io,
            _ => Kind::Other,
        }
    }

    pub(crate) fn into_error_kind(self) -> RunErrorKind {
        match self {
            Kind::Machine => RunErrorKind::Machine,
            Kind::Port => RunErrorKind::Port,
            Kind::NoSpace => RunErrorKind::NoSpace,
            Kind::Launch => RunErrorKind::Launch,
            Kind::Io => RunErrorKind::Io,
            Kind::Other => RunErrorKind::Monitor,
        }
    }
}

/// Causes that crossed as text, as a chain again.
#[derive(Debug)]
pub(crate) struct Causes {
    text: String,
    next: Option<Box<Causes>>,
}

impl Causes {
    pub(crate) fn chain(causes: Vec<String>) -> Option<Self> {
        causes.into_iter().rev().fold(None, |next, text| {
            Some(Self {
                text,
                next: next.map(Box::new),
            })
        })
    }
}

impl std::fmt::Display for Causes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Causes {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next
            .as_deref()
            .map(|next| next as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::{Causes, News, Reporter, listen};
    use crate::error::Error;
    use crate::run::RunErrorKind;

    #[test]
    fn an_error_crosses_with_its_causes() {
        let (reader, writer) = std::io::pipe().unwrap();
        let reporter = Reporter::new(writer.into());
        reporter.tell(&News::Notice {
            text: "slow".to_owned(),
        });
        reporter.tell(&News::Launched);
        let inner = Error::caused(0_u8, "inner", std::io::Error::other("root"));
        reporter.fail(&Error::caused(RunErrorKind::Port, "outer", inner));
        drop(reporter);
        let mut earlier = Vec::new();
        let news = listen(reader.into(), &mut |news| earlier.push(news)).unwrap();
        let slow = News::Notice {
            text: "slow".to_owned(),
        };
        assert_eq!(earlier, [slow, News::Launched]);
        let News::Failed {
            kind,
            message,
            causes,
        } = news
        else {
            panic!("{news:?}");
        };
        assert_eq!(kind.into_error_kind(), RunErrorKind::Port);
        assert_eq!(message, "outer");
        let chain = Causes::chain(causes).unwrap();
        assert_eq!(chain.to_string(), "inner");
        assert_eq!(chain.source().unwrap().to_string(), "root");
    }

    #[test]
    fn silence_is_nothing() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        assert_eq!(listen(reader.into(), &mut |_| {}), None);
    }
}
