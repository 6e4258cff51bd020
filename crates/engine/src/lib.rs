//! The use cases of firebuild, one function each, over all the other libraries.
//!
//! A use case takes plain values and an event sink, and gives a plain value or an error. It knows
//! nothing of terminals, argument syntax or HTTP, and it neither parses nor encodes anything itself.
//!
//! | module | use cases |
//! |---|---|
//! | [`paths`], [`config`] | where things live on this host |
//! | [`build`], [`cancel`] | build a Dockerfile, and stop it |
//! | [`microvm_executor`] | RUN steps of a build in VMs |
//! | [`images`] | list, show, load and remove images |
//! | [`baseos`] | base images from a distribution's packages |
//! | [`kernel`] | import, list and remove guest kernels |
//! | [`profile`], [`storage`] | profiles and catalogue directories of the original |
//! | [`run`] | run an image in a VM, in the foreground or detached |
//! | [`ls`], [`inspect`], [`logs`], [`wait`] | look at instances |
//! | [`mmds`] | the metadata that guests find |
//! | [`start`] | start them again |
//! | [`session`] | work with a VM that runs: programs, copies, statistics |
//! | [`stop`], [`kill`], [`rm`], [`purge`] | end and remove them |
//! | [`room`] | what takes how much room, and making some |
//!
//! Beneath them: [`instance`] is what is known about a VM on disk, [`monitor`] the process that owns one.

mod add_host;
pub mod baseos;
pub mod build;
pub mod cancel;
pub mod config;
pub mod error;
pub mod event;
pub mod images;
pub mod inspect;
pub mod instance;
pub mod kernel;
pub mod kill;
pub mod log_file;
pub mod logs;
pub mod ls;
pub mod microvm_executor;
pub mod mmds;
pub mod monitor;
pub mod paths;
pub mod profile;
pub mod purge;
pub mod rm;
pub mod room;
pub mod run;
pub mod session;
mod sparse;
pub mod start;
pub mod stop;
pub mod storage;
mod sweep;
#[cfg(test)]
mod testing;
pub mod vmm;
pub mod wait;
