//! Machines that really boot: QEMU under TCG, the distribution's kernel, and a guest of busybox whose words on the channel
//! are written by the test. Needs `qemu-system-x86_64`, `busybox`, `dpkg-deb` and `FIREBUILD_TEST_KERNEL_DEB`; skips
//! loudly without them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

mod boot;
mod hardware;
mod harness;
mod hostile;
mod network;
mod owner;
mod vsock;
