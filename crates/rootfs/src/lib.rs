//! A file system as a value.
//!
//! ```text
//!   directory on disk ──walk──▶ ┌──────┐ ──tar::write, cpio, ext4, erofs, unpack──▶ artifacts
//!   tar blob ──tar::read──▶ Layer│ Tree │
//!                    └──apply──▶ └──────┘ ◀──text──▶ dump
//!                                 a, b ──diff──▶ Layer
//! ```
//!
//! A [`Tree`](tree::Tree) is a complete file system, a [`Layer`](layer::Layer) is a change to one. Both say *where* the
//! bytes of a file are ([`tree::Source`]) and never hold more than small ones. What opens content is a
//! [`Contents`](tree::Contents): the content store, or a walked directory ([`walk::DirContents`]).
//!
//! Invariants: paths are bytes, relative to the root and without `.` or `..` (see [`path`]); everything is ordered by
//! the bytes of the names, so that equal trees give equal output; nothing recurses on the depth of its input; every
//! number from outside is checked and every count has a limit.
//!
//! What this crate does not know: where blobs are stored, what an image or a Dockerfile is, who asks.

pub mod cpio;
pub mod diff;
pub mod dump;
pub mod erofs;
pub mod ext4;
pub mod layer;
pub mod overlay;
pub mod path;
mod sink;
pub mod tar;
pub mod tree;
pub mod unpack;
pub mod walk;
mod xattr_name;

#[cfg(test)]
mod testing;
