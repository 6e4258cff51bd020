//! Kernels that are not the usual one package with everything in it.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use firebuild_e2e::{Home, kernel_deb, missing, skip, static_program};

/// Unpacks the distribution's package and packs it as two: the image, and the modules without overlayfs.
fn split(dir: &Path, package: &Path) -> [PathBuf; 2] {
    let script = "set -e; dpkg-deb -x \"$1\" whole; mkdir -p image/DEBIAN modules/DEBIAN\n\
        mv whole/boot image/; mv whole/lib modules/; rm -r modules/lib/modules/*/kernel/fs/overlayfs\n\
        for part in image modules; do\n\
            printf 'Package: linux-%s-split\\nVersion: 1\\nArchitecture: amd64\\nMaintainer: t <t@t>\\nDescription: d\\n' $part > $part/DEBIAN/control\n\
            dpkg-deb -Znone -b $part linux-$part-split.deb >/dev/null\n\
        done; rm -r whole image modules";
    let done = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(package)
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(done.success());
    ["image", "modules"].map(|part| dir.join(format!("linux-{part}-split.deb")))
}

#[test]
fn a_split_kernel_without_overlayfs_runs_on_a_private_copy() {
    let test = "a_split_kernel_without_overlayfs_runs_on_a_private_copy";
    if let Some(program) = missing(&["qemu-system-x86_64", "dpkg-deb"]) {
        return skip(test, "vm", &format!("{program} is not installed"));
    }
    let (Some(package), Some(busybox)) = (kernel_deb(), static_program()) else {
        return skip(test, "vm", "no kernel package or no static busybox");
    };
    let home = Home::new();
    let parts = split(home.path(), &package).map(|part| part.display().to_string());
    let [image, modules] = parts.each_ref().map(String::as_str);
    let alone = home.fb(["kernel", "import", "--id", "alone", image]).ok();
    assert!(alone.err().contains("cannot run a VM"), "{}", alone.err());
    let imported = home.fb(["kernel", "import", image, modules]).ok();
    assert!(
        !imported.err().contains("cannot run a VM"),
        "{}",
        imported.err()
    );

    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY here /here\n";
    let files: [(&str, &[u8]); 3] = [
        ("Dockerfile", dockerfile),
        ("busybox", &busybox),
        ("here", b"from the image\n"),
    ];
    let context = home.context("ctx", &files);
    let _ = home.build("t/copy:1", &context).ok();
    // It is written to, and the next machine sees nothing of that.
    let script = "read line < /here; echo $line; echo changed > /here || exit 9";
    for _ in 0..2 {
        let words = [
            "run",
            "--rm",
            "--disk-size=64M",
            "t/copy:1",
            "--",
            "sh",
            "-c",
            script,
        ];
        let done = home.fb(words).ok();
        assert_eq!(done.out(), "from the image\n");
        let told = done.err();
        assert!(told.contains("no overlayfs"), "{told}");
    }
    let instances = home.path().join("home/instances");
    let left: Vec<PathBuf> = fs_err::read_dir(instances)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
