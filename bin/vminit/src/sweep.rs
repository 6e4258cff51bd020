//! Removing what the initrd brought: its files are memory, and the configuration holds secrets.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use firebuild_guest_proto::CONFIG_PATH;
use firebuild_guest_proto::config::{MAX_CONFIG_BYTES, RunConfig};
use fs_err::{File, OpenOptions};
use std::io::Read;

use crate::error::InitError;
use crate::journal::Journal;
use crate::mounts::device_of;

/// Reads the configuration, overwrites it where it lay and removes it.
pub(crate) fn take_config() -> Result<RunConfig, InitError> {
    let step = "cannot read the run configuration";
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONFIG_PATH)
        .map_err(|error| InitError::setup(step, error))?;
    let json = read_and_wipe(&mut file);
    let removed = fs_err::remove_file(CONFIG_PATH);
    let mut json = json.map_err(|error| InitError::setup(step, error))?;
    removed.map_err(|error| InitError::setup("cannot remove the run configuration", error))?;
    let config = RunConfig::from_json(&json);
    json.fill(0);
    // Keeps the fill: without a use the buffer's last write could be left out.
    std::hint::black_box(&json);
    config.map_err(|error| InitError::setup(step, error))
}

fn read_and_wipe(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut json = Vec::new();
    let most = u64::try_from(MAX_CONFIG_BYTES).unwrap_or(u64::MAX);
    file.take(most + 1).read_to_end(&mut json)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&vec![0; json.len()])?;
    Ok(json)
}

/// Removes a directory's content on this file system, and the directory itself if it can be; mounts are left alone.
///
/// What cannot be removed stays: it costs memory, nothing else.
pub(crate) fn remove(top: &Path, journal: &mut Journal) {
    let Ok(device) = device_of(top) else { return };
    let mut found: Vec<(PathBuf, bool)> = Vec::new();
    let mut directories = vec![top.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs_err::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if device_of(&path).ok() != Some(device) {
                continue;
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory {
                directories.push(path.clone());
            }
            found.push((path, is_directory));
        }
    }
    let mut left = 0;
    // Directories come before what they hold, so the list is walked backwards.
    for (path, is_directory) in found.into_iter().rev() {
        let removed = if is_directory {
            fs_err::remove_dir(&path)
        } else {
            fs_err::remove_file(&path)
        };
        left += u32::from(removed.is_err());
    }
    if top != Path::new("/") {
        let _ = fs_err::remove_dir(top);
    }
    journal.debug(&format!("the initrd's files are removed ({left} left)"));
}
