//! `firebuild top`: the processes of a VM, by what its guest says.

use std::io::Read;
use std::time::Duration;

use firebuild_guest_proto::SessionWork;
use firebuild_guest_proto::sample::ProcessList;

use super::connect::running;
use super::quiet::Quiet;
use crate::error::Error;
use crate::instance::{InstanceError, InstanceErrorKind};
use crate::paths::Paths;

/// The longest list: 4,096 processes with command lines of 1 KiB, escaped.
const LONGEST: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// The processes of a VM.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when the VM refuses or its guest gives no list; `Io`.
pub fn top(paths: &Paths, wanted: &str) -> Result<ProcessList, InstanceError> {
    let instance = running(paths, wanted)?;
    let mut quiet = Quiet::begin(&instance, &SessionWork::Processes, Some(PATIENCE))?;
    let mut text = Vec::new();
    let read = (&mut quiet).take(LONGEST).read_to_end(&mut text);
    let failed = |cause: crate::error::Cause| {
        Error::caused(
            InstanceErrorKind::Control,
            format!("the guest of the VM {wanted} gives no list of processes"),
            cause,
        )
    };
    read.map_err(|error| failed(error.into()))?;
    serde_json::from_slice(&text).map_err(|error| match quiet.problem() {
        Some(problem) => failed(problem.into()),
        None => failed(error.into()),
    })
}
