//! `firebuild logs`.

use std::path::PathBuf;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances, RECORDS, io};
use crate::log_file::{LogReader, LogRecord, tail};
use crate::paths::Paths;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Name, id, or a unique beginning of the id.
    pub wanted: String,
    /// Go on until the instance has ended.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<usize>,
}

/// Gives every record to `show`, the oldest first, until it says `false`.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Io`.
pub fn logs(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
    show: &mut dyn FnMut(&LogRecord) -> bool,
) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(&request.wanted)?;
    let path = instance.path(RECORDS.output);
    let failed = |error: std::io::Error| io("read", &path, error);
    let mut reader = LogReader::open(&path).map_err(failed)?;
    if let Some(count) = request.tail {
        for record in tail(&mut reader, count).map_err(failed)? {
            if !show(&record) {
                return Ok(());
            }
        }
    }
    loop {
        // Asked before reading: what an instance wrote before its end is read after it.
        let over = !request.follow || cancel.is_raised() || !lives(&instance)?;
        while let Some(record) = reader.next_record().map_err(failed)? {
            if !show(&record) {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// The file that records the guest's console.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Io`; `NotFound` too when the guest has written nothing yet.
pub fn console(paths: &Paths, wanted: &str) -> Result<PathBuf, InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    let path = instance.path(RECORDS.console);
    if path.exists() {
        return Ok(path);
    }
    Err(Error::new(
        InstanceErrorKind::NotFound,
        format!("the console of the VM {wanted} has shown nothing"),
    ))
}

/// One that is removed at its end is over too.
fn lives(instance: &Instance) -> Result<bool, InstanceError> {
    match instance.state() {
        Ok(state) => Ok(state.is_alive()),
        Err(error) if error.kind() == InstanceErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
