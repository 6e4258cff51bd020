//! Checks, by BuildKit's names and texts (moby/buildkit, frontend/dockerfile/linter).
//!
//! [`lint`] runs those that need the text alone. The others are reported by whoever has the environment, the images or
//! the context; [`Rule`] names them all and [`CheckOptions`] says which are wanted. [`Warning::fix`] says what to do about
//! a finding.

mod fix;
mod rules;

use std::fmt;

use crate::instruction::Comment;
use crate::span::Span;

pub use fix::{Edit, Fix};
pub use rules::{lint, looks_secret};

/// One finding of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The check.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// Where.
    pub span: Span,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// All checks.
            pub const ALL: &[Rule] = &[$(Rule::$name,)*];

            /// The name as the `check` directive knows it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Rule::$name => stringify!($name),)*
                }
            }
        }
    };
}

rules! {
    /// A stage name has capitals.
    StageNameCasing,
    /// `FROM … as` or `from … AS`.
    FromAsCasing,
    /// An empty line inside a continued instruction.
    NoEmptyContinuation,
    /// A keyword is not in the case of most keywords.
    ConsistentInstructionCasing,
    /// A second stage of a name.
    DuplicateStageName,
    /// A stage is named `scratch` or `context`.
    ReservedStageName,
    /// A shell form `CMD` or `ENTRYPOINT` while no `SHELL` is set. Needs the base image.
    JSONArgsRecommended,
    /// `MAINTAINER`.
    MaintainerDeprecated,
    /// `FROM` uses a name that is no global or automatic argument.
    UndefinedArgInFrom,
    /// The first `WORKDIR` is relative. Needs expansion.
    WorkdirRelativePath,
    /// A variable that is not set. Needs expansion.
    UndefinedVar,
    /// A second `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in a stage.
    MultipleInstructionsDisallowed,
    /// `ENV k v`, `LABEL k v`.
    LegacyKeyValueFormat,
    /// The platform of a base image is not the one asked for. Needs the base image.
    InvalidBaseImagePlatform,
    /// `--platform=$TARGETPLATFORM`.
    RedundantTargetPlatform,
    /// A name that looks like a secret.
    SecretsUsedInArgOrEnv,
    /// With default arguments alone `FROM` would have no valid image.
    InvalidDefaultArgInFrom,
    /// A literal `--platform`.
    FromPlatformFlagConstDisallowed,
    /// A source that the ignore file leaves out. Needs the ignore file.
    CopyIgnoredFile,
    /// A comment above `ARG` or `FROM` that does not start with the name. Experimental.
    InvalidDefinitionDescription,
    /// `80/TCP`. Needs expansion.
    ExposeProtoCasing,
    /// An address or host port in `EXPOSE`. Needs expansion.
    ExposeInvalidFormat,
}

impl Rule {
    /// Why the check exists, in one sentence, as BuildKit says it.
    pub fn description(self) -> &'static str {
        match self {
            Rule::StageNameCasing => "Stage names should be lowercase",
            Rule::FromAsCasing => "The 'as' keyword should match the case of the 'from' keyword",
            Rule::NoEmptyContinuation => {
                "Empty continuation lines will become errors in a future release"
            }
            Rule::ConsistentInstructionCasing => {
                "All commands within the Dockerfile should use the same casing (either upper or lower)"
            }
            Rule::DuplicateStageName => "Stage names should be unique",
            Rule::ReservedStageName => "Reserved words should not be used as stage names",
            Rule::JSONArgsRecommended => {
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
            }
            Rule::MaintainerDeprecated => {
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
            }
            Rule::UndefinedArgInFrom => "FROM command must use declared ARGs",
            Rule::WorkdirRelativePath => {
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
            }
            Rule::UndefinedVar => "Variables should be defined before their use",
            Rule::MultipleInstructionsDisallowed => {
                "Multiple instructions of the same type should not be used in the same stage"
            }
            Rule::LegacyKeyValueFormat => {
                "Legacy key/value format with whitespace separator should not be used"
            }
            Rule::InvalidBaseImagePlatform => {
                "Base image platform does not match expected target platform"
            }
            Rule::RedundantTargetPlatform => {
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
            }
            Rule::SecretsUsedInArgOrEnv => {
                "Sensitive data should not be used in the ARG or ENV commands"
            }
            Rule::InvalidDefaultArgInFrom => {
                "Default value for global ARG results in an empty or invalid base image name"
            }
            Rule::FromPlatformFlagConstDisallowed => {
                "FROM --platform flag should not use a constant value"
            }
            Rule::CopyIgnoredFile => "Attempting to Copy file that is excluded by .dockerignore",
            Rule::InvalidDefinitionDescription => {
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`"
            }
            Rule::ExposeProtoCasing => "Protocol in EXPOSE instruction should be lowercase",
            Rule::ExposeInvalidFormat => {
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
            }
        }
    }

    /// The page that BuildKit's documentation has about it, if there is one.
    pub fn url(self) -> Option<String> {
        if self == Rule::InvalidBaseImagePlatform {
            return None;
        }
        let name = self.name();
        let mut page = String::with_capacity(name.len() + 8);
        let mut previous = None;
        for (at, c) in name.char_indices() {
            let next_is_lower = name[at + 1..].starts_with(|c: char| c.is_ascii_lowercase());
            // A word begins at a capital behind a small letter, and at the last capital of a row of them.
            let begins = c.is_ascii_uppercase()
                && previous.is_some_and(|p: char| p.is_ascii_lowercase() || next_is_lower);
            if begins {
                page.push('-');
            }
            page.push(c.to_ascii_lowercase());
            previous = Some(c);
        }
        Some(format!(
            "https://docs.docker.com/go/dockerfile/rule/{page}/"
        ))
    }

    /// Whether the check is off unless asked for.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Warning {
    /// A finding.
    pub fn new(rule: Rule, span: Span, message: impl Into<String>) -> Self {
        Self {
            rule,
            message: message.into(),
            span,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)
    }
}

/// Some checks, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RuleSet {
    all: bool,
    names: Vec<String>,
}

impl RuleSet {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if text == "all" {
            return Self {
                all: true,
                names: Vec::new(),
            };
        }
        Self {
            all: false,
            names: text.split(',').map(|name| name.trim().to_owned()).collect(),
        }
    }

    fn holds(&self, rule: Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name())
    }

    fn extend(&mut self, other: Self) {
        self.all |= other.all;
        self.names.extend(other.names);
    }
}

/// What the `check` directive says: `skip=A,B;error=true;experimental=all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip: RuleSet,
    experimental: RuleSet,
    error: bool,
}

/// Why a `check` directive cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptionsError {
    option: String,
}

impl fmt::Display for CheckOptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid check option {:?}", self.option)
    }
}

impl std::error::Error for CheckOptionsError {}

impl CheckOptions {
    /// Reads the value of the directive; names of unknown checks are accepted.
    ///
    /// # Errors
    ///
    /// An unknown key, a missing `=`, or an `error=` that is no boolean.
    pub fn parse(text: &str) -> Result<Self, CheckOptionsError> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let invalid = |option: &str| CheckOptionsError {
                option: option.to_owned(),
            };
            let (key, value) = part.split_once('=').ok_or_else(|| invalid(part))?;
            match key.trim() {
                "skip" => options.skip = RuleSet::parse(value),
                "experimental" => options.experimental = RuleSet::parse(value),
                "error" => {
                    options.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(invalid(part)),
                    }
                }
                key => return Err(invalid(key)),
            }
        }
        Ok(options)
    }

    /// Whether warnings fail the build.
    pub fn is_error(&self) -> bool {
        self.error
    }

    /// Whether a check is wanted for an instruction with these comments above, where `check=skip=A` counts, too.
    pub fn wants(&self, rule: Rule, comments: &[Comment]) -> bool {
        let local = Self::in_comments(comments);
        let merged;
        let options = match local {
            None => self,
            Some(local) => {
                let mut both = self.clone();
                both.skip.extend(local.skip);
                both.experimental.extend(local.experimental);
                merged = both;
                &merged
            }
        };
        if rule.is_experimental() {
            options.experimental.holds(rule)
        } else {
            !options.skip.holds(rule)
        }
    }

    /// The first `check=` comment, when it is well-formed.
    fn in_comments(comments: &[Comment]) -> Option<Self> {
        let value = comments.iter().find_map(|comment| {
            let (key, value) = comment.text.split_once('=')?;
            key.trim()
                .eq_ignore_ascii_case("check")
                .then(|| value.trim())
        })?;
        Self::parse(value.split(' ').next().unwrap_or_default()).ok()
    }
}

#[cfg(test)]
mod tests;
