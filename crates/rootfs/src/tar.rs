//! Layers as tar archives.
//!
//! [`read_layer`] goes over the headers of an uncompressed archive and leaves content where it is: every file becomes a range
//! of the blob. [`read_entries`] takes an archive from a pipe, content included. [`write_layer`] and [`write_tree`] make archives, byte for byte the same for the same layer.
//!
//! The format is POSIX `pax` (IEEE 1003.1-2017, `pax` "Extended description") with what is in use beside it: the old v7
//! and ustar headers, GNU's long names, base-256 numbers and sparse files, and `SCHILY.xattr.*` for extended attributes.
//!
//! ```text
//!  ┌── header, 512 bytes ───────────────────────────────────────────────────────────────┐ ┌ data ┐ ┌ to 512 ┐
//!  │ name 100 mode 8 uid 8 gid 8 size 12 mtime 12 sum 8 type 1 link 100 magic 8 … prefix│ │ size │ │ zeros  │
//!  └────────────────────────────────────────────────────────────────────────────────────┘ └──────┘ └────────┘
//! ```

mod acl;
mod error;
mod header;
mod pax;
mod read;
mod sparse;
mod write;

pub use error::{TarError, TarErrorKind};
pub use header::looks_like_tar;
pub use read::{EntryData, Limits, ReadOptions, Take, Whiteouts, read_entries, read_layer};
pub use write::{Output, WriteOptions, Written, write_layer, write_tree};

/// The unit of the format, in bytes.
const BLOCK: usize = 512;
/// What the name of a whiteout begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The name that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of AUFS's own files begin with this; they are no content.
const AUFS: &[u8] = b".wh..wh.";
/// The prefix of extended attributes in extended headers.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// `size` rounded up to whole blocks. `None` on overflow.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK as u64)
}
