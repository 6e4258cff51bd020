//! The rules of COPY and ADD, one by one, as BuildKit keeps them.

use firebuild_accounts::Owner;
use firebuild_dockerfile::IgnorePatterns;
use firebuild_rootfs::dump::{parse_layer, parse_tree, tree_to_text};
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tree::{Content, InodeId, Kind, Source, Time, Tree};

use super::{Chmod, CopyError, CopyErrorKind, Options, Selected, Selection, apply, digest, select};
use crate::key::KeyWriter;

mod archives;
mod destination;
mod flags;
mod key;
mod properties;
mod sources;

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
