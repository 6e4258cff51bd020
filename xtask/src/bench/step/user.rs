//! Who runs what is measured: root, or an ordinary user made for it in a mount namespace, so that the machine's accounts
//! stay as they are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;

const NAME: &str = "firebuild-bench";
const ID: u32 = 65_200;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever calls: root, or else the user that he is.
    Caller,
    /// A user with ranges of subordinate ids.
    Ordinary,
}

impl Who {
    /// Both for root, who can make the other one.
    pub(super) fn measured() -> Vec<Self> {
        if is_root() {
            vec![Self::Caller, Self::Ordinary]
        } else {
            vec![Self::Caller]
        }
    }

    pub(super) fn name(self) -> &'static str {
        if self == Self::Caller && is_root() {
            "root"
        } else {
            "an ordinary user"
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that belongs to who runs what is measured.
pub(super) struct Place {
    directory: PathBuf,
    who: Who,
}

impl Place {
    pub(super) fn make(directory: &Path, who: Who) -> Fallible<Self> {
        let place = Self {
            directory: directory.to_owned(),
            who,
        };
        fs_err::set_permissions(directory, PermissionsExt::from_mode(0o755))?;
        place.give(directory)?;
        if who == Who::Ordinary {
            let passwd = fs_err::read_to_string("/etc/passwd")?;
            let home = directory.display();
            place.account(
                "passwd",
                &format!("{passwd}{NAME}:x:{ID}:{ID}::{home}:/bin/sh\n"),
            )?;
            for name in ["subuid", "subgid"] {
                place.account(name, &format!("{NAME}:1000000:65536\n"))?;
            }
        }
        Ok(place)
    }

    /// A file that will lie over the one of this name in `/etc`.
    fn account(&self, name: &str, text: &str) -> Fallible<()> {
        let path = self.directory.join(name);
        fs_err::write(&path, text)?;
        Ok(fs_err::set_permissions(
            path,
            PermissionsExt::from_mode(0o644),
        )?)
    }

    /// A copy of a program where everybody can execute it.
    pub(super) fn keep(&self, program: &Path, name: &str) -> Fallible<PathBuf> {
        let copy = self.directory.join(name);
        fs_err::copy(program, &copy)?;
        fs_err::set_permissions(&copy, PermissionsExt::from_mode(0o755))?;
        Ok(copy)
    }

    pub(super) fn directory(&self, path: &Path) -> Fallible<()> {
        fs_err::create_dir_all(path)?;
        self.give(path)
    }

    /// Lets a directory, without what is in it, belong to who works with it.
    pub(super) fn give(&self, path: &Path) -> Fallible<()> {
        if self.who == Who::Ordinary {
            std::os::unix::fs::chown(path, Some(ID), Some(ID))?;
        }
        Ok(())
    }

    /// A program, run by whom it shall be. crun of Debian 12 wants no second hierarchy of cgroups beside the first: for
    /// root it is hidden where there is one.
    pub(super) fn command(&self, program: &Path) -> Command {
        if !is_root() {
            return Command::new(program);
        }
        let script = match self.who {
            Who::Caller => "exec \"$@\"".to_owned(),
            Who::Ordinary => format!(
                "for file in passwd subuid subgid; do mount --bind \"$0/$file\" /etc/$file || exit; done; \
                 cd \"$0\"; export HOME=\"$0\" XDG_RUNTIME_DIR=\"$0\"; \
                 exec setpriv --reuid={ID} --regid={ID} --clear-groups \"$@\""
            ),
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(format!(
            "umount /sys/fs/cgroup/unified 2>/dev/null; {script}"
        ));
        command.arg(&self.directory).arg(program);
        command
    }
}

/// Writes the configuration of a bundle; says whether there is a crun that does it.
pub(super) fn write_spec(place: &Place, bundle: &Path) -> Fallible<bool> {
    let mut spec = place.command(Path::new("crun"));
    spec.arg("spec").current_dir(bundle);
    if place.who == Who::Ordinary || !is_root() {
        spec.arg("--rootless");
    }
    spec.args(["--bundle"]).arg(bundle);
    if !spec.output().is_ok_and(|output| output.status.success()) {
        return Ok(false);
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs_err::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    config["root"]["readonly"] = serde_json::json!(false);
    fs_err::write(&path, config.to_string())?;
    Ok(true)
}
