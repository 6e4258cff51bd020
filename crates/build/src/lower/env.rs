//! Environments of a build: ordered names with values.

use std::collections::HashMap;

use firebuild_dockerfile::{ExpandError, Span, Word};

use super::{LowerError, LowerErrorKind};

/// Bytes of names and values together; a step with more could not be started.
const MAX_BYTES: usize = 4 << 20;

/// Names with values, in the order in which they were first set.
#[derive(Clone, Debug, Default)]
pub(super) struct Env {
    entries: Vec<(String, String)>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Env {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&at| self.entries[at].1.as_str())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), LowerError> {
        match self.index.get(name) {
            Some(&at) => {
                self.bytes = self.bytes - self.entries[at].1.len() + value.len();
                value.clone_into(&mut self.entries[at].1);
            }
            None => {
                self.bytes += name.len() + value.len();
                self.index.insert(name.to_owned(), self.entries.len());
                self.entries.push((name.to_owned(), value.to_owned()));
            }
        }
        if self.bytes > MAX_BYTES {
            return Err(LowerError::new(
                LowerErrorKind::TooLarge,
                format!("the environment is larger than {MAX_BYTES} bytes after {name} is set"),
            ));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(at) = self.index.remove(name) {
            let (name, value) = self.entries.remove(at);
            self.bytes -= name.len() + value.len();
            for later in self.index.values_mut() {
                *later -= usize::from(*later > at);
            }
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Bytes of names and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn to_vec(&self) -> Vec<(String, String)> {
        self.entries.clone()
    }
}

/// The error of an expansion, at the place inside the word where that is known.
pub(super) fn expansion_error(word: &Word, error: ExpandError) -> LowerError {
    // A word without continuations and with its quotes lies in the file as it is.
    let span = if word.span.len() == word.text.len() && error.offset() < word.text.len() {
        Span::new(word.span.start + error.offset(), word.span.end)
    } else {
        word.span
    };
    LowerError::new(
        LowerErrorKind::Expansion,
        format!("cannot expand {:?}", word.text),
    )
    .at(span)
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::Env;

    #[test]
    fn order_and_bounds() {
        let mut env = Env::default();
        env.set("A", "1").unwrap();
        env.set("B", "2").unwrap();
        env.set("A", "3").unwrap();
        env.set("C", "4").unwrap();
        env.remove("B");
        env.remove("NONE");
        assert_eq!(env.names().collect::<Vec<_>>(), ["A", "C"]);
        assert_eq!(
            (env.get("A"), env.get("B"), env.get("C")),
            (Some("3"), None, Some("4"))
        );
        let large = "x".repeat(3 << 20);
        env.set("D", &large).unwrap();
        env.set("D", &large).unwrap();
        assert!(env.set("E", &large).is_err());
    }
}
