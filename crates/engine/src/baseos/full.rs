//! `--full`: what makes a multi-user system of a base image.
//!
//! An init, a way in (openssh, with keys that each machine makes for itself), a way up (sudo), and an
//! account named like the distribution. The account has no password that works; a key or the console
//! opens it.

use firebuild_rootfs::tree::{Kind, Time, Tree, TreeError};

use super::distribution::Distribution;
use super::tidy::{find, place, put};

/// Packages beyond the minimum.
pub(crate) const PACKAGES: &[&str] = &[
    "dbus",
    "iproute2",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "sudo",
    "systemd-sysv",
    "udev",
];

/// Makes the host keys of a machine when it first boots, before anybody can connect.
const KEYS_UNIT: &str = "\
[Unit]
Description=Make the SSH host keys of this machine
Before=ssh.service ssh.socket sshd.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
RequiresMountsFor=/etc/ssh

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
";

/// Commands to run inside the new system, after its packages are installed.
pub(crate) fn commands(distribution: &Distribution) -> Vec<Vec<String>> {
    let account = distribution.family().name();
    // Newer Ubuntu packages bring the account themselves.
    let script = format!(
        "id -u {account} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {account}; \
         usermod --append --groups sudo --lock {account}"
    );
    vec![vec!["sh".to_owned(), "-ec".to_owned(), script]]
}

/// What is done to the tree: host keys out, the unit that makes them in, sudo without a password.
pub(crate) fn finish(
    tree: &mut Tree,
    distribution: &Distribution,
    now: Time,
) -> Result<(), TreeError> {
    if let Some(dir) = find(tree, "etc/ssh") {
        let names: Vec<_> = tree[dir]
            .children()
            .map(|children| children.keys().cloned().collect())
            .unwrap_or_default();
        for name in names {
            if name.starts_with(b"ssh_host_") {
                tree.remove(dir, &name)?;
            }
        }
    }
    put(
        tree,
        "etc/systemd/system/firebuild-ssh-keys.service",
        0o644,
        KEYS_UNIT,
        now,
    )?;
    place(
        tree,
        "etc/systemd/system/multi-user.target.wants/firebuild-ssh-keys.service",
        0o777,
        Kind::Symlink(b"/etc/systemd/system/firebuild-ssh-keys.service"[..].into()),
        now,
    )?;
    let account = distribution.family().name();
    put(
        tree,
        &format!("etc/sudoers.d/90-{account}"),
        0o440,
        &format!("{account} ALL=(ALL:ALL) NOPASSWD:ALL\n"),
        now,
    )
}

#[cfg(test)]
mod tests {
    use firebuild_rootfs::tree::{Time, Tree};

    use super::{commands, finish};
    use crate::baseos::Distribution;
    use crate::baseos::tidy::{find, put};

    #[test]
    fn host_keys_go_and_are_made_at_boot() {
        let mut tree = Tree::new();
        let now = Time::default();
        for file in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config"] {
            put(&mut tree, &format!("etc/ssh/{file}"), 0o600, "x", now).unwrap();
        }
        let debian = Distribution::parse("debian:bookworm").unwrap();
        finish(&mut tree, &debian, now).unwrap();
        assert!(find(&tree, "etc/ssh/ssh_host_rsa_key").is_none());
        assert!(find(&tree, "etc/ssh/ssh_host_rsa_key.pub").is_none());
        assert!(find(&tree, "etc/ssh/sshd_config").is_some());
        let wants = "etc/systemd/system/multi-user.target.wants/firebuild-ssh-keys.service";
        assert!(find(&tree, wants).is_some());
        let sudoers = find(&tree, "etc/sudoers.d/90-debian").unwrap();
        assert_eq!(tree[sudoers].meta.mode, 0o440);
        assert!(commands(&debian)[0][2].contains("--lock debian"));
    }
}
