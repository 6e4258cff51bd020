//! Turns Dockerfile and `.dockerignore` text into typed instructions with source spans.

mod directive;
mod heredoc;
mod instruction;
mod lint;
mod mount;
mod span;
mod stage;

pub use directive::Directives;
pub use heredoc::Heredoc;
pub use instruction::{
    AddFiles, ArgDefinition, Command, Comment, CopyFiles, HealthTest, Healthcheck, Instruction,
    InstructionKind, NetworkMode, OnBuild, Pair, Run, Script, SecurityMode, Transfer, Word,
};
pub use lint::{Rule, Warning};
pub use mount::{Mount, MountField};
pub use span::{LineIndex, Position, Span};
pub use stage::{Dockerfile, Stage};
