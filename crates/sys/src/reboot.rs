//! The end of a machine: `reboot(2)`.

use std::io;

use rustix::system::{RebootCommand, reboot};

/// Restarts the machine at once. Nothing is synced or unmounted: that is the caller's.
///
/// # Errors
/// `EPERM` without the capability. In a pid namespace of its own the caller is killed instead.
pub fn restart() -> io::Result<()> {
    Ok(reboot(RebootCommand::Restart)?)
}

/// Switches the machine off at once, as [`restart`].
///
/// # Errors
/// As [`restart`].
pub fn power_off() -> io::Result<()> {
    Ok(reboot(RebootCommand::PowerOff)?)
}

/// Lets Ctrl+Alt+Delete send `SIGINT` to process 1 instead of restarting the machine.
///
/// # Errors
/// `EPERM` without the capability.
pub fn no_ctrl_alt_del() -> io::Result<()> {
    Ok(reboot(RebootCommand::CadOff)?)
}
