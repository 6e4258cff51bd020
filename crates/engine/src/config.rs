//! Where the settings of one invocation come from: flags first, then the environment, then a profile,
//! then defaults.
//!
//! | variable | meaning |
//! |---|---|
//! | `FIREBUILD_HOME` | one directory for everything: data in it, state in `instances/`, run dirs in `run/` |
//! | `FIREBUILD_DATA_DIR` | images, kernels, caches (default `$XDG_DATA_HOME/firebuild`) |
//! | `FIREBUILD_STATE_DIR` | records of instances (default `$XDG_STATE_HOME/firebuild`) |
//! | `FIREBUILD_RUNTIME_DIR` | sockets and pids (default `$XDG_RUNTIME_DIR/firebuild`) |
//!
//! The environment is read once, into a plain value, so that the rules of [`crate::paths`] are
//! tested without touching the process.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Directories named by flags. Each one set beats the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--home`: one directory for everything.
    pub home: Option<PathBuf>,
    /// `--data-dir`.
    pub data: Option<PathBuf>,
    /// `--state-dir`; the original tool's `--run-cache` maps here.
    pub state: Option<PathBuf>,
    /// `--runtime-dir`.
    pub runtime: Option<PathBuf>,
    /// The state directory of a profile: the only one here that the variables `FIREBUILD_*` beat.
    pub profile_state: Option<PathBuf>,
}

/// The part of the process environment that decides where things are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `FIREBUILD_HOME`.
    pub home: Option<PathBuf>,
    /// `FIREBUILD_DATA_DIR`.
    pub data: Option<PathBuf>,
    /// `FIREBUILD_STATE_DIR`.
    pub state: Option<PathBuf>,
    /// `FIREBUILD_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// `XDG_DATA_HOME`, when absolute (the XDG specification says to ignore any other value).
    pub xdg_data: Option<PathBuf>,
    /// `XDG_STATE_HOME`, when absolute.
    pub xdg_state: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, when absolute.
    pub xdg_runtime: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, when absolute.
    pub xdg_config: Option<PathBuf>,
    /// `HOME`, when absolute.
    pub user_home: Option<PathBuf>,
    /// The effective user id.
    pub uid: u32,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        Self::read(
            |name| env::var_os(name),
            rustix::process::geteuid().as_raw(),
        )
    }

    /// Reads an environment through `get`. Empty values count as unset.
    pub fn read(get: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let path = |name: &str| {
            get(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        Self {
            home: path("FIREBUILD_HOME"),
            data: path("FIREBUILD_DATA_DIR"),
            state: path("FIREBUILD_STATE_DIR"),
            runtime: path("FIREBUILD_RUNTIME_DIR"),
            xdg_data: absolute("XDG_DATA_HOME"),
            xdg_state: absolute("XDG_STATE_HOME"),
            xdg_runtime: absolute("XDG_RUNTIME_DIR"),
            xdg_config: absolute("XDG_CONFIG_HOME"),
            user_home: absolute("HOME"),
            uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use super::Environment;

    #[test]
    fn empty_and_relative_xdg_values_are_ignored() {
        let environment = Environment::read(
            |name| match name {
                "XDG_DATA_HOME" => Some(OsString::from("relative")),
                "XDG_STATE_HOME" => Some(OsString::new()),
                "HOME" => Some(OsString::from("/home/ann")),
                _ => None,
            },
            1000,
        );
        assert_eq!(environment.xdg_data, None);
        assert_eq!(environment.xdg_state, None);
        assert_eq!(environment.user_home, Some(PathBuf::from("/home/ann")));
    }
}
