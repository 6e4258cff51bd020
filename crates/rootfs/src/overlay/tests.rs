use super::*;
use crate::dump::{layer_to_text, parse_tree};
use crate::unpack::SkippedEntry;

const F: &str = "file 0644 0:0 0 1 data:";

fn skipped(entries: &[(&str, What)]) -> Skipped {
    Skipped {
        entries: entries
            .iter()
            .map(|(path, what)| SkippedEntry {
                path: path.as_bytes().to_vec(),
                what: what.clone(),
            })
            .collect(),
    }
}

fn upper(upper: &str, given: &str, lost: &[(&str, What)]) -> String {
    let layer = upper_layer(
        &parse_tree(upper).unwrap(),
        &parse_tree(given).unwrap(),
        &skipped(lost),
    );
    layer_to_text(&layer)
}

#[test]
fn removals_and_opaque_directories() {
    let given = format!("/d/a {F}1\n/o/x {F}2\n/gone {F}3");
    let text = upper(
        &format!(
            "/d/a char 0000 0:0 0 0:0\n/gone char 0000 0:0 0 0:0\n/never char 0000 0:0 0 0:0\n\
             /o dir 0755 0:0 0 xattr:trusted.overlay.opaque=79\n/o/y {F}4\n/o/x char 0000 0:0 0 0:0\n\
             /n dir 0755 0:0 0 xattr:user.overlay.opaque=79\n/n/z {F}5"
        ),
        &given,
        &[],
    );
    assert_eq!(
        text,
        format!(
            "/d/a whiteout\n/gone whiteout\n/n dir 0755 0:0 0\n/n/z {F}5\n/o opaque\n/o/y {F}4\n"
        )
    );
}

#[test]
fn directories_on_the_way_and_own_attributes_are_dropped() {
    let text = upper(
        &format!(
            "/d dir 0755 1:1 5 xattr:trusted.overlay.impure=79\n/d/new {F}1\n/e dir 0700 0:0 0 xattr:user.overlay.origin=00 xattr:user.a=01"
        ),
        "/d dir 0755 1:1 5\n/e dir 0755 0:0 0 xattr:user.a=01",
        &[],
    );
    assert_eq!(
        text,
        format!("/d/new {F}1\n/e dir 0700 0:0 0 xattr:user.a=01\n")
    );
}

#[test]
fn types_change_and_links_stay() {
    let given = format!("/f {F}1\n/d/x {F}2\n/l symlink 0777 0:0 0 -> d");
    let text = upper(
        &format!("/f/x {F}1\n/f/y char 0000 0:0 0 0:0\n/l/x {F}3\n/d {F}2\n/e link /d"),
        &given,
        &[],
    );
    assert_eq!(
        text,
        format!(
            "/d {F}2\n/e link /d\n/f dir 0755 0:0 0\n/f/x {F}1\n/l dir 0755 0:0 0\n/l/x {F}3\n"
        )
    );
}

#[test]
fn what_could_not_be_made_is_not_removed_and_keeps_its_properties() {
    let given = String::from(
        "/dev/null char 0666 0:0 0 1:3\n/home dir 0755 70000:70000 5\n/home/f file 0644 70000:70000 0 1 data:a xattr:trusted.t=01\n/tmp dir 1777 0:0 0",
    );
    let lost = [
        ("dev/null", What::Node),
        ("home", What::Owner),
        ("home/f", What::Owner),
        ("home/f", What::Xattr(b"trusted.t".to_vec())),
    ];
    // The step touched a file below /home, and made another its own.
    let text = upper(
        "/home dir 0755 0:0 5\n/home/f file 0644 0:0 9 2 data:bb\n/home/g file 0644 0:0 0 0 data:",
        &given,
        &lost,
    );
    assert_eq!(
        text,
        "/home/f file 0644 70000:70000 9 2 data:bb xattr:trusted.t=01\n/home/g file 0644 0:0 0 0 data:\n"
    );
    let text = upper(
        "/home dir 0755 0:0 5\n/home/f file 0644 5:5 0 1 data:a",
        &given,
        &lost,
    );
    assert_eq!(
        text,
        "/home/f file 0644 5:5 0 1 data:a xattr:trusted.t=01\n"
    );

    let copy = |now: &str| {
        layer_to_text(&copy_layer(
            &parse_tree(now).unwrap(),
            &parse_tree(&given).unwrap(),
            &skipped(&lost),
        ))
    };
    let same = "/dev dir 0755 0:0 0\n/home dir 0755 0:0 5\n/home/f file 0644 0:0 0 1 path:home/f\n/tmp dir 1777 0:0 0\n";
    assert_eq!(copy(same), "");
    assert_eq!(
        copy(&same.replace("/dev dir 0755 0:0 0\n", "")),
        "/dev whiteout\n"
    );
    assert_eq!(
        copy(&format!("{same}/dev/null file 0644 0:0 0 0 path:dev/null")),
        "/dev/null file 0644 0:0 0 0 path:dev/null\n"
    );
    assert_eq!(
        copy(&same.replace("/tmp dir 1777 0:0 0\n", "")),
        "/tmp whiteout\n"
    );
    assert_eq!(
        copy(&same.replace("0:0 0 1 path:home/f", "0:0 1 1 path:home/f")),
        "/home/f file 0644 70000:70000 1 1 path:home/f xattr:trusted.t=01\n"
    );
}
