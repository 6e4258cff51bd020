//! Firecracker and its jailer for tests, where they are.
//!
//! They are in no package registry: `FIREBUILD_FIRECRACKER`, `FIREBUILD_JAILER` and `FIREBUILD_FIRECRACKER_KERNEL` (a
//! `vmlinux` with everything built in) name them, and `FIREBUILD_FIRECRACKER_KERNEL_ARGS` the parameters that the kernel
//! needs on this host, if any.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::Value;

use crate::fixtures::{Home, static_program};
use crate::netns::{in_namespace, links_and_rules, machines_here, text_of};
use crate::process::{Done, run};
use crate::skip::skip;

/// The image of [`Lab::open`]: a shell and busybox.
pub const IMAGE: &str = "fc:1";
/// A kernel that is interpreted takes a minute to its init, and more on a busy host.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Firecracker, its jailer, a home with a kernel and an image.
#[derive(Debug)]
pub struct Lab {
    /// The home.
    pub home: Home,
    firecracker: String,
    jailer: String,
    kernel_args: String,
}

fn named(test: &str, variable: &str) -> Option<String> {
    let named = std::env::var(variable).ok().filter(|text| !text.is_empty());
    if named.is_none() {
        skip(test, "firecracker", &format!("{variable} names no file"));
    }
    named
}

/// Whether a test can run, and whether this is the run inside of its namespace.
#[must_use]
pub fn is_here(test: &str) -> bool {
    let variables = [
        "FIREBUILD_FIRECRACKER",
        "FIREBUILD_JAILER",
        "FIREBUILD_FIRECRACKER_KERNEL",
    ];
    if variables
        .iter()
        .any(|variable| named(test, variable).is_none())
    {
        return false;
    }
    if !Path::new("/dev/kvm").exists() {
        skip(test, "firecracker", "there is no /dev/kvm");
        return false;
    }
    in_namespace(test)
}

impl Lab {
    /// All of it, or a loud skip.
    #[must_use]
    pub fn open(test: &str) -> Option<Self> {
        let Some(busybox) = static_program() else {
            skip(test, "tool:busybox", "no static busybox");
            return None;
        };
        let home = Home::new();
        let kernel = named(test, "FIREBUILD_FIRECRACKER_KERNEL")?;
        let _ = home.fb(["kernel", "import", &kernel]).ok();
        let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY --chmod=0755 busybox /bin/busybox\n\
            ENTRYPOINT [\"/bin/sh\", \"-c\"]\n";
        let files: [(&str, &[u8]); 2] = [("Dockerfile", dockerfile), ("busybox", &busybox)];
        let _ = home.build(IMAGE, &home.context("image", &files)).ok();
        Some(Self {
            home,
            firecracker: named(test, "FIREBUILD_FIRECRACKER")?,
            jailer: named(test, "FIREBUILD_JAILER")?,
            kernel_args: std::env::var("FIREBUILD_FIRECRACKER_KERNEL_ARGS").unwrap_or_default(),
        })
    }

    /// Where its jails are.
    #[must_use]
    pub fn jails(&self) -> PathBuf {
        self.home.path().join("j")
    }

    /// `run` of the image with Firecracker; `flags` may say more.
    #[must_use]
    pub fn run<'a>(&'a self, flags: &[&'a str], script: &'a str) -> Command {
        let jails = self.jails().display().to_string();
        let kernel_args = format!("loglevel=7 {}", self.kernel_args);
        let usual = [
            ("--binary-firecracker", &self.firecracker),
            ("--binary-jailer", &self.jailer),
            ("--chroot-base", &jails),
            ("--kernel-args", &kernel_args),
        ];
        let mut command = self
            .home
            .command(["run", "--backend=firecracker", "--mem=128"]);
        for (name, value) in usual {
            if !flags.contains(&name) {
                command.args([name, value]);
            }
        }
        command.args(flags).args([IMAGE, "--", script]);
        command
    }

    /// The same, to its end.
    #[must_use]
    pub fn done(&self, flags: &[&str], script: &str) -> Done {
        run(&mut self.run(flags, script), LIMIT)
    }

    /// Whether a guest's user space runs here; what `--accel=auto` says of a host where it does not.
    #[must_use]
    pub fn works(&self) -> bool {
        let done = self.done(&["--rm", "--network=none"], "true");
        if done.code != 0 {
            let words = done.err();
            assert!(
                done.code == 125
                    && words.contains("kvm cannot be used: ")
                    && words.contains("; --accel kvm tries nevertheless"),
                "{words}"
            );
        }
        done.code == 0
    }

    /// Another command with this home.
    #[must_use]
    pub fn fb<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Done {
        self.home.fb(args)
    }

    /// What `inspect` says; null of a VM that is not there.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Value {
        serde_json::from_slice(&self.fb(["inspect", name]).stdout).unwrap_or_default()
    }

    /// A process of a VM that runs: its `monitor` or its `vmm`.
    #[must_use]
    pub fn process(&self, name: &str, which: &str) -> Pid {
        let at = format!("/Firebuild/Machine/{which}/pid");
        let pid = wait_for("the VM is launched", || {
            self.inspect(name).pointer(&at).and_then(Value::as_i64)
        });
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// Waits until nothing is left of any VM but records.
    pub fn until_gone(&self, before: &str) {
        let left = || {
            let entries = |path: PathBuf| -> Vec<PathBuf> {
                let dir = fs_err::read_dir(path).into_iter().flatten();
                dir.map(|entry| entry.unwrap().path()).collect()
            };
            let mut left = entries(self.jails());
            left.extend(entries(self.home.path().join("home/run")));
            // Locks are no VM's.
            left.retain(|path| !path.ends_with(".lock"));
            left
        };
        let home = self.home.path().display().to_string();
        let is_gone = || {
            let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
            let gone = network() == before
                && machines_here().is_empty()
                && left().is_empty()
                && !mounts.contains(&home);
            gone.then_some(())
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_gone().is_none() {
            assert!(
                Instant::now() < deadline,
                "before:\n{before}\nnow:\n{}\n{:?}\n{:?}",
                network(),
                machines_here(),
                left()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Waits for something, at most [`LIMIT`].
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Links, addresses, rules and cgroups.
#[must_use]
pub fn network() -> String {
    links_and_rules()
        + &text_of(
            "find",
            &["/sys/fs/cgroup", "-maxdepth", "3", "-name", "fbtest*"],
        )
}

/// Starts it in the background.
#[must_use]
pub fn start(mut command: Command) -> Child {
    let command = command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The code of what ran in the background.
#[must_use]
pub fn code(mut child: Child) -> Option<i32> {
    wait_for("run has ended", || child.try_wait().unwrap()).code()
}
