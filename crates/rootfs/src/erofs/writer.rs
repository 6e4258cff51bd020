//! The order of the work: content, places for the inodes, what is named by places, the inodes, the superblock.

use std::fs::File;
use std::panic::resume_unwind;
use std::thread;

use sha2::Digest;

use super::bins::Bins;
use super::data::{self, Body, fits_behind};
use super::error::ErofsError;
use super::format::{self, BLOCK, BLOCK_SIZE, INODE, Image, Inode, Layout, SLOT};
use super::plan::{Plan, device_number};
use super::stream::Stream;
use super::{Options, Summary, dir, xattr};
use crate::sink;
use crate::tree::{Contents, InodeId, Kind, Tree};

/// Writes the image: this thread reads and decides, a second one writes.
pub(super) fn write(
    tree: &Tree,
    contents: &dyn Contents,
    out: &File,
    options: &Options,
) -> Result<Summary, ErofsError> {
    let plan = Plan::new(tree, options)?;
    sink::empty(out).map_err(ErofsError::write)?;
    let (sink, work) = sink::pair(true);
    let (made, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| work.run(out));
        let made = Stream::new(sink).and_then(|stream| {
            let build = Build {
                tree,
                contents,
                plan: &plan,
                options,
                stream,
                places: vec![0; tree.id_bound()],
            };
            build.run()
        });
        (made, writer.join())
    });
    // When the writer stopped, its error is the reason for the other one.
    written
        .unwrap_or_else(|panic| resume_unwind(panic))
        .map_err(ErofsError::write)?;
    made
}

/// What an inode needs besides what the tree says of it.
struct Record {
    body: Body,
    size: u64,
    links: u32,
}

struct Build<'a> {
    tree: &'a Tree,
    contents: &'a dyn Contents,
    plan: &'a Plan,
    options: &'a Options,
    stream: Stream,
    /// Where the inodes lie in their area, by [`InodeId`].
    places: Vec<u64>,
}

impl Build<'_> {
    fn run(mut self) -> Result<Summary, ErofsError> {
        let mut records = self.records()?;
        self.place(&records);
        self.directories(&mut records)?;
        let meta_block = self.stream.block()?;
        self.inodes(&records)?;
        self.stream.align()?;
        let blocks = self.stream.block()?;
        let uuid = self.uuid()?;
        let root = self.places[InodeId::ROOT.0 as usize] / SLOT as u64;
        let image = Image {
            root_nid: u16::try_from(root).expect("the root is placed first"),
            inodes: self.plan.order.len() as u64,
            epoch: self.plan.epoch,
            blocks,
            meta_block,
            uuid,
            label: self.options.label.clone(),
            chunked: records
                .iter()
                .any(|record| matches!(record.body, Body::Chunks { .. })),
        };
        self.stream.finish(&format::super_block(&image))?;
        Ok(Summary {
            size: u64::from(blocks) * BLOCK_SIZE,
            uuid,
            inodes: image.inodes,
        })
    }

    fn xattr_len(&self, id: InodeId) -> usize {
        xattr::encoded_len(&self.tree[id].meta.xattrs)
    }

    /// Copies the content of files and of long links, and finds the sizes of directories.
    fn records(&mut self) -> Result<Vec<Record>, ErofsError> {
        let mut records = Vec::with_capacity(self.plan.order.len());
        let mut window = Vec::new();
        for id in &self.plan.order {
            let node = &self.tree[*id];
            let xattrs = self.xattr_len(*id);
            let flat = |tail| Body::Flat { start: 0, tail };
            let (body, size, links) = match &node.kind {
                Kind::File(content) => {
                    let body = data::copy(
                        &mut self.stream,
                        content,
                        self.contents,
                        xattrs,
                        &mut window,
                    )
                    .map_err(|error| error.of(self.tree, *id))?;
                    (body, content.size, node.names)
                }
                Kind::Symlink(target) if fits_behind(xattrs, target.len()) => {
                    (flat(target.len()), target.len() as u64, node.names)
                }
                Kind::Symlink(target) => {
                    let start = self.stream.block()?;
                    self.stream.append(target)?;
                    self.stream.align()?;
                    let body = Body::Flat { start, tail: 0 };
                    (body, target.len() as u64, node.names)
                }
                Kind::Dir(children) => {
                    let size = dir::size(children, *id);
                    let inline = size.last < BLOCK && fits_behind(xattrs, size.last);
                    let dirs = children.values().filter(|id| self.tree[**id].is_dir());
                    let links = u32::try_from(dirs.count()).unwrap_or(u32::MAX);
                    let body = flat(if inline { size.last } else { 0 });
                    (body, size.bytes(), links.saturating_add(2))
                }
                _ => (flat(0), 0, node.names),
            };
            records.push(Record { body, size, links });
        }
        Ok(records)
    }

    /// Gives each inode its place.
    fn place(&mut self, records: &[Record]) {
        let mut bins = Bins::new();
        for (id, record) in self.plan.order.iter().zip(records) {
            let behind = match &record.body {
                Body::Flat { tail, .. } => *tail,
                Body::Chunks { blocks, .. } => blocks.len() * 4,
            };
            self.places[id.0 as usize] = bins.place(INODE + self.xattr_len(*id) + behind);
        }
    }

    fn nid(&self, id: InodeId) -> u64 {
        self.places[id.0 as usize] / SLOT as u64
    }

    /// Writes the blocks of directories that do not lie behind their inodes.
    fn directories(&mut self, records: &mut [Record]) -> Result<(), ErofsError> {
        for (place, parent) in &self.plan.dirs {
            let id = self.plan.order[*place];
            let record = &mut records[*place];
            let Body::Flat { start, tail } = &mut record.body else {
                continue;
            };
            if record.size == *tail as u64 {
                continue;
            }
            *start = self.stream.block()?;
            let behind = record.size - *tail as u64;
            let mut written = 0;
            let places = &self.places;
            let stream = &mut self.stream;
            dir::encode(
                self.tree,
                id,
                *parent,
                |id| places[id.0 as usize] / SLOT as u64,
                |block| {
                    if written < behind {
                        written += block.len() as u64;
                        stream.append(block)?;
                        stream.align()?;
                    }
                    Ok::<(), ErofsError>(())
                },
            )?;
        }
        Ok(())
    }

    /// Writes all inodes in the order of their places, each with what lies behind it.
    fn inodes(&mut self, records: &[Record]) -> Result<(), ErofsError> {
        let start = self.stream.position();
        let mut parents = vec![InodeId::ROOT; self.tree.id_bound()];
        for (place, parent) in &self.plan.dirs {
            parents[self.plan.order[*place].0 as usize] = *parent;
        }
        let mut order: Vec<usize> = (0..self.plan.order.len()).collect();
        order.sort_unstable_by_key(|place| self.places[self.plan.order[*place].0 as usize]);
        for place in order {
            let id = self.plan.order[place];
            let gap = start + self.places[id.0 as usize] - self.stream.position();
            self.stream.zeros(gap)?;
            let parent = parents[id.0 as usize];
            self.inode(id, place, parent, &records[place])
                .map_err(|error| match error.kind() {
                    super::ErofsErrorKind::Content => error.of(self.tree, id),
                    _ => error,
                })?;
        }
        Ok(())
    }

    fn inode(
        &mut self,
        id: InodeId,
        place: usize,
        parent: InodeId,
        record: &Record,
    ) -> Result<(), ErofsError> {
        let node = &self.tree[id];
        let attributes = xattr::encode(&node.meta.xattrs)?;
        let (layout, value, behind) = match &record.body {
            Body::Chunks { bits, blocks } => {
                let list = blocks
                    .iter()
                    .flat_map(|block| block.to_le_bytes())
                    .collect();
                (Layout::Chunks, u32::from(*bits), list)
            }
            Body::Flat { start, tail } => {
                let layout = if *tail > 0 {
                    Layout::Inline
                } else {
                    Layout::Plain
                };
                let (value, behind) = match &node.kind {
                    Kind::CharDevice(device) | Kind::BlockDevice(device) => (
                        device_number(*device).expect("the plan has checked it"),
                        Vec::new(),
                    ),
                    Kind::File(content) => (*start, data::tail(content, self.contents, *tail)?),
                    Kind::Symlink(target) => (*start, target[..*tail].to_vec()),
                    Kind::Dir(_) => (*start, self.last_block(id, parent, *tail)),
                    Kind::Fifo | Kind::Socket => (0, Vec::new()),
                };
                (layout, value, behind)
            }
        };
        let inode = Inode {
            layout,
            xattrs: attributes.len(),
            mode: file_type(&node.kind) | (node.meta.mode & 0o7777),
            size: record.size,
            value,
            ino: u32::try_from(place + 1).unwrap_or(u32::MAX),
            uid: node.meta.uid,
            gid: node.meta.gid,
            mtime: self.options.clamped(node.meta.mtime),
            links: record.links,
        };
        self.stream.append(&inode.to_bytes())?;
        self.stream.append(&attributes)?;
        self.stream.append(&behind)
    }

    /// The end of a directory, if it lies behind the inode.
    fn last_block(&self, id: InodeId, parent: InodeId, tail: usize) -> Vec<u8> {
        let mut last = Vec::new();
        if tail > 0 {
            let made = dir::encode(
                self.tree,
                id,
                parent,
                |id| self.nid(id),
                |block| {
                    last = block.to_vec();
                    Ok::<(), std::convert::Infallible>(())
                },
            );
            match made {
                Ok(()) => {}
                Err(never) => match never {},
            }
        }
        last
    }

    /// The UUID: from the names and metadata, and all bytes so far.
    fn uuid(&mut self) -> Result<[u8; 16], ErofsError> {
        let mut digest = self.stream.digest()?;
        digest.update(self.plan.digest.clone().finalize());
        let digest: [u8; 32] = digest.finalize().into();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        // RFC 9562: version 8 (own method), variant 10.
        uuid[6] = uuid[6] & 0x0F | 0x80;
        uuid[8] = uuid[8] & 0x3F | 0x80;
        Ok(uuid)
    }
}

/// `S_IFMT` of `stat(2)`.
fn file_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice(_) => 0o020_000,
        Kind::Dir(_) => 0o040_000,
        Kind::BlockDevice(_) => 0o060_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}
