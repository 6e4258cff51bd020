//! Reading an image back as a [`Tree`], for tests, for a look at what an image holds, and for taking content out of it.
//!
//! It reads what [`write()`](super::write()) makes: blocks of 4,096 bytes, inodes of 256, extents, checksums on all
//! metadata, no journal to be replayed. Every checksum is verified. The bytes of the files stay where they are: the
//! content of a file is a list of segments of the image ([`Source::SparseBlob`]).
//!
//! An image may come from anyone. All positions are checked, no loop is longer than the image has blocks (each block of
//! metadata is read at most once in a sound image, so there is a budget), and nothing recurses.

mod attrs;
mod extents;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zerocopy::FromBytes;

use self::extents::Extents;
use super::checksum::{Seed, update};
use super::format::{
    BLOCK, BLOCK_SIZE, BLOCK_SIZE_32, BLOCKS_PER_GROUP, DESC_SIZE, DirEntry, GroupDesc, INODE_SIZE,
    INODE_SIZE_16, MAX_FAST_SYMLINK, ROOT_INO, RawInode, SUPER_MAGIC, SUPER_OFFSET, SuperBlock,
    file_type, incompat, inode_flag, ro_compat,
};
use crate::tree::{Content, Device, Inode, InodeId, Kind, Meta, Source, Time, Tree, TreeError};

/// Why an image could not be read.
#[derive(Debug)]
pub struct ReadError {
    what: String,
    source: Option<io::Error>,
}

impl ReadError {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<TreeError> for ReadError {
    fn from(error: TreeError) -> Self {
        Self::new(format!("a directory of the image is damaged: {error}"))
    }
}

/// Reads the tree of an image. Files refer to it as the blob `blob`.
///
/// # Errors
/// When it cannot be read, is no ext4 image of the kind above, or is damaged.
pub fn read_tree(image: &File, blob: [u8; 32]) -> Result<Tree, ReadError> {
    Reader::open(image)?.tree(blob)
}

struct Reader<'a> {
    image: &'a File,
    blocks: u64,
    inodes: u32,
    inodes_per_group: u32,
    seed: Seed,
    /// First block of each group's inode table.
    tables: Vec<u64>,
    /// Blocks of metadata that may still be read.
    budget: u64,
    /// The last block of an inode table that was read.
    table_block: (u64, Box<[u8; BLOCK]>),
}

impl<'a> Reader<'a> {
    fn open(image: &'a File) -> Result<Self, ReadError> {
        let mut raw = [0; size_of::<SuperBlock>()];
        read_at(image, SUPER_OFFSET as u64, &mut raw)?;
        let (sb, _) = SuperBlock::read_from_prefix(&raw)
            .map_err(|_| ReadError::new("the superblock is cut off"))?;
        if sb.magic.get() != SUPER_MAGIC {
            return Err(ReadError::new("not an ext4 image"));
        }
        let known = incompat::FILETYPE
            | incompat::EXTENTS
            | incompat::BIT64
            | incompat::FLEX_BG
            | incompat::CSUM_SEED
            | incompat::LARGE_DIR
            | incompat::EA_INODE;
        let needed = known & !(incompat::LARGE_DIR | incompat::EA_INODE);
        let features = sb.incompat.get();
        if features & !known != 0
            || features & needed != needed
            || sb.ro_compat.get() & ro_compat::METADATA_CSUM == 0
            || sb.log_block_size.get() != 2
            || usize::from(sb.inode_size.get()) != INODE_SIZE
            || usize::from(sb.desc_size.get()) != DESC_SIZE
            || u64::from(sb.blocks_per_group.get()) != BLOCKS_PER_GROUP
        {
            return Err(ReadError::new(
                "an ext4 image of another kind than is made here",
            ));
        }
        let sum = update(!0, &raw[..std::mem::offset_of!(SuperBlock, checksum)]);
        if sum != sb.checksum.get() {
            return Err(damaged("the superblock"));
        }
        let blocks =
            u64::from(sb.blocks_count_hi.get()) << 32 | u64::from(sb.blocks_count_lo.get());
        let len = image
            .metadata()
            .map_err(|source| ReadError {
                what: "cannot read the image".into(),
                source: Some(source),
            })?
            .len();
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inodes_per_group = sb.inodes_per_group.get();
        if blocks > len / BLOCK_SIZE
            || u64::from(inodes_per_group) * groups != u64::from(sb.inodes_count.get())
            || inodes_per_group == 0
        {
            return Err(damaged("the superblock"));
        }
        let mut reader = Self {
            image,
            blocks,
            inodes: sb.inodes_count.get(),
            inodes_per_group,
            seed: Seed(sb.checksum_seed.get()),
            tables: Vec::new(),
            budget: blocks,
            table_block: (0, Box::new([0; BLOCK])),
        };
        reader.read_descriptors(groups)?;
        Ok(reader)
    }

    fn read_descriptors(&mut self, groups: u64) -> Result<(), ReadError> {
        let mut at = 1;
        let mut group = 0u32;
        while u64::from(group) < groups {
            let block = self.block(at)?;
            at += 1;
            for raw in block.as_chunks::<DESC_SIZE>().0 {
                if u64::from(group) == groups {
                    break;
                }
                let (desc, _) =
                    GroupDesc::read_from_prefix(raw).map_err(|_| damaged("a group descriptor"))?;
                let offset = std::mem::offset_of!(GroupDesc, checksum);
                if self.seed.of_descriptor(group, raw, offset) != desc.checksum.get() {
                    return Err(damaged(&format!("the descriptor of group {group}")));
                }
                let table = u64::from(desc.inode_table_hi.get()) << 32
                    | u64::from(desc.inode_table_lo.get());
                self.tables.push(table);
                group += 1;
            }
        }
        Ok(())
    }

    /// A block of metadata.
    fn block(&mut self, number: u64) -> Result<Box<[u8; BLOCK]>, ReadError> {
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or_else(|| damaged("a block that is used twice"))?;
        if number >= self.blocks {
            return Err(damaged("a block number"));
        }
        let mut block = Box::new([0; BLOCK]);
        read_at(self.image, number * BLOCK_SIZE, block.as_mut_slice())?;
        Ok(block)
    }

    fn inode(&mut self, ino: u32) -> Result<RawInode, ReadError> {
        if ino == 0 || ino > self.inodes {
            return Err(damaged("an inode number"));
        }
        let index = (ino - 1) % self.inodes_per_group;
        let table = self.tables[((ino - 1) / self.inodes_per_group) as usize];
        let per_block = BLOCK_SIZE_32 / u32::from(INODE_SIZE_16);
        let number = table + u64::from(index / per_block);
        if self.table_block.0 != number {
            // Inodes are read in the order of the names; a block of the table may be wanted more than once.
            self.budget += 1;
            self.table_block = (number, self.block(number)?);
        }
        let from = (index % per_block) as usize * INODE_SIZE;
        let bytes = &self.table_block.1[from..from + INODE_SIZE];
        let mut raw =
            RawInode::read_from_bytes(bytes).map_err(|_| damaged(&format!("inode {ino}")))?;
        let stored = u32::from(raw.checksum_hi.get()) << 16 | u32::from(raw.checksum_lo.get());
        raw.checksum_lo = 0.into();
        raw.checksum_hi = 0.into();
        let seed = self.seed.of_inode(ino, raw.generation.get());
        if seed.sum(zerocopy::IntoBytes::as_bytes(&raw)) != stored {
            return Err(damaged(&format!("inode {ino}")));
        }
        Ok(raw)
    }

    fn tree(mut self, blob: [u8; 32]) -> Result<Tree, ReadError> {
        let mut tree = Tree::new();
        let root = self.inode(ROOT_INO)?;
        if root.mode.get() & 0xF000 != file_type::DIR.0 {
            return Err(damaged("the root directory"));
        }
        *tree.meta_mut(InodeId::ROOT) = self.meta(&root)?;
        let mut known = HashMap::from([(ROOT_INO, InodeId::ROOT)]);
        let mut todo = vec![(ROOT_INO, root, InodeId::ROOT)];
        while let Some((ino, raw, id)) = todo.pop() {
            for (name, child) in self.entries(ino, &raw)? {
                if let Some(there) = known.get(&child) {
                    tree.link(id, &name, *there)?;
                    continue;
                }
                let raw = self.inode(child)?;
                let inode = Inode::new(self.meta(&raw)?, self.kind(child, &raw, blob)?);
                let is_dir = inode.is_dir();
                let there = tree.insert(id, &name, inode)?;
                // A directory that is met again is refused by `link`.
                known.insert(child, there);
                if is_dir {
                    todo.push((child, raw, there));
                }
            }
        }
        Ok(tree)
    }

    fn meta(&mut self, raw: &RawInode) -> Result<Meta, ReadError> {
        let extra = raw.mtime_extra.get();
        Ok(Meta {
            mode: raw.mode.get() & 0o7777,
            uid: u32::from(raw.uid_hi.get()) << 16 | u32::from(raw.uid_lo.get()),
            gid: u32::from(raw.gid_hi.get()) << 16 | u32::from(raw.gid_lo.get()),
            mtime: Time {
                secs: i64::from(raw.mtime.get().cast_signed()) + (i64::from(extra & 3) << 32),
                nanos: (extra >> 2).min(999_999_999),
            },
            xattrs: attrs::read(self, raw)?,
        })
    }

    fn kind(&mut self, ino: u32, raw: &RawInode, blob: [u8; 32]) -> Result<Kind, ReadError> {
        let size = u64::from(raw.size_hi.get()) << 32 | u64::from(raw.size_lo.get());
        let kind = raw.mode.get() & 0xF000;
        Ok(if kind == file_type::DIR.0 {
            Kind::Dir(std::collections::BTreeMap::new())
        } else if kind == file_type::FILE.0 {
            let segments = Extents::read(self, ino, raw)?.segments(size);
            let source = Source::SparseBlob { id: blob, segments };
            Kind::File(Content { source, size })
        } else if kind == file_type::SYMLINK.0 {
            let len = usize::try_from(size).unwrap_or(usize::MAX);
            if len == 0 || len >= BLOCK {
                return Err(damaged(&format!("the symbolic link in inode {ino}")));
            }
            Kind::Symlink(if len <= MAX_FAST_SYMLINK {
                raw.block[..len].into()
            } else {
                let at = Extents::read(self, ino, raw)?.block(0);
                let at = at.ok_or_else(|| damaged(&format!("the symbolic link in inode {ino}")))?;
                self.block(at)?[..len].into()
            })
        } else if kind == file_type::FIFO.0 {
            Kind::Fifo
        } else if kind == file_type::SOCKET.0 {
            Kind::Socket
        } else if kind == file_type::CHAR.0 {
            Kind::CharDevice(device(raw))
        } else if kind == file_type::BLOCK.0 {
            Kind::BlockDevice(device(raw))
        } else {
            return Err(damaged(&format!("the type of inode {ino}")));
        })
    }

    /// The names in a directory, without `.` and `..`. Index blocks have none.
    fn entries(&mut self, ino: u32, raw: &RawInode) -> Result<Vec<(Vec<u8>, u32)>, ReadError> {
        let size = u64::from(raw.size_hi.get()) << 32 | u64::from(raw.size_lo.get());
        let extents = Extents::read(self, ino, raw)?;
        let bad = || damaged(&format!("the directory in inode {ino}"));
        let seed = self.seed.of_inode(ino, raw.generation.get());
        let indexed = raw.flags.get() & inode_flag::INDEX != 0;
        let mut entries = Vec::new();
        for logical in 0..u32::try_from(size / BLOCK_SIZE).map_err(|_| bad())? {
            let block = self.block(extents.block(logical).ok_or_else(bad)?)?;
            let mut at = 0;
            while at < BLOCK {
                let (entry, rest) = DirEntry::read_from_prefix(&block[at..]).map_err(|_| bad())?;
                let len = usize::from(entry.rec_len.get());
                if len < 8 || at + len > BLOCK {
                    return Err(bad());
                }
                let name = rest.get(..usize::from(entry.name_len)).ok_or_else(bad)?;
                if entry.inode.get() == 0 && entry.file_type == 0xDE {
                    let stored = rest.first_chunk().map(|sum| u32::from_le_bytes(*sum));
                    if stored != Some(seed.sum(&block[..at])) {
                        return Err(bad());
                    }
                } else if entry.inode.get() != 0 && name != b"." && name != b".." {
                    if indexed && logical == 0 {
                        return Err(bad());
                    }
                    entries.push((name.to_vec(), entry.inode.get()));
                }
                at += len;
            }
        }
        Ok(entries)
    }
}

fn device(raw: &RawInode) -> Device {
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&raw.block[at..at + 4]);
        u32::from_le_bytes(bytes)
    };
    let (old, new) = (word(0), word(4));
    if old != 0 {
        return Device {
            major: old >> 8 & 0xFF,
            minor: old & 0xFF,
        };
    }
    Device {
        major: new >> 8 & 0xFFF,
        minor: new & 0xFF | new >> 12 & 0xF_FF00,
    }
}

fn read_at(image: &File, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
    image
        .read_exact_at(buf, offset)
        .map_err(|source| ReadError {
            what: "cannot read the image".into(),
            source: Some(source),
        })
}

fn damaged(what: &str) -> ReadError {
    ReadError::new(format!("the image is damaged: {what}"))
}
