//! `firebuild profile-rm`.

use std::io::ErrorKind;

use super::directory::ProfileDir;
use super::error::{ProfileError, io};

/// Removes a profile. What it refers to stays.
///
/// # Errors
/// `Name`, `NotFound`, `Io`.
pub fn rm(place: &ProfileDir, name: &str) -> Result<(), ProfileError> {
    let file = place.file(name)?;
    match fs_err::remove_file(&file) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(place.not_found(name)),
        Err(error) => Err(io("remove the profile", &file, error)),
    }
}
