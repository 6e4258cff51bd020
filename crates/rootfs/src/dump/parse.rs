//! Reading the text form.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::SplitAsciiWhitespace;

use crate::layer::{ApplyError, Change, Entry, Layer};
use crate::path::{self, MAX_TARGET, unescape};
use crate::tree::{Content, Device, Inode, Kind, Meta, Segment, Source, Time, Tree, Xattrs};

/// Why a text is no tree or layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// A line cannot be understood.
    #[error("line {line} of the tree's text: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is missing or wrong there.
        what: &'static str,
    },
    /// The lines do not make a tree.
    #[error("the lines do not make a tree")]
    Apply(#[source] ApplyError),
}

/// Reads a tree.
///
/// # Errors
/// When a line cannot be understood, is a whiteout or an opaque mark, or the lines contradict each other.
pub fn parse_tree(text: &str) -> Result<Tree, DumpError> {
    let layer = parse(text, false)?;
    let mut tree = Tree::new();
    tree.apply(&layer).map_err(DumpError::Apply)?;
    Ok(tree)
}

/// Reads a layer.
///
/// # Errors
/// When a line cannot be understood.
pub fn parse_layer(text: &str) -> Result<Layer, DumpError> {
    parse(text, true)
}

fn parse(text: &str, layer: bool) -> Result<Layer, DumpError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = entry(line, layer).map_err(|what| DumpError::Line {
            line: index + 1,
            what,
        })?;
        entries.push(entry);
    }
    Ok(Layer { entries })
}

type Parsed<T> = Result<T, &'static str>;

fn entry(line: &str, layer: bool) -> Parsed<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let path = clean(fields.next())?;
    let change = match fields.next().ok_or("the kind is missing")? {
        "link" => Change::HardLink(clean(fields.next())?),
        "whiteout" if layer => Change::Whiteout,
        "opaque" if layer => Change::Opaque,
        word => Change::Node(node(word, &mut fields)?),
    };
    if fields.next().is_some() {
        return Err("there is more on the line than belongs there");
    }
    Ok(Entry { path, change })
}

fn clean(field: Option<&str>) -> Parsed<Vec<u8>> {
    let field = field.ok_or("a path is missing")?;
    let field = field
        .strip_prefix('/')
        .ok_or("a path does not begin with /")?;
    let bytes = unescape(field).ok_or("a path has a bad escape")?;
    path::clean_strict(&bytes).map_err(|_| "a path is too long, too deep or climbs out")
}

fn node(word: &str, fields: &mut SplitAsciiWhitespace<'_>) -> Parsed<Inode> {
    let mode = fields.next().ok_or("the mode is missing")?;
    let mode = u16::from_str_radix(mode, 8)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or("the mode is not octal")?;
    let owner = fields.next().ok_or("the owner is missing")?;
    let (uid, gid) = owner.split_once(':').ok_or("the owner is not UID:GID")?;
    let uid = uid.parse().map_err(|_| "the owner is not UID:GID")?;
    let gid = gid.parse().map_err(|_| "the owner is not UID:GID")?;
    let mtime = time(fields.next().ok_or("the time is missing")?).ok_or("the time is no number")?;
    let kind = match word {
        "dir" => Kind::Dir(Default::default()),
        "fifo" => Kind::Fifo,
        "socket" => Kind::Socket,
        "char" => Kind::CharDevice(device(fields.next())?),
        "block" => Kind::BlockDevice(device(fields.next())?),
        "symlink" => {
            if fields.next() != Some("->") {
                return Err("a symbolic link needs -> and its target");
            }
            let target = unescape(fields.next().ok_or("the target is missing")?)
                .ok_or("the target has a bad escape")?;
            if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
                return Err("the target is empty, too long or holds NUL");
            }
            Kind::Symlink(target.into())
        }
        "file" => Kind::File(content(fields)?),
        _ => return Err("the kind is unknown"),
    };
    let mut xattrs = Xattrs::new();
    for field in fields.by_ref() {
        let (name, value) = field
            .strip_prefix("xattr:")
            .and_then(|x| x.split_once('='))
            .ok_or("there is more on the line than belongs there")?;
        let name = unescape(name).ok_or("an attribute's name has a bad escape")?;
        let value = hex(value).ok_or("an attribute's value is not hexadecimal")?;
        xattrs.insert(name.into(), value.into());
    }
    Ok(Inode::new(
        Meta {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        },
        kind,
    ))
}

fn time(text: &str) -> Option<Time> {
    let (secs, nanos) = text.split_once('.').unwrap_or((text, "000000000"));
    if nanos.len() != 9 || !nanos.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Time {
        secs: secs.parse().ok()?,
        nanos: nanos.parse().ok()?,
    })
}

fn device(field: Option<&str>) -> Parsed<Device> {
    const WHAT: &str = "a device needs MAJOR:MINOR";
    let (major, minor) = field.and_then(|f| f.split_once(':')).ok_or(WHAT)?;
    Ok(Device {
        major: major.parse().map_err(|_| WHAT)?,
        minor: minor.parse().map_err(|_| WHAT)?,
    })
}

fn content(fields: &mut SplitAsciiWhitespace<'_>) -> Parsed<Content> {
    let size: u64 = fields
        .next()
        .and_then(|f| f.parse().ok())
        .ok_or("a file needs its size")?;
    let field = fields.next().ok_or("a file needs its source")?;
    let source = source(field).ok_or("the source cannot be understood")?;
    match &source {
        Source::Bytes(bytes) if bytes.len() as u64 != size => {
            Err("the size is not that of the data")
        }
        Source::Blob { offset, .. } if offset.checked_add(size).is_none() => {
            Err("the offset is too large")
        }
        _ => Ok(Content { source, size }),
    }
}

fn source(field: &str) -> Option<Source> {
    let (form, rest) = field.split_once(':')?;
    match form {
        "data" => Some(Source::Bytes(unescape(rest)?.into())),
        "path" => Some(Source::Path(
            Path::new(OsStr::from_bytes(&unescape(rest)?)).into(),
        )),
        "blob" => {
            let (id, offset) = rest.split_once('@')?;
            Some(Source::Blob {
                id: hex(id)?.try_into().ok()?,
                offset: offset.parse().ok()?,
            })
        }
        "sparse" => {
            let (id, list) = rest.strip_suffix(']')?.split_once('[')?;
            let mut segments = Vec::new();
            for part in list.split(',').filter(|p| !p.is_empty()) {
                let (range, offset) = part.split_once('@')?;
                let (position, len) = range.split_once('+')?;
                segments.push(Segment {
                    position: position.parse().ok()?,
                    offset: offset.parse().ok()?,
                    len: len.parse().ok()?,
                });
            }
            Some(Source::SparseBlob {
                id: hex(id)?.try_into().ok()?,
                segments: segments.into(),
            })
        }
        _ => None,
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}
