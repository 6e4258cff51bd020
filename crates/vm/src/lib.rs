//! Checks a VM spec, plans it for a VMM, launches and controls the machine, talks to its guest.
//!
//! ```text
//!             Capabilities          RunDir
//!                  │                   │
//! VmSpec ───▶ VmSpec::check ─▶ CheckedSpec ─▶ Backend::plan ─▶ LaunchPlan ─▶ launch ─▶ Machine
//!  what                        possible                        exactly how             pidfd, console, channel, control
//!                                                                                         │ take_channel
//!                                                                                         ▼
//!                                                                                       Agent: streams, signals, exit
//! ```
//!
//! Invariants: everything up to the plan is pure and has a text form. A VMM never runs as uid 0, inherits only the
//! descriptors of its plan, and dies with the thread that launched it. What a guest sends is hostile until it has been
//! decoded within limits. Nothing here blocks but what says so; the owner has one poll loop.
//!
//! This crate knows nothing of images, layers, Dockerfiles or the store.

pub mod accel;
pub mod agent;
pub mod backend;
pub mod capability;
pub mod check;
pub mod cmdline;
pub mod console;
pub mod hardware;
pub mod launch;
pub mod machine;
pub mod net;
pub mod places;
pub mod plan;
pub mod remainder;
pub mod run_dir;
pub mod spec;
mod tail;
mod text;
pub mod uid;

pub use agent::{Agent, AgentError, AgentEvent, GuestSession, TaskFiles};
pub use backend::{Backend, Control};
pub use capability::Capabilities;
pub use check::CheckedSpec;
pub use launch::launch;
pub use machine::{Machine, MachineEnd, MachineState};
pub use plan::LaunchPlan;
pub use run_dir::RunDir;
pub use spec::VmSpec;
