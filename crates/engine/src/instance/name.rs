//! Ids and names of instances.
//!
//! An id is 64 hexadecimal digits, random, as Docker's; its first twelve are the short id that people
//! see, and any unique beginning finds it. A name is Docker's too: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.

use std::fmt;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::error::{InstanceError, InstanceErrorKind};
use crate::error::Error;

/// Digits of an id.
const DIGITS: usize = 64;
/// Digits of a short id.
const SHORT: usize = 12;
/// A name goes into host names, file names and tables.
const LONGEST_NAME: usize = 64;

/// The id of an instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

impl InstanceId {
    /// A new id.
    ///
    /// # Errors
    /// `Io` when the kernel has no random bytes to give.
    pub fn random() -> Result<Self, InstanceError> {
        loop {
            let id: String = random_bytes::<{ DIGITS / 2 }>()?
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            // The short id is the default host name, and a host name of digits only is taken for a
            // number here and there. Docker avoids it too.
            if !id[..SHORT].bytes().all(|byte| byte.is_ascii_digit()) {
                return Ok(Self(id));
            }
        }
    }

    /// Reads a whole id.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == DIGITS
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        good.then(|| Self(text.to_owned()))
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits.
    pub fn short(&self) -> &str {
        &self.0[..SHORT]
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl TryFrom<String> for InstanceId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("an id is 64 hexadecimal digits")
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

/// Checks a name that a user chose.
///
/// # Errors
/// `BadName`, with the grammar.
pub fn check_name(name: &str) -> Result<(), InstanceError> {
    let good = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if good {
        return Ok(());
    }
    Err(Error::new(
        InstanceErrorKind::BadName,
        format!(
            "'{name}' cannot name a VM: letters, digits, '_', '.' and '-' can, at most {LONGEST_NAME}, \
             a letter or digit first"
        ),
    ))
}

const FIRST: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "crisp", "deep", "eager", "early", "fair", "fleet",
    "fresh", "gentle", "glad", "grand", "green", "keen", "kind", "light", "lucid", "mellow",
    "neat", "noble", "plain", "proud", "quick", "quiet", "sharp", "silent", "steady", "swift",
    "warm",
];
const SECOND: [&str; 32] = [
    "anvil", "badger", "beacon", "birch", "brook", "cedar", "comet", "coral", "crane", "ember",
    "falcon", "fern", "forge", "garnet", "harbour", "hazel", "heron", "kiln", "lantern", "larch",
    "maple", "marten", "meadow", "otter", "pebble", "quarry", "raven", "river", "sparrow",
    "spruce", "thistle", "willow",
];

/// A name for an instance whose user chose none: two words and, from the second attempt on, a number.
///
/// # Errors
/// `Io` when the kernel has no random bytes to give.
pub(crate) fn random_name(attempt: u32) -> Result<String, InstanceError> {
    let [first, second, number] = random_bytes::<3>()?;
    let word = |list: &[&'static str; 32], byte: u8| list[usize::from(byte) % list.len()];
    let name = format!("{}_{}", word(&FIRST, first), word(&SECOND, second));
    Ok(match attempt {
        0 => name,
        _ => format!("{name}{number}"),
    })
}

fn random_bytes<const N: usize>() -> Result<[u8; N], InstanceError> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| Error::caused(InstanceErrorKind::Io, "cannot get random bytes", error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{InstanceId, check_name, random_name};

    #[test]
    fn ids_are_long_random_and_read_back() {
        let one = InstanceId::random().unwrap();
        let other = InstanceId::random().unwrap();
        assert_ne!(one, other);
        assert_eq!(InstanceId::parse(one.as_str()), Some(one.clone()));
        assert!(one.as_str().starts_with(one.short()));
        assert_eq!(InstanceId::parse("abc"), None);
        assert_eq!(InstanceId::parse(&"G".repeat(64)), None);
    }

    #[test]
    fn names() {
        for good in ["db", "a", "Web_1.x-y", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "_a", "a b", "a/b", "ä", &"a".repeat(65)] {
            check_name(bad).unwrap_err();
        }
        for attempt in 0..2 {
            check_name(&random_name(attempt).unwrap()).unwrap();
        }
    }
}
