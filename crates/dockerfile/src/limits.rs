//! Bounds on what is accepted, so that no input costs more than it is worth.

/// Bytes of a Dockerfile or an ignore file.
pub(crate) const MAX_FILE_BYTES: usize = 16 << 20;

/// Bytes of a physical line without its LF (BuildKit's scanner has the same bound).
pub(crate) const MAX_LINE_BYTES: usize = 65_535;

/// Instructions in a file, `FROM` included.
pub(crate) const MAX_INSTRUCTIONS: usize = 20_000;

/// Stages in a file.
pub(crate) const MAX_STAGES: usize = 2_000;

/// Nesting of `${…}` in one word.
pub(crate) const MAX_EXPANSION_DEPTH: usize = 64;

/// Bytes of one expanded word.
pub(crate) const MAX_WORD_BYTES: usize = 1 << 20;

/// Bytes of one expanded heredoc body.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;

/// Steps that the patterns in one word may take.
pub(crate) const MAX_PATTERN_STEPS: u64 = 1 << 26;

/// Patterns in an ignore file.
pub(crate) const MAX_IGNORE_PATTERNS: usize = 100_000;

/// Nesting of a JSON argument; deeper is no JSON.
pub(crate) const MAX_JSON_DEPTH: usize = 1_000;

/// Unset names that one expansion reports; further ones are not listed.
pub(crate) const MAX_UNSET_NAMES: usize = 100;
