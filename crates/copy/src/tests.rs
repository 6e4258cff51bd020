use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use firebuild_guest_proto::session::CopySource;

use super::{Ends, Limits, Source, Target, agreed};

const PLENTY: Limits = Limits {
    bytes: 1 << 30,
    entries: 1000,
};

fn ends(path: &str) -> (&str, Option<&str>, bool, bool, &str) {
    let ends = Ends::of(path);
    let parent = match path {
        _ if ends.parent() == "." => ".",
        _ if ends.parent() == "/" => "/",
        _ => &path[..ends.parent().len()],
    };
    (
        &path[..ends.path.len().min(path.len())],
        ends.name,
        ends.slash,
        ends.dot,
        parent,
    )
}

#[test]
fn paths_say_what_they_mean_by_their_ends() {
    assert_eq!(ends("a"), ("a", Some("a"), false, false, "."));
    assert_eq!(ends("/a"), ("/a", Some("a"), false, false, "/"));
    assert_eq!(ends("a/b/"), ("a/b", Some("b"), true, false, "a"));
    assert_eq!(ends("/a//b//"), ("/a//b", Some("b"), true, false, "/a"));
    assert_eq!(ends("a/."), ("a", Some("a"), false, true, "."));
    assert_eq!(ends("a/./"), ("a", Some("a"), true, true, "."));
    assert_eq!(ends("."), (".", None, false, true, "."));
    assert_eq!(ends("a/.."), ("a/..", None, false, false, "a/.."));
    assert_eq!(Ends::of("/").path, "/");
    assert_eq!(Ends::of("/.").path, "/");
    assert!(Ends::of("/.").dot);
}

/// Copies as the two sides do; the text of an error.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    copy_text(&text(from), &text(to))
}

fn copy_text(from: &str, to: &str) -> Result<(), String> {
    let source = Source::find(from, false).map_err(|error| error.chain())?;
    let target = Target::find(to, Some(source.what())).map_err(|error| error.chain())?;
    let mut archive = Vec::new();
    source.pack(&mut archive).map_err(|error| error.chain())?;
    target
        .unpack(&archive[..], false, PLENTY)
        .map(drop)
        .map_err(|error| error.chain())
}

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).unwrap()
}

#[test]
fn files_go_where_docker_puts_them() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs_err::write(top.join("f"), "text").unwrap();
    fs_err::set_permissions(top.join("f"), PermissionsExt::from_mode(0o640)).unwrap();
    fs_err::create_dir(top.join("d")).unwrap();
    copy(&top.join("f"), &top.join("new")).unwrap();
    assert_eq!(read(&top.join("new")), "text");
    let mode = fs_err::metadata(top.join("new"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    copy(&top.join("f"), &top.join("d")).unwrap();
    assert_eq!(read(&top.join("d/f")), "text");
    fs_err::write(top.join("old"), "longer than the new one").unwrap();
    copy(&top.join("f"), &top.join("old")).unwrap();
    assert_eq!(read(&top.join("old")), "text");
    let to = |end: &str| format!("{}/{end}", top.display());
    let from = to("f");
    assert!(
        copy_text(&from, &to("missing/"))
            .unwrap_err()
            .contains("is not there")
    );
    assert!(
        copy_text(&from, &to("missing/x"))
            .unwrap_err()
            .contains("cannot open the directory")
    );
    assert!(
        copy_text(&from, &to("old/"))
            .unwrap_err()
            .contains("no directory")
    );
    assert!(
        copy_text(&to("f/"), &to("x"))
            .unwrap_err()
            .contains("no directory")
    );
    assert!(
        copy_text(&to("nothing"), &to("x"))
            .unwrap_err()
            .contains("cannot find")
    );
    assert!(copy_text("", &to("x")).is_err() && copy_text(&from, "").is_err());
}

#[test]
fn directories_go_where_docker_puts_them() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs_err::create_dir_all(top.join("s/sub")).unwrap();
    fs_err::write(top.join("s/sub/f"), "text").unwrap();
    fs_err::write(top.join("s/.wh.name"), "kept").unwrap();
    std::os::unix::fs::symlink("sub/f", top.join("s/link")).unwrap();
    std::os::unix::fs::symlink("s", top.join("to-s")).unwrap();
    fs_err::set_permissions(top.join("s"), PermissionsExt::from_mode(0o711)).unwrap();
    fs_err::write(top.join("file"), "").unwrap();
    let at = |end: &str| format!("{}/{end}", top.display());

    copy_text(&at("s"), &at("new")).unwrap();
    assert_eq!(read(&top.join("new/sub/f")), "text");
    assert_eq!(read(&top.join("new/.wh.name")), "kept");
    assert_eq!(read(&top.join("new/link")), "text");
    let mode = |name: &str| {
        fs_err::metadata(top.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("new"), 0o711);
    // It is there now, so the next copy goes into it.
    copy_text(&at("s"), &at("new")).unwrap();
    assert_eq!(read(&top.join("new/s/sub/f")), "text");
    fs_err::create_dir(top.join("into")).unwrap();
    copy_text(&at("s/."), &at("into")).unwrap();
    assert_eq!(read(&top.join("into/sub/f")), "text");
    assert!(!top.join("into/s").exists());
    copy_text(&at("s/."), &at("made")).unwrap();
    assert_eq!(read(&top.join("made/sub/f")), "text");
    assert_eq!(mode("made"), 0o711);
    assert!(
        copy_text(&at("s"), &at("file"))
            .unwrap_err()
            .contains("which is a file")
    );
    // A link is copied as a link, and with a slash as what it leads to.
    copy_text(&at("to-s"), &at("as-link")).unwrap();
    assert!(
        fs_err::symlink_metadata(top.join("as-link"))
            .unwrap()
            .is_symlink()
    );
    copy_text(&at("to-s/"), &at("as-dir")).unwrap();
    assert_eq!(read(&top.join("as-dir/sub/f")), "text");
    // A link that the destination names leads on, also to where nothing is yet; the link stays.
    fs_err::write(top.join("old"), "old").unwrap();
    for (link, target) in [
        ("to-old", at("old")),
        ("to-to-old", "to-old".to_owned()),
        ("to-new", "into/new".to_owned()),
        ("round", "round".to_owned()),
    ] {
        std::os::unix::fs::symlink(target, top.join(link)).unwrap();
    }
    copy_text(&at("s/sub/f"), &at("to-to-old")).unwrap();
    copy_text(&at("s/sub/f"), &at("to-new")).unwrap();
    for (link, target) in [
        ("to-to-old", "old"),
        ("to-old", "old"),
        ("to-new", "into/new"),
    ] {
        let link = fs_err::symlink_metadata(top.join(link)).unwrap();
        assert!(link.is_symlink());
        let target = fs_err::symlink_metadata(top.join(target)).unwrap();
        assert!(target.is_file());
    }
    assert_eq!(read(&top.join("old")), "text");
    assert_eq!(read(&top.join("into/new")), "text");
    copy_text(&at("s/sub/f"), &at("round")).unwrap_err();
}

#[test]
fn an_archive_of_anything_goes_into_a_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs_err::create_dir(top.join("s")).unwrap();
    fs_err::write(top.join("s/f"), "text").unwrap();
    let source = Source::find(top.join("s").to_str().unwrap(), false).unwrap();
    let mut archive = Vec::new();
    source.pack(&mut archive).unwrap();
    let to = top.join("t");
    assert!(Target::find(to.to_str().unwrap(), None).is_err());
    fs_err::create_dir(&to).unwrap();
    let target = Target::find(to.to_str().unwrap(), None).unwrap();
    target.unpack(&archive[..], false, PLENTY).unwrap();
    assert_eq!(read(&to.join("s/f")), "text");
    let target = Target::find(to.to_str().unwrap(), None).unwrap();
    let small = Limits { bytes: 3, ..PLENTY };
    let error = target.unpack(&archive[..], false, small).unwrap_err();
    assert!(
        error.chain().contains("more than 3 bytes"),
        "{}",
        error.chain()
    );
}

#[test]
fn the_other_side_does_not_choose_the_names() {
    let claim = |name: &[u8], is_dir, contents_only| CopySource {
        name: name.to_vec(),
        is_dir,
        contents_only,
    };
    for (path, claimed) in [
        ("/etc/motd", claim(b"motd", false, false)),
        ("/etc", claim(b"etc", true, false)),
        ("/etc/", claim(b"etc", true, false)),
        ("/etc/.", claim(b"etc", true, true)),
        ("/", claim(b"", true, true)),
    ] {
        assert!(agreed(path, &claimed).is_ok(), "{path}");
    }
    for (path, claimed) in [
        ("/etc/motd", claim(b".bashrc", false, false)),
        ("/etc/motd", claim(b"motd", true, true)),
        ("/etc/.", claim(b"etc", true, false)),
        ("/etc/.", claim(b"etc", false, true)),
        ("/", claim(b"x", true, false)),
        ("..", claim(b"x", true, false)),
    ] {
        assert!(agreed(path, &claimed).is_err(), "{path}");
    }
}
