//! The headers of one entry.

use crate::path;
use crate::tar::acl;
use crate::tar::header::{self, Header};
use crate::tar::pax;
use crate::tar::{BLOCK, XATTR, padded};
use crate::tree::{Device, Inode, Kind, Meta, Time};

/// Largest value of a size or time field: eleven octal digits.
const MAX_LONG: u64 = 0o77_777_777_777;
/// What readers accept as one extended header, this crate's included.
const MAX_EXTENDED: usize = 1 << 20;

/// Header blocks, the extended ones included.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
}

struct Builder {
    header: Header,
    records: Vec<u8>,
}

impl Head {
    /// A whiteout or opaque mark: an empty file.
    pub(super) fn mark(path: &[u8]) -> Option<Self> {
        let mut builder = Builder::new(b'0');
        builder.path(path);
        builder.meta(&Meta::default(), Time::default())?;
        builder.size(0);
        builder.finish(path)
    }

    /// A hard link, with the properties of the file: whoever unpacks as Docker does changes the owner by it, which takes
    /// capabilities and the set-uid bit away, and then sets attributes and mode again.
    pub(super) fn link(
        path: &[u8],
        target: &[u8],
        meta: Option<&Meta>,
        clamp: Option<Time>,
        gnu_acls: bool,
    ) -> Option<Self> {
        let unknown = Meta {
            mode: 0o644,
            ..Meta::default()
        };
        let meta = meta.unwrap_or(&unknown);
        let mut builder = Builder::new(b'1');
        builder.path(path);
        builder.target(target);
        builder.meta(
            meta,
            clamp.map_or(meta.mtime, |clamp| meta.mtime.min(clamp)),
        )?;
        builder.size(0);
        builder.xattrs(meta, gnu_acls);
        builder.finish(path)
    }

    pub(super) fn node(
        path: &[u8],
        inode: &Inode,
        clamp: Option<Time>,
        gnu_acls: bool,
    ) -> Option<Self> {
        let kind = match &inode.kind {
            Kind::File(_) => b'0',
            Kind::Symlink(_) => b'2',
            Kind::CharDevice(_) => b'3',
            Kind::BlockDevice(_) => b'4',
            Kind::Dir(_) => b'5',
            Kind::Fifo => b'6',
            Kind::Socket => return None,
        };
        let mut builder = Builder::new(kind);
        match (inode.is_dir(), path.is_empty()) {
            (true, true) => builder.path(b"./"),
            (true, false) => builder.path(&[path, b"/"].concat()),
            (false, _) => builder.path(path),
        }
        let time = clamp.map_or(inode.meta.mtime, |clamp| inode.meta.mtime.min(clamp));
        builder.meta(&inode.meta, time)?;
        match &inode.kind {
            Kind::File(content) => builder.size(content.size),
            Kind::Symlink(target) => {
                builder.target(target);
                builder.size(0);
            }
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                builder.device(*device);
                builder.size(0);
            }
            _ => builder.size(0),
        }
        builder.xattrs(&inode.meta, gnu_acls);
        builder.finish(path)
    }
}

/// As GNU tar does: `=` would end the key.
fn escape_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'=' => out.extend_from_slice(b"%3D"),
            b'%' => out.extend_from_slice(b"%25"),
            _ => out.push(byte),
        }
    }
    out
}

impl Builder {
    fn new(kind: u8) -> Self {
        let mut header = Header([0; BLOCK]);
        header.0[header::TYPE] = kind;
        header.0[header::MAGIC].copy_from_slice(header::USTAR);
        header.set_octal(header::MAJOR, 0);
        header.set_octal(header::MINOR, 0);
        Self {
            header,
            records: Vec::new(),
        }
    }

    fn path(&mut self, path: &[u8]) {
        if path.is_ascii() {
            if self.header.set_text(header::NAME, path) {
                return;
            }
            if let Some((prefix, name)) = split(path) {
                self.header.set_text(header::PREFIX, prefix);
                self.header.set_text(header::NAME, name);
                return;
            }
        }
        pax::append(&mut self.records, b"path", path);
        self.header
            .set_text(header::NAME, &path[..path.len().min(100)]);
    }

    fn target(&mut self, target: &[u8]) {
        if !target.is_ascii() || !self.header.set_text(header::LINK, target) {
            pax::append(&mut self.records, b"linkpath", target);
            self.header
                .set_text(header::LINK, &target[..target.len().min(100)]);
        }
    }

    /// `None` when a time's nanoseconds are no fraction of a second.
    fn meta(&mut self, meta: &Meta, mtime: Time) -> Option<()> {
        self.header.set_octal(header::MODE, u64::from(meta.mode));
        for (field, key, id) in [
            (header::UID, "uid", meta.uid),
            (header::GID, "gid", meta.gid),
        ] {
            if !self.header.set_octal(field.clone(), u64::from(id)) {
                self.header.set_octal(field, 0);
                pax::append(&mut self.records, key.as_bytes(), id.to_string().as_bytes());
            }
        }
        if mtime.nanos >= 1_000_000_000 {
            return None;
        }
        let secs = u64::try_from(mtime.secs).ok().filter(|s| *s <= MAX_LONG);
        self.header.set_octal(header::MTIME, secs.unwrap_or(0));
        if secs.is_none() || mtime.nanos != 0 {
            pax::append(
                &mut self.records,
                b"mtime",
                pax::format_time(mtime).as_bytes(),
            );
        }
        Some(())
    }

    fn xattrs(&mut self, meta: &Meta, gnu_acls: bool) {
        for (name, value) in &meta.xattrs {
            let key = [XATTR, &escape_name(name)].concat();
            pax::append(&mut self.records, &key, value);
            if gnu_acls && let Some((key, text)) = acl::record(name, value) {
                pax::append(&mut self.records, key, text.as_bytes());
            }
        }
    }

    fn size(&mut self, size: u64) {
        if size <= MAX_LONG {
            self.header.set_octal(header::SIZE, size);
        } else {
            self.header.set_octal(header::SIZE, 0);
            pax::append(&mut self.records, b"size", size.to_string().as_bytes());
        }
    }

    fn device(&mut self, device: Device) {
        for (field, number) in [(header::MAJOR, device.major), (header::MINOR, device.minor)] {
            if !self.header.set_octal(field.clone(), u64::from(number)) {
                // Base-256, which GNU tar and Go read in every field.
                let bytes = &mut self.header.0[field];
                bytes.fill(0);
                bytes[0] = 0x80;
                bytes[4..].copy_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn finish(mut self, path: &[u8]) -> Option<Head> {
        self.header.seal();
        if self.records.is_empty() {
            return Some(Head {
                bytes: self.header.0.to_vec(),
            });
        }
        if self.records.len() > MAX_EXTENDED {
            return None;
        }
        let mut extended = Builder::new(b'x');
        let name = [b"PaxHeaders.0/", path::file_name(path)].concat();
        extended
            .header
            .set_text(header::NAME, &name[..name.len().min(100)]);
        extended.header.set_octal(header::MODE, 0o644);
        extended.header.set_octal(header::UID, 0);
        extended.header.set_octal(header::GID, 0);
        extended.header.set_octal(header::MTIME, 0);
        extended
            .header
            .set_octal(header::SIZE, self.records.len() as u64);
        extended.header.seal();
        let len = usize::try_from(padded(self.records.len() as u64)?).ok()?;
        let mut bytes = extended.header.0.to_vec();
        bytes.extend_from_slice(&self.records);
        bytes.resize(BLOCK + len, 0);
        bytes.extend_from_slice(&self.header.0);
        Some(Head { bytes })
    }
}

/// Splits a path at a slash so that both parts fit into a ustar header. The name may not be empty.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() > 256 {
        return None;
    }
    // The first slash after which at most 100 bytes are left; a directory's last slash belongs to the name.
    let from = path.len().saturating_sub(101);
    let at = from + path[from..path.len() - 1].iter().position(|&b| b == b'/')?;
    (at <= 155 && at > 0).then(|| (&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ascii_paths_are_split_at_a_slash() {
        let long = [&[b'a'; 120][..], b"/", &[b'b'; 100]].concat();
        let (prefix, name) = split(&long).unwrap();
        assert_eq!((prefix.len(), name.len()), (120, 100));
        assert!(split(&[&[b'a'; 10][..], b"/", &[b'b'; 101]].concat()).is_none());
        assert!(split(&[b'a'; 150]).is_none());
        assert!(split(&[&[b'a'; 156][..], b"/b"].concat()).is_none());
        let dir = [&[b'a'; 100][..], b"/"].concat();
        assert!(split(&dir).is_none());
    }

    #[test]
    fn plain_entries_are_one_block() {
        let inode = Inode::dir(0o755);
        assert_eq!(
            Head::node(b"usr", &inode, None, false).unwrap().bytes.len(),
            BLOCK
        );
        let mut late = inode.clone();
        late.meta.mtime = Time { secs: 5, nanos: 1 };
        assert_eq!(
            Head::node(b"usr", &late, None, false).unwrap().bytes.len(),
            3 * BLOCK
        );
        let clamp = Some(Time { secs: 4, nanos: 0 });
        assert_eq!(
            Head::node(b"usr", &late, clamp, false).unwrap().bytes.len(),
            BLOCK
        );
        late.meta.mtime.nanos = 1_000_000_000;
        assert!(Head::node(b"usr", &late, None, false).is_none());
    }
}
