//! Reading extended attributes.

use zerocopy::FromBytes;

use super::extents::Extents;
use super::{ReadError, Reader, damaged};
use crate::ext4::acl;
use crate::ext4::format::{BLOCK, BLOCK_SIZE_32, RawInode, XATTR_MAGIC, XattrEntry, inode_flag};
use crate::ext4::xattr::{CHECKSUM_AT, HEADER};
use crate::tree::Xattrs;
use crate::xattr_name::prefix;

/// The largest value.
const MAX_VALUE: u32 = 64 * 1024;

/// The attributes of an inode, with the values that `getxattr(2)` gives.
pub(super) fn read(reader: &mut Reader<'_>, raw: &RawInode) -> Result<Xattrs, ReadError> {
    let mut found = Xattrs::new();
    if raw.xattrs[..4] == XATTR_MAGIC.to_le_bytes() {
        let space = &raw.xattrs[4..];
        collect(reader, space, 0, &mut found)?;
    }
    let number = u64::from(raw.xattr_block_hi.get()) << 32 | u64::from(raw.xattr_block_lo.get());
    if number != 0 {
        let block = reader.block(number)?;
        let sum = reader
            .seed
            .of_xattr_block(number, block.as_slice(), CHECKSUM_AT);
        if block[..4] != XATTR_MAGIC.to_le_bytes()
            || block[CHECKSUM_AT..CHECKSUM_AT + 4] != sum.to_le_bytes()
        {
            return Err(bad());
        }
        collect(reader, block.as_slice(), HEADER, &mut found)?;
    }
    Ok(found)
}

fn collect(
    reader: &mut Reader<'_>,
    space: &[u8],
    first: usize,
    found: &mut Xattrs,
) -> Result<(), ReadError> {
    let mut at = first;
    while space.get(at..at + 4).is_some_and(|word| word != [0; 4]) {
        let (entry, rest) = XattrEntry::read_from_prefix(&space[at..]).map_err(|_| bad())?;
        let name_len = usize::from(entry.name_len);
        let name = rest.get(..name_len).ok_or_else(bad)?;
        let size = entry.value_size.get();
        let value = if entry.value_inode.get() != 0 {
            own_value(reader, entry.value_inode.get(), size)?
        } else {
            let from = usize::from(entry.value_offset.get());
            let to = from.saturating_add(usize::try_from(size).map_err(|_| bad())?);
            space.get(from..to).ok_or_else(bad)?.to_vec()
        };
        let value = match entry.name_index {
            2 | 3 => acl::from_disk(&value).ok_or_else(bad)?,
            _ => value,
        };
        let prefix = prefix(entry.name_index).ok_or_else(bad)?;
        found.insert([prefix, name].concat().into(), value.into());
        at += (16 + name_len).next_multiple_of(4);
    }
    Ok(())
}

/// A value in an inode of its own.
fn own_value(reader: &mut Reader<'_>, ino: u32, size: u32) -> Result<Vec<u8>, ReadError> {
    let raw = reader.inode(ino)?;
    if raw.flags.get() & inode_flag::EA_INODE == 0 || size > MAX_VALUE || raw.size_lo.get() != size
    {
        return Err(bad());
    }
    let extents = Extents::read(reader, ino, &raw)?;
    let mut value = Vec::new();
    for logical in 0..size.div_ceil(BLOCK_SIZE_32) {
        match extents.block(logical) {
            Some(at) => value.extend_from_slice(reader.block(at)?.as_slice()),
            None => value.extend_from_slice(&[0; BLOCK]),
        }
    }
    value.truncate(size as usize);
    if reader.seed.sum(&value) != raw.atime.get() {
        return Err(bad());
    }
    Ok(value)
}

fn bad() -> ReadError {
    damaged("an extended attribute")
}
