//! `--isolation` and the flags of the build's VM.

use firebuild_engine::build::Isolation;
use firebuild_engine::microvm_executor::MicroVmOptions;

use crate::args::{IsolationArg, RootfsArgs};
use crate::failure::Failure;
use crate::flags::{Log, Roots};
use crate::init::VMINIT;
use crate::sizes;

/// What the flags ask for; those that change nothing are mentioned once.
pub(super) fn of(args: &RootfsArgs, roots: &Roots, log: &Log) -> Result<Isolation, Failure> {
    let (isolation, vm) = (&args.isolation, &args.build_vm);
    if isolation.isolation == IsolationArg::Sandbox {
        let mut unused = vm.unused();
        unused.extend(isolation.given());
        log.mention(
            &unused,
            "on RUN, which executes in a sandbox on the host (--isolation=microvm runs it in a VM)",
        );
        return Ok(Isolation::Sandbox);
    }
    log.mention(
        &vm.unused_by_microvm(),
        "on the build's VM, which is QEMU with user-mode networking",
    );
    let machine = &vm.machine;
    let mut options = MicroVmOptions::new(VMINIT);
    options.cpus = machine.cpu;
    if let Some(mem) = &machine.mem {
        options.memory_mib = sizes::mebibytes(mem, "--mem")?;
    }
    if let Some(size) = &isolation.disk_size {
        options.disk_bytes = sizes::bytes(size, "--disk-size")?;
    }
    options.kernel.clone_from(&machine.vmlinux_id);
    options.kernel_root.clone_from(&roots.kernel);
    options.kernel_args = machine
        .kernel_args
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if let Some(accel) = isolation.accel {
        options.accel = accel.into();
    }
    Ok(Isolation::MicroVm(Box::new(options)))
}
