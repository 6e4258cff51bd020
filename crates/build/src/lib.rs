//! Lowers a Dockerfile to a graph, solves it with caches and an executor, exports the result.
//!
//! ```text
//!  Dockerfile ──resolve──▶ Resolved ──lower──▶ Graph ──solve──▶ Chain of layers + ImageConfig ──export──▶ ext4, OCI, tar, directory
//!                                                │
//!                    Image · Context · Exec · Copy · Mkdir · Merge
//! ```
//!
//! - [`resolve`] looks names up; [`graph`] is the waist: plain data, no I/O on its left, no Dockerfile on its right.
//! - Results are chains of layers. COPY, WORKDIR and every export work on a [`firebuild_rootfs::tree::Tree`] and the content
//!   store; only RUN needs a materialised file system, and that is the executor's business.
//! - A step's key is made of what it does and of the *content* of what it is given, so a cache hit is always right and an
//!   unchanged rebuild executes nothing.
//!
//! - [`remote`] fetches documents and git repositories into the store, for ADD and for contexts.
//!
//! This crate knows nothing of VMs, of the command line or of HTTP APIs.

mod accounts_of;
mod archive;
pub mod cancel;
pub mod chain;
pub mod content;
pub mod context;
pub mod copy;
pub mod dump;
pub mod event;
pub mod exec;
pub mod export;
pub mod graph;
pub mod history;
pub mod key;
pub mod lower;
pub mod remote;
pub mod remote_cache;
pub mod resolve;
pub mod sandbox;
pub mod solve;
mod stoppable;
pub mod transfer;
mod xz;
