//! Where a file arrives, and what it finds there.

use super::*;

#[test]
fn a_slash_or_a_directory_takes_the_file_inside() {
    let source = format!("/f {F}1");
    assert_eq!(copy(&source, &["f"], "/x"), "x=1");
    assert_eq!(copy(&source, &["f"], "/x/"), "x/ x/f=1");
    assert_eq!(
        copy_onto(&source, &["f"], &format!("/x {D}"), "/x"),
        "x/ x/f=1"
    );
    assert_eq!(copy(&source, &["f"], "/"), "f=1");
    assert_eq!(copy(&source, &["f"], "/a/b/c"), "a/ a/b/ a/b/c=1");
}

#[test]
fn the_last_of_several_sources_wins_a_plain_name() {
    let source = format!("/f {F}1\n/g {F}2");
    assert_eq!(copy(&source, &["f", "g"], "/x"), "x=2");
    assert_eq!(copy(&source, &["[fg]"], "/x"), "x=2");
}

#[test]
fn parents_that_are_made() {
    let source = "/f file 0600 7:8 5 1 data:1\n/d dir 0700 7:8 5\n/d/s dir 0711 7:8 6\n";
    let one = |chmod: &str, owner: Option<Owner>, patterns: &[&str], dest: &str| {
        Copy {
            source,
            patterns,
            dest,
            chmod,
            owner,
            ..Copy::default()
        }
        .text()
    };
    assert_eq!(
        one("", None, &["f"], "/a/x"),
        format!("/a dir 0755 0:0 {NOW}\n/a/x file 0600 7:8 5 1 data:1\n")
    );
    // An octal mode leaks to them, a symbolic one does not.
    assert_eq!(
        one("0640", None, &["f"], "/a/x"),
        format!("/a dir 0640 0:0 {NOW}\n/a/x file 0640 7:8 5 1 data:1\n")
    );
    assert_eq!(
        one("go+r", None, &["f"], "/a/x"),
        format!("/a dir 0755 0:0 {NOW}\n/a/x file 0644 7:8 5 1 data:1\n")
    );
    let owner = Some(Owner { uid: 3, gid: 4 });
    assert_eq!(
        one("", owner, &["f"], "/a/x"),
        format!("/a dir 0755 3:4 {NOW}\n/a/x file 0600 3:4 5 1 data:1\n")
    );
    // The root of a copied directory is such a parent when it has to be made, but for its time; what is in it keeps its own.
    assert_eq!(
        one("", None, &["d"], "/a"),
        "/a dir 0755 0:0 5\n/a/s dir 0711 7:8 6\n"
    );
}

#[test]
fn an_existing_destination_keeps_its_own_properties_and_its_children() {
    let source = "/d dir 0700 7:8 5\n/d/s dir 0711 7:8 6\n/d/s/f file 0600 0:0 5 1 data:1";
    let text = Copy {
        source,
        patterns: &["d"],
        dest_tree: "/x dir 1777 1:1 9\n/x/s dir 0755 2:2 9\n/x/s/old file 0644 0:0 5 1 data:0",
        dest: "/x",
        ..Copy::default()
    };
    assert_eq!(
        text.text(),
        "/x dir 1777 1:1 5\n/x/s dir 0711 7:8 6\n/x/s/f file 0600 0:0 5 1 data:1\n/x/s/old file 0644 0:0 5 1 data:0\n"
    );
    // The layer holds what was copied, the directory with its new time, and nothing else.
    let (_, layer) = text.layer().unwrap();
    let paths: Vec<_> = layer.entries.iter().map(|e| e.path.as_slice()).collect();
    assert_eq!(paths, [&b"x"[..], b"x/s", b"x/s/f"]);
}

#[test]
fn links_in_the_destination_are_followed_inside_its_root() {
    let source = format!("/f {F}1\n/d/g {F}2");
    let below = format!(
        "/real {D}\n/old {F}0\n/abs symlink 0777 0:0 5 -> /real\n/up symlink 0777 0:0 5 -> ../../real\n/file symlink 0777 0:0 5 -> old\n/new symlink 0777 0:0 5 -> real/made"
    );
    let links = "abs->/real file->old new->real/made";
    assert_eq!(
        copy_onto(&source, &["f"], &below, "/abs/x"),
        format!("{links} old=0 real/ real/x=1 up->../../real")
    );
    assert_eq!(
        copy_onto(&source, &["f"], &below, "/up"),
        format!("{links} old=0 real/ real/f=1 up->../../real")
    );
    assert_eq!(
        copy_onto(&source, &["d"], &below, "/abs"),
        format!("{links} old=0 real/ real/g=2 up->../../real")
    );
    // A link to a file is written through, also when the file is not there yet.
    assert_eq!(
        copy_onto(&source, &["f"], &below, "/file"),
        format!("{links} old=1 real/ up->../../real")
    );
    assert_eq!(
        copy_onto(&source, &["f"], &below, "/new"),
        format!("{links} old=0 real/ real/made=1 up->../../real")
    );
    // Inside a copied directory links of the destination are replaced by files.
    let below = format!("/x/g symlink 0777 0:0 5 -> ../old\n/old {F}0");
    assert_eq!(copy_onto(&source, &["d"], &below, "/x"), "old=0 x/ x/g=2");
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let source = format!("/f {F}1\n/d/s/g {F}2");
    let fails = |patterns: &[&str], dest_tree: &str, dest: &str| {
        Copy {
            source: &source,
            patterns,
            dest_tree,
            dest,
            ..Copy::default()
        }
        .layer()
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        fails(&["d"], &format!("/x {F}0"), "/x"),
        "cannot copy to non-directory: /x"
    );
    assert_eq!(
        fails(&["d"], &format!("/x/s {F}0"), "/x"),
        "cannot copy to non-directory: /x/s"
    );
    assert_eq!(
        fails(
            &["d"],
            "/x/s symlink 0777 0:0 0 -> t\n/x/t dir 0755 0:0 0",
            "/x"
        ),
        "cannot copy to non-directory: /x/s"
    );
    assert_eq!(
        fails(&["f"], &format!("/x/f {D}"), "/x"),
        "cannot replace the directory /x/f with a file"
    );
    assert!(fails(&["f"], &format!("/x {F}0"), "/x/y").contains("/x/y"));
}

#[test]
fn a_hard_linked_file_of_the_destination_is_replaced_and_not_changed() {
    let source = format!("/f {F}1");
    assert_eq!(
        copy_onto(&source, &["f"], &format!("/a {F}0\n/b link /a"), "/a"),
        "a=1 b=0"
    );
}
