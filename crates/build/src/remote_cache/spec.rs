//! `--cache-from` and `--cache-to` as text, in the words of `docker buildx build`.

use std::path::PathBuf;

use firebuild_oci::{Digest, Reference};

use crate::export::{Compression, csv, truth};

/// Where step results come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// An OCI image layout.
    Local {
        /// The layout.
        src: PathBuf,
        /// Which entry of it, by tag.
        tag: String,
        /// Which entry of it, by digest; it goes before the tag.
        digest: Option<Digest>,
    },
    /// A cache, or an image with an inline cache, in a registry.
    Registry(Reference),
}

/// Where step results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// The place.
    pub to: To,
    /// Of which steps.
    pub mode: Mode,
    /// How layers are compressed.
    pub compression: Compression,
    /// A failure does not fail the build.
    pub ignore_error: bool,
}

/// The place of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// An OCI image layout.
    Local {
        /// Its directory; what is there stays.
        dest: PathBuf,
        /// The name in it.
        tag: String,
    },
    /// A registry.
    Registry(Reference),
    /// The image's own configuration.
    Inline,
}

/// Which steps are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Those whose layers the result has.
    #[default]
    Min,
    /// All, those of other stages too.
    Max,
}

/// A cache option that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid {flag} {text:?}: {why}")]
pub struct CacheError {
    flag: &'static str,
    text: String,
    why: String,
}

/// `key=value` fields, with the type taken out.
struct Fields {
    kind: String,
    rest: Vec<(String, String)>,
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        // The short form: a name.
        if !text.contains('=') {
            return Ok(Self {
                kind: "registry".to_owned(),
                rest: vec![("ref".to_owned(), text.to_owned())],
            });
        }
        let mut fields = Self {
            kind: String::new(),
            rest: Vec::new(),
        };
        for field in csv(text)? {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| format!("{field:?} is not key=value"))?;
            match key.to_ascii_lowercase().as_str() {
                "type" => fields.kind = value.to_ascii_lowercase(),
                key => fields.rest.push((key.to_owned(), value.to_owned())),
            }
        }
        if fields.kind.is_empty() {
            return Err("it has no type: type=local, type=registry or type=inline".to_owned());
        }
        Ok(fields)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.rest.iter().rposition(|(name, _)| name == key)?;
        let value = self.rest.remove(at).1;
        self.rest.retain(|(name, _)| name != key);
        Some(value)
    }

    fn need(&mut self, key: &str) -> Result<String, String> {
        self.take(key)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("type={} needs {key}=…", self.kind))
    }

    fn reference(&mut self) -> Result<Reference, String> {
        let text = self.need("ref")?;
        text.parse()
            .map_err(|error| format!("ref={text} is no image reference: {error}"))
    }

    /// Everything must have been understood.
    fn end(self) -> Result<(), String> {
        match self.rest.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("type={} has no {key}", self.kind)),
        }
    }

    fn unknown(&self) -> String {
        format!(
            "there is no type {:?}, only local, registry and inline",
            self.kind
        )
    }
}

impl CacheFrom {
    /// Reads a `--cache-from`: `type=local,src=DIR[,tag=TAG][,digest=DIGEST]`, `type=registry,ref=REF`, or `REF`.
    ///
    /// # Errors
    /// When the type or a key is unknown, or one is missing.
    pub fn parse(text: &str) -> Result<Self, CacheError> {
        Self::read(text).map_err(|why| CacheError {
            flag: "--cache-from",
            text: text.to_owned(),
            why,
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let from = match fields.kind.as_str() {
            "local" => Self::Local {
                src: fields.need("src")?.into(),
                tag: fields.take("tag").unwrap_or_else(latest),
                digest: match fields.take("digest") {
                    None => None,
                    Some(text) => Some(
                        text.parse()
                            .map_err(|error| format!("digest={text}: {error}"))?,
                    ),
                },
            },
            "registry" => Self::Registry(fields.reference()?),
            "inline" => {
                return Err("an inline cache is in an image: type=registry,ref=IMAGE".to_owned());
            }
            _ => return Err(fields.unknown()),
        };
        fields.end()?;
        Ok(from)
    }
}

impl std::fmt::Display for CacheFrom {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { src, .. } => write!(out, "{}", src.display()),
            Self::Registry(reference) => write!(out, "{}", reference.familiar()),
        }
    }
}

impl std::fmt::Display for CacheTo {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.to {
            To::Local { dest, .. } => write!(out, "{}", dest.display()),
            To::Registry(reference) => write!(out, "{}", reference.familiar()),
            To::Inline => out.write_str("the image"),
        }
    }
}

impl CacheTo {
    /// Reads a `--cache-to`: `type=local,dest=DIR[,tag=TAG]`, `type=registry,ref=REF`, `type=inline`, or `REF`; each with
    /// `mode=min|max`, `compression=gzip|zstd|uncompressed` and `ignore-error=BOOL` where they make sense.
    ///
    /// # Errors
    /// When the type or a key is unknown, a value is wrong, or one is missing.
    pub fn parse(text: &str) -> Result<Self, CacheError> {
        Self::read(text).map_err(|why| CacheError {
            flag: "--cache-to",
            text: text.to_owned(),
            why,
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let to = match fields.kind.as_str() {
            "local" => To::Local {
                dest: fields.need("dest")?.into(),
                tag: fields.take("tag").unwrap_or_else(latest),
            },
            "registry" => To::Registry(fields.reference()?),
            "inline" => To::Inline,
            _ => return Err(fields.unknown()),
        };
        let mode = match fields.take("mode").as_deref() {
            None | Some("min") => Mode::Min,
            Some("max") if to == To::Inline => {
                return Err(
                    "an inline cache knows the steps of its image only: mode=min".to_owned(),
                );
            }
            Some("max") => Mode::Max,
            Some(other) => return Err(format!("mode={other} is neither min nor max")),
        };
        let compression = match fields.take("compression").as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Uncompressed,
            Some(other) => {
                return Err(format!(
                    "compression={other} is none of gzip, zstd, uncompressed"
                ));
            }
        };
        let ignore_error = match fields.take("ignore-error") {
            None => false,
            Some(value) => truth(&value)?,
        };
        // What ours always are.
        for (key, always) in [("oci-mediatypes", true), ("image-manifest", true)] {
            if let Some(value) = fields.take(key)
                && truth(&value)? != always
            {
                return Err(format!("{key}={value} is not supported"));
            }
        }
        fields.end()?;
        Ok(Self {
            to,
            mode,
            compression,
            ignore_error,
        })
    }
}

fn latest() -> String {
    "latest".to_owned()
}

#[cfg(test)]
mod tests {
    use super::{CacheFrom, CacheTo, Mode, To};
    use crate::export::Compression;

    #[test]
    fn sources() {
        let local = CacheFrom::parse(
            "type=local,src=/a,digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
        let Ok(CacheFrom::Local { src, tag, digest }) = local else {
            panic!("{local:?}")
        };
        assert_eq!((src.to_str(), tag.as_str()), (Some("/a"), "latest"));
        assert!(digest.is_some());
        let short = CacheFrom::parse("me/app:cache").unwrap();
        assert_eq!(
            CacheFrom::parse("type=registry,ref=me/app:cache").unwrap(),
            short
        );
        for (text, why) in [
            ("", "empty"),
            ("src=/a", "no type"),
            ("type=local", "needs src"),
            ("type=local,src=/a,mode=max", "has no mode"),
            ("type=s3,bucket=x", "only local, registry and inline"),
            ("type=inline", "type=registry,ref=IMAGE"),
            ("type=registry,ref=A B", "no image reference"),
            ("type=local,src=/a,digest=x", "digest=x"),
        ] {
            let error = CacheFrom::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn destinations() {
        let to = CacheTo::parse("type=local,dest=/b,mode=max,compression=zstd,ignore-error=true");
        let to = to.unwrap();
        assert_eq!((to.mode, to.compression), (Mode::Max, Compression::Zstd));
        assert!(to.ignore_error);
        assert!(matches!(
            CacheTo::parse("me/app:cache").unwrap().to,
            To::Registry(_)
        ));
        assert_eq!(CacheTo::parse("type=inline").unwrap().to, To::Inline);
        for (text, why) in [
            ("type=local,src=/a", "needs dest"),
            ("type=inline,mode=max", "mode=min"),
            ("type=local,dest=/a,mode=all", "neither min nor max"),
            ("type=local,dest=/a,compression=xz", "none of gzip"),
            ("type=local,dest=/a,image-manifest=false", "not supported"),
            ("type=gha", "only local, registry and inline"),
        ] {
            let error = CacheTo::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
