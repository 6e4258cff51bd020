//! What the key of a copy counts.

use super::*;

#[test]
fn the_key_knows_what_counts() {
    let base = "/d/f file 0644 0:0 5 1 data:1\n/d/l symlink 0777 0:0 5 -> f\n/d/c char 0600 0:0 5 1:3\n/other file 0644 0:0 5 1 data:9";
    let key = |source: &str| {
        Copy {
            source,
            patterns: &["d"],
            ..Copy::default()
        }
        .key()
    };
    let same = key(base);
    // Times, unrelated files, the directory's own properties and the machine's labels do not count.
    assert_eq!(key(&base.replace(" 5 ", " 6.000000001 ")), same);
    assert_eq!(key(&base.replace("data:9", "data:8")), same);
    assert_eq!(key(&format!("/d dir 0700 9:9 9\n{base}")), same);
    assert_eq!(
        key(&base.replace("data:1", "data:1 xattr:system.posix_acl_access=02")),
        same
    );
    for (from, to) in [
        ("data:1", "data:2"),
        ("file 0644 0:0 5 1 data:1", "file 0755 0:0 5 1 data:1"),
        ("file 0644 0:0", "file 0644 1:0"),
        ("file 0644 0:0", "file 0644 0:1"),
        ("/d/f file", "/d/g file"),
        ("-> f", "-> g"),
        ("1:3", "1:5"),
        ("/d/c char", "/d/c block"),
        ("data:1", "data:1 xattr:security.capability=01"),
        ("data:1", "data:1 xattr:user.a=01"),
    ] {
        assert_ne!(key(&base.replacen(from, to, 1)), same, "{from} {to}");
    }
    // Excluded files do not count, whether they are there or not.
    let excluded = |source: &str| {
        Copy {
            source,
            patterns: &["d"],
            exclude: &["c"],
            ..Copy::default()
        }
        .key()
    };
    assert_eq!(excluded(base), excluded(&base.replace("1:3", "1:5")));
    // A wildcard is what it matches.
    let wild = |source: &str| {
        Copy {
            source,
            patterns: &["d/*"],
            ..Copy::default()
        }
        .key()
    };
    assert_ne!(wild(base), wild(&format!("{base}\n/d/new {F}1")));
    // With --parents the directories on the way count, but not those before the pivot.
    let parents = |source: &str, pattern: &str| {
        Copy {
            source,
            patterns: &[pattern],
            parents: true,
            ..Copy::default()
        }
        .key()
    };
    let changed = format!("/d dir 0700 9:9 9\n{base}");
    assert_ne!(parents(base, "d/f"), parents(&changed, "d/f"));
    assert_eq!(parents(base, "d/./f"), parents(&changed, "d/./f"));
}

#[test]
fn the_layer_can_be_put_on_the_destination_only_in_one_way() {
    // Hard links between copied files survive the way through the layer.
    let source = format!("/d/a {F}1\n/d/s/b link /d/a");
    let (mut tree, layer) = Copy {
        source: &source,
        patterns: &["d"],
        dest: "/x",
        ..Copy::default()
    }
    .layer()
    .unwrap();
    tree.apply(&layer).unwrap();
    let id = tree.find(b"x/a").unwrap();
    assert_eq!((tree.find(b"x/s/b"), tree[id].names), (Some(id), 2));
    assert_ne!(id, InodeId::ROOT);
}
