//! ADD of archives.

use super::*;

#[test]
fn an_archive_is_unpacked_into_a_directory() {
    let archive = "/d dir 0711 7:8 9\n/d/f file 0600 7:8 9 1 data:1\n/h link /d/f\n/l symlink 0777 7:8 9 -> /etc\n/q/r file 0644 0:0 9 1 data:2";
    let add = |dest_tree: &str, dest: &str, owner: Option<Owner>, chmod: &str| {
        let source = format!("/a.tar {F}x");
        Copy {
            source: &source,
            patterns: &["a.tar"],
            dest_tree,
            dest,
            owner,
            chmod,
            archive: Some(("a.tar", archive)),
            ..Copy::default()
        }
        .text()
    };
    let body = "/x/d dir 0711 7:8 9\n/x/d/f file 0600 7:8 9 1 data:1\n/x/h link /x/d/f\n/x/l symlink 0777 7:8 9 -> /etc\n";
    let tail = "/x/q/r file 0644 0:0 9 1 data:2\n";
    // With or without a slash.
    for dest in ["/x", "/x/"] {
        assert_eq!(
            add("", dest, None, ""),
            format!("/x dir 0755 0:0 {NOW}\n{body}/x/q dir 0755 0:0 {NOW}\n{tail}")
        );
    }
    // --chown overrules all, --chmod nothing of the archive.
    let owned = add("", "/x", Some(Owner { uid: 3, gid: 4 }), "0700");
    assert_eq!(
        owned,
        format!("/x dir 0755 3:4 {NOW}\n{body}/x/q dir 0755 3:4 {NOW}\n{tail}")
            .replace("7:8", "3:4")
            .replace("r file 0644 0:0", "r file 0644 3:4")
    );
    // What is there is replaced: files by files, links by directories, directories by files.
    let old = add(
        "/x/d symlink 0777 0:0 0 -> /e\n/e dir 0755 0:0 0\n/x/l/old dir 0755 0:0 0\n/x/q dir 0700 5:5 5",
        "/x",
        None,
        "",
    );
    assert_eq!(
        old,
        format!("/e dir 0755 0:0 0\n/x dir 0755 0:0 0\n{body}/x/q dir 0700 5:5 5\n{tail}")
    );
}

#[test]
fn an_archives_links_stay_inside() {
    let add = |dest_tree: &str, archive: &str| {
        let source = format!("/a.tar {F}x");
        Copy {
            source: &source,
            patterns: &["a.tar"],
            dest_tree,
            dest: "/x",
            archive: Some(("a.tar", archive)),
            ..Copy::default()
        }
        .layer()
        .map(|(mut tree, layer)| {
            tree.apply(&layer).unwrap();
            short(&tree)
        })
    };
    // An absolute link on the way leads into the image, not into the archive's directory.
    let archive = format!("/l symlink 0777 0:0 0 -> /etc\n/l/f {F}1");
    assert_eq!(
        add(&format!("/etc {D}"), &archive).unwrap(),
        "etc/ etc/f=1 x/ x/l->/etc"
    );
    let climbing = format!("/l symlink 0777 0:0 0 -> ../../../..\n/l/f {F}1");
    assert_eq!(add("", &climbing).unwrap(), "f=1 x/ x/l->../../../..");
    // Links before their target, in a chain.
    assert_eq!(
        add("", &format!("/z link /y\n/y link /a\n/a {F}1")).unwrap(),
        "x/ x/a=1 x/y=1 x/z=1"
    );
    assert_eq!(
        add("", "/z link /nowhere").unwrap_err().kind(),
        CopyErrorKind::Archive
    );
    // Names that look like whiteouts are names.
    assert_eq!(
        add(&format!("/x/f {F}0"), &format!("/.wh.f {F}1")).unwrap(),
        "x/ x/.wh.f=1 x/f=0"
    );
}

#[test]
fn something_else_is_copied_as_it_is() {
    let source = format!("/a.tar {F}x\n/b.tar {F}y");
    let result = Copy {
        source: &source,
        patterns: &["a.tar", "b.tar"],
        dest: "/x/",
        archive: Some(("a.tar", "/f fifo 0600 0:0 0")),
        ..Copy::default()
    };
    assert_eq!(result.short(), "x/ x/b.tar=y x/f:fifo");
}
