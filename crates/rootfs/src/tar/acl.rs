//! Access control lists as GNU tar and star write them (`SCHILY.acl.access`, text of `acl_to_text(3)`), turned into the
//! value of the attribute `system.posix_acl_access` (`linux/posix_acl_xattr.h`: version 2, then tag, permissions, id).

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;
/// Bytes of a list with nothing but owner, group and others.
pub(super) const MINIMAL: usize = 4 + 3 * 8;

/// The attribute for a text. `None` when it is malformed or names somebody without giving the number.
pub(super) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for entry in text.split([',', '\n']) {
        let entry = entry.split('#').next().unwrap_or("").trim();
        if !entry.is_empty() {
            entries.push(parse_entry(entry)?);
        }
    }
    entries.sort_unstable();
    let mut out = VERSION.to_le_bytes().to_vec();
    for (tag, id, perm) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Some(out)
}

/// The extended header for an attribute that is an access control list: its key and its text.
pub(super) fn record(name: &[u8], value: &[u8]) -> Option<(&'static [u8], String)> {
    let key: &[u8] = match name {
        b"system.posix_acl_access" => b"SCHILY.acl.access",
        b"system.posix_acl_default" => b"SCHILY.acl.default",
        _ => return None,
    };
    Some((key, to_text(value)?))
}

/// The text for an attribute; `None` when it is malformed. Users and groups are told by their numbers.
fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let mut out = Vec::new();
    for entry in entries.chunks_exact(8) {
        let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let bits = half(2);
        let (tag, who) = match half(0) {
            USER_OBJ => ("user", String::new()),
            USER => ("user", id.to_string()),
            GROUP_OBJ => ("group", String::new()),
            GROUP => ("group", id.to_string()),
            MASK => ("mask", String::new()),
            OTHER => ("other", String::new()),
            _ => return None,
        };
        let perm: String = [(4, 'r'), (2, 'w'), (1, 'x')]
            .iter()
            .map(|(bit, c)| if bits & bit == 0 { '-' } else { *c })
            .collect();
        out.push(format!("{tag}:{who}:{perm}"));
    }
    Some(out.join(","))
}

/// `TAG:WHO:PERM` or star's `TAG:NAME:PERM:ID`.
fn parse_entry(entry: &str) -> Option<(u16, u32, u16)> {
    let fields: Vec<&str> = entry.split(':').map(str::trim).collect();
    let (tag, who, perm) = match *fields.as_slice() {
        // The short form of mask and other has no second field.
        [tag @ ("m" | "mask" | "o" | "other"), perm] => (tag, "", perm),
        [tag, who, perm] | [tag, who, perm, ""] => (tag, who, perm),
        [tag, _, perm, id] => (tag, id, perm),
        _ => return None,
    };
    let named = !who.is_empty();
    let tag = match (tag, named) {
        ("u" | "user", false) => USER_OBJ,
        ("u" | "user", true) => USER,
        ("g" | "group", false) => GROUP_OBJ,
        ("g" | "group", true) => GROUP,
        ("m" | "mask", false) => MASK,
        ("o" | "other", false) => OTHER,
        _ => return None,
    };
    let id = if named { who.parse().ok()? } else { NO_ID };
    let mut bits = 0;
    for c in perm.chars() {
        bits |= match c {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return None,
        };
    }
    Some((tag, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_kernels_value() {
        let value = from_text(b"user::rw-,user:1000:r--,group::r--,mask::rw-,other::---").unwrap();
        assert_eq!(
            value,
            [
                2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0,
                255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255,
                255
            ]
        );
        assert_eq!(
            to_text(&value).as_deref(),
            Some("user::rw-,user:1000:r--,group::r--,mask::rw-,other::---")
        );
        assert_eq!(to_text(&value[..value.len() - 1]), None);
        assert_eq!(
            from_text(b"user::rw-\nuser:joe:r--:1000\ngroup::r--\nmask::rw-\nother::---\n")
                .unwrap(),
            value
        );
    }

    #[test]
    fn names_without_numbers_and_nonsense_are_refused() {
        for bad in [
            &b"user:joe:rw-"[..],
            b"user",
            b"user::rz-",
            b"\xff",
            b"mask:5:r--",
            b"other:q",
        ] {
            assert!(from_text(bad).is_none(), "{bad:?}");
        }
    }
}
