//! `firebuild profile-ls`.

use std::io::ErrorKind;

use super::directory::{ProfileDir, file_name, read};
use super::error::{ProfileError, io};

/// The profiles of a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// Files that are no profiles.
    pub broken: Vec<ProfileError>,
}

/// Lists profiles. A directory that does not exist has none.
///
/// # Errors
/// `Io` when the directory cannot be read.
pub fn ls(place: &ProfileDir) -> Result<Listing, ProfileError> {
    let mut listing = Listing::default();
    let entries = match fs_err::read_dir(&place.dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
        entries => entries.map_err(|error| io("list", &place.dir, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| io("list", &place.dir, error))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Files in the making, and names that no flag could say.
        if !file_name(&name).is_ok_and(|file| file == name) || !entry.path().is_file() {
            continue;
        }
        match read(&entry.path()) {
            Ok(Some(_)) => listing.names.push(name),
            Ok(None) => {}
            Err(error) => listing.broken.push(error),
        }
    }
    listing.names.sort();
    Ok(listing)
}
