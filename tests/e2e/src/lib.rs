//! What the end-to-end tests share: the program under test, a home of its own, and loud skips.
//!
//! The tests run `firebuild` as a process, as users do. It is `FIREBUILD_BIN`, else `target/release/firebuild`, else the
//! debug build. Bases and kernels are made once and kept in the target directory; each test gets a home of its own in
//! which they are linked.

pub mod family;
pub mod firecracker;
mod fixtures;
pub mod netns;
mod process;
pub mod servers;
mod skip;
mod terminal;

pub use fixtures::{
    Home, base, base_with, full_base, kernel_deb, left_in_store, static_program, with_base,
};
pub use process::{Done, firebuild, run};
pub use skip::{missing, skip};
pub use terminal::Terminal;
