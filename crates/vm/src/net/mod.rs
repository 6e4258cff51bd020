//! Networks of machines. What is common to every guest (addresses, guard, passt) is `firebuild-usernet`.
//!
//! QEMU's own stack is the fallback where passt is not installed; nobody can keep it off the host's loopback but by
//! `restrict=on`, so there only published TCP ports work. The comparison stands in `docs/design/0001-user-network.md`.
//! Root's machines may have a tap on a private bridge instead ([`bridge`], `docs/design/0004-bridge-network.md`).

pub mod bridge;
pub mod ports;
pub(crate) mod slirp;

pub use firebuild_usernet::{guard, guest, host};
