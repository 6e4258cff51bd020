//! `firebuild cp`: files in and out of a VM.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use firebuild_copy::{CopyError, Limits, Source, Target, agreed};
use firebuild_guest_proto::SessionWork;
use firebuild_guest_proto::session::CopySource;
use rustix::pipe::{PipeFlags, pipe_with};

use super::connect::running;
use super::quiet::Quiet;
use crate::error::{Cause, Error};
use crate::instance::{Instance, InstanceError, InstanceErrorKind};
use crate::paths::Paths;

/// How long a guest may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest description of a guest's file.
const LONGEST_HEAD: usize = 64 << 10;
/// Most entries of an archive from a guest.
const MOST_ENTRIES: usize = 10_000_000;

/// The end of a copy that is not in the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalEnd {
    /// A path of this host.
    Path(String),
    /// An archive on standard input or output.
    Archive,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From this host.
    ToVm,
    /// To this host.
    FromVm,
}

/// What to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// Name, id or a unique beginning of the id.
    pub vm: String,
    /// The path in the VM.
    pub path: String,
    /// The other end.
    pub local: LocalEnd,
    /// Which way.
    pub direction: Direction,
    /// Keep owners and what belongs to them; on this host only root can.
    pub keep_owners: bool,
    /// Copy what a link leads to, where the path of the source ends in one.
    pub follow: bool,
}

/// Copies. Gives names of what could not be made as it was, at most a few.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when the VM refuses or its guest fails; `Io` for what fails here.
pub fn cp(paths: &Paths, request: &CopyRequest) -> Result<Vec<String>, InstanceError> {
    let instance = running(paths, &request.vm)?;
    match request.direction {
        Direction::ToVm => to_vm(&instance, request).map(|()| Vec::new()),
        Direction::FromVm => from_vm(&instance, request),
    }
}

fn to_vm(instance: &Instance, request: &CopyRequest) -> Result<(), InstanceError> {
    let source = match &request.local {
        LocalEnd::Archive => None,
        LocalEnd::Path(path) => Some(Source::find(path, request.follow).map_err(here)?),
    };
    let work = SessionWork::CopyIn {
        path: request.path.clone(),
        source: source.as_ref().map(|source| source.what().clone()),
        keep_owners: request.keep_owners,
    };
    let lost = |error: io::Error| Error::caused(InstanceErrorKind::Io, "cannot copy", error);
    let Some(source) = source else {
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(lost)?;
        let mut quiet = Quiet::with_input(instance, &work, Some(stdin), Some(PATIENCE))?;
        return outcome(instance, quiet.problem());
    };
    let (input, end) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| lost(error.into()))?;
    let mut quiet = Quiet::with_input(instance, &work, Some(input), Some(PATIENCE))?;
    let packed = pack(source, end);
    let problem = quiet.problem();
    match packed {
        // The guest went first, and knows why.
        Err(error) if problem.is_none() || !is_broken_pipe(&error) => Err(here(error)),
        _ => outcome(instance, problem),
    }
}

fn pack(source: Source, to: OwnedFd) -> Result<(), CopyError> {
    let mut out = BufWriter::with_capacity(256 << 10, File::from(to));
    source.pack(&mut out)
}

fn is_broken_pipe(error: &CopyError) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn from_vm(instance: &Instance, request: &CopyRequest) -> Result<Vec<String>, InstanceError> {
    let work = SessionWork::CopyOut {
        path: request.path.clone(),
        follow: request.follow,
    };
    let mut quiet = Quiet::begin(instance, &work, Some(PATIENCE))?;
    let claimed = match head(&mut quiet) {
        Ok(claimed) => claimed,
        Err(error) => {
            let problem = quiet.problem();
            return Err(guest(instance, problem.map_or(error.into(), Cause::from)));
        }
    };
    let mut skipped = Vec::new();
    match &request.local {
        LocalEnd::Archive => {
            let mut stdout = io::stdout().lock();
            let copied = io::copy(&mut quiet, &mut stdout).and_then(|_| stdout.flush());
            match copied {
                // Whoever read it has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(skipped),
                copied => copied.map_err(|error| {
                    Error::caused(InstanceErrorKind::Io, "cannot write the archive", error)
                })?,
            };
        }
        LocalEnd::Path(path) => {
            let source = agreed(&request.path, &claimed).map_err(here)?;
            let target = Target::find(path, Some(&source)).map_err(here)?;
            let unpacked = target.unpack(&mut quiet, request.keep_owners, limits(instance));
            match unpacked {
                Ok(report) => {
                    let names = report.entries.iter().take(10);
                    skipped.extend(
                        names.map(|entry| String::from_utf8_lossy(&entry.path).into_owned()),
                    );
                }
                Err(error) => {
                    // A guest that failed left an archive that is cut off; what it said is the better reason.
                    return Err(match quiet.problem() {
                        Some(problem) if is_cut(&error) => guest(instance, problem.into()),
                        _ => here(error),
                    });
                }
            }
            // What follows the end of an archive is padding, within a bound.
            let _ = io::copy(&mut (&mut quiet).take(1 << 20), &mut io::sink());
        }
    }
    outcome(instance, quiet.problem())?;
    Ok(skipped)
}

fn is_cut(error: &CopyError) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::UnexpectedEof) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// What the guest says of its file.
fn head(quiet: &mut Quiet) -> io::Result<CopySource> {
    let mut length = [0; 4];
    quiet.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST_HEAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its answer is too long",
        ));
    }
    let mut json = vec![0; length];
    quiet.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// No VM can hold more than its disks and its memory do.
fn limits(instance: &Instance) -> Limits {
    let record = instance.record();
    let image = fs_err::metadata(Path::new(&record.image_disk)).map_or(0, |disk| disk.len());
    Limits {
        bytes: record
            .disk_bytes
            .saturating_add(image)
            .saturating_add(u64::from(record.memory_mib) << 20),
        entries: MOST_ENTRIES,
    }
}

fn here(error: CopyError) -> InstanceError {
    Error::caused(InstanceErrorKind::Io, "the copy failed", error)
}

fn guest(instance: &Instance, cause: Cause) -> InstanceError {
    Error::caused(
        InstanceErrorKind::Control,
        format!("the copy failed in the VM {}", instance.record().name),
        cause,
    )
}

fn outcome(instance: &Instance, problem: Option<String>) -> Result<(), InstanceError> {
    match problem {
        None => Ok(()),
        Some(problem) => Err(guest(instance, problem.into())),
    }
}
