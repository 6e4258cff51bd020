//! Decisions taken from the fuzzer's bytes. When they are used up every decision is the first one.

pub(crate) struct Choices<'a>(std::slice::Iter<'a, u8>);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    /// Whether the bytes are used up.
    pub(crate) fn are_made(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.0.next().map_or(0, |byte| byte % bound)
    }

    pub(crate) fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[usize::from(self.below(u8::try_from(all.len()).unwrap()))]
    }
}
