//! `RUN --mount`: comma-separated `key=value` fields.
//!
//! Values are expanded when the stage is lowered, so only the fields are taken apart while parsing; [`Mount::resolve`]
//! does the rest (moby/buildkit, instructions/commands_runmount.go). `from` alone is never expanded: which stages are
//! needed must be known before any environment is.

mod resolve;

use std::fmt;

use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::Word;
use crate::span::Span;

/// One `--mount` flag: its fields, unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The fields in order.
    pub fields: Vec<MountField>,
    /// `from`; never expanded, so stages can be found without an environment.
    pub from: Option<Word>,
    /// The whole flag.
    pub span: Span,
}

/// `key=value` or a bare `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountField {
    /// The key in lower case.
    pub key: String,
    /// The value, unexpanded; `None` for a bare key.
    pub value: Option<String>,
}

/// What a mount shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MountType {
    /// A file or directory of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that lives between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

/// `sharing` of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MountSharing {
    /// Anyone at any time.
    #[default]
    Shared,
    /// A second user gets a directory of his own.
    Private,
    /// A second user waits.
    Locked,
}

/// A mount with its values expanded and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedMount {
    /// `type`
    pub kind: MountType,
    /// `from`; empty when absent.
    pub from: String,
    /// `source`; empty when absent.
    pub source: String,
    /// `target`; empty when absent.
    pub target: String,
    /// Whether writes are refused; the default of the type when neither `ro` nor `rw` is given.
    pub read_only: bool,
    /// `size` in bytes; 0 is no limit.
    pub size: u64,
    /// `id`; empty when absent.
    pub id: String,
    /// `sharing`; `None` when absent.
    pub sharing: Option<MountSharing>,
    /// `required`
    pub required: bool,
    /// `env`; `Some("")` asks for the default name.
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Why a mount is wrong once its values are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountError {
    message: String,
    hint: Option<String>,
}

impl MountError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    fn with_suggestion(mut self, near: Option<String>) -> Self {
        self.hint = near;
        self
    }

    /// The name that was probably meant. The message mentions it already.
    pub fn suggestion(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(near) => write!(f, " (did you mean {near}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for MountError {}

impl Mount {
    /// The target as written; empty when there is none.
    pub fn written_target(&self) -> &str {
        let mut fields = self.fields.iter().rev();
        fields
            .find(|field| matches!(field.key.as_str(), "target" | "dst" | "destination"))
            .and_then(|field| field.value.as_deref())
            .unwrap_or_default()
    }

    /// The variables that secrets of this step are given in, by the names as written.
    pub fn secret_variable(&self) -> Option<&str> {
        let value = |key: &str| {
            let mut fields = self.fields.iter().rev();
            let field = fields.find(|field| field.key == key)?;
            field.value.as_deref()
        };
        let is_secret = value("type").is_some_and(|kind| kind.eq_ignore_ascii_case("secret"));
        value("env").filter(|_| is_secret)
    }

    /// Takes a flag value apart.
    pub(crate) fn parse(flag: &Word) -> Result<Self, ParseError> {
        let bad = |message: String| ParseError::new(ParseErrorKind::BadMount, flag.span, message);
        let mut mount = Self {
            fields: Vec::new(),
            from: None,
            span: flag.span,
        };
        for field in
            split_fields(&flag.text).map_err(|what| bad(format!("invalid mount: {what}")))?
        {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field.as_str(), None),
            };
            let key = key.to_lowercase();
            if let ("from", Some(value)) = (key.as_str(), value) {
                if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                    return Err(bad(
                        "'from' doesn't support variable expansion, define alias stage instead"
                            .to_owned(),
                    ));
                }
                mount.from = (!value.is_empty()).then(|| Word::new(value, flag.span));
            }
            mount.fields.push(MountField {
                key,
                value: value.map(str::to_owned),
            });
        }
        Ok(mount)
    }
}

/// `RUN --device`: the name of a CDI device and whether the build fails without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `name`
    pub name: String,
    /// `required`
    pub required: bool,
    /// The whole flag.
    pub span: Span,
}

impl Device {
    pub(crate) fn parse(flag: &Word) -> Result<Self, ParseError> {
        let bad = |message: String| ParseError::new(ParseErrorKind::BadFlag, flag.span, message);
        let mut name: Option<String> = None;
        let mut required = false;
        for field in
            split_fields(&flag.text).map_err(|what| bad(format!("invalid device: {what}")))?
        {
            match field.split_once('=') {
                None if field.eq_ignore_ascii_case("required") => required = true,
                Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                    required = resolve::parse_bool(value)
                        .ok_or_else(|| bad(format!("invalid value for required: {value}")))?;
                }
                Some((key, value)) if key.eq_ignore_ascii_case("name") => {
                    if let Some(name) = &name {
                        return Err(bad(format!("device name already set to {name}")));
                    }
                    name = Some(value.to_owned());
                }
                // `vendor.com/class=name` is a device name, too.
                _ if name.is_none() => name = Some(field),
                _ => return Err(bad(format!("invalid device field '{field}'"))),
            }
        }
        match name {
            Some(name) if !name.is_empty() => Ok(Self {
                name,
                required,
                span: flag.span,
            }),
            _ => Err(bad("the device has no name".to_owned())),
        }
    }
}

/// One CSV record: fields may be wholly in `"`, where `""` is a quote.
fn split_fields(text: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    if rest.is_empty() {
        return Err("empty value");
    }
    loop {
        if let Some(mut inside) = rest.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let at = inside.find('"').ok_or("a quoted field is not closed")?;
                field.push_str(&inside[..at]);
                inside = &inside[at + 1..];
                match inside.strip_prefix('"') {
                    Some(tail) => {
                        field.push('"');
                        inside = tail;
                    }
                    None => break,
                }
            }
            fields.push(field);
            rest = inside;
            match rest.strip_prefix(',') {
                Some(tail) => rest = tail,
                None if rest.is_empty() => return Ok(fields),
                None => return Err("text behind a quoted field"),
            }
        } else {
            let (field, tail) = match rest.split_once(',') {
                Some((field, tail)) => (field, Some(tail)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err("a quote inside a field that does not start with one");
            }
            fields.push(field.to_owned());
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(fields),
            }
        }
    }
}

#[cfg(test)]
mod tests;
