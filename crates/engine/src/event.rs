//! What a use case tells while it works.
//!
//! A use case never prints. It calls the sink it was given; the caller shows a bar, writes a log
//! line or drops the event. Sinks must be quick: they run on the thread that does the work.

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A new stage of the work begins: "installing packages".
    Stage(String),
    /// How far the present stage is, in whatever it counts (bytes, packages).
    Progress {
        /// Done so far.
        done: u64,
        /// All there is, when known.
        total: Option<u64>,
    },
    /// A line that a helper program wrote.
    Output(String),
    /// Something the user should know and that did not stop the work.
    Warning(String),
}

/// Where events go.
pub type Events<'a> = &'a mut dyn FnMut(Event);
