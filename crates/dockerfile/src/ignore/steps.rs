//! Patterns with wildcards: all ways through one are walked at once, so a path costs at most its length times the pattern's,
//! whatever either holds.

use crate::glob::{Glob, Set, decode};

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Steps(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    One(Glob),
    /// The door of a `**` in the middle: goes inside, or past it (two further).
    DeepEntry,
    /// Inside of it: takes anything; behind a slash it may be left.
    DeepInside,
    /// `**` at the end: takes anything.
    DeepEnd,
}

impl Steps {
    /// From a cleaned pattern with good syntax.
    pub(super) fn new(pattern: &str) -> Self {
        let mut steps = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.as_str().starts_with('*') => {
                    chars.next();
                    if chars.as_str().starts_with('/') {
                        chars.next();
                    }
                    if chars.as_str().is_empty() {
                        steps.push(Step::DeepEnd);
                    } else {
                        steps.extend([Step::DeepEntry, Step::DeepInside]);
                    }
                }
                '*' => steps.push(Step::One(Glob::Star)),
                '?' => steps.push(Step::One(Glob::Any)),
                '[' => {
                    let set = Set::parse(&mut chars);
                    // The syntax was checked; an element that matches nothing stands in.
                    steps.push(Step::One(set.map_or(Glob::Plain('\0'), Glob::Set)));
                }
                '\\' => steps.push(Step::One(Glob::Plain(chars.next().unwrap_or('\\')))),
                c => steps.push(Step::One(Glob::Plain(c))),
            }
        }
        Self(steps)
    }

    /// Whether the path or a directory above it matches, in one walk: where a slash follows, a directory ends.
    pub(super) fn cover(&self, path: &[u8]) -> bool {
        let mut places = Places::at_start(&self.0);
        let mut at = 0;
        while let Some((c, length)) = decode(&path[at..]) {
            if c == '/' && places.hold_the_end() {
                return true;
            }
            if !places.take(c) {
                return false;
            }
            at += length;
        }
        places.hold_the_end()
    }

    /// Whether a path can match that has something behind these bytes.
    pub(super) fn go_on_behind(&self, bytes: &[u8]) -> bool {
        self.start().take_all(bytes)
    }

    /// Where a walk along a path begins.
    pub(super) fn start(&self) -> Places<'_> {
        Places::at_start(&self.0)
    }
}

/// The places in a pattern that have been reached, one bit each, and one for its end.
pub(super) struct Places<'s> {
    steps: &'s [Step],
    now: Vec<u64>,
    next: Vec<u64>,
}

impl<'s> Places<'s> {
    fn at_start(steps: &'s [Step]) -> Self {
        let words = steps.len() / 64 + 1;
        let mut places = Self {
            steps,
            now: vec![0; words],
            next: vec![0; words],
        };
        places.reach(0);
        std::mem::swap(&mut places.now, &mut places.next);
        places
    }

    /// Whether what was taken so far matches.
    pub(super) fn hold_the_end(&self) -> bool {
        let end = self.steps.len();
        self.now[end / 64] & (1 << (end % 64)) != 0
    }

    /// Takes all characters; whether any place is left.
    pub(super) fn take_all(&mut self, bytes: &[u8]) -> bool {
        let mut at = 0;
        while let Some((c, length)) = decode(&bytes[at..]) {
            if !self.take(c) {
                return false;
            }
            at += length;
        }
        true
    }

    /// Takes one character; whether any place is left.
    fn take(&mut self, c: char) -> bool {
        self.next.fill(0);
        for word in 0..self.now.len() {
            let mut bits = self.now[word];
            while bits != 0 {
                let place = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                #[cfg(test)]
                LOOKS.set(LOOKS.get() + 1);
                match self.steps.get(place) {
                    Some(Step::One(Glob::Star)) if c != '/' => self.reach(place),
                    Some(Step::One(Glob::Any)) if c != '/' => self.reach(place + 1),
                    Some(Step::One(Glob::Plain(plain))) if *plain == c => self.reach(place + 1),
                    Some(Step::One(Glob::Set(set))) if set.holds(c) => self.reach(place + 1),
                    Some(Step::DeepInside) => {
                        self.reach(place);
                        if c == '/' {
                            self.reach(place + 1);
                        }
                    }
                    Some(Step::DeepEnd) => self.reach(place),
                    _ => {}
                }
            }
        }
        std::mem::swap(&mut self.now, &mut self.next);
        self.now.iter().any(|word| *word != 0)
    }

    /// Notes a place and those that are reached from it without taking a character. A place that is noted already has its
    /// followers noted too, which is what keeps a row of wildcards from being gone through again from each of them.
    fn reach(&mut self, mut place: usize) {
        loop {
            let bit = 1 << (place % 64);
            if self.next[place / 64] & bit != 0 {
                return;
            }
            self.next[place / 64] |= bit;
            #[cfg(test)]
            LOOKS.set(LOOKS.get() + 1);
            match self.steps.get(place) {
                Some(Step::One(Glob::Star) | Step::DeepEnd) => place += 1,
                Some(Step::DeepEntry) => {
                    // Inside nothing is reached without a character.
                    let inside = place + 1;
                    self.next[inside / 64] |= 1 << (inside % 64);
                    place += 2;
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How often a place was looked at, on this thread.
    pub(super) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests;
