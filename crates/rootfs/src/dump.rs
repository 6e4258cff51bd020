//! Trees and layers as text: for people (`firebuild image tree`), for golden tests, and for writing trees in tests.
//!
//! One line per entry, in the order of a walk; blanks separate fields:
//!
//! ```text
//! PATH KIND MODE UID:GID MTIME [SIZE SOURCE | -> TARGET | MAJOR:MINOR] [xattr:NAME=HEX]…
//! PATH link TARGET
//! PATH whiteout
//! PATH opaque
//! ```
//!
//! - PATH and TARGET are escaped as [`path::escape`] does (blanks, `\`, `=` and all that is not printable ASCII as `\xHH`);
//!   PATH and the target of a `link` (a hard link) begin with `/`.
//! - KIND is `dir`, `file`, `symlink`, `fifo`, `socket`, `char` or `block`. MODE is octal with four digits.
//! - MTIME is seconds since 1970, with `.` and nine digits of nanoseconds unless they are 0. A negative time before the
//!   epoch has its nanoseconds counted forward, as in [`Time`]: half a second before 1970 is `-1.500000000`.
//! - SIZE is in bytes. SOURCE is `blob:SHA256@OFFSET`, `sparse:SHA256[POSITION+LEN@OFFSET,…]`, `path:PATH` or `data:BYTES`
//!   (escaped).
//! - `whiteout` and `opaque` occur in layers only.
//!
//! The reader skips empty lines and lines that begin with `#`, takes any number of blanks, and makes missing parents
//! (0755, root, time 0).

mod parse;

use std::fmt::Write;
use std::path::Path;

use std::os::unix::ffi::OsStrExt;

use crate::layer::{Change, Entry, Layer};
use crate::path::{self, escape};
use crate::tree::{Content, Inode, Kind, Source, Time, Tree};

pub use parse::{DumpError, parse_layer, parse_tree};

/// The tree as text.
#[must_use]
pub fn tree_to_text(tree: &Tree) -> String {
    layer_to_text(&Layer::of_tree(tree))
}

/// The layer as text, entries in their order.
#[must_use]
pub fn layer_to_text(layer: &Layer) -> String {
    let mut out = String::new();
    for entry in &layer.entries {
        line(&mut out, entry);
    }
    out
}

fn line(out: &mut String, entry: &Entry) {
    out.push('/');
    out.push_str(&escape(&entry.path));
    match &entry.change {
        Change::Node(inode) => node(out, inode),
        Change::HardLink(target) => {
            out.push_str(" link /");
            out.push_str(&escape(target));
        }
        Change::Whiteout => out.push_str(" whiteout"),
        Change::Opaque => out.push_str(" opaque"),
    }
    out.push('\n');
}

// Writing to a String cannot fail; `let _ =` says so without an `expect` per field.
fn node(out: &mut String, inode: &Inode) {
    let meta = &inode.meta;
    let _ = write!(
        out,
        " {} {:04o} {}:{} ",
        inode.kind.word(),
        meta.mode,
        meta.uid,
        meta.gid
    );
    time(out, meta.mtime);
    match &inode.kind {
        Kind::Dir(_) | Kind::Fifo | Kind::Socket => {}
        Kind::File(content) => source(out, content),
        Kind::Symlink(target) => {
            out.push_str(" -> ");
            out.push_str(&escape(target));
        }
        Kind::CharDevice(device) | Kind::BlockDevice(device) => {
            let _ = write!(out, " {}:{}", device.major, device.minor);
        }
    }
    for (name, value) in &meta.xattrs {
        let _ = write!(out, " xattr:{}=", escape(name));
        hex(out, value);
    }
}

fn time(out: &mut String, time: Time) {
    let _ = write!(out, "{}", time.secs);
    if time.nanos != 0 {
        let _ = write!(out, ".{:09}", time.nanos);
    }
}

fn source(out: &mut String, content: &Content) {
    let _ = write!(out, " {} ", content.size);
    match &content.source {
        Source::Blob { id, offset } => {
            out.push_str("blob:");
            hex(out, id);
            let _ = write!(out, "@{offset}");
        }
        Source::SparseBlob { id, segments } => {
            out.push_str("sparse:");
            hex(out, id);
            out.push('[');
            for (i, s) in segments.iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{}+{}@{}", s.position, s.len, s.offset);
            }
            out.push(']');
        }
        Source::Path(path) => {
            out.push_str("path:");
            out.push_str(&escape(bytes_of(path)));
        }
        Source::Bytes(bytes) => {
            out.push_str("data:");
            out.push_str(&escape(bytes));
        }
    }
}

fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// One entry as a line without the line end, for messages and listings.
#[must_use]
pub fn entry_to_text(path: &[u8], inode: &Inode) -> String {
    let mut out = String::from("/");
    out.push_str(&path::escape(path));
    node(&mut out, inode);
    out
}

#[cfg(test)]
mod tests;
