//! The file: its keys, and what makes a value acceptable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use firebuild_vm::backend::firecracker::{NAME, longest_chroot_base};
use serde::{Deserialize, Serialize};

use super::error::{ProfileError, ProfileErrorKind};
use crate::error::Error;

/// The storage property that names the directory of kernels.
pub const KERNEL_ROOT: &str = "kernel-storage-root";
/// The storage property that names the directory of root file systems.
pub const ROOTFS_ROOT: &str = "rootfs-storage-root";
/// The only storage provider.
const DIRECTORY: &str = "directory";

/// A profile. Empty values are left out of the file; keys that are not known here are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Profile {
    /// Path of Firecracker.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub binary_firecracker: String,
    /// Path of Firecracker's jailer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub binary_jailer: String,
    /// Base directory of jails.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chroot_base: String,
    /// Directory of the records of VMs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_cache: String,
    /// Kind of the catalogue: `directory`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub storage_provider: String,
    /// Properties of the catalogue.
    #[serde(
        rename = "storage-profile-config-strings",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub storage_strings: BTreeMap<String, String>,
    /// Numbers among the properties of the catalogue.
    #[serde(
        rename = "storage-profile-config-int64",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub storage_numbers: BTreeMap<String, i64>,
    /// Whether to trace.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tracing_enable: bool,
    /// Address of the collector of traces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tracing_collector_host_port: String,
    /// Whether to log what is traced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tracing_log_enable: bool,
}

impl Profile {
    /// The directory of kernels, where one is given.
    #[must_use]
    pub fn kernel_root(&self) -> Option<PathBuf> {
        self.root(KERNEL_ROOT)
    }

    /// The directory of root file systems, where one is given.
    #[must_use]
    pub fn rootfs_root(&self) -> Option<PathBuf> {
        self.root(ROOTFS_ROOT)
    }

    /// The directory of the records of VMs, where one is given.
    #[must_use]
    pub fn run_cache(&self) -> Option<PathBuf> {
        (!self.run_cache.is_empty()).then(|| PathBuf::from(&self.run_cache))
    }

    fn root(&self, key: &str) -> Option<PathBuf> {
        self.storage_strings
            .get(key)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    }

    /// Makes every path absolute: a profile is used from other directories than that in which it was made.
    pub(super) fn absolute(&mut self) {
        let paths = [
            &mut self.binary_firecracker,
            &mut self.binary_jailer,
            &mut self.chroot_base,
            &mut self.run_cache,
        ];
        let roots = self
            .storage_strings
            .iter_mut()
            .filter(|(key, _)| [KERNEL_ROOT, ROOTFS_ROOT].contains(&key.as_str()))
            .map(|(_, path)| path);
        for path in paths.into_iter().chain(roots) {
            if let Some(whole) = std::path::absolute(path.as_str())
                .ok()
                .and_then(|whole| whole.to_str().map(str::to_owned))
            {
                *path = whole;
            }
        }
    }

    /// Checks values before they are kept: programs are files, the base of jails exists and is short
    /// enough, the records' directory may still be made.
    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let wrong = |message: String| Error::new(ProfileErrorKind::Value, message);
        for (flag, path) in [
            ("--binary-firecracker", &self.binary_firecracker),
            ("--binary-jailer", &self.binary_jailer),
        ] {
            if !path.is_empty() && !Path::new(path).is_file() {
                return Err(wrong(format!("{flag} {path} is not an existing file")));
            }
        }
        let chroot = &self.chroot_base;
        let program = Path::new(&self.binary_firecracker).file_name();
        let program = program.and_then(|name| name.to_str()).unwrap_or(NAME);
        let longest = longest_chroot_base(program);
        if chroot.len() > longest {
            return Err(wrong(format!(
                "--chroot-base {chroot} has {} characters, and the sockets in it leave room for \
                 {longest}",
                chroot.len()
            )));
        }
        if chroot == "/" {
            return Err(wrong("--chroot-base cannot be /".to_owned()));
        }
        if !chroot.is_empty() && !Path::new(chroot).is_dir() {
            return Err(wrong(format!(
                "--chroot-base {chroot} is not an existing directory: mkdir -p {chroot}"
            )));
        }
        let cache = &self.run_cache;
        if cache == "/" {
            return Err(wrong("--run-cache cannot be /".to_owned()));
        }
        if !cache.is_empty() && Path::new(cache).exists() && !Path::new(cache).is_dir() {
            return Err(wrong(format!("--run-cache {cache} is not a directory")));
        }
        self.check_provider()
    }

    /// Checks that the catalogue is of a kind that is known here.
    pub(super) fn check_provider(&self) -> Result<(), ProfileError> {
        if self.storage_provider.is_empty() || self.storage_provider == DIRECTORY {
            return Ok(());
        }
        Err(Error::new(
            ProfileErrorKind::Value,
            format!(
                "the storage provider {:?} is not known: there is {DIRECTORY:?} only",
                self.storage_provider
            ),
        ))
    }
}
