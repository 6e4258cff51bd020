//! The last bytes of something that may never end.

use std::collections::VecDeque;

/// Keeps the last bytes that were pushed, up to a limit.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.limit);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }

    /// The last lines, at most `count`, without escape sequences and other control characters; nothing a guest writes
    /// may reach a terminal of the host as more than text.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text
            .lines()
            .map(plain)
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

/// The text without control characters and CSI sequences (ECMA-48, 5.4).
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                while characters
                    .next_if(|c| ('\u{20}'..='\u{3f}').contains(c))
                    .is_some()
                {}
                characters.next();
            }
            '\t' => text.push(' '),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Tail;

    #[test]
    fn only_the_last_bytes_stay() {
        let mut tail = Tail::new(8);
        tail.push(b"0123456789");
        assert_eq!(tail.lines(9), ["23456789"]);
        tail.push(b"\nab\n");
        assert_eq!(tail.lines(9), ["6789", "ab"]);
        assert_eq!(tail.lines(1), ["ab"]);
        assert!(tail.lines(0).is_empty());
    }

    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        let mut tail = Tail::new(1 << 10);
        tail.push(b"\x1b[2J\x1b[1;31mred\x1b[0m\r\n\x07a\x1b]0;title\x07\xff\n");
        assert_eq!(tail.lines(9), ["red", "a]0;title\u{fffd}"]);
    }
}
