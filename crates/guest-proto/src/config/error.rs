//! Why a document is no configuration.

use std::fmt;

use super::MAX_CONFIG_BYTES;

/// A document that is no usable [`super::RunConfig`].
#[derive(Debug)]
pub enum ConfigError {
    /// It is longer than [`MAX_CONFIG_BYTES`].
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It is not the JSON of a [`super::RunConfig`].
    Json(serde_json::Error),
    /// A field holds what the guest cannot use.
    Field {
        /// The field's path, like `interfaces[0].mtu`.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::TooLong { bytes } => {
                write!(
                    f,
                    "run configuration of {bytes} bytes is too long (at most {MAX_CONFIG_BYTES})"
                )
            }
            ConfigError::Json(_) => f.write_str("run configuration cannot be read"),
            ConfigError::Field { field, problem } => {
                write!(f, "run configuration: {field} {problem}")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Json(error) => Some(error),
            ConfigError::TooLong { .. } | ConfigError::Field { .. } => None,
        }
    }
}
