//! `firebuild profile-create`.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use super::directory::{ProfileDir, file_name, read};
use super::error::{ProfileError, ProfileErrorKind, io};
use super::record::Profile;
use crate::error::Error;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// There was none of this name.
    New,
    /// It took the place of another one.
    Updated,
    /// It was there already, with the same values.
    Unchanged,
}

/// Keeps a profile under a name: whole or not at all. One of the same name is replaced as a whole; a file
/// that is no profile only with `overwrite`.
///
/// # Errors
/// `Name`, `Value` with the flag that is wrong, `Corrupt`, `Io`.
pub fn create(
    place: &ProfileDir,
    name: &str,
    mut profile: Profile,
    overwrite: bool,
) -> Result<Created, ProfileError> {
    let file = place.dir.join(file_name(name)?);
    profile.absolute();
    profile.check()?;
    let before = match read(&file) {
        Err(error) if error.kind() == ProfileErrorKind::Corrupt => {
            if overwrite {
                Some(None)
            } else {
                return Err(Error::caused(
                    ProfileErrorKind::Corrupt,
                    "a file of that name is in the way; --overwrite replaces it",
                    error,
                ));
            }
        }
        found => found?.map(Some),
    };
    if before == Some(Some(profile.clone())) {
        return Ok(Created::Unchanged);
    }
    write(place, &file, &profile)?;
    Ok(if before.is_some() {
        Created::Updated
    } else {
        Created::New
    })
}

fn write(
    place: &ProfileDir,
    file: &std::path::Path,
    profile: &Profile,
) -> Result<(), ProfileError> {
    let failed = |error: std::io::Error| io("write the profile", file, error);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&place.dir)
        .map_err(|error| io("make the directory", &place.dir, error))?;
    let text = serde_json::to_vec(profile).map_err(|error| failed(error.into()))?;
    let mut aside = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(&place.dir)
        .map_err(failed)?;
    aside
        .write_all(&text)
        .and_then(|()| {
            aside
                .as_file()
                .set_permissions(PermissionsExt::from_mode(0o644))
        })
        .and_then(|()| aside.as_file().sync_all())
        .map_err(failed)?;
    aside.persist(file).map_err(|error| failed(error.error))?;
    fs_err::File::open(&place.dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}
