//! `firebuild run`: from an image and flags to a machine that runs it.
//!
//! ```text
//!  Request + image disk + kernel
//!      │ env, command, publish: Docker's rules                            pure
//!      ▼
//!  RunConfig, VmSpec, Record ──create──▶ instance, locked
//!      │
//!      ├─ foreground: the monitor's loop in this process
//!      └─ detached:   the monitor's loop in a process of its own
//! ```

pub mod access;
pub mod command;
mod detached;
pub mod env;
mod error;
mod foreground;
pub mod health;
pub mod init;
pub mod metadata;
pub mod names;
pub(crate) mod network;
mod prepare;
mod print;
pub mod publish;
mod request;

pub use detached::detached;
pub(crate) use detached::{begun, begun_after};
pub use error::{RunError, RunErrorKind};
pub use firebuild_vm::spec::Accel;
pub use foreground::foreground;
pub(crate) use prepare::hold;
pub use print::{Printed, print};
pub use request::{Detached, DiskFor, ImageDisk, NetworkMode, Outcome, Request};
