//! Layers on the socket: a plain binary form, in frames of bounded size.
//!
//! A path as the source of a file is not written: it is the entry's own path, on both sides.

use std::io;
use std::path::Path;
use std::sync::Arc;

use firebuild_rootfs::layer::{Change, Entry, Layer};
use firebuild_rootfs::tree::{Content, Device, Inode, Kind, Meta, Segment, Source, Time};

use crate::wire::{self, Link};

/// Frames are cut when they are longer than this.
const FRAME: usize = 1 << 20;

/// Sends a layer; an empty frame ends it.
pub fn send(link: &Link, layer: &Layer) -> io::Result<()> {
    let mut writer = Writer::default();
    for entry in &layer.entries {
        writer.entry(entry);
        if writer.0.len() >= FRAME {
            link.send(wire::Kind::Entries, &writer.0, &[])?;
            writer.0.clear();
        }
    }
    if !writer.0.is_empty() {
        link.send(wire::Kind::Entries, &writer.0, &[])?;
    }
    link.send(wire::Kind::Entries, &[], &[])
}

/// Reads the entries of one frame.
pub fn decode(bytes: &[u8]) -> io::Result<Vec<Entry>> {
    let mut reader = Reader(bytes);
    let mut entries = Vec::new();
    while !reader.0.is_empty() {
        entries.push(reader.entry().ok_or_else(damaged)?);
    }
    Ok(entries)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a damaged entry")
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn count(&mut self, value: usize) {
        self.u32(
            u32::try_from(value)
                .expect("paths, attributes and small contents have less than 4 GiB"),
        );
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend(bytes);
    }

    fn entry(&mut self, entry: &Entry) {
        self.bytes(&entry.path);
        match &entry.change {
            Change::Node(inode) => {
                self.u8(0);
                self.meta(&inode.meta);
                self.kind(&inode.kind);
            }
            Change::HardLink(target) => {
                self.u8(1);
                self.bytes(target);
            }
            Change::Whiteout => self.u8(2),
            Change::Opaque => self.u8(3),
        }
    }

    fn meta(&mut self, meta: &Meta) {
        self.u32(u32::from(meta.mode));
        self.u32(meta.uid);
        self.u32(meta.gid);
        self.u64(meta.mtime.secs.cast_unsigned());
        self.u32(meta.mtime.nanos);
        self.count(meta.xattrs.len());
        for (name, value) in &meta.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn kind(&mut self, kind: &Kind) {
        match kind {
            Kind::Dir(_) => self.u8(0),
            Kind::File(content) => {
                self.u8(1);
                self.content(content);
            }
            Kind::Symlink(target) => {
                self.u8(2);
                self.bytes(target);
            }
            Kind::Fifo => self.u8(3),
            Kind::Socket => self.u8(4),
            Kind::CharDevice(device) => self.device(5, *device),
            Kind::BlockDevice(device) => self.device(6, *device),
        }
    }

    fn device(&mut self, tag: u8, device: Device) {
        self.u8(tag);
        self.u32(device.major);
        self.u32(device.minor);
    }

    fn content(&mut self, content: &Content) {
        self.u64(content.size);
        match &content.source {
            Source::Path(_) => self.u8(0),
            Source::Blob { id, offset } => {
                self.u8(1);
                self.0.extend(id);
                self.u64(*offset);
            }
            Source::SparseBlob { id, segments } => {
                self.u8(2);
                self.0.extend(id);
                self.count(segments.len());
                for segment in segments.iter() {
                    self.u64(segment.position);
                    self.u64(segment.offset);
                    self.u64(segment.len);
                }
            }
            Source::Bytes(bytes) => {
                self.u8(3);
                self.bytes(bytes);
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.u32()?).ok()?;
        self.take(count)
    }

    fn entry(&mut self) -> Option<Entry> {
        let path = self.bytes()?.to_vec();
        let change = match self.u8()? {
            0 => {
                let meta = self.meta()?;
                let kind = self.kind(&path)?;
                Change::Node(Inode::new(meta, kind))
            }
            1 => Change::HardLink(self.bytes()?.to_vec()),
            2 => Change::Whiteout,
            3 => Change::Opaque,
            _ => return None,
        };
        Some(Entry { path, change })
    }

    fn meta(&mut self) -> Option<Meta> {
        let mode = u16::try_from(self.u32()?).ok()?;
        let (uid, gid) = (self.u32()?, self.u32()?);
        let mtime = Time {
            secs: self.u64()?.cast_signed(),
            nanos: self.u32()?,
        };
        let mut meta = Meta {
            mode,
            uid,
            gid,
            mtime,
            ..Meta::default()
        };
        for _ in 0..self.u32()? {
            let name = self.bytes()?;
            let value = self.bytes()?;
            meta.xattrs.insert(name.into(), value.into());
        }
        Some(meta)
    }

    fn kind(&mut self, path: &[u8]) -> Option<Kind> {
        Some(match self.u8()? {
            0 => Kind::Dir(std::collections::BTreeMap::new()),
            1 => Kind::File(self.content(path)?),
            2 => Kind::Symlink(self.bytes()?.into()),
            3 => Kind::Fifo,
            4 => Kind::Socket,
            5 => Kind::CharDevice(self.device()?),
            6 => Kind::BlockDevice(self.device()?),
            _ => return None,
        })
    }

    fn device(&mut self) -> Option<Device> {
        Some(Device {
            major: self.u32()?,
            minor: self.u32()?,
        })
    }

    fn content(&mut self, path: &[u8]) -> Option<Content> {
        let size = self.u64()?;
        let source = match self.u8()? {
            0 => {
                use std::os::unix::ffi::OsStrExt;
                Source::Path(Arc::from(Path::new(std::ffi::OsStr::from_bytes(path))))
            }
            1 => Source::Blob {
                id: self.array()?,
                offset: self.u64()?,
            },
            2 => {
                let id = self.array()?;
                let mut segments = Vec::new();
                for _ in 0..self.u32()? {
                    segments.push(Segment {
                        position: self.u64()?,
                        offset: self.u64()?,
                        len: self.u64()?,
                    });
                }
                Source::SparseBlob {
                    id,
                    segments: segments.into(),
                }
            }
            3 => Source::Bytes(self.bytes()?.into()),
            _ => return None,
        };
        Some(Content { source, size })
    }
}

#[cfg(test)]
mod tests {
    use super::{Writer, decode, send};
    use crate::wire::Link;
    use firebuild_rootfs::layer::{Change, Entry, Layer};
    use firebuild_rootfs::tree::{Content, Device, Inode, Kind, Meta, Segment, Source, Time};
    use std::path::Path;
    use std::sync::Arc;

    fn everything() -> Layer {
        let mut meta = Meta {
            mode: 0o4755,
            uid: 7,
            gid: u32::MAX - 1,
            ..Meta::default()
        };
        meta.mtime = Time {
            secs: -5,
            nanos: 999_999_999,
        };
        meta.xattrs.insert((*b"user.a").into(), (*b"\0\xff").into());
        meta.xattrs.insert((*b"user.b").into(), [].into());
        let file = |source, size| Kind::File(Content { source, size });
        let kinds = [
            Kind::Dir(std::collections::BTreeMap::new()),
            file(Source::Path(Arc::from(Path::new("p1"))), u64::MAX),
            file(
                Source::Blob {
                    id: [9; 32],
                    offset: 1 << 40,
                },
                3,
            ),
            file(
                Source::SparseBlob {
                    id: [1; 32],
                    segments: vec![
                        Segment {
                            position: 1,
                            offset: 2,
                            len: 3,
                        },
                        Segment {
                            position: 4,
                            offset: 5,
                            len: 6,
                        },
                    ]
                    .into(),
                },
                10,
            ),
            file(Source::Bytes((*b"abc").into()), 3),
            Kind::Symlink((*b"../\xfe").into()),
            Kind::Fifo,
            Kind::Socket,
            Kind::CharDevice(Device { major: 1, minor: 3 }),
            Kind::BlockDevice(Device {
                major: 259,
                minor: 1 << 19,
            }),
        ];
        let mut layer = Layer::default();
        for (index, kind) in kinds.into_iter().enumerate() {
            layer.push(
                format!("p{index}"),
                Change::Node(Inode::new(meta.clone(), kind)),
            );
        }
        layer.push(*b"li\xffnk", Change::HardLink(b"p1".to_vec()));
        layer.push(*b"", Change::Opaque);
        layer.push(*b"gone", Change::Whiteout);
        layer
    }

    #[test]
    fn what_is_sent_is_received() {
        let mut layer = everything();
        // Enough for several frames.
        for number in 0..30_000 {
            layer.push(format!("many/{number:060}"), Change::Whiteout);
        }
        let (one, other) = Link::pair().unwrap();
        let two = Link::new(other);
        let mut received: Vec<Entry> = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| send(&one, &layer).unwrap());
            loop {
                let frame = two.receive().unwrap().unwrap();
                if frame.body.is_empty() {
                    break;
                }
                received.extend(decode(&frame.body).unwrap());
            }
        });
        assert_eq!(received, layer.entries);
    }

    #[test]
    fn every_cut_is_noticed() {
        for entry in everything().entries {
            let mut writer = Writer::default();
            writer.entry(&entry);
            for end in 1..writer.0.len() {
                assert!(decode(&writer.0[..end]).is_err(), "{entry:?} cut at {end}");
            }
        }
    }
}
