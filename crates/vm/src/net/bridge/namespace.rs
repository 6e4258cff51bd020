//! Doing things in another network namespace: a thread enters it, works, and is gone.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use firebuild_sys::namespace;
use rustix::fs::{Mode, OFlags};

use super::error::{NetworkError, NetworkErrorKind};

/// Opens the namespace that a path names.
pub(super) fn open(path: &Path) -> Result<OwnedFd, NetworkError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(&path.display().to_string(), error.into()))
}

/// Does something in a namespace, or where the caller is.
pub(super) fn inside<T: Send>(
    namespace: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetworkError> {
    let Some(namespace) = namespace else {
        return Ok(work());
    };
    let entered = std::thread::scope(|scope| {
        let worker = scope.spawn(|| namespace::join(namespace).map(|()| work()));
        worker.join()
    });
    match entered {
        Ok(outcome) => outcome.map_err(|error| failed("of the machine", error)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn failed(which: &str, error: std::io::Error) -> NetworkError {
    NetworkError::caused(
        NetworkErrorKind::Namespace,
        format!("cannot enter the network namespace {which}"),
        error,
    )
}
