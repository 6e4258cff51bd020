//! Blocks of directories: entries of 12 bytes in front, their names behind, both in the order of the names' bytes.
//!
//! Each block stands for itself, so that a name is found by bisection over the blocks and then within one. The last name
//! of a block ends with the block, with the directory, or at a NUL.

use std::collections::BTreeMap;

use super::format::{BLOCK, BLOCK_SIZE, DIRENT};
use crate::tree::{InodeId, Kind, Name, Tree};

/// One entry: the name and the inode that it names.
type Entry<'a> = (&'a [u8], InodeId);

/// How large a directory is: full blocks, and the bytes of the last one, which is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) full: u64,
    pub(super) last: usize,
}

impl Size {
    pub(super) fn bytes(self) -> u64 {
        self.full * BLOCK_SIZE + self.last as u64
    }
}

/// The entries of a directory with `.` and `..`, in order.
fn entries(children: &BTreeMap<Name, InodeId>, own: InodeId, parent: InodeId) -> Vec<Entry<'_>> {
    let mut all: Vec<Entry<'_>> = children.iter().map(|(name, id)| (&**name, *id)).collect();
    for entry in [(&b"."[..], own), (b"..", parent)] {
        let at = all.partition_point(|(name, _)| *name < entry.0);
        all.insert(at, entry);
    }
    all
}

/// How many of the first entries fill a block, and with how many bytes.
fn fill(entries: &[Entry<'_>]) -> (usize, usize) {
    let mut used = 0;
    for (count, (name, _)) in entries.iter().enumerate() {
        let more = DIRENT + name.len();
        if used + more > BLOCK {
            return (count, used);
        }
        used += more;
    }
    (entries.len(), used)
}

/// The size of the directory `own`.
pub(super) fn size(children: &BTreeMap<Name, InodeId>, own: InodeId) -> Size {
    let all = entries(children, own, own);
    let mut rest = &all[..];
    let mut size = Size { full: 0, last: 0 };
    loop {
        let (count, used) = fill(rest);
        rest = &rest[count..];
        if rest.is_empty() {
            size.last = used;
            return size;
        }
        size.full += 1;
    }
}

/// Makes the blocks of the directory `own`, and gives each to `put`; only the last one has less than a block of bytes.
pub(super) fn encode<E>(
    tree: &Tree,
    own: InodeId,
    parent: InodeId,
    nid: impl Fn(InodeId) -> u64,
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let Kind::Dir(children) = &tree[own].kind else {
        return Ok(());
    };
    let all = entries(children, own, parent);
    let mut rest = &all[..];
    while !rest.is_empty() {
        let (count, used) = fill(rest);
        let (now, later) = rest.split_at(count);
        let mut block = Vec::with_capacity(BLOCK);
        let mut name_at = count * DIRENT;
        for (name, id) in now {
            block.extend_from_slice(&nid(*id).to_le_bytes());
            let at = u16::try_from(name_at).expect("it lies within a block");
            block.extend_from_slice(&at.to_le_bytes());
            block.extend_from_slice(&[file_type(&tree[*id].kind), 0]);
            name_at += name.len();
        }
        for (name, _) in now {
            block.extend_from_slice(name);
        }
        debug_assert_eq!(block.len(), used);
        if !later.is_empty() {
            block.resize(BLOCK, 0);
        }
        put(&block)?;
        rest = later;
    }
    Ok(())
}

/// `FT_*` of `linux/fs_types.h`.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Dir(_) => 2,
        Kind::CharDevice(_) => 3,
        Kind::BlockDevice(_) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Inode, Meta};

    #[test]
    fn blocks_have_the_size_that_was_announced() {
        for count in [0, 1, 3, 200, 221, 222, 223, 3000] {
            let mut tree = Tree::new();
            for n in 0..count {
                // Some stand before "." in the order of bytes.
                let name = format!("{}{n}", if n % 3 == 0 { "!" } else { "name" });
                let file = Kind::File(Content::from_bytes(Vec::new()));
                tree.insert(
                    InodeId::ROOT,
                    name.as_bytes(),
                    Inode::new(Meta::default(), file),
                )
                .unwrap();
            }
            let children = tree[InodeId::ROOT].children().unwrap();
            let size = size(children, InodeId::ROOT);
            let mut blocks = Vec::new();
            encode(
                &tree,
                InodeId::ROOT,
                InodeId::ROOT,
                |id| u64::from(id.0),
                |block| {
                    blocks.push(block.to_vec());
                    Ok::<_, ()>(())
                },
            )
            .unwrap();
            assert_eq!(blocks.len() as u64, size.full + 1);
            assert_eq!(blocks.last().unwrap().len(), size.last);
            assert_eq!(blocks.concat().len() as u64, size.bytes());
            let listed: u64 = blocks
                .iter()
                .map(|block| u64::from(u16::from_le_bytes([block[8], block[9]])) / 12)
                .sum();
            assert_eq!(listed, count + 2);
        }
    }
}
