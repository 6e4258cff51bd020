//! rootfs
pub mod tree;
