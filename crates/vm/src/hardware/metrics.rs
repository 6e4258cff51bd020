//! Where a VMM's metrics go, in the words of Firecracker's `PUT /metrics`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Numbers that the VMM tells of itself: a JSON object a line, every minute and at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The file of the host that they are added to. The launcher writes it, made 0600 where it is missing; the VMM, which
    /// runs as another user and maybe in a jail, never sees it.
    pub metrics_path: PathBuf,
    /// Whether each line has the machine's name as `id`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emit_id: bool,
    /// What each line has as `properties`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}
