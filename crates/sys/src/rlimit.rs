//! Resource limits: `getrlimit(2)`.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard one and gives the new soft limit; `None` is no limit.
///
/// # Errors
/// Those of `setrlimit(2)`; the limit is then as before.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(limit.maximum)
}

/// Sets the soft limit of open descriptors, and never above the hard one.
///
/// # Errors
/// Those of `setrlimit(2)`.
pub fn set_open_files(soft: u64) -> io::Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let soft = hard.map_or(soft, |hard| soft.min(hard));
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(soft),
            maximum: hard,
        },
    )?)
}

/// Forbids core files.
///
/// # Errors
/// Those of `setrlimit(2)`.
pub fn forbid_core_files() -> io::Result<()> {
    Ok(setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?)
}
