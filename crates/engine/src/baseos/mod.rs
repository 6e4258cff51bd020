//! Base images from a distribution's own packages: `baseos --bootstrap debian:bookworm`.
//!
//! For machines that reach a package mirror and no registry. The result is an ordinary image of one
//! layer under an ordinary reference, so `FROM debian:bookworm` finds it.
//!
//! ```text
//!  debian:bookworm ─▶ distribution ─▶ suite
//!  /etc/apt ─▶ sources ─▶ mirror ─▶ deb lines ┐
//!  apt-config dump ─▶ apt_config ─▶ proxies … ┤
//!                                             ▼
//!                    tool: mmdebstrap (any user) or debootstrap (root) ─▶ tar or directory
//!                                             ▼
//!                    Tree ─▶ tidy, docker habits or full system ─▶ layer, config, reference in the store
//! ```
//!
//! Everything after the tool works on the tree as a value: no mount, no chown, no root. With
//! `SOURCE_DATE_EPOCH` set, the same packages give the same digest.
//!
//! The maintainer scripts of the packages run as root in a chroot of this host, as with any bootstrap
//! tool; as an ordinary user they run in a user namespace.

mod apt_config;
mod create;
mod distribution;
mod error;
mod full;
mod image;
mod mirror;
mod sources;
mod tidy;
mod tool;

pub use create::{Created, Request, create};
pub use distribution::{Distribution, Family};
pub use error::{BaseOsError, BaseOsErrorKind};
