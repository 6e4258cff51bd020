//! Copies in and out, with modes, owners and links; and a large one.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use firebuild_e2e::{Home, run};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::{LIMIT, fb, sh};

/// A file that is large for a VM in software.
const LARGE: usize = 200 << 20;

fn mode(path: &Path) -> u32 {
    fs_err::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub(super) fn copies_in_and_out(home: &Home) {
    let tree = home.path().join("tree");
    fs_err::create_dir_all(tree.join("sub")).unwrap();
    fs_err::write(tree.join("sub/file"), "text\n").unwrap();
    fs_err::set_permissions(
        tree.join("sub/file"),
        std::fs::Permissions::from_mode(0o4751),
    )
    .unwrap();
    fs_err::hard_link(tree.join("sub/file"), tree.join("sub/same")).unwrap();
    symlink("sub/file", tree.join("link")).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(tree.join("sub"), Some(1000), Some(1000)).unwrap();
    }
    let has_xattrs = lsetxattr(
        tree.join("sub/file"),
        "user.note",
        b"kept",
        XattrFlags::empty(),
    )
    .is_ok();
    let from = tree.display().to_string();
    let _ = fb(home, &["cp", &from, "lived-in:/srv/plain"]).ok();
    let seen = sh(home, "cd plain && busybox stat -c '%n %a %u' sub sub/file && busybox readlink link && busybox cat link").ok().out();
    assert_eq!(seen, "sub 755 0\nsub/file 751 0\nsub/file\ntext\n");
    let _ = fb(
        home,
        &["cp", "-a", &format!("{from}/."), "lived-in:/srv/kept"],
    )
    .ok();
    let seen = sh(home, "cd kept && busybox stat -c '%a %u %h' sub sub/file")
        .ok()
        .out();
    let owner = if is_root { 1000 } else { 0 };
    assert!(
        seen.starts_with(&format!("755 {owner} ")) && seen.contains("4751 0 2"),
        "{seen}"
    );

    // Back again: links and attributes as they were, set-id bits not without -a.
    let back = home.path().join("back");
    let to = back.display().to_string();
    let _ = fb(home, &["cp", "lived-in:srv/kept", &to]).ok();
    assert_eq!(fs_err::read_to_string(back.join("link")).unwrap(), "text\n");
    assert_eq!(mode(&back.join("sub/file")), 0o751);
    let inode = |name: &str| fs_err::metadata(back.join(name)).unwrap().ino();
    assert_eq!(inode("sub/file"), inode("sub/same"));
    if has_xattrs {
        let mut value = [0; 16];
        let count = lgetxattr(back.join("sub/file"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..count], b"kept");
    }
    if is_root {
        let kept = home.path().join("back-kept");
        let to = kept.display().to_string();
        let _ = fb(home, &["cp", "-a", "lived-in:/srv/kept", &to]).ok();
        assert_eq!(mode(&kept.join("sub/file")), 0o4751);
        assert_eq!(fs_err::metadata(kept.join("sub")).unwrap().uid(), 1000);
    }
    // Into what is there, over what is there, and what cannot be.
    let _ = fb(home, &["cp", "lived-in:/srv/kept/sub/file", &to]).ok();
    assert_eq!(fs_err::read_to_string(back.join("file")).unwrap(), "text\n");
    for (args, why) in [
        (
            ["lived-in:/not/there", to.as_str()],
            "cannot find /not/there",
        ),
        (["lived-in:/srv/kept", "/etc/hostname"], "is a file"),
        (
            [from.as_str(), "lived-in:/not/there/x"],
            "cannot open the directory /not/there",
        ),
        (["/not/there", "lived-in:/"], "cannot find /not/there"),
    ] {
        let done = fb(home, &["cp", args[0], args[1]]).exits(1);
        assert!(done.err().contains(why), "{args:?}: {}", done.err());
    }
    let _ = fb(home, &["cp", "a", "b"]).exits(2);

    // Archives through pipes.
    let made = fb(home, &["cp", "lived-in:/srv/kept", "-"]).ok();
    let archive = home.path().join("archive.tar");
    fs_err::write(&archive, &made.stdout).unwrap();
    let listed = Command::new("tar")
        .arg("-tf")
        .arg(&archive)
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.starts_with("kept/\n") && listed.contains("kept/sub/file\n"),
        "{listed}"
    );
    let mut command = home.command(["cp", "-", "lived-in:/tmp"]);
    let _ = run(
        command.stdin(fs_err::File::open(&archive).unwrap().into_file()),
        LIMIT,
    )
    .ok();
    assert_eq!(sh(home, "busybox cat /tmp/kept/link").ok().out(), "text\n");
}

pub(super) fn a_copy_of_200_mb(home: &Home) {
    let (one, other) = (home.path().join("large"), home.path().join("large-back"));
    let mut block = vec![0_u8; 1 << 20];
    let mut file = fs_err::File::create(&one).unwrap();
    for number in 0..LARGE >> 20 {
        for (at, byte) in block.iter_mut().enumerate() {
            *byte = u8::try_from((at * 7 + number * 13) % 251).unwrap();
        }
        file.write_all(&block).unwrap();
    }
    drop(file);
    let begin = Instant::now();
    let _ = fb(
        home,
        &["cp", &one.display().to_string(), "lived-in:/srv/large"],
    )
    .ok();
    let there = begin.elapsed();
    let _ = fb(
        home,
        &["cp", "lived-in:/srv/large", &other.display().to_string()],
    )
    .ok();
    let back = begin.elapsed() - there;
    let same = Command::new("cmp").arg(&one).arg(&other).status().unwrap();
    assert!(same.success(), "the copy differs");
    #[expect(clippy::print_stderr, reason = "a figure for whoever looks")]
    {
        eprintln!("200 MiB: {there:?} into the VM, {back:?} out of it");
    }
    for path in [one, other] {
        fs_err::remove_file(path).unwrap();
    }
    let _ = sh(home, "busybox rm /srv/large").ok();
}
