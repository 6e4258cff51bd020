//! Fuzz targets: what has to hold for any input of the parsers. Each takes bytes and panics when something does not.
//!
//! The fuzzer's programs (`fuzz/`, a workspace of its own) call these functions, and so does an ordinary test
//! (`tests/replay.rs`) with the inputs that the fuzzer found worth keeping (`fuzz/corpus/*.tar.gz`).

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a target finds something by panicking"
)]

mod choices;
mod control;
mod dockerfile;
mod expand;
mod frame;
mod graph;
mod ignore;
mod images;
mod sessions;
mod tar;

pub use control::control;
pub use dockerfile::dockerfile;
pub use expand::expand;
pub use frame::frame;
pub use graph::graph;
pub use ignore::ignore;
pub use sessions::sessions;
pub use tar::tar;

/// A target.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("control", control),
    ("dockerfile", dockerfile),
    ("expand", expand),
    ("frame", frame),
    ("graph", graph),
    ("ignore", ignore),
    ("sessions", sessions),
    ("tar", tar),
];
