//! The arguments of `COPY` and `ADD`.

use super::Request;
use crate::error::{ParseError, ParseErrorKind};
use crate::flag::{FlagKind, FlagTable, Flags};
use crate::heredoc::parse_head;
use crate::instruction::{AddFiles, CopyFiles, Transfer};

const COPY_FLAGS: FlagTable = &[
    ("from", FlagKind::Single),
    ("chown", FlagKind::Single),
    ("chmod", FlagKind::Single),
    ("link", FlagKind::Bool),
    ("parents", FlagKind::Bool),
    ("exclude", FlagKind::Repeated),
];

const ADD_FLAGS: FlagTable = &[
    ("chown", FlagKind::Single),
    ("chmod", FlagKind::Single),
    ("link", FlagKind::Bool),
    ("keep-git-dir", FlagKind::Bool),
    ("checksum", FlagKind::Single),
    ("unpack", FlagKind::Bool),
    ("exclude", FlagKind::Repeated),
];

impl Request<'_> {
    pub(super) fn copy(&self) -> Result<CopyFiles, ParseError> {
        let flags = self.flags(COPY_FLAGS)?;
        Ok(CopyFiles {
            transfer: self.transfer("COPY", &flags)?,
            from: flags.filled("from"),
            parents: flags.boolean("parents").unwrap_or(false),
        })
    }

    pub(super) fn add(&self) -> Result<AddFiles, ParseError> {
        let flags = self.flags(ADD_FLAGS)?;
        Ok(AddFiles {
            transfer: self.transfer("ADD", &flags)?,
            checksum: flags.filled("checksum"),
            keep_git_dir: flags.boolean("keep-git-dir"),
            unpack: flags.boolean("unpack"),
        })
    }

    fn transfer(&self, name: &str, flags: &Flags) -> Result<Transfer, ParseError> {
        let (mut words, is_json) = self.list()?;
        let destination = match (words.pop(), words.is_empty()) {
            (Some(destination), false) => destination,
            _ => {
                return Err(self.error(
                    ParseErrorKind::WrongArguments,
                    format!(
                        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
                    ),
                ));
            }
        };
        if !is_json && parse_head(&destination.text).is_some() {
            return Err(ParseError::new(
                ParseErrorKind::BadArguments,
                destination.span,
                format!("{name} cannot accept a heredoc as a destination"),
            ));
        }
        let mut sources = Vec::with_capacity(words.len());
        let mut files = Vec::new();
        for word in words {
            let head = if is_json {
                None
            } else {
                parse_head(&word.text)
            };
            let Some(head) = head else {
                sources.push(word);
                continue;
            };
            // Of several with one name the last one counts.
            match self.heredocs.iter().rfind(|known| known.name == head.name) {
                Some(heredoc) => files.push(heredoc.clone()),
                None => {
                    return Err(ParseError::new(
                        ParseErrorKind::BadArguments,
                        word.span,
                        format!(
                            "the heredoc {} cannot be read: the line has an open quote or a variable that is no shell syntax",
                            word.text
                        ),
                    ));
                }
            }
        }
        Ok(Transfer {
            sources,
            files,
            destination,
            chown: flags.filled("chown"),
            chmod: flags.filled("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            exclude: flags.repeated("exclude"),
        })
    }
}
