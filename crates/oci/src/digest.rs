//! Content digests: `sha256:` and 64 lower-case hexadecimal digits.
//!
//! Source of the format: OCI image specification, `descriptor.md`, "Digests". Only sha256 is known here; the other
//! registered algorithms are recognised and refused by name.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The sha256 of some content, and thereby its name.
///
/// Ordered by its bytes, which is also the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Length of [`Digest::to_hex`].
    pub const HEX_LEN: usize = 64;

    /// The digest that has these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `content`.
    pub fn of(content: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(content.as_ref()).into())
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name of the algorithm, as it stands before the colon and as a directory of an image layout.
    pub const fn algorithm(&self) -> &'static str {
        "sha256"
    }

    /// The 64 lower-case hexadecimal digits, without the algorithm.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(Self::HEX_LEN);
        for byte in self.0 {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        out
    }

    /// The first 12 hexadecimal digits, for people. Never a key.
    pub fn short(&self) -> String {
        let mut hex = self.to_hex();
        hex.truncate(12);
        hex
    }

    /// Reads 64 lower-case hexadecimal digits without an algorithm (a file name in `blobs/sha256`).
    ///
    /// # Errors
    /// [`DigestError::Length`] and [`DigestError::Hex`].
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let digits = hex.as_bytes();
        if digits.len() != Self::HEX_LEN {
            return Err(DigestError::Length {
                found: digits.len(),
            });
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::Hex {
            found: char::from(digit).escape_default().to_string(),
        }),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(DigestError::NoAlgorithm);
        };
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm {
                found: algorithm.chars().take(32).collect(),
            });
        }
        Self::from_hex(hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: DigestError| {
            let shown: String = text.chars().take(100).collect();
            serde::de::Error::custom(format_args!("invalid digest {shown:?}: {error}"))
        })
    }
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// There is no colon.
    #[error("a digest has the form sha256:<64 hexadecimal digits>")]
    NoAlgorithm,
    /// An algorithm other than sha256.
    #[error("digest algorithm {found:?} is not supported, only sha256 is")]
    Algorithm {
        /// What stood before the colon (at most 32 characters of it).
        found: String,
    },
    /// Too few or too many digits.
    #[error("a sha256 digest has 64 hexadecimal digits, not {found}")]
    Length {
        /// Bytes after the colon.
        found: usize,
    },
    /// A character that is no lower-case hexadecimal digit.
    #[error("{found:?} is not a lower-case hexadecimal digit")]
    Hex {
        /// The character.
        found: String,
    },
}

/// Computes a [`Digest`] while content streams by; also a [`Write`] that never fails.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    len: u64,
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `data`.
    pub fn update(&mut self, data: impl AsRef<[u8]>) {
        let data = data.as_ref();
        self.state.update(data);
        self.len += data.len() as u64;
    }

    /// Bytes hashed so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was hashed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Write for Hasher {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_bytes_agree() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(Digest::from_hex(&digest.to_hex()).unwrap(), digest);
        assert_eq!(
            serde_json::to_string(&digest).unwrap(),
            format!("{EMPTY:?}")
        );
        assert_eq!(
            serde_json::from_str::<Digest>(&format!("{EMPTY:?}")).unwrap(),
            digest
        );
    }

    #[test]
    fn strict() {
        let upper = EMPTY.replace("e3b0", "E3B0");
        for (text, wanted) in [
            ("", "a digest has the form"),
            ("e3b0", "a digest has the form"),
            ("sha512:00", "algorithm \"sha512\" is not supported"),
            ("SHA256:00", "algorithm \"SHA256\" is not supported"),
            ("sha256:", "not 0"),
            ("sha256:abc", "not 3"),
            (&upper, "\"E\" is not a lower-case"),
            (&format!("{EMPTY}0"), "not 65"),
        ] {
            let error = text.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn streaming_equals_whole() {
        let mut hasher = Hasher::new();
        hasher.update("a");
        hasher.write_all(b"bc").unwrap();
        assert_eq!(hasher.len(), 3);
        assert_eq!(hasher.finish(), Digest::of("abc"));
    }
}
