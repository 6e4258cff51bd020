use super::*;
use crate::dump::{parse_layer, parse_tree, tree_to_text};

fn apply(lower: &str, layer: &str) -> Result<String, ApplyError> {
    let mut tree = parse_tree(lower).unwrap();
    tree.apply(&parse_layer(layer).unwrap())?;
    Ok(tree_to_text(&tree))
}

/// Compares paths and what is there, in a short form: `a/ a/f=hi l->x`.
fn short(lower: &str, layer: &str) -> String {
    let mut tree = parse_tree(lower).unwrap();
    tree.apply(&parse_layer(layer).unwrap()).unwrap();
    let mut words = Vec::new();
    for (path, id) in tree.walk().skip(1) {
        let path = String::from_utf8(path).unwrap();
        words.push(match &tree[id].kind {
            Kind::Dir(_) => format!("{path}/"),
            Kind::File(c) => match &c.source {
                crate::tree::Source::Bytes(b) => format!("{path}={}", String::from_utf8_lossy(b)),
                _ => path,
            },
            Kind::Symlink(t) => format!("{path}->{}", String::from_utf8_lossy(t)),
            _ => path,
        });
    }
    words.join(" ")
}

const F: &str = "file 0644 0:0 0 1 data:";

#[test]
fn whiteouts_reach_only_what_is_below() {
    let lower = format!("/d/old {F}1\n/d/keep {F}2");
    assert_eq!(short(&lower, "/d/old whiteout"), "d/ d/keep=2");
    // Before or after the addition of the same name: the addition stays.
    assert_eq!(
        short(&lower, &format!("/d/old {F}9\n/d/old whiteout")),
        "d/ d/keep=2 d/old=9"
    );
    assert_eq!(
        short(&lower, &format!("/d/old whiteout\n/d/old {F}9")),
        "d/ d/keep=2 d/old=9"
    );
    assert_eq!(short(&lower, "/no/such whiteout"), "d/ d/keep=2 d/old=1");
}

#[test]
fn opaque_hides_below_and_keeps_the_layers_own() {
    let lower = format!("/d/old {F}1\n/d/sub/x {F}2");
    assert_eq!(
        short(&lower, &format!("/d/new {F}3\n/d opaque")),
        "d/ d/new=3"
    );
    assert_eq!(short(&lower, " / opaque"), "");
    assert_eq!(short("", "/made opaque"), "made/");
}

#[test]
fn a_replaced_directory_is_new() {
    let lower = format!("/d/old {F}1");
    assert_eq!(
        short(
            &lower,
            &format!("/d whiteout\n/d dir 0700 0:0 0\n/d/new {F}2")
        ),
        "d/ d/new=2"
    );
}

#[test]
fn types_change() {
    let lower = format!("/d/old {F}1\n/f {F}2");
    assert_eq!(
        short(&lower, &format!("/d {F}3\n/f dir 0755 0:0 0\n/f/x {F}4")),
        "d=3 f/ f/x=4"
    );
}

#[test]
fn a_directory_over_a_directory_keeps_children() {
    let out = apply(
        &format!("/d dir 0755 0:0 0\n/d/f {F}1"),
        "/d dir 0700 5:6 7",
    )
    .unwrap();
    assert!(out.contains("/d dir 0700 5:6 7\n/d/f "));
}

#[test]
fn links_on_the_way_are_followed_inside_the_root() {
    let lower = format!(
        "/lib symlink 0777 0:0 0 -> usr/lib\n/usr/lib/a {F}1\n/abs symlink 0777 0:0 0 -> /usr\n/up symlink 0777 0:0 0 -> ../../../usr"
    );
    assert_eq!(
        short(
            &lower,
            &format!("/lib/b {F}2\n/abs/c {F}3\n/up/lib/a whiteout")
        ),
        "abs->/usr lib->usr/lib up->../../../usr usr/ usr/c=3 usr/lib/ usr/lib/b=2"
    );
}

#[test]
fn a_directory_replaces_a_link_and_whiteouts_do_not_reach_through_it() {
    let lower = format!("/d symlink 0777 0:0 0 -> e\n/e/x {F}1");
    for layer in [
        "/d dir 0755 0:0 0\n/d/x whiteout",
        "/d/x whiteout\n/d dir 0755 0:0 0",
    ] {
        assert_eq!(short(&lower, layer), "d/ e/ e/x=1");
    }
}

#[test]
fn a_final_link_is_replaced_and_not_written_through() {
    let lower = format!("/l symlink 0777 0:0 0 -> f\n/f {F}1");
    assert_eq!(short(&lower, &format!("/l {F}2")), "f=1 l=2");
}

#[test]
fn a_link_made_by_the_layer_itself_counts_for_what_follows() {
    let layer = format!("/x {F}0\n/d/e dir 0755 0:0 0\n/l symlink 0777 0:0 0 -> d/e\n/l/f {F}1");
    assert_eq!(short("", &layer), "d/ d/e/ d/e/f=1 l->d/e x=0");
}

#[test]
fn hard_links_before_and_after_their_target() {
    let layer = format!("/z link /y\n/y link /a\n/a {F}1\n/b link /a");
    let out = apply("", &layer).unwrap();
    assert!(
        out.contains("/b link /a\n/y link /a\n/z link /a\n"),
        "{out}"
    );
    // A link over something replaces it; to a file of a lower layer.
    assert_eq!(short(&format!("/a {F}1\n/b {F}2"), "/b link /a"), "a=1 b=1");
    // A link to a symbolic link is to the link itself.
    assert_eq!(
        short("/s symlink 0777 0:0 0 -> none", "/t link /s"),
        "s->none t->none"
    );
}

#[test]
fn errors_name_the_entry() {
    let kinds = |lower: &str, layer: &str| apply(lower, layer).unwrap_err().kind();
    assert_eq!(kinds("", "/a link /b"), ApplyErrorKind::NoLinkTarget);
    assert_eq!(
        kinds("/d dir 0755 0:0 0", "/a link /d"),
        ApplyErrorKind::BadLinkTarget
    );
    assert_eq!(kinds("", "/ whiteout"), ApplyErrorKind::Root);
    assert_eq!(kinds("", &format!("/ {F}x")), ApplyErrorKind::Root);
    let error = apply(&format!("/f {F}1"), &format!("/f/g {F}2")).unwrap_err();
    assert_eq!(error.to_string(), "cannot apply the layer's entry /f/g");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "not a directory: /f"
    );
}

#[test]
fn replacing_one_name_of_a_hard_link_leaves_the_others() {
    let out = apply(&format!("/a {F}1\n/b link /a"), &format!("/a {F}2")).unwrap();
    assert!(
        out.contains("/a file 0644 0:0 0 1 data:2\n/b file 0644 0:0 0 1 data:1\n"),
        "{out}"
    );
}

#[test]
fn sorting_puts_directories_first() {
    let mut layer = parse_layer(&format!("/a-b {F}1\n/a/c {F}2\n/a dir 0755 0:0 0")).unwrap();
    layer.sort();
    let paths: Vec<_> = layer.entries.iter().map(|e| e.path.as_slice()).collect();
    assert_eq!(paths, [&b"a"[..], b"a/c", b"a-b"]);
}
