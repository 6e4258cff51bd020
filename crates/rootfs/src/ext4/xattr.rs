//! Extended attributes: behind the inode while there is room, then in a block of their own, then each in an inode of
//! its own (feature `ea_inode`, which an image has only if it needs it).
//!
//! A name is stored as a number for its prefix and the rest. What ext4 has no place for is refused by the name of the
//! file and of the attribute.

use std::borrow::Cow;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::acl;
use super::checksum::Seed;
use super::error::{Ext4Error, shown};
use super::format::{BLOCK, BLOCK_SIZE, XATTR_MAGIC, XATTR_ROOM, XattrEntry, XattrHeader};
use crate::tree::{InodeId, Tree};
use crate::xattr_name;

/// Bytes of an entry before its name, of the header of a block, and of the zeros that end the entries.
const ENTRY: usize = 16;
pub(super) const HEADER: usize = 32;
const END: usize = 4;
/// Bytes for entries and values behind the inode (its magic and the end taken off) and in a block.
const INODE_SPACE: usize = XATTR_ROOM - 4 - END;
const BLOCK_SPACE: usize = BLOCK - HEADER - END;
/// The largest value that Linux knows (`XATTR_SIZE_MAX`).
const MAX_VALUE: usize = 64 * 1024;
/// Where the checksum of a block is.
pub(super) const CHECKSUM_AT: usize = 16;

/// Where an attribute goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Inode,
    Block,
    OwnInode,
}

/// An attribute as it is stored.
#[derive(Debug)]
struct Attr<'a> {
    full_name: &'a [u8],
    index: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
    place: Place,
}

impl Attr<'_> {
    fn entry_len(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4)
    }

    fn value_len(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    /// Bytes that it takes where its place is.
    fn len(&self) -> usize {
        match self.place {
            Place::OwnInode => self.entry_len(),
            Place::Inode | Place::Block => self.entry_len() + self.value_len(),
        }
    }
}

/// The attributes of one inode, each in its place.
#[derive(Debug)]
pub(super) struct Attrs<'a>(Vec<Attr<'a>>);

impl<'a> Attrs<'a> {
    /// Finds a place for all attributes of an inode.
    pub(super) fn place(tree: &'a Tree, id: InodeId) -> Result<Self, Ext4Error> {
        let xattrs = &tree[id].meta.xattrs;
        let mut attrs = Vec::with_capacity(xattrs.len());
        for (name, value) in xattrs {
            let attr = convert(name, value).map_err(|why| refuse(tree, id, name, why))?;
            attrs.push(attr);
        }
        // In a block a search stops behind where the name would be.
        attrs.sort_by(|a, b| (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name)));
        let mut by_size: Vec<usize> = (0..attrs.len()).collect();
        by_size.sort_by_key(|i| attrs[*i].len());
        let mut left = INODE_SPACE;
        for i in &by_size {
            if attrs[*i].len() <= left {
                left -= attrs[*i].len();
                attrs[*i].place = Place::Inode;
            }
        }
        loop {
            let in_block = attrs.iter().filter(|a| a.place != Place::Inode);
            if in_block.map(Attr::len).sum::<usize>() <= BLOCK_SPACE {
                return Ok(Self(attrs));
            }
            let largest = by_size
                .iter()
                .rev()
                .find(|i| attrs[**i].place == Place::Block);
            let Some(largest) = largest.copied().filter(|i| !attrs[*i].value.is_empty()) else {
                let name = attrs.last().map_or(&b""[..], |a| a.full_name);
                return Err(refuse(
                    tree,
                    id,
                    name,
                    "has no room: the names of the attributes fill a block",
                ));
            };
            attrs[largest].place = Place::OwnInode;
        }
    }

    /// How many blocks the values in inodes of their own have; they count as blocks of the file.
    pub(super) fn own_inode_blocks(&self) -> u64 {
        self.own_values()
            .map(|value| (value.len() as u64).div_ceil(BLOCK_SIZE))
            .sum()
    }

    /// The values that go into inodes of their own, in the order of those inodes.
    pub(super) fn own_values(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(|a| a.place == Place::OwnInode)
            .map(|a| a.value.as_ref())
    }

    /// Whether there is a block.
    pub(super) fn has_block(&self) -> bool {
        self.0.iter().any(|a| a.place != Place::Inode)
    }

    /// The bytes behind the inode; zeros when nothing is there.
    pub(super) fn behind_inode(&self) -> [u8; XATTR_ROOM] {
        let mut out = [0; XATTR_ROOM];
        let mut attrs = self.0.iter().filter(|a| a.place == Place::Inode).peekable();
        if attrs.peek().is_none() {
            return out;
        }
        out[..4].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
        let space = &mut out[4..];
        let (mut entry_at, mut value_at) = (0, space.len());
        for attr in attrs {
            // The hash is needed to share blocks only.
            value_at = put(space, &mut entry_at, value_at, attr, 0, 0);
        }
        out
    }

    /// The block, which will lie at `number`; `own` is the first of the inodes for large values.
    pub(super) fn block(&self, seed: Seed, number: u64, own: u32) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        let (mut entry_at, mut value_at) = (HEADER, BLOCK);
        let (mut block_hash, mut own) = (0u32, own);
        for attr in self.0.iter().filter(|a| a.place != Place::Inode) {
            let mut hash = name_hash(attr.name);
            let mut inode = 0;
            if attr.place == Place::OwnInode {
                inode = own;
                own += 1;
                hash = mix_value(hash, seed.sum(&attr.value));
            } else {
                for word in attr.value.chunks(4) {
                    let mut bytes = [0; 4];
                    bytes[..word.len()].copy_from_slice(word);
                    hash = mix_value(hash, u32::from_le_bytes(bytes));
                }
            }
            block_hash = block_hash.rotate_left(16) ^ hash;
            value_at = put(&mut out, &mut entry_at, value_at, attr, inode, hash);
        }
        let header = XattrHeader {
            magic: U32::new(XATTR_MAGIC),
            references: U32::new(1),
            blocks: U32::new(1),
            hash: U32::new(block_hash),
            checksum: U32::ZERO,
            reserved: [U32::ZERO; 3],
        };
        out[..HEADER].copy_from_slice(header.as_bytes());
        let sum = seed.of_xattr_block(number, &out, CHECKSUM_AT);
        out[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

fn refuse(tree: &Tree, id: InodeId, name: &[u8], why: &str) -> Ext4Error {
    let what = format!("the extended attribute {} {why}", shown(name));
    Ext4Error::unrepresentable(tree, id, what)
}

fn convert<'a>(full_name: &'a [u8], value: &'a [u8]) -> Result<Attr<'a>, &'static str> {
    let (index, rest) = xattr_name::split(full_name).ok_or("is of a kind that ext4 cannot hold")?;
    if rest.len() > usize::from(u8::MAX) {
        return Err("has a name of more than 255 bytes");
    }
    if value.len() > MAX_VALUE {
        return Err("has a value of more than 64 KiB");
    }
    let value = match index {
        2 | 3 => Cow::Owned(acl::to_disk(value)?),
        _ => Cow::Borrowed(value),
    };
    Ok(Attr {
        full_name,
        index,
        name: rest,
        value,
        place: Place::Block,
    })
}

/// Writes an entry at `entry_at` and its value below `value_at`. Gives where the value is.
fn put(
    out: &mut [u8],
    entry_at: &mut usize,
    value_at: usize,
    attr: &Attr<'_>,
    inode: u32,
    hash: u32,
) -> usize {
    let mut value_at = value_at;
    let mut offset = 0;
    if inode == 0 && !attr.value.is_empty() {
        value_at -= attr.value_len();
        out[value_at..value_at + attr.value.len()].copy_from_slice(&attr.value);
        offset = value_at;
    }
    let entry = XattrEntry {
        name_len: u8::try_from(attr.name.len()).expect("the length was checked"),
        name_index: attr.index,
        value_offset: U16::new(u16::try_from(offset).expect("an offset in a block")),
        value_inode: U32::new(inode),
        value_size: U32::new(u32::try_from(attr.value.len()).expect("the size was checked")),
        hash: U32::new(hash),
    };
    let at = *entry_at;
    out[at..at + ENTRY].copy_from_slice(entry.as_bytes());
    out[at + ENTRY..at + ENTRY + attr.name.len()].copy_from_slice(attr.name);
    *entry_at += attr.entry_len();
    value_at
}

/// The hash of a name: five bits further per byte, which counts as unsigned.
fn name_hash(name: &[u8]) -> u32 {
    name.iter()
        .fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte))
}

/// The hash with the next four bytes of the value.
fn mix_value(hash: u32, word: u32) -> u32 {
    hash.rotate_left(16) ^ word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::InodeId;

    fn tree(attrs: &[(&str, usize)]) -> Tree {
        let mut tree = Tree::new();
        let meta = tree.meta_mut(InodeId::ROOT);
        for (name, len) in attrs {
            meta.xattrs
                .insert(name.as_bytes().into(), vec![7; *len].into());
        }
        tree
    }

    fn places(attrs: &[(&str, usize)]) -> Vec<Place> {
        let tree = tree(attrs);
        let attrs = Attrs::place(&tree, InodeId::ROOT).expect("fits");
        attrs.0.iter().map(|a| a.place).collect()
    }

    #[test]
    fn small_ones_stay_with_the_inode() {
        assert_eq!(places(&[("user.a", 20)]), [Place::Inode]);
        assert_eq!(places(&[("user.a", 68)]), [Place::Inode]);
        assert_eq!(places(&[("user.a", 69)]), [Place::Block]);
        assert_eq!(
            places(&[("user.a", 3000), ("user.b", 20)]),
            [Place::Block, Place::Inode]
        );
    }

    #[test]
    fn large_ones_get_their_own_inode() {
        assert_eq!(places(&[("user.a", 4040)]), [Place::Block]);
        assert_eq!(places(&[("user.a", 4041)]), [Place::OwnInode]);
        assert_eq!(
            places(&[("user.a", 3000), ("user.b", 3001)]),
            [Place::Block, Place::OwnInode]
        );
    }

    #[test]
    fn refusals_name_file_and_attribute() {
        for (name, len) in [
            ("other.x", 1),
            ("user.", 1),
            ("system.nfs4_acl", 3),
            ("user.big", 65537),
        ] {
            let tree = tree(&[(name, len)]);
            let error = Attrs::place(&tree, InodeId::ROOT).expect_err("refused");
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("/: the extended attribute {name} ")),
                "{text}"
            );
        }
    }
}
