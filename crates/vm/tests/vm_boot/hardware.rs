//! What a machine has beyond processors, memory and disks, under QEMU: it is taken, and the guest sees it.

use fs_err as fs;

use firebuild_vm::hardware::{
    Balloon, Cache, CpuTemplate, DiskSettings, IoEngine, RateLimiter, TokenBucket,
};
use firebuild_vm::spec::{Disk, SCRATCH_DISK_SERIAL};

use crate::harness::{Lab, Words, drive};

#[test]
fn vm_hardware_is_what_was_asked_for() {
    let Some(lab) = Lab::open("vm_hardware_is_what_was_asked_for") else {
        return;
    };
    let bucket = |size, refill_time| {
        Some(TokenBucket {
            size,
            refill_time,
            one_time_burst: None,
        })
    };
    let scratch = lab.dir.path().join("scratch");
    fs::write(&scratch, vec![0; 8 << 20]).unwrap();
    // 4 MiB at 4 MiB/s: the first bucket is full, the second takes a second.
    let script = "echo cpu $(grep -m1 'model name' /proc/cpuinfo)\n\
        echo siblings $(grep -m1 siblings /proc/cpuinfo | tr -dc 0-9) cores $(grep -m1 'cpu cores' /proc/cpuinfo | tr -dc 0-9)\n\
        for d in /sys/bus/pci/devices/*/device; do echo device $(cat $d); done\n\
        begin=$(cut -d. -f1 /proc/uptime); dd if=/dev/vda of=/dev/null bs=1M count=8 iflag=direct 2>/dev/null\n\
        end=$(cut -d. -f1 /proc/uptime); [ $((end - begin)) -ge 1 ] && echo slow enough\n\
        echo x | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null && echo written\nsay all";
    let words = Words::new().started().exit(0);
    let mut spec = lab.spec(script, &[("all", words)]);
    spec.cpus = 2;
    spec.hardware.smt = true;
    spec.hardware.cpu_template = Some(CpuTemplate::T2);
    spec.hardware.balloon = Some(Balloon {
        amount_mib: 64,
        deflate_on_oom: true,
        free_page_reporting: true,
        ..Balloon::default()
    });
    spec.hardware.entropy_limit = Some(RateLimiter {
        bandwidth: bucket(4096, 1000),
        ops: None,
    });
    spec.disks = vec![Disk {
        path: scratch,
        read_only: false,
        serial: SCRATCH_DISK_SERIAL.to_owned(),
        settings: DiskSettings {
            cache: Some(Cache::Unsafe),
            io_engine: Some(IoEngine::Async),
            rate_limiter: Some(RateLimiter {
                bandwidth: bucket(2 << 20, 1000),
                ops: bucket(1000, 1000),
            }),
        },
    }];
    let run = drive(lab.start(spec, &lab.backend(false)), |_, _, _| {});
    let console = run.end.console.join("\n");
    for line in [
        "cpu model name : Intel Core Processor (Haswell, no TSX)",
        "siblings 2 cores 1",
        // 1af4:1045, virtio_pci's balloon.
        "device 0x1002",
        "slow enough",
        "written",
    ] {
        assert!(
            console.contains(line),
            "{line} is not in\n{console}\n{run:?}"
        );
    }
    lab.assert_nothing_left(&run.pids);
}

/// A guest that floods its serial port is recorded as far as it may be, and is held up by nothing.
#[test]
fn vm_serial_port_is_recorded_within_its_limit() {
    let Some(lab) = Lab::open("vm_serial_port_is_recorded_within_its_limit") else {
        return;
    };
    let words = Words::new().started().exit(0);
    let mut spec = lab.spec(
        "dd if=/dev/zero bs=1k count=64 2>/dev/null | tr '\\0' x >/dev/console\nsay all",
        &[("all", words)],
    );
    let log = lab.dir.path().join("console.log");
    spec.console.path = Some(log.clone());
    spec.console.max_bytes = 1 << 20;
    spec.hardware.serial_limit = Some(TokenBucket {
        size: 30_000,
        refill_time: 3_600_000,
        one_time_burst: Some(2_000),
    });
    let run = drive(lab.start(spec, &lab.backend(false)), |_, _, _| {});
    assert_eq!(run.exit_code(), Some(0));
    let recorded = fs::metadata(&log).unwrap().len();
    // What comes in an hour, and the seconds of this test.
    assert!((32_000..32_800).contains(&recorded), "{recorded}");
    lab.assert_nothing_left(&run.pids);
}
