//! Errors of `run`: everything that keeps the application from running, up to its own exit.

use crate::error::Error;

/// What kept an image from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunErrorKind {
    /// The image cannot be had or has no disk.
    Image,
    /// Nothing says what to execute.
    Command,
    /// A flag's value cannot be used.
    Flag,
    /// There is no kernel that fits.
    Kernel,
    /// The name is taken, or the instance cannot be recorded.
    Instance,
    /// The machine is not possible here.
    Machine,
    /// A published port is in use.
    Port,
    /// The disk of the host is full.
    NoSpace,
    /// The VMM, or what belongs to it, could not be started.
    Launch,
    /// The monitor ended without a word.
    Monitor,
    /// A signal of this number asked for a stop before the machine ran.
    Cancelled(u8),
    /// A file cannot be read or written.
    Io,
}

/// An image that could not be run. The exit code is 125, but for `Cancelled`, where it is 128 + the signal.
pub type RunError = Error<RunErrorKind>;
