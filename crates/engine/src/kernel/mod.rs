//! Guest kernels: `kernel import`, `ls` and `rm`.
//!
//! A microVM boots an uncompressed ELF `vmlinux` and loads a handful of modules from its initrd. The
//! catalogue holds exactly that:
//!
//! ```text
//! <data>/kernels/
//! ├── lock                     exclusive: import, rm; shared: whoever starts a VM
//! ├── 6.1.0-56-cloud-amd64/    the id, by default the kernel's release
//! │   ├── vmlinux              the ELF file
//! │   ├── modules/00-virtio.ko … in load order, decompressed, each after what it needs
//! │   └── kernel.json          written with everything else aside, then renamed into place
//! └── .tmp-*                   half-made, removed by the next one that holds the lock
//! ```
//!
//! ```text
//!  .deb …  ─▶ deb: ar, tar ─┐
//!  --host  ─▶ host          ├─▶ FileSet ─▶ vmlinuz ─▶ bzimage, codec ─▶ ELF ─▶ elf: checks, release
//!  vmlinuz, vmlinux.xz ─────┘      └─────▶ modinfo ─▶ modules: closure of drivers, load order
//! ```
//!
//! Which modules are wanted, and for what, is the table in [`drivers`]. A package carries no
//! `modules.dep`: depmod makes it at installation from the `.modinfo` records that are read here, so
//! packages and hosts take one path.
//!
//! A kernel runs as the guest's most trusted code, but the *files* given to `import` may be anything,
//! so every size is bounded and every offset checked.

mod bzimage;
mod catalogue;
mod codec;
mod deb;
pub mod drivers;
mod elf;
mod error;
mod files;
mod host;
mod image;
mod import;
mod modinfo;
mod modules;
mod record;
mod remove;
mod root;
#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Hold, Listing};
pub use drivers::Purpose;
pub(crate) use drivers::principal;
pub use error::{KernelError, KernelErrorKind};
pub use import::{Imported, Request, Source, import};
pub use record::{Kernel, Module, Origin, Presence};
pub use remove::remove;
pub use root::select;
