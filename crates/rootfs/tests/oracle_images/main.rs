//! e2fsprogs, erofs-utils and the kernel as oracles of the writers of images: `e2fsck -fn` and `fsck.erofs` find nothing,
//! a loop mount shows what the source tree holds, and what is changed, grown or shrunk afterwards stays sound.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod erofs;
mod images;
mod kept;
mod mounted;
mod shapes;
