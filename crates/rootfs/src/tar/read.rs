//! From an uncompressed archive to a layer: headers only.
//!
//! An entry is: any number of extended headers (`x`, `g`, GNU's `L` and `K`), then its own header, then its data. Where
//! they contradict each other, the extended header wins over GNU's long name and that over the header.

mod forward;
mod stream;

use std::io::{Read, Seek};

use super::header::{self, Header};
use super::pax::{self, Records};
use super::{AUFS, BLOCK, OPAQUE, TarError, TarErrorKind, WHITEOUT, XATTR, acl, padded, sparse};
use crate::layer::{Change, Entry, Layer};
use crate::path::{self, MAX_TARGET};
use crate::tree::{Content, Device, Inode, Kind, Meta, Source, Time};
pub use forward::{EntryData, Take, read_entries};
use stream::{Archive, Raw};

/// What a reader accepts at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of an archive.
    pub entries: usize,
    /// Bytes of one extended header or long name.
    pub extended: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            extended: 1 << 20,
        }
    }
}

/// Whether names that begin with `.wh.` mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They take away what is below: the archive is a layer.
    Apply,
    /// They are names like others: the archive is any archive (`ADD`).
    Keep,
}

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// What is accepted.
    pub limits: Limits,
    /// Whether it is a layer.
    pub whiteouts: Whiteouts,
}

impl Default for ReadOptions {
    /// A layer, with the default limits.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            whiteouts: Whiteouts::Apply,
        }
    }
}

/// Reads the entries of an uncompressed archive; files point into the blob `blob`, which has the reader's bytes.
///
/// The archive ends with two blocks of zeros or with the file; what comes after is ignored.
///
/// # Errors
/// When the archive is damaged or cut off, breaks a limit, or an entry climbs out of the root; the error names the entry
/// and its place.
pub fn read_layer<R: Read + Seek>(
    reader: R,
    blob: [u8; 32],
    options: &ReadOptions,
) -> Result<Layer, TarError> {
    let mut archive = Archive::new(reader, options.limits)?;
    let mut layer = Layer::default();
    while let Some(raw) = archive.next()? {
        if layer.entries.len() >= options.limits.entries {
            return Err(TarError::new(TarErrorKind::TooManyEntries, raw.start));
        }
        let (start, name) = (raw.start, raw.path.clone());
        let named = |failure: Failure| failure.into_error(start).named(&name);
        let (entry, end) = archive.entry(raw, blob, options.whiteouts).map_err(named)?;
        archive.go_to(end)?;
        layer.entries.extend(entry);
    }
    Ok(layer)
}

/// Either only what is wrong (the place is added outside) or a whole error.
enum Failure {
    Kind(TarErrorKind),
    Whole(TarError),
}

impl Failure {
    fn into_error(self, offset: u64) -> TarError {
        match self {
            Self::Kind(kind) => TarError::new(kind, offset),
            Self::Whole(error) => error,
        }
    }
}

impl From<TarErrorKind> for Failure {
    fn from(kind: TarErrorKind) -> Self {
        Self::Kind(kind)
    }
}

impl From<TarError> for Failure {
    fn from(error: TarError) -> Self {
        Self::Whole(error)
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Makes a change of a header, and says where its data ends.
    fn entry(
        &mut self,
        raw: Raw,
        blob: [u8; 32],
        whiteouts: Whiteouts,
    ) -> Result<(Option<Entry>, u64), Failure> {
        let Raw {
            header,
            path: raw_path,
            link,
            records,
            ..
        } = raw;
        let kind_byte = match header.kind() {
            // v7 archives mark directories by the slash.
            0 if raw_path.last() == Some(&b'/') => b'5',
            0 | b'7' => b'0',
            b'D' => b'5',
            other => other,
        };
        let stored = match records.number(b"size") {
            Some(size) => size.ok_or(TarErrorKind::Number("size"))?,
            None => header.unsigned(header::SIZE, "size")?,
        };
        // Only files have data, and GNU's directories of incremental dumps; other headers' sizes mean nothing.
        let has_data = matches!(kind_byte, b'0' | b'S') || header.kind() == b'D';
        let data = self.position;
        let content = if matches!(kind_byte, b'0' | b'S') {
            Some(self.content(&header, &records, blob, stored)?)
        } else {
            None
        };
        // The maps of sparse files are read; the data begins where `content` left off only for the old format.
        let data = if kind_byte == b'S' {
            self.position
        } else {
            data
        };
        let end = if has_data {
            padded(stored).and_then(|s| data.checked_add(s))
        } else {
            Some(data)
        };
        let end = end.ok_or(TarErrorKind::Number("size"))?;
        if has_data && stored > self.len.saturating_sub(data) {
            return Err(TarErrorKind::Truncated.into());
        }

        if whiteouts == Whiteouts::Apply
            && let Some(mark) = whiteout(&raw_path)?
        {
            return Ok((mark, end));
        }
        let path = path::clean_strict(&raw_path).map_err(TarErrorKind::Path)?;
        let kind = match kind_byte {
            b'0' | b'S' => Kind::File(content.expect("files have content")),
            b'1' => {
                let target = path::clean_strict(&link).map_err(TarErrorKind::Path)?;
                if target.is_empty() {
                    return Err(TarErrorKind::Link.into());
                }
                let change = Change::HardLink(target);
                return Ok((Some(Entry { path, change }), end));
            }
            b'2' => {
                if link.is_empty() || link.len() > MAX_TARGET || link.contains(&0) {
                    return Err(TarErrorKind::Link.into());
                }
                Kind::Symlink(link.into())
            }
            b'3' => Kind::CharDevice(device(&header)?),
            b'4' => Kind::BlockDevice(device(&header)?),
            b'5' => Kind::Dir(std::collections::BTreeMap::new()),
            b'6' => Kind::Fifo,
            other => return Err(TarErrorKind::Type(other).into()),
        };
        let meta = self.meta(&header, &records)?;
        let change = Change::Node(Inode::new(meta, kind));
        Ok((Some(Entry { path, change }), end))
    }

    fn meta(&self, header: &Header, records: &Records) -> Result<Meta, TarErrorKind> {
        let pick = |key: &[u8]| records.get(key).or_else(|| self.global.get(key));
        let id = |key: &'static str, field| -> Result<u32, TarErrorKind> {
            let value = match pick(key.as_bytes()) {
                Some(text) => pax::decimal(text).ok_or(TarErrorKind::Number(key))?,
                None => header.unsigned(field, key)?,
            };
            u32::try_from(value).map_err(|_| TarErrorKind::Number(key))
        };
        let mtime = match pick(b"mtime") {
            Some(text) => pax::parse_time(text).ok_or(TarErrorKind::Number("mtime"))?,
            None => Time {
                secs: header.signed(header::MTIME, "mtime")?,
                nanos: 0,
            },
        };
        let mode = header.unsigned(header::MODE, "mode")? & 0o7777;
        let mut meta = Meta {
            mode: u16::try_from(mode).map_err(|_| TarErrorKind::Number("mode"))?,
            uid: id("uid", header::UID)?,
            gid: id("gid", header::GID)?,
            mtime,
            ..Meta::default()
        };
        for (key, name) in [
            (&b"SCHILY.acl.access"[..], &b"system.posix_acl_access"[..]),
            (b"SCHILY.acl.default", b"system.posix_acl_default"),
        ] {
            // GNU tar writes both; the kernel's own form needs no names.
            let raw = [XATTR, name].concat();
            if let Some(text) = records.get(key)
                && records.get(&raw).is_none()
            {
                let value = acl::from_text(text).ok_or(TarErrorKind::Acl)?;
                // Three entries say what the mode says; the kernel keeps no such list.
                if name != b"system.posix_acl_access" || value.len() > acl::MINIMAL {
                    meta.xattrs.insert(name.into(), value.into());
                }
            }
        }
        for (key, value) in self.global.0.iter().chain(&records.0) {
            if let Some(name) = key.strip_prefix(XATTR) {
                let name = xattr_name(name);
                if name.is_empty() || name.len() > 255 || name.contains(&0) || value.len() > 65536 {
                    return Err(TarErrorKind::Xattr);
                }
                meta.xattrs.insert(name.into(), value.as_slice().into());
            }
        }
        Ok(meta)
    }

    /// Where a file's bytes are. For sparse files this reads the map, which may move the position.
    fn content(
        &mut self,
        header: &Header,
        records: &Records,
        blob: [u8; 32],
        stored: u64,
    ) -> Result<Content, Failure> {
        let data = self.position;
        if header.kind() == b'S' {
            let mut map = sparse::Map::new();
            let mut more = sparse::old_gnu(&mut map, &header.0, true)?;
            while more {
                let mut block = [0; BLOCK];
                self.read(&mut block)?;
                more = sparse::old_gnu(&mut map, &block, false)?;
            }
            let size = sparse::old_gnu_size(header)?;
            return Ok(sparse::content(&map, blob, self.position, stored, size)?);
        }
        let size = |keys: [&[u8]; 2]| {
            let found = keys
                .into_iter()
                .find_map(|key| records.number(key))
                .flatten();
            found.ok_or(TarErrorKind::Sparse)
        };
        if records.get(b"GNU.sparse.major").is_some() {
            if records.get(b"GNU.sparse.major") != Some(b"1") {
                return Err(TarErrorKind::Sparse.into());
            }
            let size = size([b"GNU.sparse.realsize", b"GNU.sparse.size"])?;
            let limit = data.saturating_add(stored);
            let map = sparse::from_lines(
                || {
                    let mut byte = [0];
                    if self.position >= limit {
                        return Err(Failure::Kind(TarErrorKind::Sparse));
                    }
                    self.read(&mut byte)?;
                    Ok(byte[0])
                },
                Failure::Kind,
            )?;
            let used = padded(self.position - data)
                .filter(|u| *u <= stored)
                .ok_or(TarErrorKind::Sparse)?;
            return Ok(sparse::content(
                &map,
                blob,
                data + used,
                stored - used,
                size,
            )?);
        }
        if let Some(map) = sparse::from_records(records)? {
            let size = size([b"GNU.sparse.size", b"GNU.sparse.realsize"])?;
            return Ok(sparse::content(&map, blob, data, stored, size)?);
        }
        Ok(Content {
            source: Source::Blob {
                id: blob,
                offset: data,
            },
            size: stored,
        })
    }
}

/// GNU tar writes `=` and `%` in names of attributes as `%3D` and `%25`.
fn xattr_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, tail)) = rest.split_first() {
        let (byte, tail) = if let Some(tail) = rest.strip_prefix(b"%3D") {
            (b'=', tail)
        } else if let Some(tail) = rest.strip_prefix(b"%25") {
            (b'%', tail)
        } else {
            (byte, tail)
        };
        out.push(byte);
        rest = tail;
    }
    out
}

fn device(header: &Header) -> Result<Device, TarErrorKind> {
    if !header.has_devices() {
        return Ok(Device::default());
    }
    let part = |field, name| {
        let value = header.unsigned(field, name)?;
        u32::try_from(value).map_err(|_| TarErrorKind::Number(name))
    };
    Ok(Device {
        major: part(header::MAJOR, "device major number")?,
        minor: part(header::MINOR, "device minor number")?,
    })
}

/// What a name that begins with `.wh.` means. `None` for other names, `Some(None)` for names without meaning.
///
/// The name is looked at before it is cleaned: with `.wh.` it may be longer than a name can be.
fn whiteout(raw: &[u8]) -> Result<Option<Option<Entry>>, TarErrorKind> {
    let end = raw.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
    let name = path::file_name(&raw[..end]);
    let Some(gone) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    let parent = path::clean_strict(path::parent(&raw[..end])).map_err(TarErrorKind::Path)?;
    if name == OPAQUE {
        return Ok(Some(Some(Entry {
            path: parent,
            change: Change::Opaque,
        })));
    }
    if name.starts_with(AUFS) {
        return Ok(Some(None));
    }
    if !path::is_name(gone) {
        return Err(TarErrorKind::Whiteout);
    }
    Ok(Some(Some(Entry {
        path: path::join(&parent, gone),
        change: Change::Whiteout,
    })))
}

#[cfg(test)]
mod tests;
