//! Where profiles are, and what a name may be.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::{ProfileError, ProfileErrorKind, io};
use super::record::Profile;
use crate::config::Environment;
use crate::error::Error;

/// A profile is a few hundred bytes.
const LARGEST_PROFILE: u64 = 1 << 20;
/// Names stay well under the limit of file systems.
const LONGEST_NAME: usize = 128;

/// The directory of profiles. Nothing is created before a profile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileDir {
    pub(super) dir: PathBuf,
}

impl ProfileDir {
    /// The directory of this process: `--profile-conf-dir`, else `/etc/firebuild/profiles` for root, else
    /// the user's configuration directory.
    ///
    /// # Errors
    /// `Io` when nothing says where an ordinary user's configuration is.
    pub fn of_process(flag: Option<&Path>) -> Result<Self, ProfileError> {
        Self::resolve(flag, &Environment::of_process())
    }

    /// The rule of [`ProfileDir::of_process`].
    ///
    /// # Errors
    /// As there.
    pub fn resolve(flag: Option<&Path>, environment: &Environment) -> Result<Self, ProfileError> {
        let dir = flag
            .map(Path::to_owned)
            .or_else(|| (environment.uid == 0).then(|| PathBuf::from("/etc/firebuild/profiles")))
            .or_else(|| {
                let config = environment.xdg_config.clone();
                let home = environment.user_home.as_ref();
                config
                    .or_else(|| home.map(|home| home.join(".config")))
                    .map(|config| config.join("firebuild/profiles"))
            });
        dir.map(|dir| Self { dir }).ok_or_else(|| {
            Error::new(
                ProfileErrorKind::Io,
                "no place for profiles: HOME is not set; set it or give --profile-conf-dir",
            )
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The file of a name. The case of letters does not matter, as in the original.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf, ProfileError> {
        Ok(self.dir.join(file_name(name)?))
    }

    /// Reads a profile and checks that this program can use it.
    ///
    /// # Errors
    /// `Name`, `NotFound` with what there is, `Corrupt`, `Value`, `Io`.
    pub fn load(&self, name: &str) -> Result<Profile, ProfileError> {
        let path = self.file(name)?;
        let profile = read(&path)?.ok_or_else(|| self.not_found(name))?;
        profile.check_provider()?;
        Ok(profile)
    }

    pub(super) fn not_found(&self, name: &str) -> ProfileError {
        let known = super::ls(self)
            .map(|listing| listing.names)
            .unwrap_or_default();
        let known = if known.is_empty() {
            "none was made with profile-create".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        Error::new(
            ProfileErrorKind::NotFound,
            format!(
                "there is no profile {name:?} in {}; {known}",
                self.dir.display()
            ),
        )
    }
}

/// Reads the file of a profile, if it is there.
pub(super) fn read(path: &Path) -> Result<Option<Profile>, ProfileError> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read the profile", path, error)),
    };
    let mut text = Vec::new();
    let size = file
        .take(LARGEST_PROFILE + 1)
        .read_to_end(&mut text)
        .map_err(|error| io("read the profile", path, error))?;
    let corrupt = || format!("{} is no profile", path.display());
    if size as u64 > LARGEST_PROFILE {
        return Err(Error::new(ProfileErrorKind::Corrupt, corrupt()));
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Error::caused(ProfileErrorKind::Corrupt, corrupt(), error))
}

/// The name in lower case, if it can be the name of a file that is not hidden.
pub(super) fn file_name(name: &str) -> Result<String, ProfileError> {
    let lower = name.to_ascii_lowercase();
    let good = lower.len() <= LONGEST_NAME
        && lower.starts_with(|c: char| c.is_ascii_alphanumeric())
        && lower
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if good {
        return Ok(lower);
    }
    Err(Error::new(
        ProfileErrorKind::Name,
        format!(
            "{name:?} cannot name a profile: letters, digits and '.', '-', '_' can, at most \
             {LONGEST_NAME}, a letter or digit first"
        ),
    ))
}
