//! The metadata document that a guest finds at 169.254.169.254, as Firecracker's MMDS serves it.
//!
//! Under a VMM that has no such service, the guest init answers; it has the document from its configuration, and changes
//! come by [`HostMessage::Metadata`](crate::HostMessage::Metadata).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where it is served, on port 80.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The largest document, as compact JSON, in bytes: Firecracker's own limit (`--mmds-size-limit`).
pub const MAX_METADATA_BYTES: usize = 51_200;

/// A document and how it is asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Whether asking takes a token that a PUT gives (version 2).
    pub tokens: bool,
    /// Whether every answer is text, whatever the request accepts (`imds_compat`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text_only: bool,
    /// Kernel modules for the service, in load order: absolute paths in the initrd. The init loads them only when the kernel
    /// does not let it do without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// The document.
    pub document: Document,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The document may hold values of variables.
        f.debug_struct("Metadata")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// A JSON object.
pub type Document = Map<String, Value>;

/// Whether a document is as small as it has to be.
#[must_use]
pub fn fits(document: &Document) -> bool {
    serde_json::to_vec(document).is_ok_and(|text| text.len() <= MAX_METADATA_BYTES)
}

/// Merges `patch` into `document`: a member that is `null` goes, objects are merged, all else takes the place of what is
/// there (RFC 7396).
pub fn merge(document: &mut Document, patch: Document) {
    for (key, value) in patch {
        match (document.get_mut(&key), value) {
            (_, Value::Null) => {
                document.remove(&key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, Value::Object(new)) => {
                let mut fresh = Map::new();
                merge(&mut fresh, new);
                document.insert(key, Value::Object(fresh));
            }
            (_, value) => {
                document.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Document, MAX_METADATA_BYTES, fits, merge};

    fn object(value: Value) -> Document {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_examples_of_rfc_7396() {
        for (document, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
        ] {
            let mut document = object(document);
            merge(&mut document, object(patch));
            assert_eq!(Value::Object(document), expected);
        }
    }

    #[test]
    fn there_is_a_limit() {
        let document = |length| object(json!({ "a": "x".repeat(length) }));
        assert!(fits(&document(MAX_METADATA_BYTES - 8)));
        assert!(!fits(&document(MAX_METADATA_BYTES - 7)));
    }
}
