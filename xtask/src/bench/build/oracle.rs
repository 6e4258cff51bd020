//! A dockerd with BuildKit, brought up by the conformance kit where it can be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::stats::succeed;
use crate::Fallible;

/// A daemon that answers. One that was started here is stopped at the end.
pub(super) struct Docker {
    script: PathBuf,
    directory: PathBuf,
    version: String,
    daemon: u32,
    started: bool,
}

impl Docker {
    /// The daemon of the kit's `oracles.sh`: one that runs, or else one that is started, after the set-up of its chroot.
    /// The error says why there is none.
    pub(super) fn find(root: &Path) -> Result<Self, String> {
        let script = root.join("tests/conformance/adapters/oracles.sh");
        let directory = std::env::var_os("CF_ORACLE_DIR").map_or_else(
            || std::env::temp_dir().join("conformance-oracles"),
            PathBuf::from,
        );
        if !rustix::process::geteuid().is_root() {
            return Err("only root can start its daemon".to_owned());
        }
        let mut docker = Self {
            script,
            directory,
            version: String::new(),
            daemon: 0,
            started: false,
        };
        if docker.ask().is_err() {
            if !docker.directory.join("sid/usr/sbin/dockerd").is_file()
                && !docker.directory.join("sid/usr/bin/dockerd").is_file()
            {
                eprintln!("setting up a chroot with dockerd (about 1.2 GB)");
                docker.script("build", 900)?;
            }
            docker.started = true;
            docker.script("start", 120)?;
            docker.ask()?;
        }
        Ok(docker)
    }

    fn script(&self, verb: &str, seconds: u32) -> Result<(), String> {
        let status = Command::new("timeout")
            .arg(seconds.to_string())
            .arg(&self.script)
            .arg(verb)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        Err(format!(
            "`tests/conformance/adapters/oracles.sh {verb}` failed ({status})"
        ))
    }

    /// Learns the version and the process of the daemon.
    fn ask(&mut self) -> Result<(), String> {
        let pid = fs_err::read_to_string(self.directory.join("nd/launcher.pid"));
        let pid = pid.map_err(|_| "its daemon does not run".to_owned())?;
        self.daemon = pid.trim().parse().map_err(|_| "its daemon has no pid")?;
        let mut command = self.docker();
        command.args(["version", "--format", "{{.Server.Version}}"]);
        let output = command.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err("its daemon does not answer".to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        self.version = format!("BuildKit of dockerd {}", text.trim());
        Ok(())
    }

    /// The client.
    pub(super) fn docker(&self) -> Command {
        let mut command = Command::new(&self.script);
        command.arg("docker");
        command
    }

    /// What both daemon and client see.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn daemon(&self) -> u32 {
        self.daemon
    }

    /// Empties the build cache and removes the results.
    pub(super) fn forget(&self) -> Fallible<()> {
        let mut command = self.docker();
        command.args(["image", "rm", "--force", "bench/result:1"]);
        succeed(command)?;
        let mut command = self.docker();
        command.args(["builder", "prune", "--all", "--force"]);
        succeed(command)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.started {
            let _ = self.script("stop", 60);
        }
    }
}
