//! The order of the work: content, then what points at it, then what describes all of it.

use std::fs::File;
use std::panic::resume_unwind;
use std::thread;

use sha2::{Digest, Sha256};

use super::checksum::Seed;
use super::dir::{self, Entry};
use super::error::Ext4Error;
use super::extent::{ExtentTree, Finished};
use super::format::{
    BLOCK_SIZE, FIRST_INO, INODE_SIZE, JOURNAL_INO, MAX_FAST_SYMLINK, ROOT_INO, XATTR_ROOM,
    file_type, inode_flag,
};
use super::hash::NameHash;
use super::inode::{self, Record, type_of};
use super::keep::{Keep, Order};
use super::ledger::{Filed, Ledger};
use super::plan::{LOST_FOUND, Plan};
use super::seal::{self, Census, Identity, JournalInode};
use super::size::{Geometry, estimate};
use super::space::Space;
use super::stream::Stream;
use super::xattr::Attrs;
use super::{Options, Summary, data, journal};
use crate::sink;
use crate::tree::{Contents, InodeId, Kind, Meta, Time, Tree};

/// Writes the image: this thread reads and decides, a second one writes. `before` is of the image that `out` holds; with
/// `noting` the ledger of the new one comes back.
pub(super) fn write(
    tree: &Tree,
    contents: &dyn Contents,
    out: &File,
    options: &Options,
    before: Option<&Ledger>,
    noting: bool,
) -> Result<(Summary, Ledger), Ext4Error> {
    options.check()?;
    let plan = Plan::new(tree, options)?;
    let order = Order::new(tree, &plan, &options.layers);
    let space = Space::new(plan.descriptor_blocks);
    let keep = before.map_or_else(Keep::default, |ledger| {
        Keep::find(ledger, &order, &plan, &options.layers)
    });
    let keep = keep.begin(out, &space).map_err(Ext4Error::write)?;
    let ledger = Ledger {
        descriptor_blocks: plan.descriptor_blocks,
        layers: options.layers.clone(),
        files: Vec::new(),
    };
    let (sink, work) = sink::pair(options.content.is_none());
    let (made, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| work.run(out));
        let made = Stream::new(sink, space).and_then(|stream| {
            let mut build = Build::new(tree, &plan, options, stream);
            build.notes = noting.then_some(ledger);
            build.run(contents, &order, &keep)
        });
        (made, writer.join())
    });
    // When the writer stopped, its error is the reason for the other one.
    let written = written
        .unwrap_or_else(|panic| resume_unwind(panic))
        .map_err(Ext4Error::write)?;
    let (made, ledger) = made?;
    out.set_len(made.size).map_err(Ext4Error::write)?;
    Ok((Summary { written, ..made }, ledger))
}

/// What the image would need if it had no holes.
pub(super) fn size_bound(tree: &Tree, options: &Options) -> Result<u64, Ext4Error> {
    options.check()?;
    let plan = Plan::new(tree, options)?;
    let mut space = Space::new(plan.descriptor_blocks);
    let inodes = u64::from(plan.last_ino);
    let journal = options.journal_blocks(estimate(&space, inodes, options) + plan.content_blocks);
    let mut left = plan.content_blocks + u64::from(journal) + 8;
    while left > 0 {
        let taken = space.take_some(left);
        left -= taken.end - taken.start;
    }
    let geometry = Geometry::find(&space, plan.descriptor_blocks, inodes, options)?;
    Ok(geometry.blocks * BLOCK_SIZE)
}

/// An inode that holds the value of an attribute.
struct OwnValue {
    owner: InodeId,
    /// Which of the owner's.
    nth: usize,
    record: Record,
}

struct Build<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    options: &'a Options,
    stream: Stream,
    seed: Seed,
    hash_seed: [u8; 16],
    /// By place in the plan.
    records: Vec<Record>,
    lost_found: Record,
    journal: Record,
    own_values: Vec<OwnValue>,
    large_dir: bool,
    /// What lies where, while somebody wants to know and all of it so far could be noted.
    notes: Option<Ledger>,
}

impl<'a> Build<'a> {
    fn new(tree: &'a Tree, plan: &'a Plan, options: &'a Options, stream: Stream) -> Self {
        let digest: [u8; 32] = plan.digest.clone().finalize().into();
        let (seed, rest) = digest.split_at(4);
        let mut hash_seed = [0; 16];
        hash_seed.copy_from_slice(&rest[..16]);
        Self {
            tree,
            plan,
            options,
            stream,
            seed: Seed(u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]])),
            hash_seed,
            records: vec![Record::EMPTY; plan.order.len()],
            lost_found: Record::EMPTY,
            journal: Record::EMPTY,
            own_values: Vec::new(),
            large_dir: false,
            notes: None,
        }
    }

    fn run(
        mut self,
        contents: &dyn Contents,
        order: &Order,
        keep: &Keep<'_>,
    ) -> Result<(Summary, Ledger), Ext4Error> {
        let ledger = self.files(contents, order, keep)?;
        self.others()?;
        self.attributes()?;
        self.directories()?;
        let uuid = self.uuid()?;
        let journal = self.journal(uuid)?;

        let last_ino = self.plan.last_ino;
        let geometry = Geometry::find(
            &self.stream.space,
            self.plan.descriptor_blocks,
            u64::from(last_ino),
            self.options,
        )?;
        let mut label = [0; 16];
        label[..self.options.label.len()].copy_from_slice(&self.options.label);
        let identity = Identity {
            uuid,
            hash_seed: self.hash_seed,
            label,
            epoch: self.plan.epoch,
            seed: self.seed,
        };
        let places = self.plan.dirs.iter().map(|(place, _)| *place as usize);
        let mut dirs: Vec<u32> = places.map(|place| self.plan.ino_at(place)).collect();
        dirs.extend(self.plan.lost_found.then_some(FIRST_INO));
        dirs.sort_unstable();
        let census = Census {
            last_ino,
            dirs: &dirs,
            journal,
            large_dir: self.large_dir,
            value_inodes: !self.own_values.is_empty(),
        };
        let (descs, free) = seal::bitmaps(&mut self.stream, &geometry, &identity, &census)?;
        self.inode_tables(&geometry)?;
        seal::superblocks(
            &mut self.stream,
            &geometry,
            &identity,
            &census,
            descs,
            &free,
        )?;
        let summary = Summary {
            size: geometry.blocks * BLOCK_SIZE,
            written: 0,
            uuid,
            free_blocks: free.blocks,
            inodes: last_ino - (FIRST_INO - 1),
        };
        Ok((summary, ledger))
    }

    /// Places the content of all regular files: first what the image has already, the rest is copied.
    fn files(
        &mut self,
        contents: &dyn Contents,
        order: &Order,
        keep: &Keep<'_>,
    ) -> Result<Ledger, Ext4Error> {
        let mut kept = keep.files.iter();
        let mut ledger = self.notes.take().unwrap_or_default();
        let mut noting = !ledger.layers.is_empty();
        for (place, key) in &order.files {
            let id = self.plan.order[*place];
            let node = &self.tree[id];
            let Kind::File(content) = &node.kind else {
                continue;
            };
            let seed = self.seed.of_inode(self.plan.ino(id), 0);
            let known = kept.next();
            let Finished {
                root,
                blocks,
                noted,
            } = match known {
                Some(file) => {
                    let done = ExtentTree::again(seed, &mut self.stream, &file.blocks)?;
                    self.stream.space.resume(file.end);
                    done
                }
                None => {
                    let extents = if noting && key.is_some() {
                        ExtentTree::noting(seed)
                    } else {
                        ExtentTree::new(seed)
                    };
                    data::copy(&mut self.stream, extents, self.tree, id, content, contents)?
                }
            };
            // Notes end with the first file that has none: what lies behind it could not be kept.
            noting &= known.is_some() || noted.is_some();
            if let (true, Some(key)) = (noting, key) {
                ledger.files.push(match (known, noted) {
                    (Some(file), _) => file.clone(),
                    (None, noted) => Filed {
                        key: *key,
                        blocks: noted.unwrap_or_default(),
                        end: self.stream.space.end(),
                    },
                });
            }
            self.records[*place] = Record {
                block: root,
                size: content.size,
                blocks,
                flags: inode_flag::EXTENTS,
                links: node.names,
                ..Record::EMPTY
            };
        }
        Ok(ledger)
    }

    /// The UUID: from the names and metadata, all blocks so far or what names the content, and which blocks belong to
    /// which file.
    fn uuid(&mut self) -> Result<[u8; 16], Ext4Error> {
        let mut digest = match self.options.content {
            Some(name) => Sha256::new_with_prefix(name),
            None => self.stream.digest()?,
        };
        digest.update(self.plan.digest.clone().finalize());
        for record in &self.records {
            digest.update(record.block);
        }
        let options = self.options;
        digest.update((options.label.len() as u64).to_le_bytes());
        digest.update(&options.label);
        digest.update(options.min_size.unwrap_or(0).to_le_bytes());
        digest.update(&options.identity);
        let digest: [u8; 32] = digest.finalize().into();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        // RFC 9562: version 8 (own method), variant 10.
        uuid[6] = uuid[6] & 0x0F | 0x80;
        uuid[8] = uuid[8] & 0x3F | 0x80;
        Ok(uuid)
    }

    /// Symbolic links and special files.
    fn others(&mut self) -> Result<(), Ext4Error> {
        for (place, id) in self.plan.order.iter().enumerate() {
            let node = &self.tree[*id];
            let mut record = Record {
                links: node.names,
                ..Record::EMPTY
            };
            match &node.kind {
                Kind::Dir(_) | Kind::File(_) => continue,
                Kind::Symlink(target) if target.len() <= MAX_FAST_SYMLINK => {
                    record.block[..target.len()].copy_from_slice(target);
                    record.size = target.len() as u64;
                }
                Kind::Symlink(target) => {
                    let at = self.stream.push(target)?;
                    record.flags = inode_flag::EXTENTS;
                    record.size = target.len() as u64;
                    let mut extents = ExtentTree::new(self.seed.of_inode(self.plan.ino(*id), 0));
                    extents.add(&mut self.stream, 0, at, 1)?;
                    let done = extents.finish(&mut self.stream)?;
                    (record.block, record.blocks) = (done.root, done.blocks);
                }
                Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                    record.block = inode::device(*device).expect("the plan has checked it");
                }
                Kind::Fifo | Kind::Socket => {}
            }
            self.records[place] = record;
        }
        Ok(())
    }

    /// Blocks and inodes for attributes that do not fit behind the inode.
    fn attributes(&mut self) -> Result<(), Ext4Error> {
        for (place, id) in self.plan.order.iter().enumerate() {
            if self.tree[*id].meta.xattrs.is_empty() {
                continue;
            }
            let attrs = Attrs::place(self.tree, *id)?;
            if !attrs.has_block() {
                continue;
            }
            let own = self
                .plan
                .own_inodes
                .get(&self.plan.ino(*id))
                .copied()
                .unwrap_or(0);
            let number = self.stream.space.peek().start;
            self.stream.push(&attrs.block(self.seed, number, own))?;
            let record = &mut self.records[place];
            record.xattr_block = number;
            record.blocks += 1 + attrs.own_inode_blocks();
            for (nth, value) in attrs.own_values().enumerate() {
                let ino = FIRST_INO
                    + u32::from(self.plan.lost_found)
                    + u32::try_from(self.plan.order.len() - 1 + self.own_values.len())
                        .expect("inode numbers were given out");
                let mut extents = ExtentTree::new(self.seed.of_inode(ino, 0));
                for (logical, part) in (0u32..).zip(value.chunks(super::format::BLOCK)) {
                    let at = self.stream.push(part)?;
                    extents.add(&mut self.stream, logical, at, 1)?;
                }
                let done = extents.finish(&mut self.stream)?;
                self.own_values.push(OwnValue {
                    owner: *id,
                    nth,
                    record: Record {
                        block: done.root,
                        size: value.len() as u64,
                        blocks: done.blocks,
                        flags: inode_flag::EXTENTS | inode_flag::EA_INODE,
                        links: 1,
                        ..Record::EMPTY
                    },
                });
            }
        }
        Ok(())
    }

    fn directories(&mut self) -> Result<(), Ext4Error> {
        let hash = NameHash::new(self.hash_seed);
        let mut entries = Vec::new();
        for (place, parent) in &self.plan.dirs {
            let id = self.plan.order[*place as usize];
            let ino = self.plan.ino(id);
            entries.clear();
            let mut links = 2;
            for (name, child) in self.tree[id].children().into_iter().flatten() {
                let kind = &self.tree[*child].kind;
                links += u32::from(matches!(kind, Kind::Dir(_)));
                entries.push(Entry {
                    name,
                    ino: self.plan.ino(*child),
                    file_type: type_of(kind).1,
                });
            }
            if ino == ROOT_INO && self.plan.lost_found {
                links += 1;
                entries.push(Entry {
                    name: LOST_FOUND,
                    ino: FIRST_INO,
                    file_type: file_type::DIR.1,
                });
            }
            let record = self.directory(hash, ino, *parent, &entries, links)?;
            // Attributes have been here before.
            let known = &mut self.records[*place as usize];
            *known = Record {
                blocks: known.blocks + record.blocks,
                xattr_block: known.xattr_block,
                ..record
            };
        }
        if self.plan.lost_found {
            self.lost_found = self.directory(hash, FIRST_INO, ROOT_INO, &[], 2)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        hash: NameHash,
        ino: u32,
        parent: u32,
        entries: &[Entry<'_>],
        links: u32,
    ) -> Result<Record, Ext4Error> {
        let written = dir::write(&mut self.stream, self.seed, hash, ino, parent, entries)?;
        self.large_dir |= written.large;
        let index = if written.indexed {
            inode_flag::INDEX
        } else {
            0
        };
        Ok(Record {
            block: written.root,
            size: written.size_blocks * BLOCK_SIZE,
            blocks: written.blocks,
            xattr_block: 0,
            flags: inode_flag::EXTENTS | index,
            links,
        })
    }

    /// Takes the blocks of the journal and writes the first.
    fn journal(&mut self, uuid: [u8; 16]) -> Result<Option<JournalInode>, Ext4Error> {
        let inodes = u64::from(self.plan.last_ino);
        let image = estimate(&self.stream.space, inodes, self.options);
        let blocks = self.options.journal_blocks(image);
        if blocks == 0 {
            return Ok(None);
        }
        let mut extents = ExtentTree::new(self.seed.of_inode(JOURNAL_INO, 0));
        let first = self.stream.space.peek().start;
        self.stream.take(&mut extents, blocks)?;
        let Finished {
            root: block,
            blocks: held,
            ..
        } = extents.finish(&mut self.stream)?;
        self.stream.put(first, &journal::superblock(blocks, uuid))?;
        let size = u64::from(blocks) * BLOCK_SIZE;
        self.journal = Record {
            block,
            size,
            blocks: held,
            flags: inode_flag::EXTENTS,
            links: 1,
            ..Record::EMPTY
        };
        Ok(Some(JournalInode { block, size }))
    }

    fn inode_tables(&mut self, geometry: &Geometry) -> Result<(), Ext4Error> {
        let (tree, plan, seed) = (self.tree, self.plan, self.seed);
        let made_up = |ino, file_type: (u16, u8), mode, record: &Record| {
            let meta = Meta {
                mode,
                ..Meta::default()
            };
            let time = Time {
                secs: plan.epoch,
                nanos: 0,
            };
            inode::encode(seed, ino, file_type.0, &meta, time, record, [0; XATTR_ROOM])
        };
        let first = FIRST_INO + u32::from(plan.lost_found);
        let (records, own_values) = (&self.records, &self.own_values);
        let (lost_found, journal) = (&self.lost_found, &self.journal);
        let encode = |ino: u32| -> Result<Option<[u8; INODE_SIZE]>, Ext4Error> {
            let place = match ino {
                ROOT_INO => 0,
                JOURNAL_INO if journal.links > 0 => {
                    return Ok(Some(made_up(ino, file_type::FILE, 0o600, journal)));
                }
                FIRST_INO if plan.lost_found => {
                    return Ok(Some(made_up(ino, file_type::DIR, 0o700, lost_found)));
                }
                _ if ino < first => return Ok(None),
                _ => (ino - first) as usize + 1,
            };
            let Some(id) = plan.order.get(place) else {
                let own = &own_values[place - plan.order.len()];
                let attrs = Attrs::place(tree, own.owner)?;
                let value = attrs.own_values().nth(own.nth).unwrap_or_default();
                let owner = &tree[own.owner].meta;
                return Ok(Some(inode::encode_value(
                    seed,
                    ino,
                    owner,
                    value,
                    &own.record,
                )));
            };
            let node = &tree[*id];
            let xattrs = if node.meta.xattrs.is_empty() {
                [0; XATTR_ROOM]
            } else {
                Attrs::place(tree, *id)?.behind_inode()
            };
            let mtime = self.options.clamped(node.meta.mtime);
            let (file_type, _) = type_of(&node.kind);
            let record = &records[place];
            Ok(Some(inode::encode(
                seed, ino, file_type, &node.meta, mtime, record, xattrs,
            )))
        };
        seal::inode_tables(&mut self.stream, geometry, plan.last_ino, encode)
    }
}
