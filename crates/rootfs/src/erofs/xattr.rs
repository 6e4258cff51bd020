//! Extended attributes behind an inode (`struct erofs_xattr_ibody_header`, `struct erofs_xattr_entry`): a header of 12
//! bytes, then each attribute with the number of its prefix, the rest of its name and its value, padded to 4 bytes.
//!
//! POSIX ACLs have the form that `getxattr(2)` gives.

use super::error::{ErofsError, ErofsErrorKind};
use super::format::XATTR_HEADER;
use crate::path::Text;
use crate::tree::Xattrs;
use crate::xattr_name;

/// Most bytes of all attributes of an inode: `i_xattr_icount` counts units of 4 bytes and has 16 bits.
const MAX_BYTES: usize = XATTR_HEADER + 4 * (u16::MAX as usize - 1);

/// The attributes of an inode as they are stored; nothing when there are none.
pub(super) fn encode(xattrs: &Xattrs) -> Result<Vec<u8>, ErofsError> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![0; XATTR_HEADER];
    for (name, value) in xattrs {
        let refuse = |why: &str| {
            let what = format!("the extended attribute {} {why}", Text(name));
            ErofsError::new(ErofsErrorKind::Unrepresentable, what)
        };
        let (index, rest) =
            xattr_name::split(name).ok_or_else(|| refuse("is of a kind that EROFS cannot hold"))?;
        let name_len =
            u8::try_from(rest.len()).map_err(|_| refuse("has a name of more than 255 bytes"))?;
        let value_len = u16::try_from(value.len())
            .map_err(|_| refuse("has a value of more than 65535 bytes"))?;
        out.extend_from_slice(&[name_len, index]);
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    if out.len() > MAX_BYTES {
        let what = format!("its extended attributes have more than {MAX_BYTES} bytes");
        return Err(ErofsError::new(ErofsErrorKind::Unrepresentable, what));
    }
    Ok(out)
}

/// Bytes that [`encode`] gives, for attributes that it has accepted.
pub(super) fn encoded_len(xattrs: &Xattrs) -> usize {
    if xattrs.is_empty() {
        return 0;
    }
    let entries = xattrs.iter().map(|(name, value)| {
        let rest = xattr_name::split(name).map_or(0, |(_, rest)| rest.len());
        (4 + rest + value.len()).next_multiple_of(4)
    });
    XATTR_HEADER + entries.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_told_by_prefix() {
        let mut xattrs = Xattrs::new();
        assert_eq!(encode(&xattrs).unwrap(), []);
        xattrs.insert(b"user.a".as_slice().into(), b"xyz".as_slice().into());
        xattrs.insert(
            b"system.posix_acl_access".as_slice().into(),
            b"1234".as_slice().into(),
        );
        let bytes = encode(&xattrs).unwrap();
        assert_eq!(bytes[..12], [0; 12]);
        assert_eq!(bytes[12..], *b"\0\x02\x04\x001234\x01\x01\x03\0axyz");
        assert_eq!(bytes.len(), encoded_len(&xattrs));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (name, len, why) in [
            (&b"system.nfs4_acl"[..], 1, "of a kind"),
            (b"user.", 1, "of a kind"),
            (b"user.big", 65_536, "more than 65535"),
        ] {
            let xattrs = Xattrs::from([(name.into(), vec![0; len].into())]);
            let error = encode(&xattrs).unwrap_err();
            assert_eq!(error.kind(), ErofsErrorKind::Unrepresentable);
            assert!(error.to_string().contains(why), "{error}");
        }
        let many: Xattrs = (0..5)
            .map(|n| {
                (
                    format!("user.{n}").into_bytes().into(),
                    vec![0; 60_000].into(),
                )
            })
            .collect();
        let error = encode(&many).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }
}
