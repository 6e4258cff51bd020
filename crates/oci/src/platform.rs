//! Platforms: `os/architecture[/variant]`, and which image of an index fits.
//!
//! Sources: OCI image specification, `image-index.md` ("platform"); normalisation and variants as in
//! containerd/platforms (`normalizeArch`, `platformVector`). Unlike containerd's `Only`, another architecture that
//! the processor could also run (386 on amd64, arm on arm64) never fits: a VM has one kernel and one init.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::descriptor::null_default;

/// An operating system and a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Processor, in Go's spelling (`amd64`, `arm64`).
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// Operating system (`linux`).
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// Variant of the processor (`v7`), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system; in use on Windows.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Features that the operating system must have; in use on Windows.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
}

impl Platform {
    /// `linux` on the processor that this program runs on.
    pub fn host() -> Self {
        Self::linux(std::env::consts::ARCH)
    }

    /// `linux` on `architecture`, normalised.
    pub fn linux(architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            ..Self::default()
        }
        .normalised()
    }

    /// The one spelling of a platform: `x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `armhf` is
    /// `arm/v7`; plain `arm` means `arm/v7`.
    pub fn normalised(&self) -> Self {
        let mut out = self.clone();
        out.os = match out.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let variant = self
            .variant
            .as_deref()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let (architecture, variant) = match (
            self.architecture.to_ascii_lowercase().as_str(),
            variant.as_str(),
        ) {
            ("i386" | "x86" | "386", _) => ("386".to_owned(), String::new()),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64".to_owned(), String::new()),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64".to_owned(), variant.to_owned()),
            ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64".to_owned(), String::new()),
            ("aarch64" | "arm64", variant) => ("arm64".to_owned(), variant.to_owned()),
            ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
            ("armel", _) => ("arm".to_owned(), "v6".to_owned()),
            ("arm", "" | "7") => ("arm".to_owned(), "v7".to_owned()),
            ("arm", "5" | "6" | "8") => ("arm".to_owned(), format!("v{variant}")),
            ("riscv64gc", variant) => ("riscv64".to_owned(), variant.to_owned()),
            ("powerpc64le", variant) => ("ppc64le".to_owned(), variant.to_owned()),
            (architecture, variant) => (architecture.to_owned(), variant.to_owned()),
        };
        out.architecture = architecture;
        out.variant = (!variant.is_empty()).then_some(variant);
        out
    }

    /// How well an image for `offered` fits when `self` is wanted: 0 is exact, higher is worse, `None` does not run.
    ///
    /// Lower variants of the same architecture run (`arm/v6` on `arm/v7`, `amd64` on `amd64/v3`), the highest of
    /// them first. A wanted `os.version` must be met exactly; features that `offered` needs must be among ours.
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.normalised(), offered.normalised());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        if wanted.os_version.is_some() && wanted.os_version != offered.os_version {
            return None;
        }
        if !offered
            .os_features
            .iter()
            .all(|feature| wanted.os_features.contains(feature))
        {
            return None;
        }
        if wanted.variant == offered.variant {
            return Some(0);
        }
        match (wanted.level(), offered.level()) {
            (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            _ => None,
        }
    }

    /// The variant as a number that can be compared, where the variants of the architecture are ordered.
    fn level(&self) -> Option<u32> {
        let base = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            "arm" => 7,
            _ => return None,
        };
        let Some(variant) = &self.variant else {
            return Some(base * 100);
        };
        let number = variant.strip_prefix('v')?;
        let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        (major < 100 && minor < 100).then_some(major * 100 + minor)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os/architecture[/variant]`, or an architecture alone (`arm64`), which means linux.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = |reason| PlatformError {
            text: text.chars().take(100).collect(),
            reason,
        };
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if part.is_empty() {
                return Err(error("a part is empty"));
            }
            if part.len() > 64 || !part.chars().all(ok) {
                return Err(error(
                    "a part has characters other than letters, digits, '_', '-' and '.'",
                ));
            }
        }
        let host;
        let (os, architecture, variant) = match parts.as_slice() {
            [one] => match one.to_ascii_lowercase().as_str() {
                "linux" | "windows" | "darwin" | "macos" | "freebsd" => {
                    host = Self::host();
                    (*one, host.architecture.as_str(), host.variant.clone())
                }
                known if ARCHITECTURES.contains(&known) => ("linux", *one, None),
                _ => {
                    return Err(error(
                        "it is neither an operating system nor an architecture",
                    ));
                }
            },
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some((*variant).to_owned())),
            _ => return Err(error("the form is os/architecture[/variant]")),
        };
        Ok(Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant,
            ..Self::default()
        }
        .normalised())
    }
}

/// What may stand for a platform alone, in any spelling; with a system in front everything may.
const ARCHITECTURES: [&str; 27] = [
    "386", "aarch64", "amd64", "arm", "arm64", "arm64be", "armbe", "armel", "armhf", "i386",
    "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc", "ppc64", "ppc64le", "riscv",
    "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm", "x86-64", "x86_64",
];

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {text:?}: {reason}")]
pub struct PlatformError {
    text: String,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn one_spelling() {
        for (text, wanted) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(text).to_string(), wanted, "{text}");
            assert_eq!(platform(wanted), platform(text));
        }
    }

    #[test]
    fn refused() {
        for text in ["", "plan9", "linux/", "/amd64", "a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ranks() {
        for (wanted, offered, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(100)),
            ("linux/amd64/v3", "linux/amd64", Some(200)),
            ("linux/arm/v7", "linux/arm/v6", Some(100)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm/v7", None),
            ("linux/amd64", "linux/386", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
        ] {
            assert_eq!(
                platform(wanted).rank(&platform(offered)),
                rank,
                "{wanted} {offered}"
            );
        }
    }

    #[test]
    fn hostile_variants_do_not_panic() {
        let wanted = platform("linux/arm/v7");
        for variant in ["", "v", "é", "v99999999999", "v1.", "v1.2.3"] {
            let offered = Platform {
                variant: Some(variant.to_owned()),
                ..platform("linux/arm/v7")
            };
            let _ = wanted.rank(&offered);
        }
    }

    #[test]
    fn json_has_dotted_names() {
        let text = r#"{"architecture":"amd64","os":"windows","os.version":"10.0.1","os.features":["win32k"]}"#;
        let platform: Platform = serde_json::from_str(text).unwrap();
        assert_eq!(platform.os_version.as_deref(), Some("10.0.1"));
        assert_eq!(serde_json::to_string(&platform).unwrap(), text);
    }
}
