//! RUN in VMs: the executor of `--isolation=microvm`.
//!
//! ```text
//!  Chain ─▶ pool: a VM whose disk the chain begins with, or a new one                      pool
//!    │        │ machine: QEMU, the chain's ext4 image read-only, a scratch disk            machine
//!    │        │ vm: the thread that owns it and moves bytes                                vm
//!    ▼        ▼
//!  layers that the guest lacks ──tar──▶ unpacked on its scratch disk                       layers
//!  Step ──StepJob──▶ overlay of those ▸ the very code of the sandbox                       step, task
//!  Layer ◀── upper directory ──tar── read with limits, difference to what was given        step
//! ```
//!
//! - A VM is kept for the steps that follow, several at once, and ends with this value, with the process, or when it does
//!   not answer any more.
//! - The host unpacks nothing that a guest wrote: it reads an archive into a tree and writes a layer of its own making. A
//!   cache mount is kept as the archive that the guest made of it.
//! - A step with `--network=none` runs in a VM that has no network device.

mod caches;
mod launch;
mod layers;
mod pool;
mod step;
mod task;
mod vm;

use std::path::PathBuf;
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::Chain;
use firebuild_build::event::Stream;
use firebuild_build::exec::{ExecError, ExecErrorKind, Executed, Executor, Step};
use firebuild_store::Store;
use firebuild_vm::spec::Accel;

use crate::paths::Paths;
pub(crate) use launch::BUILD_RUN_DIRS;
use pool::Pool;

/// The machine that runs steps.
#[derive(Debug, Clone)]
pub struct MicroVmOptions {
    /// The guest init.
    pub vminit: &'static [u8],
    /// Virtual processors; none for as many as the host has.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the scratch disk in bytes, which is sparse.
    pub disk_bytes: u64,
    /// The id of a kernel; by default the newest that fits.
    pub kernel: Option<String>,
    /// A directory in which the kernel's id is looked for first.
    pub kernel_root: Option<PathBuf>,
    /// Further arguments for the kernel.
    pub kernel_args: Vec<String>,
    /// Which processor emulation.
    pub accel: Accel,
}

impl MicroVmOptions {
    /// Memory of a VM that is not told otherwise, in MiB; what is not used is not taken from the host.
    pub const MEMORY_MIB: u32 = 2048;

    /// A machine with nothing asked for.
    #[must_use]
    pub fn new(vminit: &'static [u8]) -> Self {
        Self {
            vminit,
            cpus: None,
            memory_mib: Self::MEMORY_MIB,
            disk_bytes: 32 << 30,
            kernel: None,
            kernel_root: None,
            kernel_args: Vec::new(),
            accel: Accel::Auto,
        }
    }
}

/// The executor. One for a build; threads share it. Its VMs end when it is dropped.
#[derive(Debug)]
pub struct MicroVm<'a> {
    store: &'a Store,
    pool: Pool,
}

impl<'a> MicroVm<'a> {
    /// An executor that starts its first VM for the first step.
    #[must_use]
    pub fn new(store: &'a Store, paths: &Paths, options: &MicroVmOptions) -> Self {
        Self {
            store,
            pool: Pool::new(paths.clone(), options.clone()),
        }
    }
}

impl Executor for MicroVm<'_> {
    fn run(
        &self,
        base: &Arc<Chain>,
        step: &Step,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Executed, ExecError> {
        if cancel.is_raised() {
            return Err(stopped());
        }
        let vm = self.pool.vm_for(self.store, base, step, cancel)?;
        step::run(self.store, &vm, base, step, output, cancel)
    }
}

fn stopped() -> ExecError {
    ExecError::new(ExecErrorKind::Cancelled, "the step was stopped")
}

fn host(
    context: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ExecError {
    ExecError::caused(ExecErrorKind::Host, context, source)
}
