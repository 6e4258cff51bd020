//! `firebuild kill`.

use crate::error::Error;
use crate::instance::{InstanceError, InstanceErrorKind, Instances};
use crate::monitor::control::Request;
use crate::paths::Paths;
use crate::stop::tell;

/// Ends an instance at once and comes back when it has ended; or, with a signal, sends that to its
/// application and comes back.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning` when it has ended already; `Control`, `Io`.
pub fn kill(paths: &Paths, wanted: &str, signal: Option<u8>) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    if !tell(&instance, &Request::Kill { signal })? {
        return Err(Error::new(
            InstanceErrorKind::NotRunning,
            format!("the VM {wanted} does not run"),
        ));
    }
    match signal {
        None => instance.wait_for_owner(),
        Some(_) => Ok(()),
    }
}
