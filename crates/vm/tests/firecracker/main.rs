//! Against the real Firecracker and its jailer, which are no part of this project and of no package registry:
//!
//! | variable | names |
//! |---|---|
//! | `FIREBUILD_FIRECRACKER` | `firecracker`, 1.10 or later |
//! | `FIREBUILD_JAILER` | `jailer` of the same release |
//! | `FIREBUILD_FIRECRACKER_KERNEL` | a `vmlinux` with what it needs built in |
//! | `FIREBUILD_FIRECRACKER_KERNEL_ARGS` | parameters that this kernel needs on this host, if any |
//! | `FIREBUILD_FIRECRACKER_SECCOMPILER` | `seccompiler-bin` of the same release |
//! | `FIREBUILD_FIRECRACKER_API` | `firecracker.yaml`, the description of its API |
//!
//! They need root, and a `/dev/kvm` that makes machines, be they good for anything or not: no test here waits for a user
//! space. Without all that they skip loudly. `scripts/nested-kvm` has such a device on any host with QEMU.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

mod boot;
mod config;
mod description;
mod ends;
mod lab;
mod net;
