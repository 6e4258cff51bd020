//! GNU tar and Python's tarfile as oracles: what they write is read here, what is written here they read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use common::{TORTURE, needs, sh};
use firebuild_rootfs::dump::tree_to_text;
use firebuild_rootfs::tar::{Output, ReadOptions, WriteOptions, read_layer, write_tree};
use firebuild_rootfs::tree::{Content, Contents, Kind, Opened, Source, Tree};
use firebuild_rootfs::unpack::{UnpackOptions, unpack_tree};
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};

const ROOT_AND_TOOLS: &[&str] = &[
    "root",
    "tool:tar",
    "tool:setfattr",
    "tool:setfacl",
    "tool:setcap",
];

struct Blob(Arc<File>);

impl Contents for Blob {
    fn open(&self, content: &Content) -> std::io::Result<Opened> {
        content
            .opened_in(&self.0)
            .ok_or_else(|| std::io::Error::other("not in the blob"))
    }
}

fn scan(dir: &Path) -> Tree {
    walk(open_root(dir).unwrap().as_fd(), WalkOptions::default()).unwrap()
}

fn torture(dir: &Path) -> Tree {
    fs_err::create_dir_all(dir).unwrap();
    sh(dir, TORTURE);
    scan(dir)
}

fn read_tree(archive: &Path) -> (Tree, Blob) {
    let file = File::open(archive).unwrap();
    let layer = read_layer(&file, [7; 32], &ReadOptions::default()).unwrap();
    let mut tree = Tree::new();
    tree.apply(&layer).unwrap();
    (tree, Blob(Arc::new(file)))
}

fn bytes(tree: &Tree, contents: &dyn Contents, path: &[u8]) -> Vec<u8> {
    let Kind::File(content) = &tree[tree.find(path).unwrap()].kind else {
        panic!("no file")
    };
    let mut out = vec![0; usize::try_from(content.size).unwrap()];
    contents
        .open(content)
        .unwrap()
        .read_exact_at(&mut out, 0)
        .unwrap();
    out
}

/// The text of a tree without where its content is.
fn text(tree: &Tree) -> String {
    let mut tree = tree.clone();
    let ids: Vec<_> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        if let Some(content) = tree.content_mut(id) {
            content.source = Source::Blob {
                id: [0; 32],
                offset: 0,
            };
        }
    }
    tree_to_text(&tree)
}

fn compare(a: (&Tree, &dyn Contents), b: (&Tree, &dyn Contents)) {
    pretty(&text(a.0), &text(b.0));
    for (path, id) in a.0.walk() {
        if matches!(a.0[id].kind, Kind::File(_)) {
            assert!(
                bytes(a.0, a.1, &path) == bytes(b.0, b.1, &path),
                "{path:?} differs"
            );
        }
    }
}

fn pretty(a: &str, b: &str) {
    for (x, y) in a.lines().zip(b.lines()) {
        assert_eq!(x, y);
    }
    assert_eq!(a, b);
}

#[test]
fn reads_what_gnu_tar_writes() {
    if !needs("reads_what_gnu_tar_writes", ROOT_AND_TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    let tree = torture(&dir);
    let disk = DirContents::new(open_root(&dir).unwrap());
    for options in [
        "--format=posix --xattrs --xattrs-include='*' --acls --numeric-owner",
        "--format=posix --xattrs --xattrs-include='*' --acls --numeric-owner --sparse --sparse-version=1.0",
        "--format=posix --xattrs --xattrs-include='*' --acls --numeric-owner --sparse --sparse-version=0.1",
        "--format=posix --xattrs --xattrs-include='*' --acls --numeric-owner --sparse --sparse-version=0.0",
    ] {
        sh(&dir, &format!("tar {options} -cf ../a.tar ."));
        let (read, blob) = read_tree(&temp.path().join("a.tar"));
        compare((&tree, &disk), (&read, &blob));
    }
    // GNU's own format knows no attributes and no nanoseconds, ustar no long names either.
    sh(&dir, "tar --format=gnu --sparse -cf ../a.tar .");
    let (read, blob) = read_tree(&temp.path().join("a.tar"));
    let mut plain = tree.clone();
    let ids: Vec<_> = plain.walk().map(|(_, id)| id).collect();
    for id in ids {
        let meta = plain.meta_mut(id);
        meta.xattrs.clear();
        meta.mtime.nanos = 0;
    }
    compare((&plain, &disk), (&read, &blob));
}

#[test]
fn gnu_tar_unpacks_what_is_written() {
    if !needs("gnu_tar_unpacks_what_is_written", ROOT_AND_TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let tree = torture(&from);
    let disk = DirContents::new(open_root(&from).unwrap());
    let out = fs_err::File::create(temp.path().join("a.tar")).unwrap();
    let written = write_tree(
        &tree,
        &disk,
        Output::File(out.file()),
        &WriteOptions::default(),
    )
    .unwrap();
    let digest = String::from_utf8(sh(temp.path(), "sha256sum a.tar").stdout).unwrap();
    let hex: String = written.diff_id.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(&digest[..64], hex);
    fs_err::create_dir(&to).unwrap();
    let said = sh(
        &to,
        "tar --xattrs --xattrs-include='*' --numeric-owner -xpf ../a.tar",
    );
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.lines().all(|line| line.contains(" time stamp ")),
        "{said}"
    );
    compare(
        (&tree, &disk),
        (&scan(&to), &DirContents::new(open_root(&to).unwrap())),
    );
    // And so does this reader, and the unpacker.
    let (read, blob) = read_tree(&temp.path().join("a.tar"));
    compare((&tree, &disk), (&read, &blob));
    let again = temp.path().join("again");
    fs_err::create_dir(&again).unwrap();
    let root = open_root(&again).unwrap();
    let skipped = unpack_tree(&read, &blob, root.as_fd(), &UnpackOptions::default()).unwrap();
    assert_eq!(skipped.entries, []);
    compare((&tree, &disk), (&scan(&again), &DirContents::new(root)));
    // The same input gives the same bytes.
    let second = write_tree(
        &read,
        &blob,
        Output::Stream(&mut std::io::sink()),
        &WriteOptions::default(),
    )
    .unwrap();
    assert_eq!(second.diff_id, written.diff_id);
}

#[test]
fn python_reads_and_writes_odd_headers() {
    if !needs("python_reads_and_writes_odd_headers", &["tool:python3"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let script = r#"
import tarfile, io, sys
def make(name, format):
    t = tarfile.open(name, "w", format=format)
    def add(name, data=b"", **kw):
        i = tarfile.TarInfo(name); i.size = len(data)
        for k, v in kw.items(): setattr(i, k, v)
        t.addfile(i, io.BytesIO(data))
    add("d", type=tarfile.DIRTYPE, mode=0o750)
    add("d/" + "n" * 150 + "/" + "m" * 90, b"long")
    add("big", b"x", uid=3000000, gid=4000000, mtime=2**34)
    add("hard", type=tarfile.LNKTYPE, linkname="big")
    add("l", type=tarfile.SYMTYPE, linkname="t" * 180)
    add("cont", b"c", type=tarfile.CONTTYPE)
    add("dev", type=tarfile.CHRTYPE, devmajor=5, devminor=1)
    if format == tarfile.PAX_FORMAT:
        add("pax", b"p", pax_headers={"mtime": "-1.5", "SCHILY.xattr.user.a": "b", "path": "päx"})
    t.close()
make("pax.tar", tarfile.PAX_FORMAT)
make("gnu.tar", tarfile.GNU_FORMAT)
"#;
    fs_err::write(temp.path().join("make.py"), script).unwrap();
    sh(temp.path(), "python3 make.py");
    for name in ["pax.tar", "gnu.tar"] {
        let (tree, blob) = read_tree(&temp.path().join(name));
        let text = text(&tree);
        for want in [
            "/d dir 0750 0:0 0\n",
            "/big file 0644 3000000:4000000 17179869184 1 ",
            "/hard link /big\n",
            &format!("/l symlink 0644 0:0 0 -> {}\n", "t".repeat(180)),
            "/dev char 0644 0:0 0 5:1\n",
        ] {
            assert!(text.contains(want), "{name}: {want} not in\n{text}");
        }
        let long = format!("d/{}/{}", "n".repeat(150), "m".repeat(90));
        assert_eq!(bytes(&tree, &blob, long.as_bytes()), b"long");
        assert_eq!(bytes(&tree, &blob, b"cont"), b"c");
        if name == "pax.tar" {
            assert!(
                text.contains("/p\\xc3\\xa4x file 0644 0:0 -2.500000000 1 "),
                "{text}"
            );
            assert!(text.contains(" xattr:user.a=62\n"), "{text}");
        }
        // Python reads what is written from it, with the same properties.
        let out = fs_err::File::create(temp.path().join("back.tar")).unwrap();
        write_tree(
            &tree,
            &blob,
            Output::File(out.file()),
            &WriteOptions::default(),
        )
        .unwrap();
        let list = |archive: &str| {
            let code = format!(
                "import tarfile\nfor i in sorted(tarfile.open('{archive}'), key=lambda i: i.name):\n  \
                 t = b'0' if i.isreg() else i.type\n  \
                 i.name != '.' and 'nn' + '' and not i.name.endswith('n' * 150) and \
                 print(ascii(i.name), oct(i.mode), i.uid, i.gid, i.size, float(i.mtime), t, i.linkname, i.devmajor, i.devminor, \
                 ascii(sorted(k for k in i.pax_headers if 'xattr' in k)))"
            );
            fs_err::write(temp.path().join("list.py"), code).unwrap();
            String::from_utf8(sh(temp.path(), "python3 list.py").stdout).unwrap()
        };
        // The order of a hard link and its target is the archive's own: compare the names and the others' lines.
        let strip = |text: String| -> Vec<String> {
            text.lines()
                .filter(|l| !l.contains("'hard'") && !l.contains("'big'"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(strip(list("back.tar")), strip(list(name)));
    }
}
