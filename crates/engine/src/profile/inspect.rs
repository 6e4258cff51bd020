//! `firebuild profile-inspect`.

use super::directory::ProfileDir;
use super::error::{ProfileError, ProfileErrorKind};
use crate::error::Error;

/// A profile as JSON for people, with the keys of its file.
///
/// # Errors
/// As [`ProfileDir::load`].
pub fn inspect(place: &ProfileDir, name: &str) -> Result<String, ProfileError> {
    let profile = place.load(name)?;
    serde_json::to_string_pretty(&profile).map_err(|error| {
        Error::caused(
            ProfileErrorKind::Corrupt,
            format!("cannot show the profile {name:?}"),
            error,
        )
    })
}
