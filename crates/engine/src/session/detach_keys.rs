//! Keys that leave a session and let it go on, in Docker's notation: `ctrl-p,ctrl-q`.

use std::fmt;
use std::str::FromStr;

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them have been pressed in a row.
    pressed: usize,
}

impl Default for DetachKeys {
    /// Docker's: Ctrl+P, Ctrl+Q.
    fn default() -> Self {
        Self {
            keys: vec![16, 17],
            pressed: 0,
        }
    }
}

/// A text that names no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeysError(String);

impl fmt::Display for DetachKeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no key: a letter, or ctrl- with a letter or one of @ [ \\ ] ^ _",
            self.0
        )
    }
}

impl std::error::Error for DetachKeysError {}

impl FromStr for DetachKeys {
    type Err = DetachKeysError;

    /// Reads keys, separated by commas. No keys at all mean that nothing detaches.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let keys = text
            .split(',')
            .filter(|key| !text.is_empty() || !key.is_empty());
        let keys = keys.map(key).collect::<Result<_, _>>()?;
        Ok(Self { keys, pressed: 0 })
    }
}

fn key(text: &str) -> Result<u8, DetachKeysError> {
    let bad = || DetachKeysError(text.to_owned());
    let (control, rest) = match text.strip_prefix("ctrl-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let [byte] = *rest.as_bytes() else {
        return Err(bad());
    };
    match (control, byte) {
        (true, b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'['..=b'_') => Ok(byte & 0x1f),
        (false, _) if byte.is_ascii() => Ok(byte),
        _ => Err(bad()),
    }
}

impl DetachKeys {
    /// Looks at what was typed: what of it is for the program, and whether the keys were pressed. The beginning of the
    /// sequence is held back until it is known to be none.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.get(self.pressed) == Some(&byte) {
                self.pressed += 1;
                if self.pressed == self.keys.len() {
                    self.pressed = 0;
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.pressed]);
            // The key that ended one attempt may begin the next.
            self.pressed = usize::from(self.keys.first() == Some(&byte) && self.keys.len() > 1);
            if self.pressed == 0 {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn the_notation_is_dockers() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        let keys: DetachKeys = "ctrl-@,a,ctrl-[,ctrl-A".parse().unwrap();
        assert_eq!(keys.keys, [0, b'a', 27, 1]);
        assert!("".parse::<DetachKeys>().unwrap().keys.is_empty());
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b", "ctrl-é"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_sequence_gets_through() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.filter(&[16]), (vec![], false));
        assert_eq!(keys.filter(b"x"), (vec![16, b'x'], false));
        assert_eq!(keys.filter(&[16, 16]), (vec![16], false));
        assert_eq!(keys.filter(&[17, b'z']), (vec![], true));
        let mut none: DetachKeys = "".parse().unwrap();
        assert_eq!(none.filter(&[16, 17]), (vec![16, 17], false));
        let mut one: DetachKeys = "q".parse().unwrap();
        assert_eq!(one.filter(b"aq"), (b"a".to_vec(), true));
    }
}
