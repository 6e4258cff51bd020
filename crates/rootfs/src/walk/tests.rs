use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

use super::*;
use crate::dump::tree_to_text;

fn scan(dir: &Path, options: WalkOptions<'_>) -> Result<Tree, WalkError> {
    walk(open_root(dir).unwrap().as_fd(), options)
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.walk().skip(1).map(|(p, _)| text(&p)).collect()
}

fn text(path: &[u8]) -> String {
    crate::path::Text(path).to_string()
}

#[test]
fn everything_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs_err::create_dir(at("d")).unwrap();
    fs_err::write(at("d/f"), b"hello").unwrap();
    fs_err::set_permissions(at("d/f"), PermissionsExt::from_mode(0o4750)).unwrap();
    fs_err::hard_link(at("d/f"), at("a")).unwrap();
    symlink("../nowhere", at("l")).unwrap();
    fs_err::hard_link(at("l"), at("m")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("p"), Mode::RUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("s")).unwrap();
    fs_err::write(dir.path().join(OsStr::from_bytes(b"\xff\n")), b"").unwrap();
    let file = File::open(at("a")).unwrap();
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: -5,
            tv_nsec: 7,
        },
    };
    rustix::fs::futimens(&file, &times).unwrap();
    rustix::fs::fsetxattr(
        &file,
        "user.test",
        b"\x00v",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let tree = scan(
        dir.path(),
        WalkOptions {
            owner: Some((7, 8)),
            filter: None,
        },
    )
    .unwrap();
    let text = tree_to_text(&tree);
    assert_eq!(
        paths(&tree),
        ["a", "d", "d/f", "l", "m", "p", "s", "\\xff\\x0a"]
    );
    assert!(
        text.contains("/a file 4750 7:8 -5.000000007 5 path:a xattr:user.test=0076\n"),
        "{text}"
    );
    assert!(
        text.contains("/d/f link /a\n") && text.contains("/m link /l\n"),
        "{text}"
    );
    assert!(
        text.contains("-> ../nowhere\n")
            && text.contains("/p fifo 0400 7:8")
            && text.contains("/s socket"),
        "{text}"
    );

    let contents = DirContents::new(open_root(dir.path()).unwrap());
    let id = tree.lookup(b"d/f", crate::tree::Follow::All).unwrap();
    let Kind::File(content) = &tree[id].kind else {
        panic!()
    };
    let mut bytes = [0; 5];
    contents
        .open(content)
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    assert_eq!(&bytes, b"hello");
}

#[test]
fn a_filter_leaves_prunes_and_keeps_needed_parents() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a/b/keep", "a/b/drop", "a/empty/drop", "node/x", "top"] {
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, b"").unwrap();
    }
    let mut seen = Vec::new();
    let mut filter = |found: &Found<'_>| {
        seen.push(text(found.path));
        match found.path {
            b"node" => Verdict::Leave,
            path if path.ends_with(b"drop") => Verdict::Leave,
            _ if found.kind == FoundKind::Dir => Verdict::IfUsed,
            _ => Verdict::Take,
        }
    };
    let tree = scan(
        dir.path(),
        WalkOptions {
            owner: None,
            filter: Some(&mut filter),
        },
    )
    .unwrap();
    assert_eq!(paths(&tree), ["a", "a/b", "a/b/keep", "top"]);
    assert!(!seen.contains(&"node/x".to_owned()));
}

#[test]
fn contents_that_change_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["longer", "gone", "link"] {
        fs_err::write(dir.path().join(name), b"1234").unwrap();
    }
    let contents = DirContents::new(open_root(dir.path()).unwrap());
    let open = |name: &str| {
        contents
            .open(&Content {
                source: Source::Path(Path::new(name).into()),
                size: 4,
            })
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(open("longer").is_ok());
    let file = fs_err::OpenOptions::new()
        .write(true)
        .open(dir.path().join("longer"))
        .unwrap();
    file.file().write_all_at(b"x", 10).unwrap();
    fs_err::remove_file(dir.path().join("gone")).unwrap();
    fs_err::remove_file(dir.path().join("link")).unwrap();
    symlink("longer", dir.path().join("link")).unwrap();
    assert!(open("longer").unwrap_err().contains("/longer changed"));
    assert!(open("gone").unwrap_err().contains("/gone"));
    assert!(open("link").is_err());
    assert!(open("../etc").is_err());
    assert!(open("/etc/passwd").is_err());
}

#[test]
fn a_directory_that_becomes_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir(dir.path().join("d")).unwrap();
    fs_err::create_dir(dir.path().join("e")).unwrap();
    let at = dir.path().to_owned();
    let mut filter = |found: &Found<'_>| {
        if found.path == b"d" {
            fs_err::remove_dir(at.join("d")).unwrap();
            symlink("e", at.join("d")).unwrap();
        }
        Verdict::Take
    };
    let error = scan(
        dir.path(),
        WalkOptions {
            owner: None,
            filter: Some(&mut filter),
        },
    )
    .unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (WalkErrorKind::Directory, &b"d"[..])
    );
    assert_eq!(error.to_string(), "cannot read the directory /d");
}

#[test]
fn deep_directories_are_walked_without_recursion() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_owned();
    for _ in 0..900 {
        path.push("d");
    }
    fs_err::create_dir_all(&path).unwrap();
    assert_eq!(scan(dir.path(), WalkOptions::default()).unwrap().len(), 901);
}
