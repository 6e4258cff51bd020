//! What a machine has beyond processors, memory and disks, in QEMU's words.
//!
//! | wanted | QEMU |
//! |---|---|
//! | threads of cores | `-smp …,threads=2` |
//! | a processor by name | the model of the same generation |
//! | huge pages | memory of `memfd_create(MFD_HUGETLB)`; transparent ones are what QEMU asks for anyway |
//! | balloon | `virtio-balloon-pci` |
//! | randomness | `virtio-rng-pci,max-bytes=…,period=…` |
//! | limits of the network | those of the guard before passt or before the tap; nothing of QEMU's own |
//! | a disk's limits | a `throttle-group` and a filter on top of the disk |

use serde_json::json;

use crate::check::{CheckedAccel, CheckedSpec};
use crate::hardware::{
    Balloon, BalloonSupport, Cache, CpuTemplate, DiskSettings, HardwareSupport, HugePages,
    IoEngine, LimitedNetwork, RateLimiter, TokenBucket,
};
use crate::plan::PlannedCommand;
use crate::spec::VmSpec;

/// What QEMU can do of it.
pub(super) fn support(passt: bool) -> HardwareSupport {
    HardwareSupport {
        smt: true,
        cpu_templates: CpuTemplate::ALL.to_vec(),
        cpu_config: false,
        huge_pages: vec![HugePages::TwoMib, HugePages::Transparent],
        // Hints are a part of migration there.
        balloon: Some(BalloonSupport {
            free_page_hinting: false,
            free_page_reporting: true,
        }),
        // By the guard between the guest and passt, or the tap.
        interface_limits: passt
            .then_some(LimitedNetwork::User)
            .into_iter()
            .chain([LimitedNetwork::Bridge])
            .collect(),
        // Its buckets are refilled for ever, its generator counts bytes, and its statistics lie behind a connection that is
        // the monitor's.
        one_time_bursts: false,
        entropy_operations: false,
        balloon_statistics: false,
    }
}

/// `-cpu`: what programs built for newer processors run on, or the generation that a template stands for.
pub(super) fn cpu_model(checked: &CheckedSpec) -> &'static str {
    match (checked.spec().hardware.cpu_template, checked.accel()) {
        (Some(CpuTemplate::C3), _) => "IvyBridge",
        (Some(CpuTemplate::T2 | CpuTemplate::T2S | CpuTemplate::T2CL), _) => "Haswell-noTSX",
        (Some(CpuTemplate::T2A), _) => "EPYC",
        (None, CheckedAccel::Kvm { .. }) => "host",
        (None, CheckedAccel::Tcg) => "max",
    }
}

/// `-smp`.
pub(super) fn processors(checked: &CheckedSpec) -> String {
    let spec = checked.spec();
    if spec.hardware.smt && spec.cpus > 1 {
        return format!(
            "cpus={},sockets=1,cores={},threads=2",
            spec.cpus,
            spec.cpus / 2
        );
    }
    format!("cpus={},sockets=1", spec.cpus)
}

/// `-object` of the guest's memory and what names it in `-machine`; nothing where QEMU's usual memory will do.
pub(super) fn memory(checked: &CheckedSpec) -> Option<(String, &'static str)> {
    let spec = checked.spec();
    (spec.hardware.huge_pages == HugePages::TwoMib).then(|| {
        let object = format!(
            "memory-backend-memfd,id=memory,size={}M,hugetlb=on,hugetlbsize=2M",
            spec.memory_mib
        );
        (object, ",memory-backend=memory")
    })
}

/// `-device` of the random numbers. A limit of operations has no word here; the one of bytes bounds them, too.
pub(super) fn entropy(limit: Option<&RateLimiter>) -> String {
    let mut device = "virtio-rng-pci,rng=entropy".to_owned();
    if let Some(TokenBucket {
        size, refill_time, ..
    }) = limit.and_then(|limit| limit.bandwidth)
    {
        device.push_str(&format!(",max-bytes={size},period={refill_time}"));
    }
    device
}

/// `-device` of a balloon.
pub(super) fn balloon(balloon: &Balloon) -> String {
    let on = |on: bool| if on { "on" } else { "off" };
    let mut device = format!(
        "virtio-balloon-pci,id=balloon,deflate-on-oom={}",
        on(balloon.deflate_on_oom)
    );
    if balloon.free_page_reporting {
        device.push_str(",free-page-reporting=on");
    }
    device
}

/// What QEMU is told when it runs: a balloon's size is no option of the device, and its value is what is left.
pub(super) fn commands(spec: &VmSpec) -> Option<Vec<PlannedCommand>> {
    let amount = u64::from(spec.hardware.balloon.as_ref()?.amount_mib);
    let left = (u64::from(spec.memory_mib) - amount) << 20;
    (amount > 0).then(|| {
        vec![PlannedCommand {
            execute: "balloon".to_owned(),
            arguments: json!({ "value": left }),
        }]
    })
}

/// Options of a disk's file.
pub(super) fn file_options(settings: &DiskSettings) -> &'static str {
    match settings.io_engine {
        None => "",
        Some(IoEngine::Sync) => ",aio=threads",
        Some(IoEngine::Async) => ",aio=io_uring",
    }
}

/// Options of every node of a disk.
pub(super) fn node_options(settings: &DiskSettings) -> &'static str {
    match settings.cache {
        Some(Cache::Unsafe) => ",cache.no-flush=on",
        None | Some(Cache::Writeback) => "",
    }
}

/// `-object` of a disk's limits.
pub(super) fn throttle_group(id: &str, limiter: &RateLimiter) -> String {
    let mut object = format!("throttle-group,id={id}");
    for (name, bucket) in [("bps", limiter.bandwidth), ("iops", limiter.ops)] {
        let Some(bucket) = bucket else { continue };
        let average = bucket.per_second().unwrap_or(MOST).clamp(1, MOST);
        // A full bucket may be emptied at once: as much as it holds within a second.
        let burst = bucket.size.clamp(average, MOST);
        object.push_str(&format!(
            ",x-{name}-total={average},x-{name}-total-max={burst},x-{name}-total-max-length=1"
        ));
    }
    object
}

/// The largest value that QEMU takes (`THROTTLE_VALUE_MAX` of `include/qemu/throttle.h`).
const MOST: u64 = 1_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::throttle_group;
    use crate::hardware::{RateLimiter, TokenBucket};

    #[test]
    fn buckets_become_averages_and_bursts() {
        let bucket = |size, refill_time| TokenBucket {
            size,
            refill_time,
            one_time_burst: None,
        };
        let limiter = RateLimiter {
            bandwidth: Some(bucket(10 << 20, 2000)),
            ops: Some(bucket(1, 10_000)),
        };
        assert_eq!(
            throttle_group("limit0", &limiter),
            "throttle-group,id=limit0,x-bps-total=5242880,x-bps-total-max=10485760,\
             x-bps-total-max-length=1,x-iops-total=1,x-iops-total-max=1,x-iops-total-max-length=1"
        );
    }
}
