//! Firecracker and its jailer as users see them: a guest in its jail, its end in words, and nothing left of it.
//!
//! `firebuild_e2e::firecracker` tells what names them; without them this skips loudly. Some hosts have a `/dev/kvm` under
//! which a kernel comes to its init and no further. What needs a user space skips there; the rest insists with
//! `--accel=kvm`; in `scripts/nested-kvm` all of it runs. Everything is in a network namespace of the test.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use firebuild_e2e::firecracker::{IMAGE, LIMIT, Lab, code, is_here, network, start, wait_for};
use firebuild_e2e::netns::machines_here;
use firebuild_e2e::{run, skip};
use firebuild_netlab::Outside;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What a kernel says last before its user space begins.
const INIT: &str = "Run /init as init process";
#[test]
fn a_guest_lives_in_its_jail_and_its_end_is_told() {
    let test = "a_guest_lives_in_its_jail_and_its_end_is_told";
    if !is_here(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(lab) = Lab::open(test) else { return };
    let before = network();
    let works = lab.works();
    let flags = [
        "--accel=kvm",
        "--name=one",
        "--network=bridge",
        "-p",
        "8000:7000",
    ];
    let (done, pid) = std::thread::scope(|scope| {
        let end = scope.spawn(|| lab.done(&flags, "echo out; echo err >&2; exit 7"));
        let pid = lab.process("one", "vmm").as_raw_nonzero();
        let seen = lab.inspect("one");
        let address = seen.pointer("/NetworkSettings/IPAddress");
        assert_eq!(address, Some(&Value::from("10.251.0.2")), "{seen}");
        // It may have come to its end already, but its record is still that of one that ran.
        assert_eq!(seen["Firebuild"]["Machine"]["backend"], "firecracker");
        if let Ok(root) = fs_err::metadata(format!("/proc/{pid}/root")) {
            let jail = lab.jails().join("firecracker");
            let jail = fs_err::read_dir(jail).unwrap().next().unwrap().unwrap();
            let jail = fs_err::metadata(jail.path().join("root")).unwrap();
            assert_eq!((root.dev(), root.ino()), (jail.dev(), jail.ino()));
            assert!(jail.uid() >= 1_900_000_000, "{}", jail.uid());
            let now = network();
            assert!(
                now.contains("firebuild0") && now.contains("10.251.0.1"),
                "{now}"
            );
        }
        (end.join().unwrap(), pid)
    });
    let words = done.err();
    if works {
        assert_eq!((done.code, done.out().as_str()), (7, "out\n"), "{words}");
        assert!(words.contains("err"), "{words}");
    } else {
        assert!(
            words.contains("note: kvm is used because --accel kvm asks for it"),
            "{words}"
        );
        // Its user space cannot run: the kernel panics, or the hypervisor gives up.
        assert_eq!(done.code, 125, "{words}");
        assert!(
            words.contains("Kernel panic - not syncing")
                || words.contains("the VMM ended with status"),
            "{words}"
        );
    }
    lab.until_gone(&before);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let console = lab.fb(["logs", "--console", "one"]).ok().out();
    assert!(console.contains(INIT), "{console}");
    let state = lab.inspect("one")["State"].clone();
    assert_eq!(state["ExitCode"], done.code, "{state}");
    assert_eq!(
        state["Error"].as_str().unwrap().is_empty(),
        works,
        "{state}"
    );
    let listed = lab.fb(["ls", "-a"]).ok().out();
    assert!(
        listed.contains(&format!("Exited ({})", done.code)),
        "{listed}"
    );
    let _ = lab.fb(["rm", "one"]).ok();
}

#[test]
fn however_it_is_ended_nothing_is_left() {
    let test = "however_it_is_ended_nothing_is_left";
    if !is_here(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(lab) = Lab::open(test) else { return };
    let before = network();
    let start = |name: &str, flags: &[&str]| {
        let mut all = vec!["--accel=kvm", "--name", name, "--network=bridge"];
        all.extend(["-p", "8000:7000"]);
        all.extend(flags);
        let child = start(lab.run(&all, "exec busybox sleep 1000"));
        (
            child,
            lab.process(name, "vmm"),
            lab.process(name, "monitor"),
        )
    };
    let exit_code = |name: &str| {
        let state = wait_for("its end is recorded", || {
            let state = lab.inspect(name)["State"].clone();
            (state["Status"] == "exited" || state["Status"] == "dead").then_some(state)
        });
        state["ExitCode"].as_i64().unwrap()
    };

    for (name, command, expected) in [
        ("killed", &["kill", "killed"][..], [137, 137]),
        // With a user space it is the application that ends.
        ("stopped", &["stop", "-t", "1", "stopped"], [137, 143]),
    ] {
        let (child, ..) = start(name, &["-d"]);
        let _ = lab.fb(command.iter().copied()).ok();
        assert!(expected.contains(&exit_code(name)), "{}", exit_code(name));
        lab.until_gone(&before);
        let _ = code(child);
    }
    let (child, ..) = start("removed", &["-d"]);
    let _ = lab.fb(["rm", "-f", "removed"]).ok();
    lab.until_gone(&before);
    assert!(lab.inspect("removed").is_null());
    let _ = code(child);

    // The program itself, by somebody else.
    let (child, vmm, _) = start("vmm", &[]);
    kill_process(vmm, Signal::KILL).unwrap();
    assert_eq!(code(child), Some(137));
    assert_eq!(exit_code("vmm"), 137);
    lab.until_gone(&before);

    // Its owner: the machine dies with it, and the next command finds the rest.
    let (child, vmm, monitor) = start("owner", &["-d"]);
    kill_process(monitor, Signal::KILL).unwrap();
    let _ = code(child);
    wait_for("it dies with its owner", || {
        (!machines_here()
            .iter()
            .any(|found| found.starts_with(&vmm.as_raw_nonzero().to_string())))
        .then_some(())
    });
    assert!(
        lab.jails().join("firecracker").exists(),
        "something is left to be found"
    );
    let purged = lab.fb(["purge"]).ok().out();
    assert!(purged.contains(" owner"), "{purged}");
    lab.until_gone(&before);

    // Everything at once; the next start cleans up.
    let (child, vmm, monitor) = start("all", &["-d"]);
    for pid in [monitor, vmm] {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = code(child);
    let (child, ..) = start("next", &[]);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // Before there is an application it is this signal's; with one, a shell that is told to end.
    assert!(matches!(code(child), Some(130 | 137)));
    lab.until_gone(&before);
    let _ = lab.fb(["purge"]).ok();
    lab.until_gone(&before);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let test = "what_cannot_be_is_refused_before_anything_is_made";
    if !is_here(test) {
        return;
    }
    let Some(lab) = Lab::open(test) else { return };
    let before = network();
    let long = format!("/{}", "x".repeat(70));
    let (kvm, none) = ("--accel=kvm", "--network=none");
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &[kvm, none, "--chroot-base", &long],
            &[
                "has 110 bytes, it may have 107",
                "a --chroot-base of at most 65 bytes",
            ],
        ),
        (&[kvm, none, "--jailer-uid=0"], &["does not run as root"]),
        (&["--accel=tcg", none], &["no software emulation (tcg)"]),
        (
            &[kvm, "--network=user"],
            &["--network=none", "--backend=qemu"],
        ),
        (
            &[kvm, none, "--kernel-args", "init=/bin/sh"],
            &["\"init=/bin/sh\" is reserved"],
        ),
    ];
    for (flags, words) in cases {
        let refused = lab.done(flags, "true").exits(125).err();
        for word in words {
            assert!(refused.contains(word), "{word:?} is not in {refused}");
        }
        lab.until_gone(&before);
    }
    assert!(!Path::new(&long).exists());
    assert_eq!(lab.fb(["ls", "-a", "-q"]).ok().out(), "");
}

#[test]
fn a_guest_is_one_to_live_with() {
    let test = "a_guest_is_one_to_live_with";
    if !is_here(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(lab) = Lab::open(test) else { return };
    if !lab.works() {
        return skip(test, "firecracker", "kvm runs no user space here");
    }
    let before = network();
    let config = lab.home.path().join("machine.json");
    fs_err::write(&config, MACHINE).unwrap();
    let config = config.display().to_string();
    let script = "echo $TOKEN | busybox wc -c; mkdir /www; echo page >/www/index.html; exec busybox httpd -f -p 7000 -h /www";
    let flags = ["-d", "--name=web", "--network=bridge", "-p", "8000:7000"];
    let more = ["-e", "TOKEN=hunter2", "--machine-config", &config];
    let _ = lab.done(&[&flags[..], &more].concat(), script).ok();

    let get = |address: &str| {
        let mut curl = Command::new("curl");
        let url = format!("http://{address}/");
        run(curl.args(["-s", "-m", "5", &url]), LIMIT).out()
    };
    wait_for("the page", || {
        (get("127.0.0.1:8000") == "page\n").then_some(())
    });
    assert_eq!(get("198.51.100.1:8000"), "page\n");

    let done = lab.fb(["exec", "web", "sh", "-c", "echo one; echo two >&2; exit 5"]);
    assert_eq!((done.code, done.out().as_str()), (5, "one\n"));
    assert_eq!(done.err(), "two\n");
    let file = lab.home.path().join("file");
    fs_err::write(&file, "payload").unwrap();
    let _ = lab
        .fb(["cp", &file.display().to_string(), "web:/www/file"])
        .ok();
    let _ = lab
        .fb([
            "cp",
            "web:/www/file",
            &file.with_extension("back").display().to_string(),
        ])
        .ok();
    assert_eq!(
        fs_err::read(file.with_extension("back")).unwrap(),
        b"payload"
    );
    assert!(
        lab.fb(["stats", "--no-stream", "web"])
            .ok()
            .out()
            .contains("web")
    );
    // The balloon's own words come with its first report.
    let balloon = wait_for("the balloon's statistics", || {
        let told = lab
            .fb(["stats", "--no-stream", "--format=json", "web"])
            .ok();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let balloon = told["Balloon"].clone();
        balloon["total_memory"].is_u64().then_some(balloon)
    });
    assert_eq!(balloon["target_mib"], 8, "{balloon}");
    let mtu = "echo $(busybox cat /sys/class/net/eth0/mtu) $(busybox cut -c4 /sys/class/net/eth0/device/features)";
    assert_eq!(lab.fb(["exec", "web", "sh", "-c", mtu]).out(), "1400 1\n");
    assert!(lab.fb(["top", "web"]).ok().out().contains("httpd"));

    // The metadata as the guest sees it, by a token.
    let ask = |what: &str| {
        let script = format!(
            "put() {{ printf 'PUT /latest/api/token HTTP/1.1\\r\\nX-metadata-token-ttl-seconds: 60\\r\\n\\r\\n'; busybox sleep 1; }}\n\
             token=$(put | busybox nc 169.254.169.254 80 | busybox tail -n 1)\n\
             get() {{ printf \"GET {what} HTTP/1.1\\r\\nX-metadata-token: $token\\r\\n\\r\\n\"; busybox sleep 1; }}\n\
             get | busybox nc 169.254.169.254 80 | busybox tail -n 1"
        );
        lab.fb(["exec", "web", "sh", "-c", &script]).ok().out()
    };
    assert!(ask("/latest/meta-data/ImageTag").contains(IMAGE));
    let patch = lab.home.path().join("patch.json");
    fs_err::write(&patch, r#"{"latest": {"meta-data": {"More": "of it"}}}"#).unwrap();
    let _ = lab
        .fb(["mmds", "patch", "web", &patch.display().to_string()])
        .ok();
    assert!(ask("/latest/meta-data/More").contains("of it"));
    assert!(
        !lab.fb(["mmds", "get", "web"])
            .ok()
            .out()
            .contains("hunter2")
    );

    let _ = lab.fb(["pause", "web"]).ok();
    assert_eq!(get("127.0.0.1:8000"), "");
    assert_eq!(lab.inspect("web")["State"]["Status"], "paused");
    let _ = lab.fb(["unpause", "web"]).ok();
    wait_for("the page", || {
        (get("127.0.0.1:8000") == "page\n").then_some(())
    });

    let pid = lab.process("web", "vmm").as_raw_nonzero();
    let limits = fs_err::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    assert!(files.unwrap().contains(" 512 "), "{limits}");

    let _ = lab.fb(["restart", "-t", "2", "web"]).ok();
    wait_for("the page", || {
        (get("127.0.0.1:8000") == "page\n").then_some(())
    });
    let logged = lab.fb(["logs", "web"]).ok().out();
    assert_eq!(logged.matches("8\n").count(), 2, "{logged}");
    let _ = lab.fb(["stop", "-t", "2", "web"]).ok();
    assert_eq!(lab.inspect("web")["State"]["ExitCode"], 143);
    lab.until_gone(&before);

    // Its metrics are the user's: those of both starts are there, and stay.
    let id = lab.inspect("web")["Id"].clone();
    let _ = lab.fb(["rm", "web"]).ok();
    let metrics = fs_err::read_to_string(lab.home.path().join("vm.metrics")).unwrap();
    let lines = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    assert!(lines.len() >= 4, "{metrics}");
    for line in lines {
        // Firecracker knows its machine by the short id.
        let short = line["id"].as_str().unwrap();
        assert!(id.as_str().unwrap().starts_with(short), "{id}: {line}");
        assert!(short.len() >= 12, "{line}");
        assert_eq!(line["properties"]["team"], "a");
    }

    // A kernel that gives up.
    let script = "echo before; echo 2 >/proc/sys/vm/panic_on_oom; busybox tail /dev/zero";
    let done = lab.done(&["--rm", "--network=none"], script).exits(125);
    assert_eq!(done.out(), "before\n");
    let words = done.err();
    assert!(
        words.contains("gave up with a panic\n  console: ") && words.contains("Kernel panic"),
        "{words}"
    );
    assert!(!words.contains("Failed to find address range"), "{words}");
    lab.until_gone(&before);
}

/// Everything that a machine configuration says, but for what a host may not have.
const MACHINE: &str = r#"{
    "machine-config": {"vcpu_count": 2, "mem_size_mib": 160},
    "drives": [
        {"drive_id": "root", "io_engine": "Sync"},
        {"drive_id": "scratch", "cache_type": "Writeback",
         "rate_limiter": {"bandwidth": {"size": 10485760, "refill_time": 100}, "ops": {"size": 1000, "refill_time": 100}}}
    ],
    "network-interfaces": [
        {"iface_id": "eth0", "mtu": 1400, "rx_rate_limiter": {"bandwidth": {"size": 1048576, "refill_time": 100}},
         "tx_rate_limiter": {"bandwidth": {"size": 1048576, "refill_time": 100}}}
    ],
    "balloon": {"amount_mib": 8, "deflate_on_oom": true, "stats_polling_interval_s": 1},
    "entropy": {"rate_limiter": {"bandwidth": {"size": 4096, "refill_time": 100}}},
    "serial": {"rate_limiter": {"size": 1048576, "refill_time": 100}},
    "metrics": {"metrics_path": "vm.metrics", "emit_id": true, "properties": {"team": "a"}},
    "mmds-config": {"imds_compat": true},
    "jailer": {"resource_limit": {"no-file": 512}}
}"#;
