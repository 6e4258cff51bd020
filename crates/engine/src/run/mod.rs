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

pub mod command;
pub mod env;
pub mod publish;
