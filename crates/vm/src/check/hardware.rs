//! What a machine has beyond processors, memory and disks: refused by name where a backend cannot do it, and where it
//! makes no sense.

use super::{Check, CheckError, CheckErrorKind};
use crate::capability::Capabilities;
use crate::hardware::{HugePages, LimitedNetwork, RateLimiter, TokenBucket};
use crate::spec::{Network, VmSpec};

/// The smallest MTU of IPv4 in bytes (RFC 791).
const LEAST_MTU: u16 = 68;
/// The smallest of IPv6 (RFC 8200), which a user-mode network has.
const LEAST_MTU_OF_IPV6: u16 = 1280;
/// What the links of the bridge carry in bytes; one with another MTU would change that of the whole bridge.
const BRIDGE_MTU: u32 = 1500;

/// Proves that this hardware is possible. What will be without effect is told in `notices`.
pub(super) fn check(spec: &VmSpec, can: &Capabilities, notices: &mut Vec<String>) -> Check {
    let support = &can.hardware;
    let wanted = &spec.hardware;
    let backend = can.backend;
    if wanted.smt && !support.smt {
        return fail(format!("{backend} has no threads of cores (smt)"));
    }
    if wanted.smt && spec.cpus != 1 && !spec.cpus.is_multiple_of(2) {
        return fail(format!(
            "{} processors cannot be pairs of threads (smt): give an even number, or 1",
            spec.cpus
        ));
    }
    if let Some(template) = wanted.cpu_template {
        if !support.cpu_templates.contains(&template) {
            return fail(format!("{backend} has no cpu template {template}"));
        }
        if wanted.cpu_config.is_some() {
            return fail(format!(
                "the cpu template {template} and a cpu config exclude each other: a config says everything"
            ));
        }
    }
    if let Some(config) = &wanted.cpu_config {
        if !support.cpu_config {
            return fail(format!(
                "{backend} has no cpu config; use a cpu template, or --backend=firecracker"
            ));
        }
        if let Err(problem) = config.check() {
            return fail(format!("the cpu config is wrong: {problem}"));
        }
    }
    huge_pages(spec, can)?;
    balloon(spec, can)?;
    if !wanted.interface.is_none() {
        let network = match &spec.network {
            Network::None => {
                return fail("a machine without a network has nothing to limit there".to_owned());
            }
            Network::User(_) => LimitedNetwork::User,
            Network::Bridge(_) => LimitedNetwork::Bridge,
        };
        if !support.interface_limits.contains(&network) {
            return fail(format!(
                "{backend} does not limit a {network} network here (rx_rate_limiter, tx_rate_limiter)"
            ));
        }
    }
    mtu(spec, backend)?;
    metrics(spec, can)?;
    if spec.mmds.as_ref().is_some_and(|mmds| mmds.imds_compat) && !support.imds_compat {
        return fail(format!(
            "the metadata service of this {backend} has no imds_compat"
        ));
    }
    if let Some(limit) = wanted.serial_limit {
        let limiter = RateLimiter {
            bandwidth: Some(limit),
            ops: None,
        };
        rate_limiter("rate_limiter of serial", Some(&limiter))?;
    }
    for (what, limiter) in [
        ("rx_rate_limiter", &wanted.interface.rx),
        ("tx_rate_limiter", &wanted.interface.tx),
        ("rate_limiter of entropy", &wanted.entropy_limit),
    ] {
        rate_limiter(what, limiter.as_ref())?;
    }
    for disk in &spec.disks {
        let what = format!("rate_limiter of the disk {}", disk.path.display());
        rate_limiter(&what, disk.settings.rate_limiter.as_ref())?;
    }
    notices.extend(without_effect(spec, can));
    Ok(())
}

/// What was asked for and changes little: no reason not to start, and nothing to pass over.
fn without_effect(spec: &VmSpec, can: &Capabilities) -> Vec<String> {
    let (support, wanted, backend) = (&can.hardware, &spec.hardware, can.backend);
    let mut notices = Vec::new();
    let mut tell = |field: &str, effect: &str| {
        notices.push(format!("{backend} has no {field}: {effect}"));
    };
    let has_burst = |limiter: &RateLimiter| {
        let buckets = [limiter.bandwidth, limiter.ops];
        buckets
            .into_iter()
            .flatten()
            .any(|bucket| bucket.one_time_burst.is_some_and(|burst| burst > 0))
    };
    if !support.one_time_bursts {
        for disk in &spec.disks {
            if disk.settings.rate_limiter.as_ref().is_some_and(has_burst) {
                let field = format!(
                    "one_time_burst (rate_limiter of the disk {:?})",
                    disk.serial
                );
                tell(&field, "from the start no more than size passes at once");
            }
        }
    }
    if let Some(limiter) = &wanted.entropy_limit {
        if has_burst(limiter) && !support.one_time_bursts {
            let field = "one_time_burst (rate_limiter of entropy)";
            tell(field, "from the start no more than size passes at once");
        }
        if limiter.ops.is_some() && !support.entropy_operations {
            let effect = match limiter.bandwidth {
                Some(_) => "only bandwidth limits the guest's randomness",
                None => "the guest's randomness is not limited; give a bandwidth",
            };
            tell("ops (rate_limiter of entropy)", effect);
        }
    }
    let balloon = wanted.balloon.as_ref();
    if balloon.is_some_and(|it| it.stats_polling_interval_s > 0) && !support.balloon_statistics {
        let effect = "nothing asks the guest; firebuild stats shows what its kernel says";
        tell("statistics (stats_polling_interval_s of balloon)", effect);
    }
    notices
}

/// Each protocol has a least MTU, and each network a largest: that of a tap's link, or what passt takes.
fn mtu(spec: &VmSpec, backend: &str) -> Check {
    let Some(mtu) = spec.hardware.mtu else {
        return Ok(());
    };
    let (network, least, most) = match &spec.network {
        Network::None => {
            return fail("a machine without a network has no mtu there".to_owned());
        }
        Network::User(_) => (
            LimitedNetwork::User,
            LEAST_MTU_OF_IPV6,
            firebuild_usernet::guest::MTU,
        ),
        Network::Bridge(_) => (LimitedNetwork::Bridge, LEAST_MTU, BRIDGE_MTU),
    };
    if mtu < least || u32::from(mtu) > most {
        return fail(format!(
            "the mtu {mtu} cannot be on a {network} network of {backend}: {least} to {most} can"
        ));
    }
    Ok(())
}

fn metrics(spec: &VmSpec, can: &Capabilities) -> Check {
    let Some(wanted) = &spec.hardware.metrics else {
        return Ok(());
    };
    let backend = can.backend;
    let Some(support) = can.hardware.metrics else {
        return fail(format!(
            "{backend} writes no metrics; firebuild stats --format json tells what the guest uses"
        ));
    };
    if !wanted.metrics_path.is_absolute() {
        return fail(format!(
            "the metrics_path {} has to be absolute",
            wanted.metrics_path.display()
        ));
    }
    for (name, asked) in [
        ("emit_id", wanted.emit_id),
        ("properties", !wanted.properties.is_empty()),
    ] {
        if asked && !support.labels {
            return fail(format!("the metrics of this {backend} have no {name}"));
        }
    }
    Ok(())
}

fn huge_pages(spec: &VmSpec, can: &Capabilities) -> Check {
    let wanted = spec.hardware.huge_pages;
    if wanted == HugePages::None {
        return Ok(());
    }
    if !can.hardware.huge_pages.contains(&wanted) {
        return fail(format!(
            "{} has no huge pages of the kind {wanted}",
            can.backend
        ));
    }
    if !spec.memory_mib.is_multiple_of(2) {
        return fail(format!(
            "{} MiB of memory are no whole number of huge pages (2 MiB)",
            spec.memory_mib
        ));
    }
    Ok(())
}

fn balloon(spec: &VmSpec, can: &Capabilities) -> Check {
    let Some(wanted) = &spec.hardware.balloon else {
        return Ok(());
    };
    let backend = can.backend;
    let Some(support) = can.hardware.balloon else {
        return fail(format!("{backend} has no balloon"));
    };
    if wanted.amount_mib >= spec.memory_mib {
        return fail(format!(
            "a balloon of {} MiB (amount_mib) leaves nothing of {} MiB of memory",
            wanted.amount_mib, spec.memory_mib
        ));
    }
    for (name, asked, possible) in [
        (
            "free_page_hinting",
            wanted.free_page_hinting,
            support.free_page_hinting,
        ),
        (
            "free_page_reporting",
            wanted.free_page_reporting,
            support.free_page_reporting,
        ),
    ] {
        if asked && !possible {
            return fail(format!("the balloon of {backend} has no {name}"));
        }
    }
    Ok(())
}

fn rate_limiter(what: &str, limiter: Option<&RateLimiter>) -> Check {
    let Some(RateLimiter { bandwidth, ops }) = limiter else {
        return Ok(());
    };
    for (name, bucket) in [("bandwidth", bandwidth), ("ops", ops)] {
        if let Some(TokenBucket {
            size, refill_time, ..
        }) = bucket
            && (*size == 0 || *refill_time == 0)
        {
            return fail(format!(
                "{what}: {name} limits nothing with a size or refill_time of 0; leave it out"
            ));
        }
    }
    Ok(())
}

fn fail(message: String) -> Check {
    Err(CheckError::new(CheckErrorKind::Hardware, message))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{capabilities, spec};
    use super::super::{CheckError, CheckErrorKind};
    use crate::capability::Capabilities;
    use crate::hardware::{
        Balloon, BalloonSupport, CpuConfig, CpuTemplate, HardwareSupport, HugePages,
        LimitedNetwork, Metrics, MetricsSupport, RateLimiter, TokenBucket,
    };
    use crate::spec::{MmdsSpec, MmdsVersion, Network, UserNetwork, VmSpec};

    fn able() -> Capabilities {
        Capabilities {
            hardware: HardwareSupport {
                smt: true,
                cpu_templates: vec![CpuTemplate::T2],
                cpu_config: true,
                huge_pages: vec![HugePages::TwoMib],
                balloon: Some(BalloonSupport::default()),
                interface_limits: vec![LimitedNetwork::User],
                one_time_bursts: true,
                entropy_operations: true,
                balloon_statistics: true,
                metrics: Some(MetricsSupport { labels: true }),
                imds_compat: true,
            },
            ..capabilities()
        }
    }

    fn limiter(size: u64) -> RateLimiter {
        RateLimiter {
            bandwidth: Some(TokenBucket {
                size,
                refill_time: 100,
                one_time_burst: None,
            }),
            ops: None,
        }
    }

    fn metrics(path: &str) -> Metrics {
        Metrics {
            metrics_path: path.into(),
            emit_id: true,
            ..Metrics::default()
        }
    }

    #[test]
    fn labels_of_metrics_are_refused_where_there_are_none() {
        let mut can = able();
        can.hardware.metrics = Some(MetricsSupport::default());
        let text = refusal(&can, |s| s.hardware.metrics = Some(metrics("/m")));
        assert!(text.contains("have no emit_id"), "{text}");
    }

    fn refusal(can: &Capabilities, change: impl Fn(&mut VmSpec)) -> String {
        let mut changed = spec();
        change(&mut changed);
        let error: CheckError = changed.check(can).unwrap_err();
        assert_eq!(error.kind(), CheckErrorKind::Hardware);
        error.to_string()
    }

    type Change = fn(&mut VmSpec);

    #[test]
    fn what_a_backend_cannot_do_is_refused_by_name() {
        let wishes: [(&str, Change); 9] = [
            ("has no imds_compat", |s| {
                s.mmds = Some(MmdsSpec {
                    version: MmdsVersion::V2,
                    imds_compat: true,
                    document: serde_json::json!({}),
                });
            }),
            ("writes no metrics", |s| {
                s.hardware.metrics = Some(metrics("/m"))
            }),
            ("smt", |s| s.hardware.smt = true),
            ("cpu template T2", |s| {
                s.hardware.cpu_template = Some(CpuTemplate::T2);
            }),
            ("cpu config", |s| {
                s.hardware.cpu_config = Some(CpuConfig::default());
            }),
            ("huge pages of the kind 2M", |s| {
                s.hardware.huge_pages = HugePages::TwoMib;
            }),
            ("balloon", |s| s.hardware.balloon = Some(Balloon::default())),
            ("rx_rate_limiter", |s| {
                s.hardware.interface.rx = Some(limiter(1));
                s.network = Network::User(UserNetwork::default());
            }),
            ("tx_rate_limiter", |s| {
                s.hardware.interface.tx = Some(limiter(1));
                s.network = Network::User(UserNetwork::default());
            }),
        ];
        for (words, wish) in wishes {
            let text = refusal(&capabilities(), wish);
            assert!(text.contains(words), "{text}");
            let mut fine = spec();
            wish(&mut fine);
            fine.check(&able()).unwrap();
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wishes: [(&str, Change); 13] = [
            ("has to be absolute", |s| {
                s.hardware.metrics = Some(metrics("m"))
            }),
            ("rate_limiter of serial", |s| {
                s.hardware.serial_limit = limiter(0).bandwidth;
            }),
            ("has no mtu", |s| s.hardware.mtu = Some(1400)),
            ("the mtu 1279 cannot be", |s| {
                s.hardware.mtu = Some(1279);
                s.network = Network::User(UserNetwork::default());
            }),
            ("1280 to 65520 can", |s| {
                s.hardware.mtu = Some(65521);
                s.network = Network::User(UserNetwork::default());
            }),
            ("3 processors cannot be pairs", |s| {
                s.hardware.smt = true;
                s.cpus = 3;
            }),
            ("exclude each other", |s| {
                s.hardware.cpu_template = Some(CpuTemplate::T2);
                s.hardware.cpu_config = Some(CpuConfig::default());
            }),
            ("msr_modifiers: addr", |s| {
                let text = r#"{"msr_modifiers": [{"addr": "y", "bitmap": "0b1"}]}"#;
                s.hardware.cpu_config = Some(serde_json::from_str(text).unwrap());
            }),
            ("no whole number of huge pages", |s| {
                s.hardware.huge_pages = HugePages::TwoMib;
                s.memory_mib = 129;
            }),
            ("leaves nothing of 128 MiB", |s| {
                s.hardware.balloon = Some(Balloon {
                    amount_mib: 128,
                    ..Balloon::default()
                });
            }),
            ("has no free_page_reporting", |s| {
                s.hardware.balloon = Some(Balloon {
                    free_page_reporting: true,
                    ..Balloon::default()
                });
            }),
            ("nothing to limit", |s| {
                s.hardware.interface.rx = Some(limiter(1));
            }),
            ("bandwidth limits nothing", |s| {
                s.disks[0].settings.rate_limiter = Some(limiter(0));
            }),
        ];
        for (words, wish) in wishes {
            let text = refusal(&able(), wish);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn what_has_no_effect_is_told_by_name() {
        let bucket = TokenBucket {
            size: 1,
            refill_time: 100,
            one_time_burst: Some(9),
        };
        let wishes: [(&str, Change); 4] = [
            ("of the disk", |s| {
                s.disks[0].settings.rate_limiter = Some(RateLimiter {
                    bandwidth: Some(TokenBucket {
                        size: 1,
                        refill_time: 100,
                        one_time_burst: Some(9),
                    }),
                    ops: None,
                });
            }),
            ("ops (rate_limiter of entropy): only bandwidth", |s| {
                let mut limit = limiter(5);
                limit.ops = limit.bandwidth;
                s.hardware.entropy_limit = Some(limit);
            }),
            ("is not limited; give a bandwidth", |s| {
                s.hardware.entropy_limit = Some(RateLimiter {
                    bandwidth: None,
                    ops: limiter(5).bandwidth,
                });
            }),
            ("stats_polling_interval_s", |s| {
                s.hardware.balloon = Some(Balloon {
                    stats_polling_interval_s: 1,
                    ..Balloon::default()
                });
            }),
        ];
        let mut unable = able();
        unable.hardware.one_time_bursts = false;
        unable.hardware.entropy_operations = false;
        unable.hardware.balloon_statistics = false;
        for (words, wish) in wishes {
            let mut changed = spec();
            wish(&mut changed);
            let told = changed.clone().check(&unable).unwrap();
            let [notice] = told.notices() else {
                panic!("{words}: {:?}", told.notices());
            };
            assert!(notice.contains(words), "{notice}");
            let quiet = changed.check(&able()).unwrap();
            assert!(quiet.notices().is_empty(), "{:?}", quiet.notices());
        }
        // A bucket without a burst, and a burst of entropy.
        let mut both = spec();
        both.hardware.entropy_limit = Some(RateLimiter {
            bandwidth: Some(bucket),
            ops: None,
        });
        both.disks[0].settings.rate_limiter = Some(limiter(5));
        let told = both.check(&unable).unwrap();
        assert_eq!(told.notices().len(), 1, "{:?}", told.notices());
        assert!(told.notices()[0].contains("one_time_burst (rate_limiter of entropy)"));
    }
}
