//! Where things live on this host.
//!
//! ```text
//! data     images, kernels, caches        survives a reboot, may be large
//! ├── store/        the content store
//! └── kernels/      one directory per kernel
//! state    what is known about instances  survives a reboot
//! └── instances/<id>/
//! runtime  sockets, pids, locks           gone at reboot
//! └── <short id>/
//! ```
//!
//! | | `FIREBUILD_HOME=H` | XDG variable set | root | everyone else |
//! |---|---|---|---|---|
//! | data | `H` | `$XDG_DATA_HOME/firebuild` | `/var/lib/firebuild` | `~/.local/share/firebuild` |
//! | state | `H` | `$XDG_STATE_HOME/firebuild` | `/var/lib/firebuild` | `~/.local/state/firebuild` |
//! | runtime | `H/run` | `$XDG_RUNTIME_DIR/firebuild` | `/run/firebuild` | `/tmp/firebuild-<uid>` |
//!
//! A flag beats the variable of the same directory, that beats `FIREBUILD_HOME`, that beats a
//! profile's directory (it can name one for the state only), and that beats the rest.
//! `XDG_RUNTIME_DIR` counts only when the directory belongs to the caller, as its specification
//! demands: `sudo` often keeps the variable of somebody else.
//!
//! Resolving is pure; nothing is created before somebody asks for it. What is known about instances
//! (environments, logs) is 0700, data is 0755; run dirs are made by `firebuild_vm::RunDir`.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::{Environment, Overrides};
use crate::error::Error;

/// What can be wrong with a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathsErrorKind {
    /// No variable tells where to put things.
    NoHome,
    /// The directory cannot be made or looked at.
    Io,
    /// The directory belongs to somebody else, or is no directory.
    Untrusted,
}

/// A location that cannot be used.
pub type PathsError = Error<PathsErrorKind>;

/// The resolved locations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    data: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
}

impl Paths {
    /// The locations for this process: `overrides` over its environment over the defaults.
    ///
    /// # Errors
    /// `NoHome` when nothing says where to put the files of an ordinary user.
    pub fn of_process(overrides: &Overrides) -> Result<Self, PathsError> {
        Self::resolve(overrides, &Environment::of_process(), owner)
    }

    /// Everything below one directory, as `FIREBUILD_HOME` does.
    pub fn under(home: &Path) -> Self {
        Self {
            data: home.to_owned(),
            state: home.to_owned(),
            runtime: home.join("run"),
        }
    }

    /// The rules of the table above. `owner` gives the user id that owns a directory, if it exists.
    ///
    /// # Errors
    /// As [`Paths::of_process`].
    pub fn resolve(
        overrides: &Overrides,
        environment: &Environment,
        owner: impl Fn(&Path) -> Option<u32>,
    ) -> Result<Self, PathsError> {
        let home = overrides.home.as_ref().or(environment.home.as_ref());
        let root = environment.uid == 0;
        let choose = |flag: &Option<PathBuf>,
                      variable: &Option<PathBuf>,
                      in_home: &str,
                      xdg: Option<&PathBuf>,
                      of_root: &str,
                      of_user: Option<PathBuf>| {
            // `--home` is more deliberate than an inherited variable.
            let variable = variable.as_ref().filter(|_| overrides.home.is_none());
            flag.clone()
                .or_else(|| variable.cloned())
                .or_else(|| home.map(|home| home.join(in_home)))
                .or_else(|| xdg.map(|dir| dir.join("firebuild")))
                .or_else(|| root.then(|| PathBuf::from(of_root)))
                .or(of_user)
                .map(|path| absolute(&path))
        };
        let in_user_home = |suffix: &str| environment.user_home.as_ref().map(|h| h.join(suffix));
        let no_home = || {
            Error::new(
                PathsErrorKind::NoHome,
                "no place for firebuild's files: HOME is not set; set it or FIREBUILD_HOME",
            )
        };
        let own_runtime = environment
            .xdg_runtime
            .as_ref()
            .filter(|dir| owner(dir) == Some(environment.uid));

        let data = choose(
            &overrides.data,
            &environment.data,
            "",
            environment.xdg_data.as_ref(),
            "/var/lib/firebuild",
            in_user_home(".local/share/firebuild"),
        );
        // A profile speaks of firebuild alone, so it beats what is said for all programs.
        let said = [&overrides.state, &overrides.home, &environment.state];
        let unsaid = said.iter().all(|dir| dir.is_none()) && environment.home.is_none();
        let of_profile = overrides.profile_state.clone().filter(|_| unsaid);
        let state = choose(
            &overrides.state.clone().or(of_profile),
            &environment.state,
            "",
            environment.xdg_state.as_ref(),
            "/var/lib/firebuild",
            in_user_home(".local/state/firebuild"),
        );
        let runtime = choose(
            &overrides.runtime,
            &environment.runtime,
            "run",
            own_runtime,
            "/run/firebuild",
            Some(PathBuf::from(format!("/tmp/firebuild-{}", environment.uid))),
        );
        Ok(Self {
            data: data.ok_or_else(no_home)?,
            state: state.ok_or_else(no_home)?,
            runtime: runtime.ok_or_else(no_home)?,
        })
    }

    /// Images, kernels and caches.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The content store.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// One directory per imported kernel.
    pub fn kernels(&self) -> PathBuf {
        self.data.join("kernels")
    }

    /// What is known about instances and about this host.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// One directory per instance: what was asked, logs, scratch disk, exit record.
    pub fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    /// One directory per live instance: sockets, pids, lock.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Makes the data directory (0755) and gives it back.
    ///
    /// # Errors
    /// `Io` when it cannot be made.
    pub fn make_data(&self) -> Result<&Path, PathsError> {
        make(&self.data, 0o755)?;
        Ok(&self.data)
    }

    /// Makes the directory of instances (0700).
    ///
    /// # Errors
    /// `Io` when it cannot be made, `Untrusted` when somebody else owns it.
    pub fn make_instances(&self) -> Result<PathBuf, PathsError> {
        // State and data may be the same directory; only `instances` is private.
        make(&self.state, 0o755)?;
        let dir = self.instances();
        make_private(&dir)?;
        Ok(dir)
    }
}

fn owner(dir: &Path) -> Option<u32> {
    let metadata = fs_err::metadata(dir).ok()?;
    metadata.is_dir().then(|| metadata.uid())
}

/// Paths are kept absolute: a detached monitor works in another directory.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect() // drops the slash that joining "" leaves
}

fn make(dir: &Path, mode: u32) -> Result<(), PathsError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|error| {
            Error::caused(
                PathsErrorKind::Io,
                format!("cannot make the directory {}", dir.display()),
                error,
            )
        })
}

fn make_private(dir: &Path) -> Result<(), PathsError> {
    make(dir, 0o700)?;
    let metadata = fs_err::symlink_metadata(dir).map_err(|error| {
        Error::caused(
            PathsErrorKind::Io,
            format!("cannot look at the directory {}", dir.display()),
            error,
        )
    })?;
    let uid = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(Error::new(
            PathsErrorKind::Untrusted,
            format!(
                "{} is not a directory of user {uid}: remove it or set FIREBUILD_HOME",
                dir.display()
            ),
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        use std::os::unix::fs::PermissionsExt;
        fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(|error| {
            Error::caused(
                PathsErrorKind::Io,
                format!("cannot make the directory {} private", dir.display()),
                error,
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::{Paths, PathsErrorKind};
    use crate::config::{Environment, Overrides};

    fn user() -> Environment {
        Environment {
            user_home: Some(PathBuf::from("/home/ann")),
            uid: 1000,
            ..Environment::default()
        }
    }

    fn resolve(overrides: &Overrides, environment: &Environment) -> [String; 3] {
        let paths = Paths::resolve(overrides, environment, |dir| {
            (dir == Path::new("/run/user/1000")).then_some(1000)
        })
        .unwrap();
        [&paths.data, &paths.state, &paths.runtime].map(|p| p.display().to_string())
    }

    #[test]
    fn defaults_of_root_and_user() {
        assert_eq!(
            resolve(&Overrides::default(), &Environment::default()),
            ["/var/lib/firebuild", "/var/lib/firebuild", "/run/firebuild"]
        );
        assert_eq!(
            resolve(&Overrides::default(), &user()),
            [
                "/home/ann/.local/share/firebuild",
                "/home/ann/.local/state/firebuild",
                "/tmp/firebuild-1000"
            ]
        );
    }

    #[test]
    fn xdg_runtime_dir_of_somebody_else_is_not_used() {
        let mut environment = user();
        environment.xdg_runtime = Some(PathBuf::from("/run/user/1000"));
        assert_eq!(
            resolve(&Overrides::default(), &environment)[2],
            "/run/user/1000/firebuild"
        );
        environment.uid = 0;
        assert_eq!(
            resolve(&Overrides::default(), &environment)[2],
            "/run/firebuild"
        );
    }

    #[test]
    fn flag_beats_variable_beats_home_beats_xdg() {
        let mut environment = user();
        environment.xdg_data = Some(PathBuf::from("/xdg"));
        environment.home = Some(PathBuf::from("/home-var"));
        environment.state = Some(PathBuf::from("/state-var"));
        assert_eq!(
            resolve(&Overrides::default(), &environment),
            ["/home-var", "/state-var", "/home-var/run"]
        );
        let flags = Overrides {
            home: Some(PathBuf::from("/flag")),
            runtime: Some(PathBuf::from("/flag-run")),
            ..Overrides::default()
        };
        assert_eq!(
            resolve(&flags, &environment),
            ["/flag", "/flag", "/flag-run"]
        );
    }

    #[test]
    fn a_profile_stands_between_variables_and_defaults() {
        let overrides = Overrides {
            profile_state: Some(PathBuf::from("/profile")),
            ..Overrides::default()
        };
        let mut environment = user();
        environment.xdg_state = Some(PathBuf::from("/xdg"));
        assert_eq!(resolve(&overrides, &environment)[1], "/profile");
        environment.home = Some(PathBuf::from("/home-var"));
        assert_eq!(resolve(&overrides, &environment)[1], "/home-var");
        environment.state = Some(PathBuf::from("/state-var"));
        assert_eq!(resolve(&overrides, &environment)[1], "/state-var");
        let overrides = Overrides {
            state: Some(PathBuf::from("/flag")),
            ..overrides
        };
        assert_eq!(resolve(&overrides, &environment)[1], "/flag");
    }

    #[test]
    fn an_ordinary_user_without_home_is_told_the_remedy() {
        let mut environment = user();
        environment.user_home = None;
        let error = Paths::resolve(&Overrides::default(), &environment, |_| None).unwrap_err();
        assert_eq!(error.kind(), PathsErrorKind::NoHome);
    }

    #[test]
    fn directories_are_made_private_where_it_matters() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(&dir.path().join("home"));
        paths.make_data().unwrap();
        let instances = paths.make_instances().unwrap();
        assert_eq!(fs_err::metadata(instances).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_private_directory_that_is_a_symlink_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs_err::create_dir(&home).unwrap();
        std::os::unix::fs::symlink(dir.path(), home.join("instances")).unwrap();
        let error = Paths::under(&home).make_instances().unwrap_err();
        assert_eq!(error.kind(), PathsErrorKind::Untrusted);
    }
}
