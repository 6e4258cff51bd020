//! `--exclude` and `--parents`.

use super::*;

#[test]
fn exclude_is_relative_to_the_directory_that_is_copied() {
    let source = format!("/d/a.o {F}1\n/d/b.c {F}2\n/d/s/c.o {F}3\n/d/s/keep.o {F}4");
    let one = |patterns: &[&str], exclude: &[&str]| {
        Copy {
            source: &source,
            patterns,
            dest: "/x",
            exclude,
            ..Copy::default()
        }
        .short()
    };
    assert_eq!(
        one(&["d"], &["*.o"]),
        "x/ x/b.c=2 x/s/ x/s/c.o=3 x/s/keep.o=4"
    );
    assert_eq!(one(&["d"], &["**/*.o"]), "x/ x/b.c=2 x/s/");
    assert_eq!(
        one(&["d"], &["d/*.o"]),
        "x/ x/a.o=1 x/b.c=2 x/s/ x/s/c.o=3 x/s/keep.o=4"
    );
    assert_eq!(
        one(&["."], &["d/*.o"]),
        "x/ x/d/ x/d/b.c=2 x/d/s/ x/d/s/c.o=3 x/d/s/keep.o=4"
    );
    assert_eq!(one(&["d"], &["s"]), "x/ x/a.o=1 x/b.c=2");
    assert_eq!(
        one(&["d"], &["**/*.o", "!s/keep.o"]),
        "x/ x/b.c=2 x/s/ x/s/keep.o=4"
    );
    assert_eq!(
        one(&["d"], &["s", "!s/keep.o"]),
        "x/ x/a.o=1 x/b.c=2 x/s/ x/s/keep.o=4"
    );
    // What is named is copied, also by a wildcard.
    assert_eq!(one(&["d/b.?"], &["*.c"]), "x=2");
    // From an image's root on, not from a slash.
    assert_eq!(one(&["d"], &["/a.o", "s"]), "x/ x/a.o=1 x/b.c=2");
    assert_eq!(one(&["d/a.o"], &["*.o"]), "x=1");
}

const NESTED: &str = "/a dir 0711 1:1 1\n/a/b dir 0700 2:2 2\n/a/b/f file 0644 0:0 5 1 data:1\n/a/b/l symlink 0777 0:0 5 -> f\n/a/g file 0644 0:0 5 1 data:2\n";

#[test]
fn parents_keeps_the_path_and_the_properties_of_its_directories() {
    fn one<'a>(patterns: &'a [&'a str], dest: &'a str, exclude: &'a [&'a str]) -> Copy<'a> {
        Copy {
            source: NESTED,
            patterns,
            dest,
            parents: true,
            exclude,
            ..Copy::default()
        }
    }
    assert_eq!(
        one(&["a/b/f"], "/x/", &[]).text(),
        format!(
            "/x dir 0755 0:0 {NOW}\n/x/a dir 0711 1:1 1\n/x/a/b dir 0700 2:2 2\n/x/a/b/f file 0644 0:0 5 1 data:1\n"
        )
    );
    assert_eq!(one(&["a/./b/f"], "/x", &[]).short(), "x/ x/b/ x/b/f=1");
    assert_eq!(
        one(&["*/./b/*"], "/x", &[]).short(),
        "x/ x/b/ x/b/f=1 x/b/l->f"
    );
    assert_eq!(
        one(&["a"], "/", &[]).short(),
        "a/ a/b/ a/b/f=1 a/b/l->f a/g=2"
    );
    assert_eq!(
        one(&["./a/b"], "/x/", &[]).short(),
        "x/ x/a/ x/a/b/ x/a/b/f=1 x/a/b/l->f"
    );
    assert_eq!(
        one(&["**/f"], "/x", &[]).short(),
        "x/ x/a/ x/a/b/ x/a/b/f=1"
    );
    assert_eq!(
        one(&["a/**"], "/x", &[]).short(),
        "x/ x/a/ x/a/b/ x/a/b/f=1 x/a/b/l->f x/a/g=2"
    );
    assert_eq!(
        one(&["**/**/**/f", "**/f"], "/x", &[]).short(),
        "x/ x/a/ x/a/b/ x/a/b/f=1"
    );
    // A link is one here too, because everything is seen from the pivot.
    assert_eq!(
        one(&["a/b/l"], "/x", &[]).short(),
        "x/ x/a/ x/a/b/ x/a/b/l->f"
    );
    assert_eq!(one(&["**/none"], "/x", &[]).short(), "");
    assert_eq!(one(&["none"], "/x", &[]).fails(), CopyErrorKind::NotFound);
    // --exclude is relative to the pivot.
    assert_eq!(
        one(&["a"], "/x", &["a/b/f"]).short(),
        "x/ x/a/ x/a/b/ x/a/b/l->f x/a/g=2"
    );
    assert_eq!(one(&["a/./b"], "/x", &["b/f"]).short(), "x/ x/b/ x/b/l->f");
    assert_eq!(one(&["**"], "/x", &["**/b"]).short(), "x/ x/a/ x/a/g=2");
}

#[test]
fn deep_patterns_do_not_explode() {
    let source = format!("/{}f {F}1", "a/".repeat(60));
    let pattern = format!("{}f", "**/".repeat(20));
    let result = Copy {
        source: &source,
        patterns: &[&pattern],
        dest: "/",
        parents: true,
        ..Copy::default()
    }
    .short();
    assert!(result.ends_with("/f=1"));
}
