//! e2fsprogs and the kernel as oracles of the ext4 writer: `e2fsck -fn` finds nothing, a loop mount shows what the
//! source tree holds, and what is changed, grown or shrunk afterwards stays sound.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod images;
mod mounted;
mod shapes;
