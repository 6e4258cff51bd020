//! What a monitor is told to run.
//!
//! For a detached instance it crosses from `run` to the monitor as JSON in memory that both share. It holds the values of
//! variables: it is kept, for another start, in a file that only its user reads, and not at all with `--rm`.

use std::path::PathBuf;

use firebuild_guest_proto::RunConfig;
use firebuild_vm::VmSpec;
use serde::{Deserialize, Serialize};

use crate::instance::InstanceId;
use crate::vmm::Chosen;

/// An instance that has been recorded and shall be run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: InstanceId,
    /// The directory of instances.
    pub(crate) instances: PathBuf,
    /// Where the answer of the KVM probe is remembered.
    pub(crate) state: PathBuf,
    /// Where run dirs are.
    pub(crate) runtime: PathBuf,
    /// What runs it.
    pub(crate) vmm: Chosen,
    /// The machine, without its initrd.
    pub(crate) spec: VmSpec,
    pub(crate) guest: RunConfig,
    /// In load order.
    pub(crate) modules: Vec<ModuleFile>,
    /// Those of them that the guest's metadata service may need, by their paths in the guest.
    #[serde(default)]
    pub(crate) metadata_modules: Vec<String>,
    pub(crate) scratch: Scratch,
    /// Names that lead to the gateway of the guest's network.
    #[serde(default)]
    pub(crate) gateway_names: Vec<String>,
    /// Whether the record goes at the end.
    pub(crate) remove: bool,
}

/// A kernel module for the initrd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ModuleFile {
    /// Its name in the guest's directory of modules.
    pub(crate) name: String,
    /// Where it is on the host.
    pub(crate) path: PathBuf,
}

/// The disk that the guest writes to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scratch {
    /// An empty file system, sparse.
    Empty { bytes: u64 },
    /// A copy of the image's disk, sharing its blocks where the host can.
    Copy { of: PathBuf },
}
