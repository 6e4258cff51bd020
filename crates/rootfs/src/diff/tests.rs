use super::*;
use crate::dump::{layer_to_text, parse_tree};

const F: &str = "file 0644 0:0 0 1 data:";

fn check(a: &str, b: &str) -> String {
    let (mut a, b) = (parse_tree(a).unwrap(), parse_tree(b).unwrap());
    let layer = diff(&a, &b);
    a.apply(&layer).unwrap();
    assert_eq!(a, b);
    layer_to_text(&layer)
}

#[test]
fn nothing_changed() {
    let text = format!("/a/b {F}1\n/c link /a/b\n/l symlink 0777 0:0 0 -> x");
    assert_eq!(check(&text, &text), "");
}

#[test]
fn additions_removals_changes() {
    let a = format!("/d/gone {F}1\n/d/kept {F}1\n/dir/x {F}1\n/f {F}1");
    let b = format!("/d/kept {F}1\n/d/new {F}2\n/dir {F}3\n/f/y {F}4");
    assert_eq!(
        check(&a, &b),
        format!("/d/gone whiteout\n/d/new {F}2\n/dir {F}3\n/f dir 0755 0:0 0\n/f/y {F}4\n")
    );
}

#[test]
fn directories_change_only_when_their_own_properties_do() {
    assert_eq!(
        check("/d dir 0755 0:0 1", "/d dir 0755 0:0 2"),
        "/d dir 0755 0:0 2\n"
    );
    assert_eq!(check("", "/ dir 0700 1:2 3"), "/ dir 0700 1:2 3\n");
}

#[test]
fn hard_links_made_broken_split_and_moved() {
    let one = format!("/a {F}1");
    let two = format!("/a {F}1\n/b {F}1");
    let linked = format!("/a {F}1\n/b link /a");
    let three = format!("/a {F}1\n/b link /a\n/c link /a");
    assert_eq!(check(&one, &linked), format!("/a {F}1\n/b link /a\n"));
    assert_eq!(check(&linked, &one), "/b whiteout\n");
    assert_eq!(check(&linked, &two), format!("/b {F}1\n"));
    assert_eq!(check(&two, &linked), format!("/a {F}1\n/b link /a\n"));
    assert_eq!(check(&three, &linked), "/c whiteout\n");
    let pairs = format!("/a {F}1\n/b link /a\n/c {F}1\n/d link /c");
    let other = format!("/a {F}1\n/c link /a\n/b {F}1\n/d link /b");
    check(&pairs, &other);
    check(&three, &format!("/a {F}1\n/b {F}1\n/c link /b"));
    check(&linked, "/a dir 0755 0:0 0\n/b dir 0755 0:0 0");
}

#[test]
fn a_caller_can_say_what_is_the_same() {
    let (a, b) = (
        parse_tree(&format!("/a {F}1")).unwrap(),
        parse_tree("/a file 0644 0:0 0 1 path:a").unwrap(),
    );
    assert_eq!(diff(&a, &b).entries.len(), 1);
    assert!(diff_by(&a, &b, |x, y| x.meta == y.meta).entries.is_empty());
}

#[test]
fn a_snapshots_layer_has_the_directories_on_the_way() {
    let below = parse_tree(&format!(
        "/d dir 0700 5:5 5\n/d/e dir 0711 6:6 6\n/d/e/old {F}1\n/other dir 0755 0:0 0"
    ))
    .unwrap();
    let above = parse_tree(&format!(
        "/d dir 0700 5:5 5\n/d/e dir 0711 6:6 6\n/d/e/new {F}1\n/other dir 0755 0:0 0"
    ))
    .unwrap();
    assert_eq!(
        layer_to_text(&snapshot_layer(&below, &above)),
        format!(
            "/ dir 0755 0:0 0\n/d dir 0700 5:5 5\n/d/e dir 0711 6:6 6\n/d/e/new {F}1\n/d/e/old whiteout\n"
        )
    );
    assert_eq!(
        layer_to_text(&snapshot_layer(&below, &below)),
        "/ dir 0755 0:0 0\n"
    );
}
