//! Which files a source names.

use super::*;

#[test]
fn a_source_path_cannot_leave_the_root() {
    let source = format!("/f {F}1\n/d/g {F}2");
    for pattern in [
        "f",
        "/f",
        "../f",
        "../../../f",
        "d/../f",
        "./f",
        "d/../../f",
    ] {
        assert_eq!(copy(&source, &[pattern], "/x"), "x=1", "{pattern}");
    }
}

#[test]
fn a_trailing_slash_or_dot_of_a_source_means_nothing() {
    let source = format!("/d/g {F}2");
    for pattern in ["d", "d/", "d/.", "/d/./"] {
        assert_eq!(copy(&source, &[pattern], "/x"), "x/ x/g=2", "{pattern}");
    }
}

#[test]
fn wildcards_go_by_component() {
    let source = format!(
        "/.hidden {F}1\n/a.txt {F}2\n/b.txt {F}3\n/d/c.txt {F}4\n/d/e/f.txt {F}5\n/[x] {F}6"
    );
    assert_eq!(copy(&source, &["*.txt"], "/x/"), "x/ x/a.txt=2 x/b.txt=3");
    assert_eq!(copy(&source, &["?.txt"], "/x/"), "x/ x/a.txt=2 x/b.txt=3");
    assert_eq!(copy(&source, &["[^b].txt"], "/x/"), "x/ x/a.txt=2");
    assert_eq!(copy(&source, &["*/*.txt"], "/x/"), "x/ x/c.txt=4");
    assert_eq!(copy(&source, &[".h*"], "/x/"), "x/ x/.hidden=1");
    assert_eq!(copy(&source, &["[[]x]"], "/x/"), "x/ x/[x]=6");
    assert_eq!(copy(&source, &["\\[x]*"], "/x/"), "x/ x/[x]=6");
    // No `**` without --parents: it is a star.
    assert_eq!(copy(&source, &["**/c.txt"], "/x/"), "x/ x/c.txt=4");
    assert_eq!(
        Copy {
            source: &source,
            patterns: &["[a"],
            dest: "/x/",
            ..Copy::default()
        }
        .fails(),
        CopyErrorKind::Pattern
    );
}

#[test]
fn a_wildcard_may_match_nothing_and_a_plain_path_may_not() {
    let source = format!("/f {F}1");
    assert_eq!(copy(&source, &["*.none", "f"], "/x/"), "x/ x/f=1");
    assert_eq!(copy(&source, &["*.none"], "/x/"), "");
    let plain = Copy {
        source: &source,
        patterns: &["none"],
        dest: "/x/",
        ..Copy::default()
    };
    assert_eq!(plain.fails(), CopyErrorKind::NotFound);
    assert_eq!(
        plain.layer().unwrap_err().to_string(),
        "\"/none\" not found"
    );
    // Where the directory of a wildcard is not there, something is misspelt.
    let in_none = Copy {
        patterns: &["none/*.txt"],
        ..plain
    };
    assert_eq!(
        in_none.layer().unwrap_err().to_string(),
        "\"/none\" not found"
    );
}

#[test]
fn a_source_that_is_a_link_is_followed_inside_its_root() {
    let source = format!(
        "/d/g {F}1\n/f {F}2\n/to-d symlink 0777 0:0 0 -> /d\n/out symlink 0777 0:0 0 -> ../../../f\n/dangling symlink 0777 0:0 0 -> none"
    );
    assert_eq!(copy(&source, &["to-d"], "/x"), "x/ x/g=1");
    assert_eq!(copy(&source, &["to-d/g"], "/x"), "x=1");
    assert_eq!(copy(&source, &["out"], "/x/"), "x/ x/out=2");
    assert_eq!(copy(&source, &["ou*"], "/x/"), "x/ x/out=2");
    let dangling = Copy {
        source: &source,
        patterns: &["dangling"],
        dest: "/x",
        ..Copy::default()
    };
    assert_eq!(dangling.fails(), CopyErrorKind::NotFound);
    // From the first wildcard on, links to directories are not entered.
    assert_eq!(copy(&source, &["*/g"], "/x/"), "x/ x/g=1");
    assert_eq!(copy(&source, &["to-*/g"], "/x/"), "");
}

#[test]
fn links_inside_a_copied_directory_stay_links() {
    let source = format!(
        "/d/f {F}1\n/d/l symlink 0777 3:4 7 -> f\n/d/out symlink 0777 0:0 0 -> /etc/passwd"
    );
    assert_eq!(
        copy(&source, &["d"], "/x"),
        "x/ x/f=1 x/l->f x/out->/etc/passwd"
    );
}

#[test]
fn a_directory_gives_its_contents() {
    let source = format!("/d/.dot {F}1\n/d/e {D}\n/d/s/f {F}2");
    assert_eq!(copy(&source, &["d"], "/x"), "x/ x/.dot=1 x/e/ x/s/ x/s/f=2");
    assert_eq!(copy(&source, &["d"], "/"), ".dot=1 e/ s/ s/f=2");
    assert_eq!(
        copy(&source, &["."], "/x/"),
        "x/ x/d/ x/d/.dot=1 x/d/e/ x/d/s/ x/d/s/f=2"
    );
    // Directories that a wildcard matches are flattened.
    let source = format!("/a/1 {F}1\n/b/2 {F}2\n/c {F}3");
    assert_eq!(copy(&source, &["*"], "/x/"), "x/ x/1=1 x/2=2 x/c=3");
}

#[test]
fn everything_that_a_directory_holds_comes_along() {
    let source = "/d/a file 4711 7:8 5.000000009 1 data:1 xattr:security.capability=01 xattr:user.x=02\n/d/b link /d/a\n\
                  /d/c char 0600 0:0 5 1:3\n/d/k block 0600 0:0 5 7:0\n/d/p fifo 0600 0:0 5\n/d/s socket 0700 0:0 5\n";
    let text = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        ..Copy::default()
    }
    .text();
    assert_eq!(text, format!("/d dir 0755 0:0 0\n{source}"));
}
