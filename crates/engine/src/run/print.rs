//! `run --print=spec|plan`: what would be started, without starting anything.

use firebuild_vm::net::host::HostNetwork;

use super::error::{RunError, RunErrorKind};
use super::prepare::prepare;
use super::request::{DiskFor, Request};
use crate::error::Error;
use crate::kernel;
use crate::monitor::dry;
use crate::paths::Paths;

/// Both texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The machine that is wanted, JSON.
    pub spec: String,
    /// The processes, files and descriptors that would be used, JSON.
    pub plan: String,
}

/// Plans a machine. No instance is made; the image's disk is, if it is not there yet.
///
/// # Errors
/// As for a run, up to the launch.
pub fn print(paths: &Paths, request: &Request, disk_for: DiskFor<'_>) -> Result<Printed, RunError> {
    let kernel = kernel::select(
        paths,
        request.kernel_root.as_deref(),
        request.kernel.as_deref(),
    )
    .map_err(|error| Error::caused(RunErrorKind::Kernel, "no kernel for the VM", error))?;
    let prepared = prepare(
        paths,
        request,
        &kernel,
        &HostNetwork::discover(),
        None,
        disk_for,
    )?;
    let (spec, plan) = dry(&prepared.order)?;
    Ok(Printed { spec, plan })
}
