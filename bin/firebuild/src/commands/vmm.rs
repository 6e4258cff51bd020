//! Which VMM `run` takes and what its machine has: flags, then a profile, then a machine configuration.

use std::path::PathBuf;

use firebuild_engine::profile::Profile;
use firebuild_engine::run::Request;
use firebuild_engine::vmm::machine_config::MachineConfig;
use firebuild_engine::vmm::{Choice, CpuTemplate, Wanted};

use crate::args::RunArgs;
use crate::failure::{FAILED_TO_RUN, Failure};
use crate::flags::Backend;

/// Fills in the parts of a request that are about the machine beyond its size.
pub(super) fn apply(
    request: &mut Request,
    args: &RunArgs,
    profile: &Profile,
) -> Result<(), Failure> {
    let flags = &args.vmm;
    let saved = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
    let mut wanted = Wanted {
        choice: match flags.backend {
            Backend::Auto => Choice::Auto,
            Backend::Firecracker => Choice::Firecracker,
            Backend::Qemu => Choice::Qemu,
        },
        firecracker: flags
            .binary_firecracker
            .clone()
            .or_else(|| saved(&profile.binary_firecracker)),
        jailer: flags
            .binary_jailer
            .clone()
            .or_else(|| saved(&profile.binary_jailer)),
        jailed: flags.jailer.as_deref().map(|jailer| jailer == "on"),
        chroot_base: flags
            .chroot_base
            .clone()
            .or_else(|| saved(&profile.chroot_base)),
        user: flags.jailer_uid,
        group: flags.jailer_gid,
        numa_node: flags.jailer_numa_node,
        ..Wanted::default()
    };
    if let Some(file) = &flags.machine_config {
        let config = MachineConfig::read(file).map_err(|error| {
            Failure::new(error)
                .code(FAILED_TO_RUN)
                .hint("docs/formats/machine-config.md lists the sections and their fields")
        })?;
        config.complete(&mut wanted);
        request.cpus = config.cpus.unwrap_or(request.cpus);
        request.memory_mib = config.memory_mib.unwrap_or(request.memory_mib);
        request.kernel_args = config.kernel_args;
        request.hardware = config.hardware;
        if let Some(mmds) = &mut request.mmds {
            mmds.imds_compat = config.imds_compat;
        }
        request.root_disk = config.root_disk;
        request.scratch_disk = config.scratch_disk;
    }
    if let Some(name) = &args.machine.cpu_template {
        // The original's way of saying that there is none.
        request.hardware.cpu_template = match name.as_str() {
            "" => None,
            name => Some(template(name)?),
        };
    }
    if let Some(enabled) = args.machine.ht_enabled {
        request.hardware.smt = enabled;
    }
    request.vmm = wanted;
    Ok(())
}

fn template(name: &str) -> Result<CpuTemplate, Failure> {
    let known = CpuTemplate::ALL
        .into_iter()
        .find(|template| template.name().eq_ignore_ascii_case(name));
    known.ok_or_else(|| {
        Failure::usage(format!("there is no cpu template '{name}'"))
            .code(FAILED_TO_RUN)
            .hint("C3, T2, T2S, T2CL and T2A are there")
    })
}
