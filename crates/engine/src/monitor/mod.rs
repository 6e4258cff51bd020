//! The owner of a running instance: launches its machine, carries its streams, answers other commands,
//! and cleans up however it ends.
//!
//! ```text
//! run (foreground) ─────────────────────────┐
//!                                           ├─▶ own ─▶ launch ─▶ event_loop ─▶ conclude
//! run -d ─▶ re-executed "monitor" helper ───┘
//! ```
//!
//! An owner is one process with one loop. It holds the lock of the instance, so everybody sees whether it
//! lives; its machine's processes die with it, and what a kill -9 of it leaves (a scratch disk, a run dir)
//! is found by `rm`, `purge` and the next start (`sweep`).
//!
//! The thread that calls [`run`](crate::run) launches the VMM, and the VMM dies with that thread: call it
//! from the main thread, before other threads exist, because signals are blocked for those that follow.

mod conclude;
pub mod control;
mod detached;
mod disk;
mod event_loop;
mod front;
pub(crate) mod initrd;
pub(crate) mod launch;
mod network;
pub(crate) mod order;
mod output;
mod pages;
mod report;
mod restart;
pub mod sessions;
mod terminal;
mod vmm;

pub use detached::{HELPER, helper_main};
pub use front::{Notice, Notices, Stdio};

pub(crate) use conclude::own;
pub(crate) use detached::{abandon, spawn};
pub(crate) use disk::remove as remove_disks;
pub(crate) use event_loop::WINCH;
pub(crate) use front::{Front, SignalMeaning};
pub(crate) use launch::{dry, warm_up};
pub(crate) use output::Output;
pub(crate) use report::{Causes, News, listen};
pub(crate) use terminal::{RawMode, size as terminal_size};
