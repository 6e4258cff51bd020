//! The rules of COPY and ADD, one by one, as BuildKit keeps them.

use firebuild_accounts::Owner;
use firebuild_dockerfile::IgnorePatterns;
use firebuild_rootfs::dump::{parse_layer, parse_tree, tree_to_text};
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tree::{Content, InodeId, Kind, Source, Time, Tree};

use super::{Chmod, CopyError, CopyErrorKind, Options, Selected, Selection, apply, digest, select};
use crate::key::KeyWriter;

/// When the copy is made.
const NOW: i64 = 1000;
const F: &str = "file 0644 0:0 5 1 data:";
const D: &str = "dir 0755 0:0 5";

/// One COPY.
#[derive(Default)]
struct Copy<'a> {
    source: &'a str,
    dest_tree: &'a str,
    patterns: &'a [&'a str],
    dest: &'a str,
    owner: Option<Owner>,
    chmod: &'a str,
    parents: bool,
    exclude: &'a [&'a str],
    inline: &'a [(&'a str, &'a [u8])],
    /// The text of the layer that a source is when it is an archive: its path and its entries.
    archive: Option<(&'a str, &'a str)>,
}

impl Copy<'_> {
    fn layer(&self) -> Result<(Tree, Layer), CopyError> {
        let (source, below) = (
            parse_tree(self.source).unwrap(),
            parse_tree(self.dest_tree).unwrap(),
        );
        let exclude = IgnorePatterns::from_patterns(self.exclude.iter().copied()).unwrap();
        let selected = self.select(&source, &exclude)?;
        let options = Options {
            dest: self.dest,
            owner: self.owner,
            chmod: (!self.chmod.is_empty()).then(|| Chmod::parse(self.chmod).unwrap()),
            parents: self.parents,
            exclude: &exclude,
            made: Time {
                secs: NOW,
                nanos: 0,
            },
        };
        let unpack = |one: &Selected, _: &Content| {
            let archive = self.archive.filter(|(path, _)| path.as_bytes() == one.path);
            Ok(archive.map(|(_, text)| parse_layer(text).unwrap()))
        };
        let layer = apply(
            &below,
            &[&source],
            &selected,
            self.inline,
            &options,
            &unpack,
        )?;
        Ok((below, layer))
    }

    fn select(&self, source: &Tree, exclude: &IgnorePatterns) -> Result<Vec<Selected>, CopyError> {
        let mut selected = Vec::new();
        for pattern in self.patterns {
            let selection = Selection {
                tree: 0,
                pattern,
                remote: false,
            };
            selected.extend(select(source, &selection, self.parents, exclude)?);
        }
        Ok(selected)
    }

    /// The whole result as text, without the root.
    fn text(&self) -> String {
        let (mut tree, layer) = self.layer().unwrap();
        tree.apply(&layer).unwrap();
        tree_to_text(&tree)
            .lines()
            .skip(1)
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// The result in short: `d/ d/f=x l->t`.
    fn short(&self) -> String {
        let (mut tree, layer) = self.layer().unwrap();
        tree.apply(&layer).unwrap();
        short(&tree)
    }

    fn fails(&self) -> CopyErrorKind {
        self.layer().unwrap_err().kind()
    }

    fn key(&self) -> String {
        let source = parse_tree(self.source).unwrap();
        let exclude = IgnorePatterns::from_patterns(self.exclude.iter().copied()).unwrap();
        let selected = self.select(&source, &exclude).unwrap();
        let mut key = KeyWriter::new("test/1");
        let hash = |_: usize, content: &Content| {
            let Source::Bytes(bytes) = &content.source else {
                panic!("content is in memory")
            };
            Ok(*firebuild_oci::Digest::of(bytes).as_bytes())
        };
        digest(
            &mut key,
            &[&source],
            &selected,
            self.parents,
            &exclude,
            &hash,
        )
        .unwrap();
        key.finish().to_string()
    }
}

fn short(tree: &Tree) -> String {
    let words = tree.walk().skip(1).map(|(path, id)| {
        let path = String::from_utf8_lossy(&path).into_owned();
        match &tree[id].kind {
            Kind::Dir(_) => format!("{path}/"),
            Kind::File(Content {
                source: Source::Bytes(bytes),
                ..
            }) => format!("{path}={}", String::from_utf8_lossy(bytes)),
            Kind::Symlink(target) => format!("{path}->{}", String::from_utf8_lossy(target)),
            kind => format!("{path}:{}", kind.word()),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn copy(source: &str, patterns: &[&str], dest: &str) -> String {
    Copy {
        source,
        patterns,
        dest,
        ..Copy::default()
    }
    .short()
}

fn copy_onto(source: &str, patterns: &[&str], dest_tree: &str, dest: &str) -> String {
    Copy {
        source,
        patterns,
        dest_tree,
        dest,
        ..Copy::default()
    }
    .short()
}

// ---- sources

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

// ---- destination

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

// ---- owner and mode

#[test]
fn owner_and_mode_are_kept_or_overruled_everywhere() {
    let source =
        "/d/f file 6755 7:8 5 1 data:1\n/d/l symlink 0777 7:8 5 -> f\n/d/s dir 0700 7:8 5\n";
    let kept = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        ..Copy::default()
    }
    .text();
    assert_eq!(kept, format!("/d dir 0755 0:0 0\n{source}"));
    let owner = Some(Owner { uid: 3, gid: 4 });
    let owned = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        owner,
        ..Copy::default()
    }
    .text();
    assert_eq!(
        owned,
        format!("/d dir 0755 3:4 0\n{}", source.replace("7:8", "3:4"))
    );
    let octal = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        chmod: "1711",
        ..Copy::default()
    }
    .text();
    assert_eq!(
        octal,
        "/d dir 0711 0:0 0\n/d/f file 1711 7:8 5 1 data:1\n/d/l symlink 0777 7:8 5 -> f\n/d/s dir 1711 7:8 5\n"
    );
    let symbolic = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        chmod: "u-s,go=rX",
        ..Copy::default()
    }
    .text();
    assert_eq!(
        symbolic,
        "/d dir 0755 0:0 0\n/d/f file 0755 7:8 5 1 data:1\n/d/l symlink 0777 7:8 5 -> f\n/d/s dir 0755 7:8 5\n"
    );
}

#[test]
fn heredocs_are_files_of_now() {
    let inline: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"2")];
    let text = Copy {
        inline,
        dest: "/x/",
        owner: Some(Owner { uid: 3, gid: 4 }),
        ..Copy::default()
    }
    .text();
    assert_eq!(
        text,
        format!(
            "/x dir 0755 3:4 {NOW}\n/x/a file 0644 3:4 {NOW} 1 data:1\n/x/b file 0644 3:4 {NOW} 1 data:2\n"
        )
    );
    let text = Copy {
        inline: &[("EOF", b"1")],
        dest: "/f",
        chmod: "755",
        ..Copy::default()
    }
    .text();
    assert_eq!(text, format!("/f file 0755 0:0 {NOW} 1 data:1\n"));
}

// ---- --exclude and --parents

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

// ---- ADD of archives

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

// ---- the key

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
