//! Checks a VM spec, plans it for a VMM, launches and controls the machine, talks to its guest.
//!
//! ```text
//! VmSpec ──check(capabilities)──▶ CheckedSpec ──Backend::plan──▶ LaunchPlan ──launch──▶ Machine
//!   what                           possible                       exactly how            pidfd, console, channel, control
//! ```

pub mod plan;
pub mod spec;

pub use plan::LaunchPlan;
pub use spec::VmSpec;
