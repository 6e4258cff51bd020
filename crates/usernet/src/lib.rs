//! User-mode networking: how a guest that is not trusted reaches the network without root and without the host's loopback.
//!
//! ```text
//! guest ══ Ethernet frames ══ guard ══ passt ══ sockets of the host
//! ```
//!
//! A guest is a virtual machine, or the network namespace of a build's steps. [`guest`] has the addresses it sees and
//! passt's arguments for them, [`guard`] what may pass, [`host`] what all of it depends on, [`publish`] the way in, [`passt`] starts it for a namespace. passt
//! does it where it is installed: out and in, TCP, UDP and ICMP, IPv4 and IPv6. Why passt and why a guard stands in
//! `docs/design/0001-user-network.md`.

pub mod guard;
pub mod guest;
pub mod host;
pub mod meter;
pub mod passt;
pub mod publish;

/// Name of the program that does user-mode networking.
pub const PASST: &str = "passt";
