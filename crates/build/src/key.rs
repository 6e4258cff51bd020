//! Cache keys: the name of a result before it is computed.
//!
//! A key is a SHA-256 over a domain word with a version and then fields, each with its length before it, so that no two
//! different lists of fields give the same bytes. What counts is written down in `docs/formats/cache-key.md`; a change of
//! it needs a new version in the domain word and a line in the changelog.

use firebuild_oci::Digest;
use sha2::{Digest as _, Sha256};

/// The name of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(pub [u8; 32]);

impl std::fmt::Display for CacheKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0 {
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Collects the fields of a key.
#[derive(Clone, Debug)]
pub struct KeyWriter(Sha256);

impl KeyWriter {
    /// Begins a key. `domain` names what the key is for and its version: `exec/1`.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut writer = Self(Sha256::new());
        writer.bytes(domain.as_bytes());
        writer
    }

    /// Adds bytes.
    pub fn bytes(&mut self, field: &[u8]) -> &mut Self {
        self.number(field.len() as u64);
        self.0.update(field);
        self
    }

    /// Adds text.
    pub fn text(&mut self, field: &str) -> &mut Self {
        self.bytes(field.as_bytes())
    }

    /// Adds a number.
    pub fn number(&mut self, field: u64) -> &mut Self {
        self.0.update(field.to_le_bytes());
        self
    }

    /// Adds a truth value.
    pub fn flag(&mut self, field: bool) -> &mut Self {
        self.number(u64::from(field))
    }

    /// Adds a digest.
    pub fn digest(&mut self, field: &Digest) -> &mut Self {
        self.text(&field.to_string())
    }

    /// Adds something that may be missing; missing and empty differ.
    pub fn optional(&mut self, field: Option<&str>) -> &mut Self {
        match field {
            None => self.number(0),
            Some(text) => self.number(1).text(text),
        }
    }

    /// Adds a list of texts.
    pub fn list<'a>(&mut self, fields: impl ExactSizeIterator<Item = &'a str>) -> &mut Self {
        self.number(fields.len() as u64);
        for field in fields {
            self.text(field);
        }
        self
    }

    /// The key of all that was added.
    #[must_use]
    pub fn finish(self) -> CacheKey {
        CacheKey(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::KeyWriter;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |fields: &[&str]| {
            let mut writer = KeyWriter::new("t/1");
            for field in fields {
                writer.text(field);
            }
            writer.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(
            KeyWriter::new("t/1").finish(),
            KeyWriter::new("t/2").finish()
        );
    }
}
