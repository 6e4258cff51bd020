//! Images on disks: the overlay, the private copy, and what a program finds around it.

use std::path::Path;
use std::process::Command;

use firebuild_guest_proto::{
    EnvVar, ExitStatus, FailureReason, GuestMessage, Interface, InterfaceRef, ROOT_DISK_SERIAL,
    Resolver, RootLayout, Route, SCRATCH_DISK_SERIAL,
};

use super::guest::kernel::Kernel;
use super::guest::machine::{Machine, Parts};
use super::{busybox, config, kernel_or_skip};

/// A root file system of busybox with two users, and an empty scratch disk.
struct Disks {
    directory: tempfile::TempDir,
}

impl Disks {
    fn new() -> Disks {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        for name in ["bin", "etc", "home/app", "opt"] {
            fs_err::create_dir_all(root.join(name)).unwrap();
        }
        fs_err::write(root.join("bin/busybox"), busybox()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        fs_err::set_permissions(root.join("bin/busybox"), mode(0o755)).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        std::os::unix::fs::symlink("/run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        fs_err::write(root.join("etc/passwd"), passwd).unwrap();
        fs_err::write(
            root.join("etc/group"),
            "root:x:0:\napp:x:1001:\nvideo:x:44:app\n",
        )
        .unwrap();
        fs_err::write(root.join("etc/hosts"), "of the image").unwrap();
        let disks = Disks { directory };
        disks.make("image", 16, Some(&root));
        disks.make("scratch", 16, None);
        disks
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn make(&self, name: &str, mib: u64, tree: Option<&Path>) {
        let file = fs_err::File::create(self.path(name)).unwrap();
        file.set_len(mib << 20).unwrap();
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F", "-t", "ext4"]);
        if let Some(tree) = tree {
            command.arg("-d").arg(tree);
        }
        assert!(command.arg(self.path(name)).status().unwrap().success());
    }

    /// Whether the file system on a disk was left clean.
    fn assert_clean(&self, name: &str) {
        let output = Command::new("e2fsck")
            .arg("-fn")
            .arg(self.path(name))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && !text.contains("recovering"),
            "{text}"
        );
    }
}

#[test]
fn an_image_gets_an_overlay_and_the_surroundings_of_a_container() {
    let Some(kernel) =
        kernel_or_skip("an_image_gets_an_overlay_and_the_surroundings_of_a_container")
    else {
        return;
    };
    let disks = Disks::new();
    let script = r#"
        echo "id $(busybox id -u):$(busybox id -g) $(busybox id -G)"
        echo "cwd $(busybox pwd) home $HOME host $HOSTNAME $(busybox hostname) secret $SECRET"
        busybox cat /etc/hostname /run/resolv.conf
        busybox grep guest /etc/hosts
        busybox ip -o addr show | busybox awk '/inet /{print "addr", $2, $4}'
        busybox ip route | busybox awk '{print "route", $1, $3}'
        busybox awk '{print "mount", $2, $3}' /proc/mounts | busybox sort
        echo "limit $(ulimit -Sn) $(ulimit -Hn)"
        echo to-stderr > /dev/stderr
        [ "$(busybox stat -c %a:%U /)" = 755:root ] && echo root-attributes
        for zombie in 1 2 3; do (busybox sleep 0.2 &) ; done; busybox sleep 1
        echo "zombies $(busybox ps -o stat | busybox grep -c ^Z)"
        echo new > /home/app/file && busybox cat /home/app/file
        [ -e /firebuild ] || echo no-initrd
    "#;
    let mut config = config(script, RootLayout::overlay());
    config.user = "app".to_owned();
    config.cwd = "/srv/new/place".to_owned();
    config.env = vec![
        EnvVar::parse("PATH=/bin").unwrap(),
        EnvVar::parse("SECRET=a  b").unwrap(),
    ];
    config.resolver = Some(Resolver {
        nameservers: vec!["10.0.2.3".parse().unwrap()],
        ..Resolver::default()
    });
    config.interfaces = vec![Interface {
        select: InterfaceRef::Mac("52:54:00:00:00:07".parse().unwrap()),
        addresses: vec![
            "10.0.2.15/24".parse().unwrap(),
            "fec0::15/64".parse().unwrap(),
        ],
        routes: vec![
            Route::default_via("10.0.2.2".parse().unwrap()),
            Route::default_via("fec0::2".parse().unwrap()),
        ],
        mtu: Some(1400),
    }];
    let parts = Parts {
        disks: vec![
            // In the wrong order: the serial numbers count.
            (disks.path("scratch"), SCRATCH_DISK_SERIAL, false),
            (disks.path("image"), ROOT_DISK_SERIAL, true),
        ],
        arguments: [
            "-netdev",
            "user,id=n",
            "-device",
            "virtio-net-pci,netdev=n,mac=52:54:00:00:00:07",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Parts::default()
    };
    let before = fs_err::read(disks.path("image")).unwrap();
    fs_err::set_permissions(
        disks.path("root/home/app"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut machine = Machine::start(kernel, config, parts);
    let record = machine.finish();
    let story = machine.story();
    assert_eq!(
        machine.stderr, b"to-stderr\nsh: can't create /home/app/file: Permission denied\n",
        "{story}"
    );
    let text = machine.stdout_text();
    for line in [
        "id 1000:1001 1001 44",
        "cwd /srv/new/place home /home/app host guest guest secret a  b",
        "guest",
        "nameserver 10.0.2.3",
        "10.0.2.15\tguest",
        "addr lo 127.0.0.1/8",
        "addr eth0 10.0.2.15/24",
        "route default 10.0.2.2",
        "mount / overlay",
        "mount /dev devtmpfs",
        "mount /dev/mqueue mqueue",
        "mount /dev/pts devpts",
        "mount /dev/shm tmpfs",
        "mount /proc proc",
        "mount /sys sysfs",
        "mount /sys/fs/cgroup cgroup2",
        "limit 1024 524288",
        "root-attributes",
        "zombies 0",
        "no-initrd",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no line '{line}': {story}"
        );
    }
    assert_eq!(record.exit_code(), 0, "{story}");
    assert!(
        fs_err::read(disks.path("image")).unwrap() == before,
        "the image is shared and never changes"
    );
    disks.assert_clean("scratch");
}

#[test]
fn a_private_copy_is_written_in_place() {
    let Some(kernel) = kernel_or_skip("a_private_copy_is_written_in_place") else {
        return;
    };
    let disks = Disks::new();
    let mut config = config(
        "echo kept > /opt/file; busybox mount | busybox head -n 1",
        RootLayout::private(),
    );
    config.env = vec![EnvVar::parse("PATH=/bin").unwrap()];
    let parts = Parts {
        disks: vec![(disks.path("image"), ROOT_DISK_SERIAL, false)],
        without_console: true,
        ..Parts::default()
    };
    let mut machine = Machine::start(kernel, config, parts);
    let record = machine.finish();
    assert_eq!(record.exit_code(), 0, "{}", machine.story());
    assert!(
        machine.stdout_text().contains("ext4"),
        "{}",
        machine.story()
    );
    let is_told = |message: &GuestMessage| matches!(message, GuestMessage::Log { text, .. } if text.contains("private copy"));
    assert!(machine.messages.iter().any(is_told), "{}", machine.story());
    disks.assert_clean("image");
    let output = Command::new("debugfs")
        .args(["-R", "cat /opt/file"])
        .arg(disks.path("image"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"kept\n");
}

#[test]
fn a_kernel_without_overlayfs_says_so() {
    let Some(kernel) = kernel_or_skip("a_kernel_without_overlayfs_says_so") else {
        return;
    };
    let disks = Disks::new();
    let modules = kernel
        .modules
        .iter()
        .filter(|(name, _)| name != "overlay")
        .cloned()
        .collect();
    let kernel = Kernel {
        image: kernel.image.clone(),
        modules,
    };
    let parts = Parts {
        disks: vec![
            (disks.path("image"), ROOT_DISK_SERIAL, true),
            (disks.path("scratch"), SCRATCH_DISK_SERIAL, false),
        ],
        ..Parts::default()
    };
    let mut machine = Machine::start(&kernel, config("exit 0", RootLayout::overlay()), parts);
    let record = machine.finish();
    let ExitStatus::Failed { reason, .. } = record.status else {
        panic!("{}", machine.story())
    };
    assert_eq!(reason, FailureReason::OverlayMissing);
}
