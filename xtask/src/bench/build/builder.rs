//! The builders: how each is told to build, and how it is made to forget.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::stats::succeed;
use super::Build;
use super::oracle::Docker;
use crate::Fallible;

/// A builder with a store of its own.
pub(super) struct Builder(Kind);

enum Kind {
    Firebuild { program: PathBuf, home: PathBuf },
    BuildKit(Docker),
    Buildah { store: PathBuf, version: String },
}

impl Builder {
    pub(super) fn firebuild(program: PathBuf, home: PathBuf) -> Self {
        Self(Kind::Firebuild { program, home })
    }

    pub(super) fn buildkit(docker: Docker) -> Self {
        Self(Kind::BuildKit(docker))
    }

    /// The buildah of the host, if it is there.
    pub(super) fn buildah(store: &Path) -> Result<Self, String> {
        let output = Command::new("buildah").arg("--version").output();
        let output = output.map_err(|error| format!("it cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Self(Kind::Buildah {
            store: store.to_owned(),
            version: text.split(' ').nth(2).unwrap_or_default().to_owned(),
        }))
    }

    pub(super) fn name(&self) -> &'static str {
        match self.0 {
            Kind::Firebuild { .. } => "firebuild",
            Kind::BuildKit(_) => "BuildKit",
            Kind::Buildah { .. } => "buildah bud --layers",
        }
    }

    /// What it is exactly, where it is not ours.
    pub(super) fn version(&self) -> Option<String> {
        match &self.0 {
            Kind::Firebuild { .. } => None,
            Kind::BuildKit(docker) => Some(docker.version().to_owned()),
            Kind::Buildah { version, .. } => Some(format!("buildah {version}")),
        }
    }

    /// The process that works for the client, where there is one.
    pub(super) fn daemon(&self) -> Option<u32> {
        match &self.0 {
            Kind::BuildKit(docker) => Some(docker.daemon()),
            _ => None,
        }
    }

    pub(super) fn build(&self, build: &Build) -> Command {
        let mut command = match &self.0 {
            Kind::Firebuild { program, home } => {
                let mut command = Command::new(program);
                command.env("FIREBUILD_HOME", home);
                command.args(["build", "--progress=quiet"]);
                command
            }
            Kind::BuildKit(docker) => {
                let mut command = docker.docker();
                command.args(["build", "--quiet"]);
                command
            }
            Kind::Buildah { store, .. } => {
                let mut command = buildah(store);
                // Without a network of its own, as the others here.
                command.args(["bud", "--quiet", "--layers", "--network=host"]);
                command
            }
        };
        command.arg("-f").arg(&build.dockerfile);
        command.args(["-t", build.tag]).arg(&build.context);
        command
    }

    /// Empties the build cache; the base image is there afterwards, unpacked.
    pub(super) fn forget(&self, base: &Build) -> Fallible<()> {
        match &self.0 {
            Kind::Firebuild { program, home } => {
                remove(home)?;
                succeed(self.build(base))?;
                // A step unpacks it. Its own result is on the way to nothing that is measured.
                let dockerfile = home.join("unpack.Dockerfile");
                fs_err::write(
                    &dockerfile,
                    format!("FROM {}\nRUN [\"/bin/sh\", \"-c\", \":\"]\n", base.tag),
                )?;
                let mut command = Command::new(program);
                command.env("FIREBUILD_HOME", home);
                command.args([
                    "build",
                    "--progress=quiet",
                    "--output=type=tar,dest=/dev/null",
                ]);
                command.arg("-f").arg(&dockerfile).arg(&base.context);
                succeed(command)
            }
            Kind::BuildKit(docker) => docker.forget(),
            Kind::Buildah { store, .. } => {
                // The first one fails where there is no result yet.
                let mut command = buildah(store);
                let _ = command.args(["rmi", "--force", "bench/result:1"]).output();
                let mut command = buildah(store);
                command.args(["rmi", "--prune", "--force"]);
                succeed(command)
            }
        }
    }

    /// Leaves nothing behind that a removed directory would not take along.
    pub(super) fn clean_up(&self) -> Fallible<()> {
        match &self.0 {
            Kind::Firebuild { .. } => Ok(()),
            Kind::BuildKit(docker) => docker.forget(),
            Kind::Buildah { store, .. } => {
                let mut command = buildah(store);
                let _ = command.args(["rmi", "--all", "--force"]).output();
                // Its driver leaves a mount on its directory.
                let overlay = store.join("root/overlay");
                let _ = rustix::mount::unmount(overlay, rustix::mount::UnmountFlags::DETACH);
                Ok(())
            }
        }
    }
}

fn remove(path: &Path) -> Fallible<()> {
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// As for crun, the second hierarchy of cgroups is hidden where there is one: runtimes of Debian 12 stumble over it.
fn buildah(store: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "umount /sys/fs/cgroup/unified 2>/dev/null; exec buildah --root \"$0/root\" --runroot \"$0/run\" --storage-driver overlay \"$@\"",
    ]);
    command.arg(store);
    command
}
