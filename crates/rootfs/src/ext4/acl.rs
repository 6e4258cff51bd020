//! POSIX ACLs: from the form that `getxattr(2)` gives to the form on disk.
//!
//! The kernel's interface has version 2 with eight bytes per entry (`include/uapi/linux/posix_acl_xattr.h`); ext4 stores
//! version 1, where only entries for a named user or group have an id (`fs/ext4/acl.h`). A value that is stored as it
//! came makes the kernel answer `EINVAL` to everyone but root.

/// Tags that have an id.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const TAGS: [u16; 6] = [0x01, USER, 0x04, GROUP, 0x10, 0x20];

/// The value as ext4 stores it, or what is wrong with the given one.
pub(super) fn to_disk(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some((version, entries)) = value.split_first_chunk::<4>() else {
        return Err("is too short for a POSIX ACL");
    };
    if u32::from_le_bytes(*version) != 2 {
        return Err("is a POSIX ACL of an unknown version");
    }
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return Err("is a POSIX ACL with half an entry");
    }
    let mut out = Vec::with_capacity(value.len());
    out.extend(1u32.to_le_bytes());
    for entry in entries {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if !TAGS.contains(&tag) {
            return Err("is a POSIX ACL with an unknown kind of entry");
        }
        out.extend(&entry[..4]);
        if tag == USER || tag == GROUP {
            out.extend(&entry[4..]);
        }
    }
    Ok(out)
}

/// The value as `getxattr(2)` gives it; `None` when what is stored is damaged.
pub(super) fn from_disk(stored: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = stored.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 1 {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (head, more) = rest.split_first_chunk::<4>()?;
        rest = more;
        out.extend(head);
        let tag = u16::from_le_bytes([head[0], head[1]]);
        if tag == USER || tag == GROUP {
            let (id, more) = rest.split_first_chunk::<4>()?;
            rest = more;
            out.extend(id);
        } else {
            out.extend([0xFF; 4]);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(perm.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn only_named_entries_keep_their_id() {
        let none = u32::MAX;
        let value = acl(&[
            (1, 7, none),
            (2, 5, 1000),
            (4, 5, none),
            (8, 4, 33),
            (16, 7, none),
            (32, 0, none),
        ]);
        let stored = to_disk(&value).expect("a valid list");
        assert_eq!(stored.len(), 4 + 4 * 4 + 2 * 8);
        assert_eq!(from_disk(&stored), Some(value));
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        assert!(to_disk(&[]).is_err());
        assert!(to_disk(&[1, 0, 0, 0]).is_err());
        assert!(to_disk(&[2, 0, 0, 0, 1]).is_err());
        assert!(to_disk(&acl(&[(3, 7, 0)])).is_err());
    }
}
