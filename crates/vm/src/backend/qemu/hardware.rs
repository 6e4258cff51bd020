//! What a machine has beyond processors, memory and disks, in QEMU's words.
//!
//! | wanted | QEMU |
//! |---|---|
//! | threads of cores | `-smp …,threads=2` |
//! | a processor by name | the model of the same generation |
//! | huge pages | memory of `memfd_create(MFD_HUGETLB)`; transparent ones are what QEMU asks for anyway |
//! | balloon | `virtio-balloon-pci`; its statistics are properties of the device |
//! | randomness | `virtio-rng-pci,max-bytes=…,period=…` |
//! | limits of the network | those of the guard before passt or before the tap; nothing of QEMU's own |
//! | a disk's limits | a `throttle-group` and a filter on top of the disk |

use serde_json::{Value, json};

use crate::check::{CheckedAccel, CheckedSpec};
use crate::hardware::{
    Balloon, BalloonStatistics, BalloonSupport, Cache, CpuTemplate, DiskSettings, HardwareSupport,
    HugePages, IoEngine, LimitedNetwork, RateLimiter, TokenBucket,
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
        // Its buckets are refilled for ever, and its generator counts bytes.
        one_time_bursts: false,
        entropy_operations: false,
        balloon_statistics: true,
        metrics: None,
        imds_compat: true,
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

/// What QEMU is told when it runs: a balloon's size is no option of the device, and its value is what is left. Its
/// statistics are a property that can be set later only.
pub(super) fn commands(spec: &VmSpec) -> Option<Vec<PlannedCommand>> {
    let balloon = spec.hardware.balloon.as_ref()?;
    let mut commands = Vec::new();
    let amount = u64::from(balloon.amount_mib);
    if amount > 0 {
        let left = (u64::from(spec.memory_mib) - amount) << 20;
        commands.push(PlannedCommand {
            execute: "balloon".to_owned(),
            arguments: json!({ "value": left }),
        });
    }
    if balloon.stats_polling_interval_s > 0 {
        commands.push(PlannedCommand {
            execute: "qom-set".to_owned(),
            arguments: json!({
                "path": BALLOON,
                "property": "guest-stats-polling-interval",
                "value": balloon.stats_polling_interval_s,
            }),
        });
    }
    (!commands.is_empty()).then_some(commands)
}

/// The balloon among QEMU's objects.
pub(super) const BALLOON: &str = "/machine/peripheral/balloon";

/// QEMU's statistics of a balloon in our words. `left` of the `whole` memory is what the balloon leaves the guest; the size
/// that it is to have QEMU does not tell.
pub(super) fn balloon_statistics(
    stats: &Value,
    left: Option<u64>,
    whole: Option<u64>,
) -> BalloonStatistics {
    // What the guest's driver does not tell is all ones.
    let told = |name: &str| stats[name].as_u64().filter(|number| *number != u64::MAX);
    let size = whole
        .zip(left)
        .map(|(whole, left)| whole.saturating_sub(left) >> 20);
    BalloonStatistics {
        target_mib: None,
        actual_mib: size,
        swap_in: told("stat-swap-in"),
        swap_out: told("stat-swap-out"),
        major_faults: told("stat-major-faults"),
        minor_faults: told("stat-minor-faults"),
        free_memory: told("stat-free-memory"),
        total_memory: told("stat-total-memory"),
        available_memory: told("stat-available-memory"),
        disk_caches: told("stat-disk-caches"),
        hugetlb_allocations: told("stat-htlb-pgalloc"),
        hugetlb_failures: told("stat-htlb-pgfail"),
        oom_kill: told("stat-oom-kills"),
        alloc_stall: told("stat-alloc-stalls"),
        async_scan: told("stat-scan-asyncs"),
        direct_scan: told("stat-scan-directs"),
        async_reclaim: told("stat-reclaim-asyncs"),
        direct_reclaim: told("stat-reclaim-directs"),
    }
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
    use serde_json::json;

    use super::{balloon_statistics, throttle_group};
    use crate::hardware::{BalloonStatistics, RateLimiter, TokenBucket};

    #[test]
    fn what_a_guest_does_not_tell_is_missing() {
        let stats = json!({
            "stat-swap-in": u64::MAX, "stat-free-memory": 5, "stat-htlb-pgfail": 0, "stat-oom-kills": 2, "stat-more": 1
        });
        let expected = BalloonStatistics {
            actual_mib: Some(16),
            free_memory: Some(5),
            hugetlb_failures: Some(0),
            oom_kill: Some(2),
            ..BalloonStatistics::default()
        };
        let found = balloon_statistics(&stats, Some(48 << 20), Some(64 << 20));
        assert_eq!(found, expected);
        let none = balloon_statistics(&json!(null), None, Some(64 << 20));
        assert_eq!(none, BalloonStatistics::default());
    }

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
