//! Tokens of version 2: a program gets one by a PUT and shows it with each GET, which a request that somebody else was
//! tricked into (from outside of the machine, through a proxy) cannot.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};

/// The longest life of a token in seconds, as everywhere.
pub(super) const LONGEST_TTL: u32 = 21_600;
/// Tokens that are known at once; one more costs the one that ends first its life.
const MOST: usize = 512;
const BYTES: usize = 24;

/// The tokens that are valid.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    known: Vec<(String, Instant)>,
}

impl Tokens {
    /// Makes a token that lives so many seconds.
    pub(super) fn issue(&mut self, ttl: u32) -> std::io::Result<String> {
        let mut bytes = [0; BYTES];
        getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        let mut token = String::with_capacity(2 * BYTES);
        for byte in bytes {
            // Writing to a String does not fail.
            let _ = write!(token, "{byte:02x}");
        }
        let now = Instant::now();
        self.known.retain(|(_, end)| *end > now);
        if self.known.len() >= MOST
            && let Some(first) = (0..self.known.len()).min_by_key(|&at| self.known[at].1)
        {
            self.known.swap_remove(first);
        }
        let end = now + Duration::from_secs(ttl.min(LONGEST_TTL).into());
        self.known.push((token.clone(), end));
        Ok(token)
    }

    /// Whether a token is one of these and still lives.
    pub(super) fn is_valid(&self, token: &str) -> bool {
        let now = Instant::now();
        self.known
            .iter()
            .any(|(known, end)| known == token && *end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Tokens};

    #[test]
    fn tokens_live_and_are_bounded() {
        let mut tokens = Tokens::default();
        let first = tokens.issue(60).unwrap();
        assert!(tokens.is_valid(&first) && !tokens.is_valid("") && !tokens.is_valid("abc"));
        let dead = tokens.issue(0).unwrap();
        assert!(!tokens.is_valid(&dead));
        let kept = tokens.issue(21_600).unwrap();
        for _ in 0..MOST {
            let _ = tokens.issue(3600).unwrap();
        }
        assert!(tokens.known.len() <= MOST);
        assert!(tokens.is_valid(&kept) && !tokens.is_valid(&first));
    }
}
