//! The first pass: numbers for all inodes, what ext4 cannot hold, and a digest of everything but the content.
//!
//! Nothing has been written when this pass refuses a tree. Inodes are numbered directory by directory, so that what is
//! listed together lies together; the content of the files is written in the same order.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::error::{Ext4Error, Ext4ErrorKind};
use super::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, DESCS_PER_BLOCK, FIRST_INO, MAX_FAST_SYMLINK, MAX_FILE_SIZE,
    MAX_INODES_PER_GROUP, MAX_LINKS, ROOT_INO,
};
use super::inode;
use super::xattr::Attrs;
use super::{Options, dir};
use crate::tree::{InodeId, Kind, Time, Tree};

/// Longest target of a symbolic link: with a NUL it fills a block.
const MAX_SYMLINK: usize = 4095;
/// Room for descriptors that no image outgrows: 64 TiB.
const MAX_DESCRIPTOR_BLOCKS: u64 = 8192;

/// The numbers of all inodes and what follows from the tree alone.
pub(super) struct Plan {
    /// All inodes in the order of their numbers, the root first.
    pub(super) order: Vec<InodeId>,
    /// Inode numbers by [`InodeId`]; 0 for ids that the tree does not use.
    numbers: Vec<u32>,
    /// The directories: their place in `order` and the number of their parent.
    pub(super) dirs: Vec<(u32, u32)>,
    /// Whether a directory `lost+found` is added (number 11).
    pub(super) lost_found: bool,
    /// For inodes with attributes in inodes of their own: the first of those.
    pub(super) own_inodes: BTreeMap<u32, u32>,
    /// The highest number in use.
    pub(super) last_ino: u32,
    /// SHA-256 of all names and metadata.
    pub(super) digest: Sha256,
    /// Blocks to keep free for group descriptors.
    pub(super) descriptor_blocks: u64,
    /// Blocks that the content needs at most, if nothing of it is zeros.
    pub(super) content_blocks: u64,
    /// Seconds for the superblock and for what the tree does not have.
    pub(super) epoch: i64,
}

/// The name of the directory where `e2fsck` puts what it finds without a name.
pub(super) const LOST_FOUND: &[u8] = b"lost+found";

impl Plan {
    /// Numbers and checks a tree.
    pub(super) fn new(tree: &Tree, options: &Options) -> Result<Self, Ext4Error> {
        let root = &tree[InodeId::ROOT];
        let there = root
            .children()
            .is_some_and(|children| children.contains_key(LOST_FOUND));
        let lost_found = options.lost_found && !there;
        let mut plan = Self {
            order: Vec::with_capacity(tree.len() as usize),
            numbers: vec![0; tree.id_bound()],
            dirs: Vec::new(),
            lost_found,
            own_inodes: BTreeMap::new(),
            last_ino: FIRST_INO - 1 + u32::from(lost_found),
            digest: Sha256::new(),
            descriptor_blocks: 0,
            content_blocks: 0,
            epoch: 0,
        };
        plan.number(tree)?;
        plan.content_blocks = plan.check(tree, options)?;
        plan.reserve_descriptors(options);
        Ok(plan)
    }

    /// The number of an inode.
    pub(super) fn ino(&self, id: InodeId) -> u32 {
        self.numbers[id.0 as usize]
    }

    /// The number of the inode at a place of `order`.
    pub(super) fn ino_at(&self, place: usize) -> u32 {
        self.ino(self.order[place])
    }

    fn assign(&mut self, id: InodeId) -> Result<(), Ext4Error> {
        self.last_ino = self.last_ino.checked_add(1).ok_or_else(too_many)?;
        self.numbers[id.0 as usize] = self.last_ino;
        self.order.push(id);
        Ok(())
    }

    fn number(&mut self, tree: &Tree) -> Result<(), Ext4Error> {
        self.numbers[InodeId::ROOT.0 as usize] = ROOT_INO;
        self.order.push(InodeId::ROOT);
        // Directories still to be listed: place in `order`, number of the parent.
        let mut todo: Vec<(u32, u32)> = vec![(0, ROOT_INO)];
        while let Some((place, parent)) = todo.pop() {
            let id = self.order[place as usize];
            self.dirs.push((place, parent));
            let ino = self.ino(id);
            let found = todo.len();
            for child in tree[id].children().into_iter().flat_map(BTreeMap::values) {
                if self.ino(*child) == 0 {
                    let place = u32::try_from(self.order.len()).map_err(|_| too_many())?;
                    self.assign(*child)?;
                    if tree[*child].is_dir() {
                        todo.push((place, ino));
                    }
                }
            }
            todo[found..].reverse();
        }
        Ok(())
    }

    /// Looks at each inode once: limits, attributes, digest. Gives about how many blocks the content needs at most.
    fn check(&mut self, tree: &Tree, options: &Options) -> Result<u64, Ext4Error> {
        let mut blocks = 0u64;
        let mut newest = i64::MIN;
        for place in 0..self.order.len() {
            let id = self.order[place];
            let node = &tree[id];
            let mtime = options.clamped(node.meta.mtime);
            newest = newest.max(mtime.secs);
            self.digest_meta(tree, id, mtime);
            if !node.meta.xattrs.is_empty() {
                let attrs = Attrs::place(tree, id)?;
                blocks += u64::from(attrs.has_block()) + attrs.own_inode_blocks();
                let own = u32::try_from(attrs.own_values().count()).map_err(|_| too_many())?;
                if own > 0 {
                    self.own_inodes.insert(self.ino(id), self.last_ino + 1);
                    self.last_ino = self.last_ino.checked_add(own).ok_or_else(too_many)?;
                }
            }
            if node.names > MAX_LINKS && !node.is_dir() {
                let what = format!("{} hard links are more than the 65000 of ext4", node.names);
                return Err(Ext4Error::unrepresentable(tree, id, what));
            }
            match &node.kind {
                Kind::Dir(children) => {
                    let bytes: usize = children.keys().map(|n| dir::entry_len(n.len())).sum();
                    // Leaves of a hash tree are filled to 93 percent at worst, and have nodes above them.
                    blocks += (bytes / 3700 + bytes / 1_000_000 + 3) as u64;
                }
                Kind::File(content) => {
                    if content.size > MAX_FILE_SIZE {
                        let what = format!(
                            "{} bytes are more than a file in ext4 can have",
                            content.size
                        );
                        return Err(Ext4Error::unrepresentable(tree, id, what));
                    }
                    let data = content.size.div_ceil(BLOCK_SIZE);
                    blocks = blocks.saturating_add(data + data / 256 + 1);
                }
                Kind::Symlink(target) => {
                    if target.is_empty() || target.len() > MAX_SYMLINK {
                        let what = format!(
                            "a symbolic link of {} bytes, not 1 to {MAX_SYMLINK}",
                            target.len()
                        );
                        return Err(Ext4Error::unrepresentable(tree, id, what));
                    }
                    blocks += u64::from(target.len() > MAX_FAST_SYMLINK);
                }
                Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                    if inode::device(*device).is_none() {
                        let what = format!(
                            "the device number {}:{} is beyond what Linux has (12 and 20 bits)",
                            device.major, device.minor
                        );
                        return Err(Ext4Error::unrepresentable(tree, id, what));
                    }
                }
                Kind::Fifo | Kind::Socket => {}
            }
        }
        self.epoch = options.epoch.unwrap_or(newest);
        Ok(blocks)
    }

    fn digest_meta(&mut self, tree: &Tree, id: InodeId, mtime: Time) {
        let node = &tree[id];
        let meta = &node.meta;
        let mut head = [0u8; 36];
        head[..4].copy_from_slice(&self.ino(id).to_le_bytes());
        let mode = inode::type_of(&node.kind).0 | meta.mode;
        head[4..6].copy_from_slice(&mode.to_le_bytes());
        head[8..12].copy_from_slice(&meta.uid.to_le_bytes());
        head[12..16].copy_from_slice(&meta.gid.to_le_bytes());
        head[16..24].copy_from_slice(&mtime.secs.to_le_bytes());
        head[24..28].copy_from_slice(&mtime.nanos.to_le_bytes());
        head[28..36].copy_from_slice(&(meta.xattrs.len() as u64).to_le_bytes());
        self.digest.update(head);
        for (name, value) in &meta.xattrs {
            self.digest_bytes(name);
            self.digest_bytes(value);
        }
        match &node.kind {
            Kind::Dir(children) => {
                self.digest.update((children.len() as u64).to_le_bytes());
                for (name, child) in children {
                    self.digest_bytes(name);
                    self.digest.update(self.ino(*child).to_le_bytes());
                }
            }
            Kind::File(content) => self.digest.update(content.size.to_le_bytes()),
            Kind::Symlink(target) => self.digest_bytes(target),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                self.digest.update(device.major.to_le_bytes());
                self.digest.update(device.minor.to_le_bytes());
            }
            Kind::Fifo | Kind::Socket => {}
        }
    }

    fn digest_bytes(&mut self, bytes: &[u8]) {
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
    }

    /// The descriptors lie before all data, so their number must be known, or rather not be exceeded, beforehand.
    fn reserve_descriptors(&mut self, options: &Options) {
        let content = self.content_blocks;
        let inodes = u64::from(self.last_ino);
        let asked = options.min_size.unwrap_or(0).div_ceil(BLOCK_SIZE);
        // Free space, inode tables, journal; and a group has no more inodes than blocks.
        let bound = asked
            .max(content.saturating_add(content / 16))
            .saturating_add(inodes + inodes / 4)
            .saturating_add(asked / 32)
            .saturating_add(options.most_journal_blocks())
            .saturating_add(options.free_bytes.div_ceil(BLOCK_SIZE))
            .saturating_add(4 * MAX_INODES_PER_GROUP / 16);
        let groups = bound.div_ceil(BLOCKS_PER_GROUP);
        self.descriptor_blocks = groups
            .div_ceil(DESCS_PER_BLOCK)
            .clamp(1, MAX_DESCRIPTOR_BLOCKS);
    }
}

fn too_many() -> Ext4Error {
    Ext4Error::new(
        Ext4ErrorKind::TooLarge,
        "the tree has more files than ext4 has inode numbers",
    )
}
