//! The output of a step, bounded.
//!
//! A step that writes without end must fill neither logs nor memory. As BuildKit does, what goes beyond 2 MiB is left out
//! and said once. Its last lines are kept, though, and shown if the step fails: the reason is mostly there.

use std::collections::VecDeque;

use crate::event::Stream;

/// Bytes of one step that are passed on (BuildKit's default, `BUILDKIT_STEP_LOG_MAX_SIZE`).
const LIMIT: usize = 2 << 20;
/// Bytes of the end that are kept.
const TAIL: usize = 8 << 10;

/// Counts what a step writes.
#[derive(Debug, Default)]
pub(super) struct Clip {
    passed: usize,
    left_out: u64,
    tail: VecDeque<u8>,
}

impl Clip {
    /// Passes on what is within the limit.
    pub(super) fn write(
        &mut self,
        stream: Stream,
        data: &[u8],
        pass: &mut dyn FnMut(Stream, &[u8]),
    ) {
        let room = LIMIT - self.passed;
        let (within, beyond) = data.split_at(data.len().min(room));
        if !within.is_empty() {
            self.passed += within.len();
            pass(stream, within);
        }
        if beyond.is_empty() {
            return;
        }
        if self.left_out == 0 {
            pass(
                stream,
                b"\n[output clipped, log limit 2MiB reached]\n".as_slice(),
            );
        }
        self.left_out += beyond.len() as u64;
        let last = &beyond[beyond.len().saturating_sub(TAIL)..];
        let excess = (self.tail.len() + last.len()).saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.tail.extend(last);
    }

    /// Passes on the last lines of what was left out, for a step that failed.
    pub(super) fn failed(&mut self, pass: &mut dyn FnMut(Stream, &[u8])) {
        if self.tail.is_empty() {
            return;
        }
        let tail: Vec<u8> = self.tail.drain(..).collect();
        // From the beginning of a line on, if one begins there.
        let start = if self.left_out > tail.len() as u64 {
            let feed = tail.iter().position(|byte| *byte == b'\n');
            feed.map_or(0, |feed| feed + 1)
        } else {
            0
        };
        pass(Stream::Stderr, b"[the last lines of the clipped output]\n");
        pass(Stream::Stderr, &tail[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::{Clip, LIMIT, Stream, TAIL};

    #[test]
    fn what_is_within_the_limit_passes_as_it_is() {
        let mut text = Vec::new();
        let mut clip = Clip::default();
        let mut pass = |_: Stream, data: &[u8]| text.extend_from_slice(data);
        clip.write(Stream::Stdout, &vec![b'x'; LIMIT], &mut pass);
        clip.failed(&mut pass);
        assert_eq!(text, vec![b'x'; LIMIT]);
    }

    #[test]
    fn what_is_beyond_is_left_out_but_for_its_end() {
        let mut text = Vec::new();
        let mut clip = Clip::default();
        let mut pass = |_: Stream, data: &[u8]| text.extend_from_slice(data);
        for number in 0..400_000 {
            clip.write(
                Stream::Stdout,
                format!("line {number}\n").as_bytes(),
                &mut pass,
            );
        }
        assert!(clip.tail.len() <= TAIL);
        clip.failed(&mut pass);
        let text = String::from_utf8(text).unwrap();
        assert!(text.len() < LIMIT + TAIL + 200);
        let clipped = "[output clipped, log limit 2MiB reached]";
        assert_eq!(text.matches(clipped).count(), 1);
        assert!(text.ends_with("line 399998\nline 399999\n"));
        let after = text
            .split("[the last lines of the clipped output]\n")
            .nth(1);
        assert!(after.unwrap().starts_with("line "));
    }
}
