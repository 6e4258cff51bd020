//! What a build tells while it works.
//!
//! Events carry facts, not text for a screen: the command line draws them as a terminal view, as plain lines or as JSON.
//! A [`Sink`] may be called from several threads at once and must not block for long.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::graph::VertexId;

/// Where events go.
pub type Sink<'a> = &'a (dyn Fn(Event) + Sync);

/// Which of its two outputs a step wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A finding of a check, with its place and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warned {
    /// BuildKit's name of the check.
    pub rule: &'static str,
    /// Why the check exists.
    pub description: &'static str,
    /// A page about it.
    pub url: Option<String>,
    /// What was found.
    pub message: String,
    /// Name of the Dockerfile.
    pub file: String,
    /// Its text.
    pub text: Arc<str>,
    /// Bytes of the text that are meant.
    pub span: Range<usize>,
    /// Line of the first byte, counted from 1.
    pub line: usize,
    /// What to do about it, in one line.
    pub advice: String,
    /// Bytes to replace, and with what, where the new text is known.
    pub edit: Option<(Range<usize>, String)>,
}

/// One fact about a running build.
#[derive(Clone, Debug)]
pub enum Event {
    /// A vertex will be computed or looked up; sent once for each needed vertex, in graph order, before any work.
    Planned {
        /// Which.
        id: VertexId,
        /// What a person reads.
        name: String,
        /// The stage it belongs to; empty when it has no name, or for what is outside of stages.
        stage: String,
        /// What it is computed from.
        inputs: Vec<VertexId>,
    },
    /// Work on a vertex began.
    Started {
        /// Which.
        id: VertexId,
    },
    /// A step wrote something.
    Output {
        /// Which.
        id: VertexId,
        /// Standard output or standard error.
        stream: Stream,
        /// Bytes as they came; lines may be cut anywhere.
        data: Vec<u8>,
    },
    /// A vertex has its result.
    Finished {
        /// Which.
        id: VertexId,
        /// Whether the result was there already, so that nothing was executed.
        cached: bool,
        /// How long it took.
        elapsed: Duration,
    },
    /// A vertex failed.
    Failed {
        /// Which.
        id: VertexId,
        /// Why, in one line.
        message: String,
    },
    /// Something that takes a while outside the graph: a pull, an export.
    Progress {
        /// What is worked on: a layer's digest, `exporting ext4`.
        item: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
        /// Whether it is over.
        done: bool,
    },
    /// A check found something in the Dockerfile.
    Warning(Box<Warned>),
    /// Something that a person should know once.
    Notice {
        /// The text, one line.
        message: String,
    },
}
