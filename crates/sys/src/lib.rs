//! Safe wrappers for the kernel calls that firebuild needs and no crate gives.
//!
//! `rustix` is the first choice for a system call. What stands here either has no safe form there, or is a small family of
//! calls that only make sense together (entering a user namespace, making a file system by the new mount API, speaking
//! rtnetlink). All `unsafe` of the workspace is in this crate: every block says why it holds, every function says which
//! manual page or header it follows, takes borrowed descriptors and gives owned ones.
//!
//! | module | family |
//! |---|---|
//! | [`namespace`] | unshare, and joining namespaces by descriptor |
//! | [`process`] | fork of a process with one thread, waiting, death with the parent, leaving without clean-up |
//! | [`idmap`] | id ranges of a user namespace: `/etc/subuid`, `newuidmap` |
//! | [`mount`] | the new mount API, with the kernel's own error text, and attributes of whole mount trees |
//! | [`caps`] | capability sets of the calling thread |
//! | [`seccomp`] | a filter that refuses some system calls |
//! | [`pidfd`] | processes as descriptors |
//! | [`signal`] | signals as a descriptor, masks, default actions |
//! | [`spawn`] | descriptors that a child inherits, at numbers that the parent chooses |
//! | [`confine`] | what a child gives up before it executes its program |
//! | [`rlimit`] | resource limits |
//! | [`solitude`] | whether anybody else has a file open |
//! | [`pty`] | pseudo-terminals |
//! | [`net`] | links, addresses and routes by rtnetlink; taps, bridges, pairs |
//! | [`nftables`] | rules for packets, in transactions |
//! | [`bpf`] | a program that chooses who takes new connections |
//! | [`packet`] | the Ethernet frames of a link |
//! | [`entropy`] | entropy for the kernel's random numbers |
//! | [`uevent`] | the kernel's news about devices |
//! | [`unix`] | how much of what was written to a socket has been read |
//! | [`vsock`] | connections between a machine and its host |
//! | [`module`] | loading kernel modules |
//! | [`reboot`] | the end of a machine |
//!
//! This crate knows nothing of images, builds or virtual machines, and decides nothing: policy is the callers'.

pub mod bpf;
pub mod caps;
pub mod confine;
pub mod entropy;
pub mod idmap;
pub mod module;
pub mod mount;
pub mod namespace;
pub mod net;
mod netlink;
pub mod nftables;
pub mod packet;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod reboot;
pub mod rlimit;
pub mod seccomp;
pub mod signal;
pub mod solitude;
pub mod spawn;
#[cfg(test)]
mod testing;
pub mod uevent;
pub mod unix;
pub mod vsock;
