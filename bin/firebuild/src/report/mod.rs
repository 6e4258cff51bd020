//! Everything that reaches a person: error chains, source snippets, hints, progress, tables.
//!
//! Nothing else in this program prints, and no library does.

pub(crate) mod diagnostic;
pub(crate) mod finding;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod timeline;
