//! Profiles: flags that are kept in a file, under a name. The format and its keys are the original's.
//!
//! ```text
//! /etc/firebuild/profiles/            0755; for an ordinary user $XDG_CONFIG_HOME/firebuild/profiles
//! └── standard                        0644, compact JSON, written aside and renamed into place
//! ```
//!
//! A profile only fills what nobody else says: a flag beats the environment, that beats the profile, and
//! that beats the default. The original let the profile win.
//!
//! | key | meaning |
//! |---|---|
//! | `run-cache` | directory of the records of VMs |
//! | `storage-provider` | `directory`, the only kind |
//! | `storage-profile-config-strings` | `kernel-storage-root`, `rootfs-storage-root` |
//! | `storage-profile-config-int64` | kept; the `directory` provider has none |
//! | `binary-firecracker`, `binary-jailer`, `chroot-base` | kept for Firecracker; QEMU has no use for them |
//! | `tracing-enable`, `tracing-collector-host-port`, `tracing-log-enable` | kept |

mod create;
mod directory;
mod error;
mod inspect;
mod ls;
mod record;
mod rm;
#[cfg(test)]
mod tests;

pub use create::{Created, create};
pub use directory::ProfileDir;
pub use error::{ProfileError, ProfileErrorKind};
pub use inspect::inspect;
pub use ls::{Listing, ls};
pub use record::{KERNEL_ROOT, Profile, ROOTFS_ROOT};
pub use rm::rm;
