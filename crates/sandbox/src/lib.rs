//! The inside of a RUN step: its root, its mounts, its user, its confinement.
//!
//! ```text
//!  who starts a step                              this crate
//!  ─────────────────                              ──────────
//!  StepJob, UnpackJob, …  ──wire (a socket)──▶    child: job process ▸ guardian ▸ step        job, wire, codec
//!                                                 overlay, /proc, /dev, mounts, ids, filter, exec
//!  Status, what it changed ◀─────────────────     upper directory
//! ```
//!
//! What the guest of a build VM is asked for, and the one process that does it, is [`task`].
//!
//! Two start steps: the sandbox of `build`, which executes its own program again as [`child_main`], and the guest init of
//! a build VM, whose tasks call [`perform`]. Both run the same code, so a step sees the same surroundings and leaves the same
//! files in either.

mod child;
pub mod codec;
pub mod job;
pub mod skipped;
pub mod task;
pub mod wire;

pub use child::{SUBCOMMAND, Surroundings, child_main, perform, remove_tree};
