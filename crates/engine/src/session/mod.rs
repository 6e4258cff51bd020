//! Commands that work with a running VM: `exec`, `attach`, `cp`, `stats`, `top`, `pause`.
//!
//! ```text
//!   exec, attach ─┐                     ┌─ monitor ── guest
//!   cp, stats, top ┴─ connect ─▶ Agent ═╧═ one connection for each command
//!                        └─ carry: the loop that moves its streams
//! ```
//!
//! A connection to the control socket of a VM speaks the guest protocol (`crate::monitor::sessions`), so the client is an
//! `Agent`. When it goes, however it goes, the connection ends, and what it asked for in the guest is killed.

mod attach;
mod carry;
mod connect;
mod cp;
mod detach_keys;
mod exec;
mod pause;
mod quiet;
mod stats;
mod top;

pub(crate) use attach::carry;
pub use attach::{AttachRequest, attach};
pub(crate) use connect::connect;
pub use cp::{CopyRequest, Direction, LocalEnd, cp};
pub use detach_keys::{DetachKeys, DetachKeysError};
pub use exec::{ExecRequest, exec};
pub use firebuild_guest_proto::sample::{ProcessInfo, ProcessList, Sample};
pub use firebuild_vm::hardware::BalloonStatistics;
pub use pause::{pause, unpause};
pub use stats::{Stats, stats};
pub use top::top;

/// How a command that carries streams ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// The program ended with this code, as Docker gives it.
    Exited(u8),
    /// The program could not be started: the code (126 or 127) and why.
    Failed(u8, String),
    /// The detach keys were pressed: it goes on.
    Detached,
    /// This signal ended the command: the last of many, or one that is not passed on.
    GaveUp(u8),
}
