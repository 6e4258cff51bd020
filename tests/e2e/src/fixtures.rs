//! Homes, bases, kernels, and small programs for guests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::process::{Done, firebuild, run};
use crate::skip::{missing, skip};

/// Long enough for anything but a bootstrap on a slow machine.
const LIMIT: Duration = Duration::from_secs(240);

/// A home of its own for a test: store, kernels and instances are in it, and everything goes with it.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty home.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("fb")
            .tempdir()
            .expect("the temporary directory is writable");
        Self { dir }
    }

    /// A home with a kernel in it; nothing when none can be had.
    #[must_use]
    pub fn with_kernel() -> Option<Self> {
        let home = Self::new();
        let deb = kernel_deb()?;
        let _ = home
            .fb(["kernel", "import", &deb.display().to_string()])
            .ok();
        Some(home)
    }

    /// A home with a kernel, and a static busybox for the guests; nothing, with a skip, when a VM cannot be had.
    #[must_use]
    pub fn for_machines(test: &str) -> Option<(Self, Vec<u8>)> {
        if let Some(program) = missing(&["qemu-system-x86_64"]) {
            skip(test, "vm", &format!("{program} is not installed"));
            return None;
        }
        let (Some(home), Some(busybox)) = (Self::with_kernel(), static_program()) else {
            skip(test, "vm", "no kernel package or no static busybox");
            return None;
        };
        Some((home, busybox))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command with this home.
    #[must_use]
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(firebuild());
        command
            .args(args)
            .env("FIREBUILD_HOME", self.path().join("home"))
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs firebuild with this home.
    #[must_use]
    pub fn fb<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Done {
        run(&mut self.command(args), LIMIT)
    }

    /// Makes a context of files by name and text, and gives its path.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn context(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.path().join(name);
        for (file, data) in files {
            let path = dir.join(file);
            fs_err::create_dir_all(path.parent().expect("a file is in a directory"))
                .expect("the disk is writable");
            fs_err::write(&path, data).expect("the disk is writable");
        }
        dir
    }

    /// Builds a context under a tag.
    #[must_use]
    pub fn build(&self, tag: &str, context: &Path) -> Done {
        self.fb([
            "build",
            "--progress=plain",
            "-t",
            tag,
            &context.display().to_string(),
        ])
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Whatever a failed test left running.
        let _ = run(
            self.command(["ls", "-q"]).env("FIREBUILD_QUIET", "1"),
            LIMIT,
        )
        .out()
        .lines()
        .map(|id| run(&mut self.command(["rm", "-f", id]), LIMIT))
        .collect::<Vec<_>>();
    }
}

/// Where things live that are made once for all tests.
fn cache() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows where it is");
    let target = exe
        .ancestors()
        .nth(3)
        .expect("tests live in target/<profile>/deps")
        .to_owned();
    let dir = target.join("cache");
    fs_err::create_dir_all(&dir).expect("the target directory is writable");
    dir
}

/// What killed processes have left in a store. Sessions that ended in order and wait for the disk are no leftovers.
///
/// # Panics
/// When `store` is no store.
#[must_use]
pub fn left_in_store(store: &Path) -> Vec<PathBuf> {
    ["tmp", "sessions"]
        .iter()
        .flat_map(|name| fs_err::read_dir(store.join(name)).expect("a store has this directory"))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none_or(|end| end != "ended"))
        .collect()
}

/// The distribution's cloud kernel package: `FIREBUILD_TEST_KERNEL_DEB`, or what `scripts/kernel` fetched.
#[must_use]
pub fn kernel_deb() -> Option<PathBuf> {
    if let Some(path) =
        std::env::var_os("FIREBUILD_TEST_KERNEL_DEB").filter(|path| !path.is_empty())
    {
        return Some(path.into());
    }
    fs_err::read_dir(cache())
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
}

/// A Debian base, bootstrapped once and then imported as a layout into `home`. Nothing when mmdebstrap is not there or the
/// mirror does not answer.
///
/// # Panics
/// When the disk refuses.
#[must_use]
pub fn base(home: &Home) -> Option<()> {
    bootstrapped(home, &["--bootstrap", "debian:bookworm"], "debian:bookworm")
}

/// As [`base`], a whole system: `debian:full`.
///
/// # Panics
/// When the disk refuses.
#[must_use]
pub fn full_base(home: &Home) -> Option<()> {
    let flags = [
        "--bootstrap",
        "debian:bookworm",
        "--full",
        "--tag",
        "debian:full",
    ];
    bootstrapped(home, &flags, "debian:full")
}

/// As [`base`], with a further package: `debian:PACKAGE`.
///
/// # Panics
/// When the disk refuses.
#[must_use]
pub fn base_with(home: &Home, package: &str) -> Option<()> {
    let tag = format!("debian:{package}");
    let flags = [
        "--bootstrap",
        "debian:bookworm",
        "--include",
        package,
        "--tag",
        &tag,
    ];
    bootstrapped(home, &flags, &tag)
}

fn bootstrapped(home: &Home, flags: &[&str], tag: &str) -> Option<()> {
    let name = tag.replace(':', "-");
    let layout = cache().join(format!("{name}.tar"));
    let lock = fs_err::File::options()
        .create(true)
        .append(true)
        .open(cache().join("base.lock"))
        .expect("the target directory is writable");
    flock(&lock, FlockOperation::LockExclusive).expect("the file is ours to lock");
    if !layout.exists() {
        let maker = Home::new();
        let args = ["baseos"].iter().chain(flags).copied();
        let made = run(&mut maker.command(args), Duration::from_secs(600));
        if made.code != 0 {
            return None;
        }
        let dockerfile = format!("FROM {tag}\n");
        let context = maker.context("save", &[("Dockerfile", dockerfile.as_bytes())]);
        let aside = layout.with_extension("part");
        let spec = format!("type=oci,compression=uncompressed,dest={}", aside.display());
        let _ = maker
            .fb([
                "build",
                "-t",
                tag,
                "--output",
                &spec,
                &context.display().to_string(),
            ])
            .ok();
        fs_err::rename(&aside, &layout).expect("the target directory is writable");
    }
    let _ = home
        .fb(["image", "load", &layout.display().to_string(), "--tag", tag])
        .ok();
    Some(())
}

/// A static program for guests: busybox of the host.
#[must_use]
pub fn static_program() -> Option<Vec<u8>> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs_err::read(path).ok())
        .filter(|bytes| {
            // A dynamic busybox names an interpreter.
            !bytes
                .windows(9)
                .take(4096)
                .any(|window| window == b"/lib64/ld")
        })
}

/// A home with a base image `base:1` that has a shell, made by a build; nothing where there is no static busybox.
#[must_use]
pub fn with_base(test: &str) -> Option<Home> {
    let Some(busybox) = static_program() else {
        skip(test, "tool:busybox", "no static busybox");
        return None;
    };
    let home = Home::new();
    let dockerfile =
        b"FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\nCOPY etc /etc\nENV BASE=yes\n\
        RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    let group = b"root:x:0:\napp:x:1000:\n";
    let context = home.context(
        "base",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("etc/passwd", passwd),
            ("etc/group", group),
        ],
    );
    let _ = home.build("base:1", &context).ok();
    Some(home)
}
