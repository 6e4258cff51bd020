//! Networks of machines: what the host offers, user-mode networking, the guard that keeps a guest off the host's loopback.
//!
//! Private bridges will stand beside [`user`], as another variant of [`crate::spec::Network`].

pub mod guard;
pub mod host;
pub mod ports;
pub mod user;
