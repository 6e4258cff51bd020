use std::path::{Path, PathBuf};

use firebuild_rootfs::dump::tree_to_text;
use firebuild_rootfs::tree::{Content, Contents as _, Kind};

use super::{ContextError, Files, RECORD, Stamp, decode, encode};
use crate::cancel::Cancel;
use crate::solve::ContextDir;

fn scan(dir: &ContextDir, memory: &Path) -> Result<Files, ContextError> {
    Files::scan(dir, memory, &Cancel::new().unwrap())
}

fn dir(path: &Path, ignore: &str) -> ContextDir {
    let ignore = (!ignore.is_empty()).then(|| (".dockerignore".to_owned(), ignore.to_owned()));
    ContextDir {
        path: path.to_owned(),
        ignore,
    }
}

fn content(files: &Files, path: &str) -> Content {
    match &files.tree[files.tree.find(path.as_bytes()).unwrap()].kind {
        Kind::File(content) => content.clone(),
        other => panic!("{path} is a {}", other.word()),
    }
}

fn sample() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for file in [
        "a.txt",
        "src/main.rs",
        "src/gen/x.rs",
        "target/big",
        "docs/a.md",
        "docs/keep.md",
        "empty/drop.md",
    ] {
        let path = temp.path().join("context").join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, file).unwrap();
    }
    temp
}

#[test]
fn records_come_back() {
    let stamp = Stamp {
        device: 1,
        inode: u64::MAX,
        size: 3,
        changed: (-5, 999_999_999),
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, &stamp, &[7; 32]);
    assert_eq!(bytes.len(), RECORD);
    assert_eq!(decode(&bytes), (stamp, [7; 32]));
}

#[test]
fn ignored_files_are_not_there_and_all_belongs_to_root() {
    let temp = sample();
    let ignore = "# a comment\ntarget\n**/*.md\n!docs/keep.md\n";
    let files = scan(
        &dir(&temp.path().join("context"), ignore),
        &temp.path().join("memory"),
    )
    .unwrap();
    let text = tree_to_text(&files.tree);
    let paths: Vec<&str> = text
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    // `empty` is not ignored itself, only what is in it.
    assert_eq!(
        paths,
        [
            "/",
            "/a.txt",
            "/docs",
            "/docs/keep.md",
            "/empty",
            "/src",
            "/src/gen",
            "/src/gen/x.rs",
            "/src/main.rs"
        ]
    );
    assert!(text.lines().all(|line| line.contains(" 0:0 ")), "{text}");
}

#[test]
fn an_exception_brings_back_the_directories_on_the_way() {
    let temp = sample();
    let ignore = "*\n!src/gen/x.rs\n";
    let files = scan(
        &dir(&temp.path().join("context"), ignore),
        &temp.path().join("memory"),
    )
    .unwrap();
    let paths: Vec<_> = files
        .tree
        .walk()
        .skip(1)
        .map(|(path, _)| String::from_utf8(path).unwrap())
        .collect();
    assert_eq!(paths, ["src", "src/gen", "src/gen/x.rs"]);
}

#[test]
fn content_is_hashed_by_many_threads_and_read() {
    let temp = sample();
    for i in 0..100 {
        fs_err::write(
            temp.path().join("context").join(format!("{i}")),
            format!("{i}"),
        )
        .unwrap();
    }
    let files = scan(
        &dir(&temp.path().join("context"), ""),
        &temp.path().join("memory"),
    )
    .unwrap();
    let contents: Vec<Content> = (0..100).map(|i| content(&files, &i.to_string())).collect();
    files
        .hash_all(&contents.iter().collect::<Vec<_>>())
        .unwrap();
    for (i, content) in contents.iter().enumerate() {
        let want = firebuild_oci::Digest::of(i.to_string().as_bytes());
        assert_eq!(&files.hash(content).unwrap(), want.as_bytes());
    }
    let mut bytes = [0; 5];
    files
        .open(&content(&files, "a.txt"))
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    assert_eq!(&bytes, b"a.txt");
    // A file that changes after the scan is an error that names it.
    fs_err::write(
        temp.path().join("context/src/main.rs"),
        "longer than before",
    )
    .unwrap();
    let error = files.hash(&content(&files, "src/main.rs")).unwrap_err();
    assert!(
        error.to_string().contains("/src/main.rs changed"),
        "{error}"
    );
}

#[test]
fn fresh_files_are_never_remembered() {
    let temp = sample();
    let memory = temp.path().join("memory");
    let files = scan(&dir(&temp.path().join("context"), ""), &memory).unwrap();
    files.hash(&content(&files, "a.txt")).unwrap();
    files.save();
    assert!(!memory.exists());
}

#[test]
fn settled_files_are_answered_from_memory() {
    // A file that nobody has changed within the last two seconds: this crate's own manifest.
    let context = dir(
        &PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        "*\n!Cargo.toml\n",
    );
    let temp = tempfile::tempdir().unwrap();
    let memory = temp.path().join("not/yet/there");
    let files = scan(&context, &memory).unwrap();
    let real = files.hash(&content(&files, "Cargo.toml")).unwrap();
    files.save();
    let mut bytes = fs_err::read(&memory).unwrap();
    assert_eq!(bytes.len(), RECORD);
    assert_eq!(decode(&bytes).1, real);
    // What the memory says is taken for true as long as the stamp is the same.
    bytes[RECORD - 32..].fill(9);
    fs_err::write(&memory, &bytes).unwrap();
    let files = scan(&context, &memory).unwrap();
    assert_eq!(files.hash(&content(&files, "Cargo.toml")).unwrap(), [9; 32]);
    // Another size, time or inode is another file.
    for at in [8, 16, 24, 32] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        fs_err::write(&memory, &other).unwrap();
        let files = scan(&context, &memory).unwrap();
        assert_eq!(files.hash(&content(&files, "Cargo.toml")).unwrap(), real);
    }
    // A damaged memory is as good as none.
    fs_err::write(&memory, b"nonsense").unwrap();
    let files = scan(&context, &memory).unwrap();
    assert_eq!(files.hash(&content(&files, "Cargo.toml")).unwrap(), real);
}

#[test]
fn what_cannot_be_read_is_named() {
    let temp = sample();
    let memory = temp.path().join("memory");
    let error = scan(&dir(&temp.path().join("none"), ""), &memory).unwrap_err();
    assert!(matches!(error, ContextError::Open { .. }), "{error}");
    let error = scan(&dir(&temp.path().join("context"), "a\n!\n"), &memory).unwrap_err();
    assert_eq!(error.to_string(), "cannot use .dockerignore");
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .starts_with("line 2: ")
    );
}

#[test]
fn the_memory_does_not_grow_with_every_change() {
    let temp = sample();
    let memory = temp.path().join("memory");
    // As many changes of one file as no scan of these few files sees.
    let mut bytes = Vec::new();
    for inode in 0..30_000 {
        let stamp = Stamp {
            device: 1,
            inode,
            size: 3,
            changed: (5, 0),
        };
        encode(&mut bytes, &stamp, &[7; 32]);
    }
    fs_err::write(&memory, &bytes).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3100));
    let files = scan(&dir(&temp.path().join("context"), ""), &memory).unwrap();
    files.hash(&content(&files, "a.txt")).unwrap();
    files.save();
    let left = fs_err::read(&memory).unwrap();
    assert_eq!(left.len(), RECORD);
}

#[test]
fn a_file_that_changes_after_it_was_hashed_is_refused() {
    let temp = sample();
    let context = temp.path().join("context");
    let memory = temp.path().join("memory");
    let files = scan(&dir(&context, ""), &memory).unwrap();
    let content = content(&files, "a.txt");
    files.hash(&content).unwrap();
    files.unchanged(&[&content]).unwrap();
    // The same size, as an editor or an attacker may make it, and the clock of the file system has gone on.
    std::thread::sleep(std::time::Duration::from_millis(30));
    fs_err::write(context.join("a.txt"), "b.txt").unwrap();
    let error = files.unchanged(&[&content]).unwrap_err().to_string();
    assert!(error.contains("a.txt changed while it was read"), "{error}");
    fs_err::remove_file(context.join("a.txt")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", context.join("a.txt")).unwrap();
    assert!(files.unchanged(&[&content]).is_err() && files.open(&content).is_err());
}

#[test]
fn a_stop_ends_the_scan_and_the_hashing() {
    let temp = sample();
    let cancel = Cancel::new().unwrap();
    let context = dir(&temp.path().join("context"), "");
    let files = Files::scan(&context, &temp.path().join("memory"), &cancel).unwrap();
    cancel.raise();
    assert!(files.hash(&content(&files, "a.txt")).is_err());
    let stopped = Files::scan(&context, &temp.path().join("memory"), &cancel);
    assert!(matches!(stopped, Err(ContextError::Stopped)));
}
