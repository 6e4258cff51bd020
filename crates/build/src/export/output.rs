//! `--output`: what a build shall leave besides its name in the store.
//!
//! The text is that of `docker buildx build --output`: `type=KIND,key=value,…` as one line of CSV, or a bare path for a
//! directory, or `-` for a tar on standard output.

use std::path::PathBuf;

/// One requested result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Where it goes.
    pub dest: Dest,
    /// Times later than the epoch of the build become that epoch.
    pub rewrite_timestamp: bool,
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// A bootable ext4 image.
    Ext4,
    /// An OCI image layout, as a tar or as a directory.
    Oci {
        /// A tar file and not a directory.
        tar: bool,
        /// How its layers are compressed.
        compression: Compression,
    },
    /// All files as one tar.
    Tar,
    /// All files as a directory.
    Dir,
}

impl OutputKind {
    /// The word of `type=`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Oci { .. } => "oci",
            Self::Tar => "tar",
            Self::Dir => "dir",
        }
    }
}

/// How the layers of an exported image are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// gzip, which every tool reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    Uncompressed,
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// A file or directory.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// An `--output` that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid output {text:?}: {why}")]
pub struct OutputError {
    text: String,
    why: String,
}

impl Output {
    /// Reads an `--output`.
    ///
    /// # Errors
    /// When the type or a key is unknown, a value is wrong, or `dest` is missing.
    pub fn parse(text: &str) -> Result<Self, OutputError> {
        let fail = |why: String| OutputError {
            text: text.to_owned(),
            why,
        };
        if text == "-" {
            return Ok(Self {
                kind: OutputKind::Tar,
                dest: Dest::Stdout,
                rewrite_timestamp: false,
            });
        }
        if !text.contains('=') {
            if text.is_empty() {
                return Err(fail("it is empty".to_owned()));
            }
            return Ok(Self {
                kind: OutputKind::Dir,
                dest: Dest::Path(text.into()),
                rewrite_timestamp: false,
            });
        }
        let mut kind = None;
        let mut dest = None;
        let mut rewrite_timestamp = false;
        let mut as_tar = true;
        let mut compression = Compression::Gzip;
        for field in csv(text).map_err(fail)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(fail(format!("{field:?} is not key=value")));
            };
            match key.to_ascii_lowercase().as_str() {
                "type" => kind = Some(value.to_owned()),
                "dest" | "dst" | "destination" => dest = Some(value.to_owned()),
                "rewrite-timestamp" => rewrite_timestamp = truth(value).map_err(fail)?,
                "tar" => as_tar = truth(value).map_err(fail)?,
                "compression" => {
                    compression = match value {
                        "gzip" => Compression::Gzip,
                        "zstd" => Compression::Zstd,
                        "uncompressed" => Compression::Uncompressed,
                        other => {
                            return Err(fail(format!(
                                "unknown compression {other:?}: gzip, zstd or uncompressed"
                            )));
                        }
                    }
                }
                other => return Err(fail(format!("unknown key {other:?}"))),
            }
        }
        let kind = match kind.as_deref() {
            Some("ext4") => OutputKind::Ext4,
            Some("oci") => OutputKind::Oci {
                tar: as_tar,
                compression,
            },
            Some("tar") => OutputKind::Tar,
            Some("dir" | "local") => OutputKind::Dir,
            Some(other) => {
                return Err(fail(format!(
                    "unknown type {other:?}: ext4, oci, tar or dir"
                )));
            }
            None => return Err(fail("type= is missing".to_owned())),
        };
        let streams = matches!(kind, OutputKind::Tar | OutputKind::Oci { tar: true, .. });
        let dest = match dest.as_deref() {
            Some("-") if streams => Dest::Stdout,
            Some("-") => return Err(fail("this type cannot go to standard output".to_owned())),
            Some("") | None if streams => Dest::Stdout,
            Some("") | None => return Err(fail("dest= is missing".to_owned())),
            Some(path) => Dest::Path(path.into()),
        };
        Ok(Self {
            kind,
            dest,
            rewrite_timestamp,
        })
    }
}

impl Output {
    /// Whether it goes to standard output, which then carries nothing else.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.dest == Dest::Stdout
    }
}

pub(crate) fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

/// The fields of one line of CSV; quotes stand around a whole field and are doubled inside.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::{Compression, Dest, Output, OutputKind};

    fn path(text: &str) -> Dest {
        Dest::Path(text.into())
    }

    #[test]
    fn forms() {
        let parse = |text| Output::parse(text).unwrap();
        assert_eq!(parse("type=ext4,dest=a b.img").dest, path("a b.img"));
        assert_eq!(parse("out").kind, OutputKind::Dir);
        assert_eq!(
            parse("-"),
            Output {
                kind: OutputKind::Tar,
                dest: Dest::Stdout,
                rewrite_timestamp: false
            }
        );
        assert_eq!(parse("type=local,dest=x").kind, OutputKind::Dir);
        assert_eq!(
            parse("type=oci,tar=false,\"dest=a,b\",compression=zstd"),
            Output {
                kind: OutputKind::Oci {
                    tar: false,
                    compression: Compression::Zstd
                },
                dest: path("a,b"),
                rewrite_timestamp: false
            }
        );
        assert!(parse("type=oci,dest=x,rewrite-timestamp=true").rewrite_timestamp);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("type=qcow3,dest=x", "unknown type"),
            ("type=ext4", "dest= is missing"),
            ("dest=x", "type= is missing"),
            ("type=tar,dest=x,foo=1", "unknown key"),
            ("type=dir,dest=-", "standard output"),
            ("type=tar,\"dest=x", "quote"),
        ] {
            let message = Output::parse(text).unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
