//! COPY and ADD on trees: which files are meant, and what they change.
//!
//! ```text
//!  patterns + source trees ──select──▶ [Selected] ──digest──▶ part of the cache key
//!                                          │
//!  destination tree + options ─────────────┴──apply──▶ Layer
//! ```
//!
//! Both halves are pure: no directory is walked and nothing is mounted. The rules are those of BuildKit's file backend
//! (`solver/llbsolver/file/backend.go`, `fsutil/copy`), corner by corner; the tests name them.

mod apply;
mod chmod;
mod digest;
mod error;
mod select;

pub use apply::{Options, Unpack, apply};
pub use chmod::{Chmod, ChmodError};
pub use digest::digest;
pub use error::{CopyError, CopyErrorKind};
pub use select::{Selected, Selection, select};

#[cfg(test)]
mod tests;
