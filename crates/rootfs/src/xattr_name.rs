//! Names of extended attributes as ext4 and EROFS store them: a number for the prefix, and the rest.
//!
//! Both give the same prefixes the same numbers (`fs/ext4/xattr.h`, `fs/erofs/erofs_fs.h`).

/// Prefixes by number, and whether the prefix is the whole name.
const PREFIXES: [(u8, &[u8], bool); 5] = [
    (1, b"user.", false),
    (2, b"system.posix_acl_access", true),
    (3, b"system.posix_acl_default", true),
    (4, b"trusted.", false),
    (6, b"security.", false),
];

/// The prefix with this number.
pub(crate) fn prefix(index: u8) -> Option<&'static [u8]> {
    PREFIXES
        .iter()
        .find(|(number, _, _)| *number == index)
        .map(|(_, prefix, _)| *prefix)
}

/// The number of a name's prefix and what comes behind it. `None` when there is no number for it.
pub(crate) fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix, whole)| {
        let rest = name.strip_prefix(*prefix)?;
        (rest.is_empty() == *whole).then_some((*index, rest))
    })
}
