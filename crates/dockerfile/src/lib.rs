//! Turns Dockerfile and `.dockerignore` text into typed instructions with source spans.
//!
//! ```text
//!   text ─▶ directives ─▶ logical lines ─▶ keyword, flags, argument ─▶ Instruction ─▶ Stage ─▶ Dockerfile
//!             directive      line, heredoc     word, flag, json           parse        stage
//! ```
//!
//! The language is that of BuildKit's Dockerfile frontend 1.26. Where its reference text and its code disagree, the code
//! is followed, since that is what existing files were written against.
//!
//! What holds:
//!
//! - Every value carries a [`Span`] of byte offsets into the source, on character boundaries.
//! - Words stay **unexpanded**: `$variables`, quotes and escapes are resolved later, with [`expand_word`] and an
//!   environment that only the caller knows. Mounts likewise, with [`Mount::resolve`].
//! - Any text gives a value or errors, in time and memory bounded by its size (16 MiB at most); nothing recurses on input.
//! - Checks ([`lint`]) use BuildKit's names. Those that need an environment, images or a context are the caller's; their
//!   names are in [`Rule`], so that one [`CheckOptions`] rules them all.
//!
//! What this crate refuses to know: files, environments, images, graphs. It depends on nothing but `std`.

mod directive;
mod error;
mod expand;
mod flag;
mod glob;
mod heredoc;
mod ignore;
mod instruction;
mod json;
mod limits;
mod line;
mod lint;
mod mount;
mod parse;
mod pattern;
mod signal;
mod span;
mod stage;
mod suggest;
mod word;

pub use directive::Directives;
pub use error::{ParseError, ParseErrorKind, ParseErrors};
pub use expand::{
    ExpandError, ExpandErrorKind, Expanded, ExpandedWords, expand_heredoc, expand_shown,
    expand_word, expand_words,
};
pub use glob::{BadPattern, glob_match, has_wildcard};
pub use heredoc::Heredoc;
pub use ignore::{IgnoreError, IgnorePatterns};
pub use instruction::{
    AddFiles, ArgDefinition, Command, Comment, CopyFiles, HealthTest, Healthcheck, Instruction,
    InstructionKind, NetworkMode, OnBuild, Pair, Run, Script, SecurityMode, Transfer, Word,
};
pub use lint::{CheckOptions, CheckOptionsError, Edit, Fix, Rule, Warning, lint, looks_secret};
pub use mount::{Device, Mount, MountError, MountField, MountSharing, MountType, ResolvedMount};
pub use parse::{go_duration, parse_instruction};
pub use signal::{nearest_signal, signal_number};
pub use span::{LineIndex, Position, Span};
pub use stage::{Dockerfile, EmptyContinuation, Stage};
pub use suggest::{nearest, nearest_exact};
