//! Becoming an ordinary user who does not exist outside of the test.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use firebuild_sys::mount::{Attributes, Propagation, set_attributes};
use firebuild_sys::namespace::{Namespaces, unshare};
use std::os::fd::AsFd;

use crate::cases::Case;
use crate::harness::Skip;

/// `become DIRECTORY WHO CASE`: as root, in a new process.
pub(crate) const BECOME: &str = "become";
/// `inside DIRECTORY WHO CASE`: as the user.
pub(crate) const INSIDE: &str = "inside";

const NAME: &str = "firebuild-test";
const UID: u32 = 42_421;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The host's root.
    Root,
    /// An ordinary user with ranges of ids.
    Ranges,
    /// An ordinary user without.
    Single,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ranges => "ranges",
            Self::Single => "single",
        }
    }

    /// Runs a case as this user.
    pub(crate) fn run(self, case: &'static Case) -> Result<(), Skip> {
        if !rustix::process::geteuid().is_root() {
            return Err(Skip {
                need: "root",
                reason: "needs root".into(),
            });
        }
        if crate::base::busybox().is_none() {
            return Err(Skip {
                need: "tool:busybox",
                reason: "needs a static busybox".into(),
            });
        }
        if self == Self::Ranges
            && !["/usr/bin/newuidmap", "/bin/newuidmap"]
                .iter()
                .any(|path| Path::new(path).exists())
        {
            return Err(Skip {
                need: "tool:newuidmap",
                reason: "needs newuidmap".into(),
            });
        }
        let directory = tempfile::Builder::new()
            .prefix("firebuild-sandbox-")
            .tempdir()
            .expect("a temporary directory");
        if self == Self::Root {
            (case.run)(directory.path(), self);
            return Ok(());
        }
        // The build's own directory may be closed to others.
        let program = directory.path().join("program");
        fs_err::copy("/proc/self/exe", &program).expect("a copy of the test");
        fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755))
            .expect("an executable copy");
        fs_err::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("an open directory");
        let home = directory.path().join("home");
        fs_err::create_dir(&home).expect("a home");
        std::os::unix::fs::chown(&home, Some(UID), Some(UID))
            .expect("root can give a directory away");
        let status = Command::new(&program)
            .args([
                BECOME,
                directory.path().to_str().expect("an ASCII path"),
                self.name(),
                case.name,
            ])
            .status()
            .expect("the copy can be executed");
        // Files of lent ids: root of the host removes them.
        assert!(
            status.success(),
            "{} as {}: {status}",
            case.name,
            self.name()
        );
        Ok(())
    }
}

fn parse(arguments: &[String]) -> (PathBuf, Who, &'static Case) {
    let [directory, who, case] = arguments else {
        panic!("wrong arguments: {arguments:?}")
    };
    let who = crate::harness::ALL
        .into_iter()
        .find(|known| known.name() == who)
        .expect("a known user");
    let case = crate::all_cases()
        .find(|known| known.name == case)
        .expect("a known case");
    (PathBuf::from(directory), who, case)
}

/// Makes the user, in a mount namespace, and becomes him.
pub(crate) fn become_and_run(arguments: &[String]) -> ExitCode {
    let (directory, who, _) = parse(arguments);
    unshare(Namespaces::MOUNT).expect("root can make a mount namespace");
    let slash = fs_err::File::open("/").expect("a root");
    set_attributes(
        slash.as_fd(),
        c"",
        true,
        Attributes::empty(),
        Some(Propagation::Private),
    )
    .expect("private mounts");
    let passwd = fs_err::read_to_string("/etc/passwd").expect("accounts");
    cover(
        &directory,
        "passwd",
        &format!(
            "{passwd}{NAME}:x:{UID}:{UID}::{}:/bin/sh\n",
            directory.display()
        ),
    );
    let range = if who == Who::Ranges {
        format!("{NAME}:1000000:65536\n")
    } else {
        String::new()
    };
    cover(&directory, "subuid", &range);
    cover(&directory, "subgid", &range);
    let error = Command::new(directory.join("program"))
        .arg(INSIDE)
        .args(arguments)
        .env("HOME", directory.join("home"))
        .env("TMPDIR", directory.join("home"))
        .current_dir(directory.join("home"))
        .uid(UID)
        .gid(UID)
        .exec();
    panic!("cannot become {NAME}: {error}");
}

fn cover(directory: &Path, name: &str, text: &str) {
    let copy = directory.join(name);
    fs_err::write(&copy, text).expect("a copy");
    fs_err::set_permissions(&copy, PermissionsExt::from_mode(0o644)).expect("a readable copy");
    let target = Path::new("/etc").join(name);
    if !target.exists() {
        assert!(
            text.is_empty(),
            "the host has no {} to be covered",
            target.display()
        );
        return;
    }
    rustix::mount::mount_bind(&copy, &target).expect("root can mount");
}

pub(crate) fn run_inside(arguments: &[String]) -> ExitCode {
    let (directory, who, case) = parse(arguments);
    assert_eq!(rustix::process::geteuid().as_raw(), UID);
    (case.run)(&directory.join("home"), who);
    ExitCode::SUCCESS
}
