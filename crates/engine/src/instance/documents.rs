//! The documents in the directory of an instance: their names, and how they are read and written.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{InstanceError, InstanceErrorKind, io};
use crate::error::{Cause, Error};

/// Records are a few kilobytes; labels of images may make them larger.
const LARGEST_RECORD: u64 = 16 << 20;

/// Names of the documents in the directory of an instance.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) record: &'static str,
    pub(crate) order: &'static str,
    pub(crate) spec: &'static str,
    pub(crate) plan: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) started: &'static str,
    pub(crate) health: &'static str,
    pub(crate) restarts: &'static str,
    pub(crate) metadata: &'static str,
    pub(crate) paused: &'static str,
    pub(crate) exit: &'static str,
    pub(crate) output: &'static str,
    pub(crate) console: &'static str,
    pub(crate) scratch: &'static str,
    pub(crate) copy: &'static str,
}

/// See the module's table.
pub(crate) const RECORDS: Records = Records {
    record: "record.json",
    order: "order.json",
    spec: "spec.json",
    plan: "plan.json",
    machine: "machine.json",
    started: "started.json",
    health: "health.json",
    restarts: "restarts.json",
    metadata: "mmds.json",
    paused: "paused.json",
    exit: "exit.json",
    output: "output.log",
    console: "console.log",
    scratch: "scratch.raw",
    copy: "root.raw",
};

/// Writes a document 0600, at once or not at all, a power cut included.
pub(super) fn write_json<T: Serialize>(
    dir: &Path,
    name: &str,
    value: &T,
) -> Result<(), InstanceError> {
    put_json(dir, name, value, std::fs::File::sync_all)
}

/// The same for a document that may be damaged after a power cut: whoever dies, it is whole.
pub(super) fn note_json<T: Serialize>(
    dir: &Path,
    name: &str,
    value: &T,
) -> Result<(), InstanceError> {
    put_json(dir, name, value, |_| Ok(()))
}

fn put_json<T: Serialize>(
    dir: &Path,
    name: &str,
    value: &T,
    settle: impl FnOnce(&std::fs::File) -> std::io::Result<()>,
) -> Result<(), InstanceError> {
    let path = dir.join(name);
    let failed = |error: Cause| io("write", &path, error);
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let aside = dir.join(format!(".{name}.new"));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(|error| failed(error.into()))?;
    file.write_all(&text)
        .and_then(|()| settle(&file))
        .map_err(|error| failed(error.into()))?;
    fs_err::rename(&aside, &path).map_err(|error| failed(error.into()))
}

/// Reads a document; `None` when it is not there.
pub(super) fn read_json<T: DeserializeOwned>(
    dir: &Path,
    name: &str,
) -> Result<Option<T>, InstanceError> {
    let path = dir.join(name);
    let file = match fs_err::File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| io("read", &path, error))?,
    };
    let mut text = Vec::new();
    file.take(LARGEST_RECORD)
        .read_to_end(&mut text)
        .map_err(|error| io("read", &path, error))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        Error::caused(
            InstanceErrorKind::Corrupt,
            format!("{} is damaged", path.display()),
            error,
        )
    })
}
