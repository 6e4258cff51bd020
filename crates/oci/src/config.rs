//! The image config: how the image was made and what to run in it.
//!
//! Sources: OCI image specification, `config.md`; Docker's additions (`Healthcheck`, `OnBuild`, `Shell`,
//! `ArgsEscaped`) from moby's image specification 1.2. Where Docker tells `null` from `[]` (`Cmd: []` clears an
//! inherited command), so do we: `None` is absent or `null`, `Some(vec![])` is empty, and `None` is not written.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::descriptor::null_default;
use crate::document::{DocumentError, DocumentErrorKind, MAX_CONFIG_BYTES, MAX_ENTRIES};
use crate::document::{check_len, json};
use crate::{Digest, Platform};

/// An image config document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it runs on: `architecture`, `os`, `variant`, `os.version`, `os.features`.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it.
    #[serde(default, deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// The steps that made it, oldest first.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    /// Fields that are not known here, kept as they are.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// The config of an image without layers for `platform`.
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            ..Self::default()
        }
    }

    /// Reads an image config.
    ///
    /// # Errors
    /// Not JSON, larger than [`MAX_CONFIG_BYTES`], or a field of the wrong type.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        check_len("image config", bytes, MAX_CONFIG_BYTES)?;
        let config: Self = json("image config", bytes)?;
        if config.rootfs.kind != "layers" {
            return Err(DocumentError::new(
                DocumentErrorKind::Unsupported,
                format!("rootfs type {:?} is not \"layers\"", config.rootfs.kind),
            ));
        }
        if config.rootfs.diff_ids.len() > MAX_ENTRIES {
            return Err(DocumentError::new(
                DocumentErrorKind::TooLarge,
                format!(
                    "image has {} layers, more than {MAX_ENTRIES}",
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        Ok(config)
    }

    /// The bytes of the document; the same value always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("configs have text keys and no failing serialisers")
    }
}

/// What to run in an image, and how: the `config` object. Field names are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers; empty means root.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `port/protocol` of each EXPOSE.
    #[serde(
        default,
        deserialize_with = "read_set",
        serialize_with = "write_set",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value` in the order in which they were set.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command, or further arguments to the entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths of volumes.
    #[serde(
        default,
        deserialize_with = "read_set",
        serialize_with = "write_set",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub volumes: BTreeSet<String>,
    /// Directory to start in; empty means `/`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Labels.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// On Windows: the command line is already escaped. BuildKit sets it with every CMD.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_false"
    )]
    pub args_escaped: bool,
    /// How to tell whether the program is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images that are built from this one.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// The shell of the shell form, if SHELL was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Fields that are not known here, kept as they are.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl ContainerConfig {
    /// The value of an environment variable, if it is set.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            (key == name).then_some(value)
        })
    }

    /// Sets an environment variable: in its old place if it is there, else at the end (as Docker does).
    pub fn set_env(&mut self, name: &str, value: &str) {
        let text = format!("{name}={value}");
        let same = |entry: &&mut String| {
            entry
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        match self.env.iter_mut().find(same) {
            Some(entry) => *entry = text,
            None => self.env.push(text),
        }
    }
}

/// HEALTHCHECK. Durations are nanoseconds, 0 means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`; empty inherits.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// Time between two checks, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks in the start period, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields that are not known here, kept as they are.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The layers of an image by the digests of their uncompressed bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "layers")]
    pub kind: String,
    /// Diff IDs, lowest layer first.
    #[serde(default, deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: layers(),
            diff_ids: Vec::new(),
        }
    }
}

fn layers() -> String {
    "layers".to_owned()
}

/// One step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark, usually the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_false"
    )]
    pub empty_layer: bool,
    /// Fields that are not known here, kept as they are.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Go writes a set as an object with empty objects.
fn read_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let map: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

fn write_set<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Empty {}
    serializer.collect_map(set.iter().map(|key| (key, Empty {})))
}

#[cfg(test)]
mod tests;
