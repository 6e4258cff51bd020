//! The whole configuration over the API, and the jail around it: what Firecracker and the kernel say beside what was asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use firebuild_guest_proto::MacAddress;
use firebuild_vm::backend::firecracker::{CgroupHost, Firecracker, FirecrackerControl};
use firebuild_vm::hardware::{
    Balloon, Cache, InterfaceLimits, IoEngine, Metrics, RateLimiter, TokenBucket,
};
use firebuild_vm::places::Owner;
use firebuild_vm::plan::PlannedRequest;
use firebuild_vm::spec::{BridgeNetwork, MmdsSpec, MmdsVersion, Network};
use firebuild_vm::{Control, MachineState, VmSpec, launch};
use fs_err as fs;
use serde_json::{Value, json};

use crate::lab::{Lab, chain, wait_for};
use crate::net::Namespace;

/// A field of `/proc/PID/status`.
fn status(pid: i32, field: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

fn bucket(size: u64, refill_time: u64) -> Option<TokenBucket> {
    Some(TokenBucket {
        size,
        refill_time,
        one_time_burst: Some(size),
    })
}

fn limiter() -> Option<RateLimiter> {
    Some(RateLimiter {
        bandwidth: bucket(10 << 20, 100),
        ops: bucket(1000, 1000),
    })
}

/// A machine with everything that can be said of one, but huge pages, which a host may not have.
fn everything(lab: &Lab, namespace: &Namespace) -> VmSpec {
    let mut spec = lab.spec();
    spec.cpus = 2;
    spec.hardware.smt = true;
    spec.hardware.entropy_limit = Some(RateLimiter {
        bandwidth: bucket(4096, 100),
        ops: None,
    });
    spec.hardware.balloon = Some(Balloon {
        amount_mib: 16,
        deflate_on_oom: true,
        stats_polling_interval_s: 2,
        ..Balloon::default()
    });
    spec.hardware.interface = InterfaceLimits {
        rx: limiter(),
        tx: limiter(),
    };
    spec.hardware.mtu = Some(1400);
    spec.hardware.serial_limit = bucket(1 << 20, 1000);
    spec.hardware.metrics = Some(Metrics {
        metrics_path: lab.dir.path().join("metrics"),
        emit_id: true,
        properties: [("team".to_owned(), "a".to_owned())].into(),
    });
    spec.disks[0].settings.io_engine = Some(IoEngine::Sync);
    spec.disks[1].settings.cache = Some(Cache::Writeback);
    spec.disks[1].settings.rate_limiter = limiter();
    spec.network = Network::Bridge(BridgeNetwork {
        tap: namespace.tap().to_owned(),
        mac: MacAddress([0x02, 0xfb, 10, 251, 0, 2]),
        netns: Some(namespace.path().to_owned()),
        address: None,
        publish: Vec::new(),
    });
    spec.mmds = Some(MmdsSpec {
        version: MmdsVersion::V2,
        imds_compat: true,
        document: json!({"latest": {"meta-data": {"VMMID": "x", "Env": {"A": "b"}}}}),
    });
    spec
}

/// Whether `found` says everything that `asked` does.
fn says(found: &Value, asked: &Value) -> bool {
    match (found, asked) {
        (Value::Object(found), Value::Object(asked)) => asked
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| says(found, value))),
        _ => found == asked,
    }
}

/// Where the answer to `GET /vm/config` says what a request asked for.
fn of_config<'a>(config: &'a Value, request: &PlannedRequest) -> Option<&'a Value> {
    let mut parts = request.path.trim_start_matches('/').split('/');
    let (section, id) = (parts.next()?, parts.next());
    match (section, id) {
        ("drives", Some(id)) => by_id(&config["drives"], "drive_id", id),
        ("network-interfaces", Some(id)) => by_id(&config["network-interfaces"], "iface_id", id),
        ("mmds", Some("config")) => config.get("mmds-config"),
        // The answer has no place for how the serial port is limited, and none of metrics that are set by the API.
        ("mmds" | "actions" | "serial" | "metrics", _) => None,
        (section, _) => config.get(section),
    }
}

fn by_id<'a>(list: &'a Value, key: &str, id: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[key] == id)
}

#[test]
fn the_whole_configuration_arrives() {
    let Some(lab) = Lab::open("the_whole_configuration_arrives") else {
        return;
    };
    let Some(namespace) = Namespace::open("the_whole_configuration_arrives", lab.dir.path()) else {
        return;
    };
    let backend = lab.backend();
    let (plan, dir) = lab.plan(everything(&lab, &namespace), &backend);
    namespace.give_tap_to(dir.user().unwrap().0);
    let mut machine = launch(&plan, dir).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let mut control = FirecrackerControl::new(machine.take_control().unwrap());
    let config = control.config().unwrap();
    let mut compared = 0;
    for request in &plan.api.as_ref().unwrap().requests {
        let Some(found) = of_config(&config, request) else {
            continue;
        };
        let (path, asked) = (&request.path, &request.body);
        assert!(says(found, asked), "{path}: {found} for {asked}");
        compared += 1;
    }
    assert_eq!(compared, 9, "{config}");
    let document = json!({"latest": {"meta-data": {"VMMID": "x", "Env": {"A": "b"}}}});
    assert_eq!(control.metadata().unwrap(), document);
    control
        .patch_metadata(&json!({"latest": {"meta-data": {"Env": null}}}))
        .unwrap();
    let smaller = json!({"latest": {"meta-data": {"VMMID": "x"}}});
    assert_eq!(control.metadata().unwrap(), smaller);
    control.put_metadata(&json!({"other": "document"})).unwrap();
    assert_eq!(control.metadata().unwrap(), json!({"other": "document"}));

    // The process is in the namespace, and in no other.
    let pid = machine.vmm_pid().unwrap();
    let inode = |path: String| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(inode(format!("/proc/{pid}/ns/net")), namespace.inode());
    assert_ne!(
        inode(format!("/proc/{pid}/ns/mnt")),
        inode("/proc/self/ns/mnt".to_owned())
    );

    control.pause().unwrap();
    control.resume().unwrap();
    control.quit().unwrap();
    wait_for("it ends", || machine.pump() == MachineState::Ended);
    let end = machine.finish();
    assert!(end.cleanup.is_empty(), "{end:?}");
    // One line at the start at least, and it says whose it is.
    let metrics = fs::read_to_string(lab.dir.path().join("metrics")).unwrap();
    let first: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert_eq!(first["properties"]["team"], "a", "{first}");
    assert!(first["id"].is_string() && first["utc_timestamp_ms"].is_u64());
    drop(namespace);
    lab.assert_clean();
}

/// The cgroups of a process: by controller, `` for version 2.
fn cgroups(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    });
    lines.collect()
}

/// Checks a running machine's jail: where it is, what is in it, whose it is, what holds it.
fn check_jail(lab: &Lab, backend: &Firecracker, owner: Owner, cgroup: Option<(&str, &str)>) {
    let spec = lab.spec();
    let short = spec.id[..12].to_owned();
    let (plan, dir) = lab.plan(spec, backend);
    let mut machine = launch(&plan, dir).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let owner = if owner.uid == 0 {
        let uid = machine.run_dir().unwrap().user().unwrap().0;
        Owner { uid, gid: uid }
    } else {
        owner
    };
    let pid = machine.vmm_pid().unwrap();
    assert_eq!(status(pid, "Uid"), vec![owner.uid.to_string(); 4]);
    assert_eq!(status(pid, "Gid"), vec![owner.gid.to_string(); 4]);
    assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
    assert_eq!(status(pid, "CapEff"), ["0000000000000000"]);
    let program = lab.firecracker.file_name().unwrap().to_str().unwrap();
    let root = lab
        .dir
        .path()
        .join("jails")
        .join(program)
        .join(&short)
        .join("root");
    // What it sees as its root is the jail: same directory, by device and inode.
    let same = |a: PathBuf, b: PathBuf| {
        use std::os::unix::fs::MetadataExt;
        let (a, b) = (fs::metadata(a).unwrap(), fs::metadata(b).unwrap());
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    };
    assert!(same(format!("/proc/{pid}/root").into(), root.clone()));
    let names: Vec<String> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let pid_file = format!("{program}.pid");
    for name in [
        "api.sock",
        "v.sock",
        "v.sock_1024",
        "log",
        "console",
        "kernel",
        "disk0",
        "disk1",
        "memory",
        "dev",
        program,
        &pid_file,
    ] {
        assert!(
            names.iter().any(|found| found == name),
            "{name} is not in {names:?}"
        );
    }
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!arguments.contains("no-seccomp"), "{arguments}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        limits
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let files = backend
        .jail
        .as_ref()
        .unwrap()
        .max_open_files
        .unwrap_or(2048);
    assert!(
        limit("Max open files").contains(&files.to_string()),
        "{limits}"
    );
    if let Some(bytes) = backend.jail.as_ref().unwrap().max_file_bytes {
        assert!(
            limit("Max file size").contains(&bytes.to_string()),
            "{limits}"
        );
    }
    if let Some((controller, path)) = cgroup {
        assert_eq!(cgroups(pid)[controller], format!("{path}/{short}"));
    }
    // The secrets of the initrd are in memory, and wiped when the guest has read them.
    let initrd = root.join("memory/initrd");
    assert!(fs::read(&initrd).unwrap().starts_with(b"070701"));
    machine.wipe_initrd().unwrap();
    assert!(fs::read(&initrd).unwrap().iter().all(|byte| *byte == 0));
    machine.kill().unwrap();
    wait_for("it ends", || machine.pump() == MachineState::Ended);
    let end = machine.finish();
    assert!(end.cleanup.is_empty() && end.killed, "{end:?}");
    lab.assert_clean();
}

#[test]
fn a_jail_has_a_user_of_its_own() {
    let Some(lab) = Lab::open("a_jail_has_a_user_of_its_own") else {
        return;
    };
    check_jail(&lab, &lab.backend(), Owner { uid: 0, gid: 0 }, None);
}

#[test]
fn a_jail_is_held_by_cgroups_and_limits() {
    let test = "a_jail_is_held_by_cgroups_and_limits";
    let Some(lab) = Lab::open(test) else {
        return;
    };
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut tried = 0;
    for version in [1, 2] {
        let mut backend = lab.backend();
        let jail = backend.jail.as_mut().unwrap();
        jail.cgroup.host = CgroupHost::of_mounts(&mounts, Some(version));
        jail.cgroup.parent = Some("firebuild-test/vms".to_owned());
        jail.max_file_bytes = Some(1 << 30);
        jail.max_open_files = Some(512);
        jail.user = Some(Owner {
            uid: 61_001,
            gid: 61_002,
        });
        let owner = jail.user.unwrap();
        let (file, value, controller, root) = match &jail.cgroup.host {
            CgroupHost::V1(found) if found.contains_key("pids") => {
                ("pids.max", "64", "pids", found["pids"].clone())
            }
            CgroupHost::V2(root) => match v2_file(root) {
                Some((file, value)) => (file, value, "", root.clone()),
                None => {
                    eprintln!("SKIP {test}: no cgroup of version 2 has a controller here");
                    continue;
                }
            },
            other => {
                eprintln!("SKIP {test}: no cgroups of version {version}: {other:?}");
                continue;
            }
        };
        jail.cgroup.settings = vec![(file.to_owned(), value.to_owned())];
        check_jail(
            &lab,
            &backend,
            owner,
            Some((controller, "/firebuild-test/vms")),
        );
        assert!(!root.join("firebuild-test/vms").exists());
        // The jailer makes those above it, too; they are the administrator's.
        let _ = fs::remove_dir(root.join("firebuild-test"));
        tried += 1;
    }
    assert!(tried > 0, "this host has cgroups of neither version");
}

/// A file of a controller that version 2 has here, and what can be written to it.
fn v2_file(root: &std::path::Path) -> Option<(&'static str, &'static str)> {
    let text = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| text.split_whitespace().any(|found| found == name);
    let files = [
        ("pids", "pids.max", "64"),
        ("memory", "memory.max", "1073741824"),
        ("hugetlb", "hugetlb.2MB.max", "0"),
        ("misc", "misc.max", "sev 0"),
    ];
    let found = files.into_iter().find(|(controller, ..)| has(controller));
    found.map(|(_, file, value)| (file, value))
}

#[test]
fn without_a_jail_it_is_still_not_root() {
    let Some(lab) = Lab::open("without_a_jail_it_is_still_not_root") else {
        return;
    };
    // The device is open to nobody but root here; a group that has it is what `KvmState` tells otherwise.
    let backend = Firecracker {
        jail: None,
        ..lab.backend()
    };
    let (plan, dir) = lab.plan(lab.spec(), &backend);
    let uid = dir.user().unwrap().0;
    match launch(&plan, dir) {
        Ok(mut machine) => {
            let pid = machine.vmm_pid().unwrap();
            assert_eq!(status(pid, "Uid"), vec![uid.to_string(); 4]);
            machine.kill().unwrap();
            wait_for("it ends", || machine.pump() == MachineState::Ended);
            assert!(machine.finish().cleanup.is_empty());
        }
        // Everything but the last request has been taken by then.
        Err(error) => {
            let text = chain(&error);
            assert!(
                text.contains("PUT /actions") && text.contains("KVM"),
                "{text}"
            );
        }
    }
    lab.assert_clean();
}
