//! The 512-byte header: fields, numbers, checksum.

use super::{BLOCK, TarErrorKind};

/// A header as it is in the archive.
#[derive(Clone, Debug)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

/// Where a field is.
pub(super) type Field = std::ops::Range<usize>;

pub(super) const NAME: Field = 0..100;
pub(super) const MODE: Field = 100..108;
pub(super) const UID: Field = 108..116;
pub(super) const GID: Field = 116..124;
pub(super) const SIZE: Field = 124..136;
pub(super) const MTIME: Field = 136..148;
pub(super) const CHECKSUM: Field = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Field = 157..257;
pub(super) const MAGIC: Field = 257..265;
pub(super) const MAJOR: Field = 329..337;
pub(super) const MINOR: Field = 337..345;
pub(super) const PREFIX: Field = 345..500;

/// `magic` and `version` of POSIX headers; GNU's have two blanks and a NUL in their place and no prefix.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// Whether a file that begins with these bytes is a tar archive with at least one entry: its first header's checksum
/// holds.
#[must_use]
pub fn looks_like_tar(start: &[u8]) -> bool {
    start
        .first_chunk::<BLOCK>()
        .is_some_and(|block| !is_zero(block) && Header(*block).checksum_holds())
}

pub(super) fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&b| b == 0)
}

impl Header {
    pub(super) fn field(&self, field: Field) -> &[u8] {
        &self.0[field]
    }

    /// A text field: up to the first NUL.
    pub(super) fn text(&self, field: Field) -> &[u8] {
        until_nul(self.field(field))
    }

    /// The path that the header itself tells.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(NAME);
        let prefix = if self.field(MAGIC) == USTAR {
            self.text(PREFIX)
        } else {
            b""
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// Whether device numbers are there (v7 headers have none).
    pub(super) fn has_devices(&self) -> bool {
        self.field(MAGIC) == USTAR
            || self.field(MAGIC) == GNU
            || self.field(MAGIC).starts_with(b"ustar")
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// A number that may be negative (times).
    pub(super) fn signed(&self, field: Field, name: &'static str) -> Result<i64, TarErrorKind> {
        number(self.field(field)).ok_or(TarErrorKind::Number(name))
    }

    /// A number that may not.
    pub(super) fn unsigned(&self, field: Field, name: &'static str) -> Result<u64, TarErrorKind> {
        u64::try_from(self.signed(field, name)?).map_err(|_| TarErrorKind::Number(name))
    }

    /// Sums the bytes with the checksum field as blanks; old archivers summed them as signed.
    pub(super) fn checksum_holds(&self) -> bool {
        let Some(want) = number(self.field(CHECKSUM)) else {
            return false;
        };
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, &byte) in self.0.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        want == unsigned || want == signed
    }

    /// Writes the checksum: six octal digits, NUL, blank.
    pub(super) fn seal(&mut self) {
        self.0[CHECKSUM].fill(b' ');
        let sum: u32 = self.0.iter().map(|&b| u32::from(b)).sum();
        self.0[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// Writes an octal number with a NUL at the end; `false` when it has too many digits.
    pub(super) fn set_octal(&mut self, field: Field, value: u64) -> bool {
        let width = field.len() - 1;
        let text = format!("{value:0width$o}\0");
        if text.len() != field.len() {
            return false;
        }
        self.0[field].copy_from_slice(text.as_bytes());
        true
    }

    /// Writes a text; `false` when it is too long or holds a NUL.
    pub(super) fn set_text(&mut self, field: Field, text: &[u8]) -> bool {
        if text.len() > field.len() || text.contains(&0) {
            return false;
        }
        let start = field.start;
        self.0[field].fill(0);
        self.0[start..start + text.len()].copy_from_slice(text);
        true
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(b"")
}

/// Octal digits with blanks and NULs around them, or base-256 (the first bit set, big-endian two's complement).
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            // The marker bit is no digit; for a negative number it reads as a one.
            let byte = match (at, negative) {
                (0, true) => byte | 0x80,
                (0, false) => byte & 0x7f,
                _ => byte,
            };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
            if at == 0 && negative {
                // -1 * 256 + byte: the sign-extended first byte.
                value = i64::from(byte.cast_signed());
            }
        }
        return Some(value);
    }
    let trimmed = field
        .iter()
        .copied()
        .skip_while(|b| matches!(b, b' ' | 0))
        .collect::<Vec<u8>>();
    let digits = trimmed
        .split(|b| matches!(b, b' ' | 0))
        .next()
        .unwrap_or(b"");
    digits.iter().try_fold(0i64, |value, &digit| {
        let digit = char::from(digit).to_digit(8)?;
        value.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"00009\0"), None);
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Some(-1)
        );
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"),
            Some(-256)
        );
        assert_eq!(
            number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
    }

    #[test]
    fn checksum_round_trip() {
        let mut header = Header([0; BLOCK]);
        assert!(header.set_text(NAME, b"a"));
        assert!(!header.checksum_holds());
        header.seal();
        assert!(header.checksum_holds());
        assert!(looks_like_tar(&header.0));
        header.0[0] = b'b';
        assert!(!looks_like_tar(&header.0));
        assert!(!looks_like_tar(&[0; 512]));
        assert!(!looks_like_tar(b"short"));
    }

    #[test]
    fn fields_that_do_not_fit() {
        let mut header = Header([0; BLOCK]);
        assert!(header.set_octal(UID, 0o7_777_777));
        assert!(!header.set_octal(UID, 0o10_000_000));
        assert!(header.set_text(NAME, &[b'a'; 100]));
        assert!(!header.set_text(NAME, &[b'a'; 101]));
    }
}
