use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::*;
use crate::dump::{parse_layer, parse_tree, tree_to_text};
use crate::tree::{Content, Opened};
use crate::walk::{DirContents, WalkOptions, open_root, walk};

/// For trees whose files are all in memory.
struct Memory;

impl Contents for Memory {
    fn open(&self, _: &Content) -> std::io::Result<Opened> {
        Err(std::io::Error::other("nothing is stored"))
    }
}

fn unpack(layer: &Layer, dir: &Path, options: UnpackOptions) -> Result<Skipped, UnpackError> {
    unpack_layer(layer, &Memory, open_root(dir).unwrap().as_fd(), &options)
}

/// The text of a directory, with the data in place of the paths.
fn text(dir: &Path) -> String {
    let tree = walk(open_root(dir).unwrap().as_fd(), WalkOptions::default()).unwrap();
    let mut out = String::new();
    for line in tree_to_text(&tree).lines() {
        if let Some((before, rest)) = line.split_once(" path:") {
            let (path, after) = rest.split_once(' ').unwrap_or((rest, ""));
            let path = crate::path::unescape(path).unwrap();
            let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(path.as_slice());
            let data = crate::path::escape(&fs_err::read(dir.join(path)).unwrap());
            out += format!("{before} data:{data} {after}").trim_end();
        } else {
            out += line;
        }
        out.push('\n');
    }
    out
}

#[test]
fn a_tree_comes_back_from_disk() {
    if !crate::testing::is_root("a_tree_comes_back_from_disk") {
        return;
    }
    let given = "\
/ dir 0711 1:2 -3.000000005
/a file 6755 1000:4294967294 5.000000001 2 data:hi xattr:security.capability=0100000200040000000000000000000000000000 xattr:user.x=00
/b link /a
/c char 0666 0:0 7 1:3
/d dir 1777 3:4 9 xattr:trusted.t=01
/d/\\xff\\x0a file 0000 0:0 4102444800 0 data:
/e block 0600 0:6 0 259:70000
/l symlink 0777 5:6 8.000000009 -> /nowhere
/m link /l
/p fifo 0640 0:0 0
/s socket 0755 0:0 0
";
    let dir = tempfile::tempdir().unwrap();
    let skipped = unpack_tree(
        &parse_tree(given).unwrap(),
        &Memory,
        open_root(dir.path()).unwrap().as_fd(),
        &UnpackOptions::default(),
    )
    .unwrap();
    assert_eq!(skipped, Skipped::default());
    assert_eq!(text(dir.path()), given);
    // Once more over itself: everything is replaced, directories stay.
    unpack_tree(
        &parse_tree(given).unwrap(),
        &Memory,
        open_root(dir.path()).unwrap().as_fd(),
        &UnpackOptions::default(),
    )
    .unwrap();
    assert_eq!(text(dir.path()), given);
}

#[test]
fn removals_are_the_overlays() {
    if !crate::testing::is_root("removals_are_the_overlays") {
        return;
    }
    let layer =
        parse_layer("/d opaque\n/d dir 0700 0:0 0\n/d/x whiteout\n/z/deep whiteout").unwrap();
    for (marks, name) in [
        (Marks::Trusted, "trusted.overlay.opaque"),
        (Marks::User, "user.overlay.opaque"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        unpack(
            &layer,
            dir.path(),
            UnpackOptions {
                marks,
                ..UnpackOptions::default()
            },
        )
        .unwrap();
        let text = text(dir.path());
        assert!(
            text.contains(&format!("/d dir 0700 0:0 0 xattr:{name}=79\n")),
            "{text}"
        );
        assert!(
            text.contains("/d/x char 0000 0:0") && text.contains("/z/deep char 0000"),
            "{text}"
        );
    }
}

#[test]
fn content_from_files_keeps_holes() {
    let from = tempfile::tempdir().unwrap();
    let file = fs_err::File::create(from.path().join("f")).unwrap();
    file.file().write_all_at(b"x", 8 << 20).unwrap();
    file.file().write_all_at(b"y", 0).unwrap();
    file.set_len(16 << 20).unwrap();
    let root = open_root(from.path()).unwrap();
    let tree = walk(root.as_fd(), WalkOptions::default()).unwrap();
    let to = tempfile::tempdir().unwrap();
    export_dir(
        &tree,
        &DirContents::new(root),
        open_root(to.path()).unwrap().as_fd(),
    )
    .unwrap();
    let (a, b) = (
        fs_err::read(from.path().join("f")).unwrap(),
        fs_err::read(to.path().join("f")).unwrap(),
    );
    assert!(a == b);
    let blocks = fs_err::metadata(to.path().join("f")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}

#[test]
fn links_on_disk_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
    let options = UnpackOptions {
        unmapped: Unmapped::SquashToRoot,
        ..UnpackOptions::default()
    };
    let below = parse_layer("/d/f file 0644 0:0 0 1 data:x").unwrap();
    assert_eq!(
        unpack(&below, dir.path(), options).unwrap_err().kind(),
        UnpackErrorKind::Directory
    );
    // A final link is replaced.
    let over = parse_layer("/d file 0644 0:0 0 1 data:x").unwrap();
    unpack(&over, dir.path(), options).unwrap();
    assert!(
        fs_err::symlink_metadata(dir.path().join("d"))
            .unwrap()
            .is_file()
    );
    assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 0);
    // A user's directory is not removed for a file.
    fs_err::create_dir(dir.path().join("e")).unwrap();
    let over = parse_layer("/e file 0644 0:0 0 1 data:x").unwrap();
    assert_eq!(
        unpack(&over, dir.path(), options).unwrap_err().kind(),
        UnpackErrorKind::Create
    );
}

#[test]
fn hard_links_need_their_target() {
    let options = UnpackOptions {
        unmapped: Unmapped::SquashToRoot,
        ..UnpackOptions::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let layer = parse_layer("/a link /b\n/b link /c/d\n/c/d file 0644 0:0 0 1 data:x").unwrap();
    unpack(&layer, dir.path(), options).unwrap();
    assert_eq!(fs_err::metadata(dir.path().join("a")).unwrap().nlink(), 3);
    let layer = parse_layer("/a link /nowhere").unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        unpack(&layer, dir.path(), options).unwrap_err().kind(),
        UnpackErrorKind::Link
    );
}

#[test]
fn many_directories_deep_and_wide() {
    let options = UnpackOptions {
        unmapped: Unmapped::SquashToRoot,
        ..UnpackOptions::default()
    };
    let mut text = String::new();
    for i in 0..3 {
        text += &format!(
            "/{}f file 0644 0:0 0 1 data:x\n",
            format!("d{i}/").repeat(200)
        );
    }
    let layer = Layer::of_tree(&parse_tree(&text).unwrap());
    let dir = tempfile::tempdir().unwrap();
    unpack(&layer, dir.path(), options).unwrap();
    let tree = walk(
        open_root(dir.path()).unwrap().as_fd(),
        WalkOptions::default(),
    )
    .unwrap();
    assert_eq!(tree.len(), 1 + 3 * 201);
}

#[test]
fn missing_content_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let layer = parse_layer("/a/f file 0644 0:0 0 1 path:f").unwrap();
    let error = unpack(&layer, dir.path(), UnpackOptions::default()).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (UnpackErrorKind::Content, &b"a/f"[..])
    );
}
