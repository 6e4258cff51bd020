//! The kernel's overlay as oracle: what a step did on a mounted overlay, read from its upper directory as a layer, gives
//! the tree that the step saw; and a layer that is unpacked as a lower directory shows what it says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use common::{TORTURE, needs, sh};
use firebuild_rootfs::diff::{diff_by, snapshot_layer};
use firebuild_rootfs::dump::tree_to_text;
use firebuild_rootfs::layer::Change;
use firebuild_rootfs::overlay::{copy_layer, upper_layer};
use firebuild_rootfs::tree::{Content, Contents, Inode, Opened, Source, Tree};
use firebuild_rootfs::unpack::{
    Skipped, Unmapped, UnpackErrorKind, UnpackOptions, What, export_dir, unpack_layer, unpack_tree,
};
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};

/// What a step may do to [`TORTURE`].
const STEP: &str = r#"
echo changed >> random; touch -d '2020-01-01 UTC' random
rm empty; rm -r deep; rm -rf d/sub; mkdir d/sub; echo new > d/sub/new
rm sym; mkdir sym; echo x > sym/x
rm -rf 'blank dir'; echo file > 'blank dir'
mv hole hole2; ln random d/random-link; ln -s random newsym
chmod 0700 d; chown 9:9 fifo; rm char; mknod char c 1 5
setfattr -n user.new -v 1 d/f; mkdir -p n/e/w; touch n/e/w/file
mkdir gone; rmdir gone; rm é; mkdir é
"#;

fn scan(dir: &Path) -> Tree {
    walk(open_root(dir).unwrap().as_fd(), WalkOptions::default()).unwrap()
}

/// The text of a tree with digests of its content in place of where it is.
fn text(tree: &Tree, dirs: &[&Path]) -> String {
    let mut tree = tree.clone();
    let roots: Vec<DirContents> = dirs
        .iter()
        .map(|dir| DirContents::new(open_root(dir).unwrap()))
        .collect();
    let ids: BTreeSet<_> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        let Some(content) = tree.content_mut(id) else {
            continue;
        };
        let opened = roots.iter().find_map(|root| root.open(content).ok());
        let opened = opened.unwrap_or_else(|| panic!("{content:?} is nowhere"));
        let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
        opened.read_exact_at(&mut bytes, 0).unwrap();
        content.source = Source::Blob {
            id: <sha2::Sha256 as sha2::Digest>::digest(&bytes).into(),
            offset: 0,
        };
    }
    tree_to_text(&tree)
}

fn same(a: &str, b: &str) {
    for (x, y) in a.lines().zip(b.lines()) {
        assert_eq!(x, y);
    }
    assert_eq!(a, b);
}

#[test]
fn the_upper_directory_is_what_the_step_changed() {
    if !needs(
        "the_upper_directory_is_what_the_step_changed",
        &[
            "root",
            "tool:setfattr",
            "tool:setfacl",
            "tool:setcap",
            "tool:unshare",
        ],
    ) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    sh(temp.path(), "mkdir lower upper work merged after");
    sh(&at("lower"), TORTURE);
    fs_err::write(at("step"), STEP).unwrap();
    let mount = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=off,metacopy=off,index=off merged";
    let script =
        format!("{mount}; (cd merged; bash -eu ../step); cp -a merged/. after; umount merged");
    sh(
        temp.path(),
        &format!("unshare -m bash -euc '{}'", script.replace('\'', "'\\''")),
    );

    let (given, after) = (scan(&at("lower")), scan(&at("after")));
    let layer = upper_layer(&scan(&at("upper")), &given, &Skipped::default());
    let mut result = given.clone();
    result.apply(&layer).unwrap();
    same(
        &text(&result, &[&at("upper"), &at("lower")]),
        &text(&after, &[&at("after")]),
    );
    // Untouched things are not in the layer, and the directories on the way neither.
    for entry in &layer.entries {
        assert!(
            !entry.path.starts_with(b"sparse") && !entry.path.starts_with(b"block"),
            "{entry:?}"
        );
    }

    // The same step seen as a complete copy.
    let layer = copy_layer(&after, &given, &Skipped::default());
    let mut result = given.clone();
    result.apply(&layer).unwrap();
    same(
        &text(&result, &[&at("after"), &at("lower")]),
        &text(&after, &[&at("after")]),
    );

    // And the other way: the difference, unpacked as a directory over the lower one, shows the result.
    fs_err::create_dir(at("middle")).unwrap();
    fs_err::create_dir(at("shown")).unwrap();
    let layer = snapshot_layer(
        &given,
        &loaded(after.clone(), &given, &at("after"), &at("lower")),
    );
    let contents = DirContents::new(open_root(&at("after")).unwrap());
    let root = open_root(&at("middle")).unwrap();
    let skipped = unpack_layer(&layer, &contents, root.as_fd(), &UnpackOptions::default()).unwrap();
    assert_eq!(skipped.entries, []);
    let script = "mount -t overlay overlay -o lowerdir=middle:lower,redirect_dir=off merged; cp -a merged/. shown; umount merged";
    sh(temp.path(), &format!("unshare -m bash -euc '{script}'"));
    same(
        &text(&scan(&at("shown")), &[&at("shown")]),
        &text(&after, &[&at("after")]),
    );
}

/// `after` with the content references of `given` where nothing changed, so that the difference is small.
fn loaded(mut after: Tree, given: &Tree, after_dir: &Path, given_dir: &Path) -> Tree {
    let (a, b) = (text(&after, &[after_dir]), text(given, &[given_dir]));
    let changed = diff_by(given, &after, |x: &Inode, y: &Inode| {
        x.meta == y.meta && x.kind.word() == y.kind.word()
    });
    assert!(!changed.entries.is_empty() && a != b);
    let unchanged: Vec<_> = after
        .walk()
        .filter(|(path, _)| {
            !changed
                .entries
                .iter()
                .any(|e| e.path == *path && matches!(e.change, Change::Node(_)))
        })
        .collect();
    for (path, id) in unchanged {
        let Some(old) = given.find(&path) else {
            continue;
        };
        let kind = given[old].kind.clone();
        if let (Some(content), firebuild_rootfs::tree::Kind::File(before)) =
            (after.content_mut(id), kind)
        {
            content.source = before.source;
        }
    }
    after
}

struct Memory;

impl Contents for Memory {
    fn open(&self, _: &Content) -> std::io::Result<Opened> {
        Err(std::io::Error::other("nothing is stored"))
    }
}

const FOREIGN: &str = "\
/ dir 0755 0:0 0
/c char 0666 0:0 0 1:3
/d link /c
/f file 4755 1000:1000 5 2 data:hi xattr:trusted.t=01
/home dir 0700 1000:1000 7
/home/x file 0600 0:0 5 1 data:x
/p fifo 0644 0:0 5
";

/// Runs inside a user name space with one id, which the test below makes.
#[test]
fn inside_a_name_space_with_one_id() {
    let Ok(dir) = std::env::var("FIREBUILD_TEST_ONE_ID") else {
        return;
    };
    let dir = Path::new(&dir);
    let tree = firebuild_rootfs::dump::parse_tree(FOREIGN).unwrap();
    let root = open_root(dir).unwrap();
    let refuse = UnpackOptions::default();
    let error = unpack_tree(&tree, &Memory, root.as_fd(), &refuse).unwrap_err();
    assert_eq!(
        error.kind(),
        UnpackErrorKind::Owner {
            uid: 1000,
            gid: 1000
        }
    );
    assert_eq!(error.path(), b"f");
    let squash = UnpackOptions {
        unmapped: Unmapped::SquashToRoot,
        ..refuse
    };
    let skipped = unpack_tree(&tree, &Memory, root.as_fd(), &squash).unwrap();
    let told: Vec<(&[u8], &What)> = skipped
        .entries
        .iter()
        .map(|e| (e.path.as_slice(), &e.what))
        .collect();
    let xattr = What::Xattr(b"trusted.t".to_vec());
    assert_eq!(
        told,
        [
            (&b"c"[..], &What::Node),
            (b"d", &What::Node),
            (b"f", &What::Owner),
            (b"f", &xattr),
            (b"home", &What::Owner)
        ]
    );
    // What the step is given lacks some things; that it leaves it alone is no change.
    let now = scan(dir);
    assert_eq!(copy_layer(&now, &tree, &skipped).entries, []);
    // Whiteouts can be made here too.
    let layer = firebuild_rootfs::dump::parse_layer("/gone whiteout").unwrap();
    unpack_layer(&layer, &Memory, root.as_fd(), &squash).unwrap();
    fs_err::symlink_metadata(dir.join("gone")).unwrap();
    // A user's directory gets what a user can make.
    let out = dir.join("out");
    fs_err::create_dir(&out).unwrap();
    let skipped = export_dir(&tree, &Memory, open_root(&out).unwrap().as_fd()).unwrap();
    assert_eq!(skipped.entries.len(), 5);
}

#[test]
fn what_an_ordinary_user_cannot_make_is_told() {
    if !needs(
        "what_an_ordinary_user_cannot_make_is_told",
        &["tool:unshare"],
    ) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(exe)
        .args(["--exact", "inside_a_name_space_with_one_id", "--nocapture"])
        .env("FIREBUILD_TEST_ONE_ID", temp.path())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if said.contains("unshare: ") {
        assert!(
            !needs("what_an_ordinary_user_cannot_make_is_told", &["userns"]),
            "{said}"
        );
        return;
    }
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}
