//! What a step changes becomes a layer, and what it does not change does not.

use std::path::Path;

use firebuild_build::chain::Chain;
use firebuild_rootfs::tree::Kind;

use crate::base::{Base, run, shell};
use crate::user::Who;

pub(super) fn nothing_changed_is_an_empty_layer(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let ran = base.sh("echo hello; cat /srv/file; ls -R /srv /etc > /dev/null");
    assert_eq!(ran.ok(), "hello\nfirst");
    assert_eq!(ran.changes(), "");
}

const SCRIPT: &str = "\
set -e
cd /srv
echo new > new; chmod 4755 new
rm file
rm -r tree; echo now a file > tree
rm -r opaque; mkdir opaque; echo c > opaque/c
ln new hard
ln -s ../etc sym
mkfifo pipe
mkdir -p deep/er; touch deep/er/f; chmod 700 deep
echo more >> one
mv /etc/group /etc/moved
chmod 2775 /tmp
dd if=/dev/zero of=sparse bs=1 count=1 seek=1048575 2> /dev/null
: > 'odd name'
";

const CHANGES: &str = "\
/etc dir 0755 0:0 now
/etc/group whiteout
/etc/moved file 0644 0:0 1000 50 blob
/srv dir 0755 0:0 now
/srv/deep dir 0700 0:0 now
/srv/deep/er dir 0755 0:0 now
/srv/deep/er/f file 0644 0:0 now 0 blob
/srv/file whiteout
/srv/hard file 4755 0:0 now 4 blob
/srv/new link /srv/hard
/srv/odd\\x20name file 0644 0:0 now 0 blob
/srv/one file 0644 0:0 now 9 blob
/srv/opaque dir 0755 0:0 now
/srv/opaque opaque
/srv/opaque/c file 0644 0:0 now 2 blob
/srv/pipe fifo 0644 0:0 now
/srv/sparse file 0644 0:0 now 1048576 blob
/srv/sym symlink 0777 0:0 now -> ../etc
/srv/tree file 0644 0:0 now 11 blob
/tmp dir 2775 0:0 1000
";

#[track_caller]
fn same(found: &str, expected: &str) {
    // Empty files have no place in a blob, whichever way that is written.
    let plain = |text: &str| text.replace(" 0 blob", " 0 data:");
    assert_eq!(
        plain(found),
        plain(expected),
        "\nfound:\n{found}\nexpected:\n{expected}"
    );
}

pub(super) fn changes_become_a_layer(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let ran = base.sh(SCRIPT);
    ran.ok();
    // Copying one name of a hard link up breaks the link, as overlays do everywhere: /srv/two keeps its content.
    same(&ran.changes(), CHANGES);

    // What the layer says is what the next step sees.
    let after = base.after(&base.chain, &ran);
    let ran = run(
        &base.sandbox(),
        &after,
        &shell("cd /srv; ls; ls opaque; cat tree one; stat -c %a%h new; ls /etc"),
    )
    .unwrap();
    let expected = "app\ndeep\nhard\nnew\nnode\nodd name\none\nopaque\npipe\nsparse\nsym\ntree\ntwo\nc\nnow a file\nbothmore\n47552\nhosts\nmoved\npasswd\nresolv.conf\n";
    let expected = if ran.ok().contains("\nnode\n") {
        expected.to_owned()
    } else {
        expected.replace("node\n", "")
    };
    assert_eq!(ran.ok(), expected);
    assert_eq!(ran.changes(), "");
}

pub(super) fn owners_and_nodes(directory: &Path, who: Who) {
    let base = Base::new(directory);
    let ran = base.sh(
        "chown 1000:6 /srv/file; chown 0:0 /srv/app/mine; touch /tmp/f; chown 65533:65532 /tmp/f",
    );
    ran.ok();
    same(
        &ran.changes(),
        "/srv/app/mine file 0640 0:0 1000 4 blob\n/srv/file file 0644 1000:6 1000 5 blob xattr:user.kept=6b\n\
         /tmp dir 1777 0:0 now\n/tmp/f file 0644 65533:65532 now 0 blob\n",
    );
    if who == Who::Root {
        let ran = base.sh("mknod /tmp/n b 7 5; rm /srv/node; chown 70000 /srv/one");
        ran.ok();
        let changes = ran.changes();
        assert!(
            changes.contains("/tmp/n block 0644 0:0 now 7:5\n"),
            "{changes}"
        );
        assert!(changes.contains("/srv/node whiteout\n"), "{changes}");
        assert!(
            changes.contains("/srv/one file 0644 70000:0 1000 4 blob"),
            "{changes}"
        );
    }
}

pub(super) fn what_cannot_be_held_is_kept(directory: &Path, who: Who) {
    let base = Base::new(directory);
    let chain = base.layer(&base.chain, "/srv/big file 0644 70000:70000 1000 0 data:b\n/srv/of-app file 0644 1000:1001 1000 0 data:a\n");
    let ran = run(
        &base.sandbox(),
        &chain,
        &shell(
            "echo x >> /srv/big; echo x >> /srv/of-app; chmod 600 /srv/app/mine; touch /srv/other",
        ),
    )
    .unwrap();
    ran.ok();
    // Neither the node, which could not be made, nor the owners are what the step has changed.
    same(
        &ran.changes(),
        "/srv dir 0755 0:0 now\n/srv/app/mine file 0600 1000:1001 1000 4 blob\n/srv/big file 0644 70000:70000 now 3 blob\n\
         /srv/of-app file 0644 1000:1001 now 3 blob\n/srv/other file 0644 0:0 now 0 blob\n",
    );
    let mut tree = (*chain.tree(base.store).unwrap()).clone();
    tree.apply(&ran.done.layer.as_ref().unwrap().layer).unwrap();
    let node = tree.find(b"srv/node").expect("the node is in the tree");
    assert!(matches!(tree[node].kind, Kind::CharDevice(_)));
    // On top of the step's own layer, too.
    let ran = run(
        &base.sandbox(),
        &base.after(&chain, &ran),
        &shell("echo y >> /srv/big"),
    )
    .unwrap();
    ran.ok();
    same(
        &ran.changes(),
        "/srv/big file 0644 70000:70000 now 5 blob\n",
    );
    if who == Who::Single {
        let ran = base.sh("chown 1000 /srv/file");
        assert_eq!(ran.done.status, firebuild_build::exec::Exit::Code(1));
        let hint = ran.done.hint.expect("a remedy");
        assert!(hint.contains("usermod --add-subuids"), "{hint}");
    }
}

pub(super) fn steps_build_on_steps(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let sandbox = base.sandbox();
    let mut chain = base.chain.clone();
    for number in 0..5 {
        let script =
            format!("echo {number} >> /srv/log; rm -f /srv/last*; touch /srv/last{number}");
        let ran = run(&sandbox, &chain, &shell(&script)).unwrap();
        ran.ok();
        chain = base.after(&chain, &ran);
    }
    let ran = run(&sandbox, &chain, &shell("cat /srv/log; ls /srv/last*")).unwrap();
    assert_eq!(ran.ok(), "0\n1\n2\n3\n4\n/srv/last4\n");
    // A process that comes later finds the snapshots, or makes them from the layers.
    for entry in fs_err::read_dir(base.store.root().join("snapshots"))
        .unwrap()
        .flatten()
    {
        sandbox.remove(&[entry.path()]).unwrap();
    }
    let again = run(
        &base.sandbox(),
        &chain,
        &shell("cat /srv/log; ls /srv/last*; ls -l /srv | wc -l"),
    )
    .unwrap();
    assert!(again.ok().starts_with("0\n1\n2\n3\n4\n/srv/last4\n"));
    assert_eq!(again.changes(), "");
}

pub(super) fn layers_of_archives_are_shown_exactly(directory: &Path, _: Who) {
    let base = Base::new(directory);
    // No parents named, a whiteout, an opaque directory, a file where a directory was, a way through a link.
    let chain = base.layer(
        &base.chain,
        "/srv/app/second file 0644 0:0 1000 0 data:2\n/srv/tree/x/y/z whiteout\n/srv/opaque opaque\n\
         /srv/opaque/new file 0644 0:0 1000 0 data:n\n/srv/file dir 0755 0:0 1000\n/srv/file/in file 0644 0:0 1000 0 data:i\n",
    );
    let chain = base.layer(
        &chain,
        "/srv/two whiteout\n/srv/opaque/a file 0600 0:0 1000 0 data:back\n",
    );
    let ran = run(
        &base.sandbox(),
        &chain,
        &shell("cd /srv; stat -c '%a %u' /tmp app; ls app tree/x/y opaque file; ls; cat opaque/a"),
    )
    .unwrap();
    let text = ran.ok();
    assert!(text.starts_with("1777 0\n755 "), "{text}");
    assert!(
        text.contains("app:\nmine\nsecond\n\nfile:\nin\n\nopaque:\na\nnew\n\ntree/x/y:\n"),
        "{text}"
    );
    assert!(!text.contains("two"), "{text}");
    assert!(text.ends_with("back"), "{text}");
    assert_eq!(ran.changes(), "");
}

pub(super) fn long_chains_are_made_flat(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mut chain = base.chain.clone();
    for number in 0..200 {
        chain = base.layer(&chain, &format!("/srv/n{number} file 0644 0:0 1000 0 data:{number}\n/srv/last file 0644 0:0 1000 0 data:{number}\n"));
    }
    let ran = run(
        &base.sandbox().with_most_lowers(128),
        &chain,
        &shell("ls /srv/n* | wc -l; cat /srv/last; echo; rm /srv/n5; echo x > /srv/n6"),
    )
    .unwrap();
    assert_eq!(
        ran.ok().split_whitespace().collect::<Vec<_>>(),
        ["200", "199"].map(|word| if word == "200" { "201" } else { word })
    );
    same(
        &ran.changes(),
        "/srv dir 0755 0:0 now\n/srv/n5 whiteout\n/srv/n6 file 0644 0:0 now 2 blob\n",
    );
    let snapshots = fs_err::read_dir(base.store.root().join("snapshots"))
        .unwrap()
        .count();
    assert!(snapshots < 75, "{snapshots} snapshots");
}

pub(super) fn a_copy_does_what_an_overlay_does(directory: &Path, who: Who) {
    let base = Base::new(directory);
    let sandbox = base.sandbox().without_overlay();
    let ran = run(&sandbox, &base.chain, &shell(SCRIPT)).unwrap();
    ran.ok();
    // A copy cannot tell a directory that was made anew from one that was emptied, and keeps hard links.
    let expected = CHANGES.replace(
        "/srv/opaque opaque\n",
        "/srv/opaque/a whiteout\n/srv/opaque/b whiteout\n",
    );
    let expected = expected + "/srv/two link\n";
    let names = |text: &str| {
        text.lines()
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&ran.changes()), names(&expected));
    let ran = run(
        &sandbox,
        &base.after(&base.chain, &ran),
        &shell("cat /srv/tree; id -u"),
    )
    .unwrap();
    assert_eq!(ran.ok(), "now a file\n0\n");
    assert_eq!(ran.changes(), "", "as {who:?}");
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn scratch_is_a_root(directory: &Path, _: Who) {
    let base = Base::new(directory);
    // A root with one program and no directory at all.
    let program = fs_err::read(crate::base::busybox().unwrap()).unwrap();
    let mut layer = firebuild_rootfs::layer::Layer::default();
    let meta = firebuild_rootfs::tree::Meta {
        mode: 0o755,
        ..Default::default()
    };
    let content = firebuild_rootfs::tree::Content::from_bytes(program);
    let node = firebuild_rootfs::tree::Inode::new(meta, Kind::File(content));
    layer.push(*b"sh", firebuild_rootfs::layer::Change::Node(node));
    let contents = firebuild_build::content::StoreContents::new(base.store);
    let stored = firebuild_build::content::store_layer(base.store, &layer, &contents).unwrap();
    let chain = Chain::scratch().push(firebuild_build::chain::ChainLayer {
        diff_id: stored.diff_id,
        created: None,
    });
    let mut step = shell("");
    step.argv = ["/sh", "-c", "echo $HOME; : > /made"]
        .map(str::to_owned)
        .into();
    step.cwd = String::new();
    let ran = run(&base.sandbox(), &chain, &step).unwrap();
    assert_eq!(ran.ok(), "/\n");
    // The root's time has changed; /proc, /dev, /etc and the rest were never there.
    let changes: Vec<String> = ran
        .changes()
        .lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .filter(|path| path != "/")
        .collect();
    assert_eq!(changes, ["/made"]);
    // Nothing at all: the program is missing, everything else is there.
    let ran = run(&base.sandbox(), &Chain::scratch(), &step).unwrap();
    assert_eq!(ran.done.status, firebuild_build::exec::Exit::Code(127));
}
