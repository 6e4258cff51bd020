//! [`RunConfig`]: what the guest init shall run, and in what surroundings.
//!
//! The host writes it as JSON into the initrd (a cpio archive of its own after the one that holds the init), at
//! [`crate::CONFIG_PATH`]. It can hold secrets (values of `env`, the entropy seed): the file is 0600 on the host
//! and gone there once the guest has acknowledged it; in the guest it is wiped before the application starts.
//! `Debug` and [`RunConfig::masked`] show no values of variables.
//!
//! Host and guest init come from one build, so the document is strict: another version or an unknown field is
//! an error.

mod error;
mod validate;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
use crate::hex;
use crate::metadata::Metadata;
use crate::net::Interface;
use crate::signal::Signal;

pub use error::ConfigError;

/// The version of the document that this build writes and reads.
pub const RUN_CONFIG_VERSION: u32 = 1;
/// The longest document that is read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;
/// The longest host name that Linux takes (`__NEW_UTS_LEN`), in bytes.
pub const MAX_HOSTNAME_BYTES: usize = 64;

/// What the guest runs and the surroundings it runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Always [`RUN_CONFIG_VERSION`].
    pub version: u32,
    /// The program and its arguments; the program is looked up in the `PATH` of `env` unless it holds a `/`.
    pub argv: Vec<String>,
    /// The environment, in order, each name once. `HOME` is added where it is missing.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// The working directory, absolute; made if it is missing. Empty means `/`.
    #[serde(default)]
    pub cwd: String,
    /// The user as USER of a Dockerfile writes it (`name`, `uid`, `name:group`, …); empty means root.
    #[serde(default)]
    pub user: String,
    /// The name of the machine, also written to `/etc/hostname` and `/etc/hosts`.
    pub hostname: String,
    /// More lines of `/etc/hosts`, after those for localhost and the host name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostEntry>,
    /// What `/etc/resolv.conf` says; without it the image's file stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Resolver>,
    /// Names of variables of `env` that login shells get too, by `/etc/profile.d/run-env.sh`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub login_env: Vec<String>,
    /// Accounts that are to be entered by a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<Account>,
    /// The interfaces beside `lo`, which is always there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// What becomes the root file system.
    pub root: RootLayout,
    /// Kernel modules to load, in this order: absolute paths in the initrd.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// A terminal of this size for the application; without it, stdio are pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<WindowSize>,
    /// Whether stdin is carried over the channel; if not, the application reads from `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// The signal that asks the application to end.
    #[serde(default = "default_stop_signal")]
    pub stop_signal: Signal,
    /// The image's own init, if it is to be process 1 in place of the guest init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInit>,
    /// How to see whether the application is well; nothing looks without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// The metadata service that the guest init gives; none where the VMM gives it, or nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The host's time when the document was written, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_unix_ns: Option<u64>,
    /// Random bytes from the host, credited to the guest's entropy pool.
    #[serde(default, with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub entropy: Vec<u8>,
    /// How much the guest init tells.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Where the channel to the host is.
    pub channel: Channel,
}

fn default_stop_signal() -> Signal {
    Signal::TERM
}

/// One variable of the environment. `Debug` shows its name only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Not empty, without `=`.
    pub name: String,
    /// Any text without NUL.
    pub value: String,
}

impl EnvVar {
    /// Splits `NAME=value` at the first `=`; none for a text without `=` or without a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<EnvVar> {
        let (name, value) = text.split_once('=')?;
        (!name.is_empty()).then(|| EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// The address.
    pub address: IpAddr,
    /// Its names, at least one.
    pub names: Vec<String>,
}

/// What `/etc/resolv.conf` shall say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolver {
    /// The name servers, in order of use.
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    /// The search list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// The words of the `options` line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The image's own init as process 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemInit {
    /// It and its arguments; empty means the one that the image has in a usual place.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Whether `argv` of the configuration is an application to be run beside it.
    #[serde(default)]
    pub application: bool,
}

/// An account that is to be entered by keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Public keys, as lines of `authorized_keys`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Whether it is made if the image does not have it.
    #[serde(default)]
    pub create: bool,
}

/// What the guest makes its root file system of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RootLayout {
    /// The image is read-only and shared; an overlay over it keeps what is written on the scratch disk (ext4).
    Overlay {
        /// The disk of the image.
        image: DiskRef,
        /// The file system of the image; `ext4` unless it says otherwise.
        #[serde(default = "default_filesystem")]
        filesystem: String,
        /// The disk that is written to.
        scratch: DiskRef,
    },
    /// A copy of the image that belongs to this machine alone, mounted writable; for kernels without overlayfs.
    Private {
        /// The disk of the copy.
        disk: DiskRef,
        /// Its file system; `ext4` unless it says otherwise.
        #[serde(default = "default_filesystem")]
        filesystem: String,
    },
    /// No disk: the application lives in the initrd itself.
    Initrd,
    /// The guest runs steps of a build, not an application: it takes tasks from the host until the machine ends, and
    /// `argv` and what else concerns an application means nothing.
    Steps {
        /// The disk with the files that most steps begin with; none where they begin with nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<DiskRef>,
        /// The disk that is written to.
        scratch: DiskRef,
    },
}

/// What [`RootLayout`] means by a file system that is not named.
#[must_use]
pub fn default_filesystem() -> String {
    "ext4".to_owned()
}

impl RootLayout {
    /// The usual layout: image and scratch disk by the serial numbers of this crate.
    #[must_use]
    pub fn overlay() -> RootLayout {
        RootLayout::Overlay {
            image: DiskRef::Serial(crate::ROOT_DISK_SERIAL.to_owned()),
            filesystem: default_filesystem(),
            scratch: DiskRef::Serial(crate::SCRATCH_DISK_SERIAL.to_owned()),
        }
    }

    /// A private copy, by the serial number of this crate.
    #[must_use]
    pub fn private() -> RootLayout {
        RootLayout::Private {
            disk: DiskRef::Serial(crate::ROOT_DISK_SERIAL.to_owned()),
            filesystem: default_filesystem(),
        }
    }
}

/// How the guest finds a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRef {
    /// By the serial number that the VMM gives it (QEMU).
    Serial(String),
    /// By its place among the virtio disks, 0 is `vda` (Firecracker, whose ids the guest does not see as serials of
    /// our choice). At most 25.
    Index(u8),
}

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// How much the guest init tells, on the console and over the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What makes it fail.
    Error,
    /// Also what it had to leave out.
    #[default]
    Warning,
    /// Also each step with its time.
    Debug,
}

/// Where the channel to the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Channel {
    /// A virtio-serial port, by its name.
    VirtioSerial {
        /// The name that the VMM gave the port, usually [`crate::CHANNEL_PORT_NAME`].
        name: String,
    },
    /// A vsock connection that the guest opens to the host (CID 2).
    Vsock {
        /// The port on which the host listens.
        port: u32,
    },
}

impl Channel {
    /// The virtio-serial port of the usual name.
    #[must_use]
    pub fn virtio_serial() -> Channel {
        Channel::VirtioSerial {
            name: crate::CHANNEL_PORT_NAME.to_owned(),
        }
    }
}

impl RunConfig {
    /// The smallest configuration: `argv` as root in `/`, everything else at its default.
    #[must_use]
    pub fn new(
        argv: Vec<String>,
        hostname: String,
        root: RootLayout,
        channel: Channel,
    ) -> RunConfig {
        RunConfig {
            version: RUN_CONFIG_VERSION,
            argv,
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            hostname,
            hosts: Vec::new(),
            resolver: None,
            login_env: Vec::new(),
            accounts: Vec::new(),
            interfaces: Vec::new(),
            root,
            modules: Vec::new(),
            terminal: None,
            stdin: false,
            stop_signal: Signal::TERM,
            system: None,
            health: None,
            metadata: None,
            clock_unix_ns: None,
            entropy: Vec::new(),
            log_level: LogLevel::default(),
            channel,
        }
    }

    /// The document, checked.
    ///
    /// # Errors
    /// A field that the guest could not use, or a document that is too long.
    pub fn to_json(&self) -> Result<Vec<u8>, ConfigError> {
        self.validate()?;
        let json = serde_json::to_vec(self).map_err(ConfigError::Json)?;
        if json.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong { bytes: json.len() });
        }
        Ok(json)
    }

    /// Reads a document and checks it.
    ///
    /// # Errors
    /// A document that is too long, malformed, of another version, or holds what cannot be used.
    pub fn from_json(json: &[u8]) -> Result<RunConfig, ConfigError> {
        if json.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong { bytes: json.len() });
        }
        let config: RunConfig = serde_json::from_slice(json).map_err(ConfigError::Json)?;
        config.validate()?;
        Ok(config)
    }

    /// The same configuration with nothing secret in it: values of variables are `***`, the seed is gone.
    #[must_use]
    pub fn masked(&self) -> RunConfig {
        let mut masked = self.clone();
        for variable in &mut masked.env {
            "***".clone_into(&mut variable.value);
        }
        masked.entropy.clear();
        if let Some(metadata) = &mut masked.metadata {
            metadata.document.clear();
        }
        masked
    }
}

#[cfg(test)]
mod tests;
