//! From a layer or a tree to an archive: the same bytes for the same input.
//!
//! Entries are written in the order of a walk, a whiteout before what takes its place, an opaque mark right after its
//! directory, a hard link after its target and with its properties: Docker and containerd give a file those of the link's
//! header once more. Headers are ustar; an extended header comes before those that need one
//! (long or non-ASCII paths, times with nanoseconds, large numbers, attributes). User and group names are never
//! written. Sockets cannot be in an archive and are left out.

mod entry;
mod hasher;
mod sink;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;

use super::{OPAQUE, TarError, TarErrorKind, WHITEOUT, padded};
use crate::layer::{Change, Entry, Layer, compare_paths};
use crate::path;
use crate::tree::{Content, Contents, Extent, Inode, Kind, Meta, Opened, Source, Time, Tree};
use entry::Head;
use sink::Sink;

/// Where an archive goes.
pub enum Output<'a> {
    /// A file, which is emptied first. Long runs of zeros are not written: the file has holes there.
    File(&'a File),
    /// Anything that takes bytes.
    Stream(&'a mut dyn Write),
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "Output::File",
            Self::Stream(_) => "Output::Stream",
        })
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Times later than this are written as this (BuildKit's `rewrite-timestamp`).
    pub clamp_mtime: Option<Time>,
    /// Access control lists are written as text too (`SCHILY.acl.access`), which is what `tar --acls` of GNU restores.
    /// Layers have them as attributes only.
    pub gnu_acls: bool,
    /// The root of a tree is left out: the archive is put into a directory that has properties of its own.
    pub without_root: bool,
    /// Nobody wants to know the digest; it is all zeros then.
    pub without_digest: bool,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// SHA-256 of the archive: the layer's diff ID.
    pub diff_id: [u8; 32],
    /// Bytes of the archive.
    pub size: u64,
    /// What was written, as reading the archive would give it: contents point into the new blob.
    pub layer: Layer,
}

/// Writes a layer.
///
/// # Errors
/// When content cannot be read, the output cannot be written, or an entry does not fit into an archive.
pub fn write_layer(
    layer: &Layer,
    contents: &dyn Contents,
    output: Output<'_>,
    options: &WriteOptions,
) -> Result<Written, TarError> {
    Writer::new(contents, output, options, true)?.write(layer)
}

/// Writes a complete tree, with names that begin with `.wh.` as they are.
///
/// # Errors
/// As [`write_layer`].
pub fn write_tree(
    tree: &Tree,
    contents: &dyn Contents,
    output: Output<'_>,
    options: &WriteOptions,
) -> Result<Written, TarError> {
    let mut layer = Layer::of_tree(tree);
    if options.without_root {
        layer.entries.retain(|entry| !entry.path.is_empty());
    }
    Writer::new(contents, output, options, false)?.write(&layer)
}

/// A range in parts, between which a stop is seen.
fn pieces(from: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    const PIECE: u64 = 32 << 20;
    let end = from + len;
    std::iter::successors((len > 0).then_some(from), move |at| {
        Some(at + PIECE).filter(|next| *next < end)
    })
    .map(move |at| (at, PIECE.min(end - at)))
}

struct Writer<'c, 'o, 'l> {
    contents: &'c dyn Contents,
    sink: Sink<'o>,
    clamp: Option<Time>,
    gnu_acls: bool,
    is_layer: bool,
    /// What hard links may lead to: the files of the layer by path.
    files: HashMap<&'l [u8], &'l Change>,
    written: Vec<Entry>,
}

/// Of changes to one path: first what goes, then what comes, then what it hides.
fn rank(change: &Change) -> u8 {
    match change {
        Change::Whiteout => 0,
        Change::Node(_) | Change::HardLink(_) => 1,
        Change::Opaque => 2,
    }
}

impl<'c, 'o, 'l> Writer<'c, 'o, 'l> {
    fn new(
        contents: &'c dyn Contents,
        output: Output<'o>,
        options: &WriteOptions,
        is_layer: bool,
    ) -> Result<Self, TarError> {
        Ok(Self {
            contents,
            sink: Sink::new(output, !options.without_digest).map_err(|e| TarError::io(e, 0))?,
            clamp: options.clamp_mtime,
            gnu_acls: options.gnu_acls,
            is_layer,
            files: HashMap::new(),
            written: Vec::new(),
        })
    }

    fn write(mut self, layer: &'l Layer) -> Result<Written, TarError> {
        let has_links = |entry: &Entry| matches!(entry.change, Change::HardLink(_));
        if layer.entries.iter().any(has_links) {
            let entries = layer.entries.iter();
            self.files = entries
                .filter(|e| matches!(e.change, Change::Node(_) | Change::HardLink(_)))
                .map(|e| (e.path.as_slice(), &e.change))
                .collect();
        }
        let mut order: Vec<&Entry> = layer.entries.iter().collect();
        order.sort_by(|a, b| {
            compare_paths(&a.path, &b.path).then(rank(&a.change).cmp(&rank(&b.change)))
        });
        // Links that stand before their target wait until the end.
        let mut to_come: HashSet<&[u8]> = order
            .iter()
            .filter(|e| matches!(e.change, Change::Node(_) | Change::HardLink(_)))
            .map(|e| e.path.as_slice())
            .collect();
        let mut waiting = Vec::new();
        for entry in order {
            match &entry.change {
                Change::HardLink(target) if to_come.contains(target.as_slice()) => {
                    waiting.push((entry, target));
                    continue;
                }
                Change::Node(_) | Change::HardLink(_) => {
                    to_come.remove(entry.path.as_slice());
                }
                Change::Whiteout | Change::Opaque => {}
            }
            self.entry(entry)?;
        }
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for (entry, target) in waiting {
                if to_come.contains(target.as_slice()) {
                    left.push((entry, target));
                } else {
                    to_come.remove(entry.path.as_slice());
                    self.entry(entry)?;
                }
            }
            if left.len() == before {
                let error = TarError::new(TarErrorKind::Link, self.sink.position());
                return Err(error.named(&left[0].0.path));
            }
            waiting = left;
        }
        self.finish()
    }

    /// The properties of what a hard link leads to, if it is in the layer. The order of writing has no circles.
    fn meta_behind(&self, mut target: &'l [u8]) -> Option<&'l Meta> {
        loop {
            match self.files.get(target)? {
                Change::Node(inode) => return Some(&inode.meta),
                Change::HardLink(next) => target = next,
                Change::Whiteout | Change::Opaque => return None,
            }
        }
    }

    fn finish(mut self) -> Result<Written, TarError> {
        let end = self.sink.position();
        self.sink.zeros(1024).map_err(|e| TarError::io(e, end))?;
        let (diff_id, size) = self.sink.finish().map_err(|e| TarError::io(e, end))?;
        for entry in &mut self.written {
            if let Change::Node(Inode {
                kind: Kind::File(content),
                ..
            }) = &mut entry.change
                && let Source::Blob { id, .. } = &mut content.source
            {
                *id = diff_id;
            }
        }
        Ok(Written {
            diff_id,
            size,
            layer: Layer {
                entries: self.written,
            },
        })
    }

    fn entry(&mut self, entry: &'l Entry) -> Result<(), TarError> {
        let start = self.sink.position();
        let io = |e| TarError::io(e, start).named(&entry.path);
        let refuse = |kind| TarError::new(kind, start).named(&entry.path);
        let head = match &entry.change {
            Change::Whiteout => {
                let name = [WHITEOUT, path::file_name(&entry.path)].concat();
                Head::mark(&path::join(path::parent(&entry.path), &name))
            }
            Change::Opaque => Head::mark(&path::join(&entry.path, OPAQUE)),
            Change::HardLink(_) | Change::Node(_)
                if self.is_layer && path::file_name(&entry.path).starts_with(WHITEOUT) =>
            {
                return Err(refuse(TarErrorKind::Reserved));
            }
            Change::HardLink(target) => {
                let meta = self.meta_behind(target);
                Head::link(&entry.path, target, meta, self.clamp, self.gnu_acls)
            }
            Change::Node(Inode {
                kind: Kind::Socket, ..
            }) => return Ok(()),
            Change::Node(inode) => Head::node(&entry.path, inode, self.clamp, self.gnu_acls),
        };
        let head = head.ok_or_else(|| refuse(TarErrorKind::TooLarge))?;
        self.sink.write(&head.bytes).map_err(io)?;
        let mut change = entry.change.clone();
        if let Change::Node(inode) = &mut change {
            if let Some(clamp) = self.clamp {
                inode.meta.mtime = inode.meta.mtime.min(clamp);
            }
            if let Kind::File(content) = &mut inode.kind {
                let offset = self.sink.position();
                self.content(content, &entry.path)?;
                content.source = Source::Blob {
                    id: [0; 32],
                    offset,
                };
            }
        }
        self.written.push(Entry {
            path: entry.path.clone(),
            change,
        });
        Ok(())
    }

    fn content(&mut self, content: &Content, path: &[u8]) -> Result<(), TarError> {
        let start = self.sink.position();
        let unreadable = |e| TarError::content(e, start).named(path);
        let unwritable = |e| TarError::io(e, start).named(path);
        let opened = match &content.source {
            Source::Bytes(bytes) => Opened::Bytes(std::sync::Arc::clone(bytes)),
            _ => self.contents.open(content).map_err(unreadable)?,
        };
        let mut at = 0;
        for extent in opened.extents(content.size).map_err(unreadable)? {
            self.zeros(extent.position.saturating_sub(at), path)?;
            at = extent.position + extent.len;
            for (position, len) in pieces(extent.position, extent.len) {
                self.contents.check().map_err(unreadable)?;
                let extent = Extent { position, len };
                self.sink.copy(&opened, extent, unreadable, unwritable)?;
            }
        }
        let end = padded(content.size)
            .ok_or_else(|| TarError::new(TarErrorKind::TooLarge, start).named(path))?;
        self.zeros(end - at, path)
    }

    /// What a hole is in an archive.
    fn zeros(&mut self, count: u64, path: &[u8]) -> Result<(), TarError> {
        for (_, len) in pieces(0, count) {
            let at = self.sink.position();
            let check = self.contents.check();
            check.map_err(|e| TarError::content(e, at).named(path))?;
            let written = self.sink.zeros(len);
            written.map_err(|e| TarError::io(e, at).named(path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
