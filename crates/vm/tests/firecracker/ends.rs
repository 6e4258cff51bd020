//! Every way in which a machine ends, and that nothing is left of it; what Firecracker's exit codes mean.

use std::path::Path;
use std::process::{Command, Stdio};

use firebuild_sys::process::Exit;
use firebuild_vm::backend::firecracker::exit_reason;
use firebuild_vm::launch::LaunchErrorKind;
use firebuild_vm::places::Place;
use firebuild_vm::plan::Access;
use firebuild_vm::run_dir::reclaim;
use firebuild_vm::spec::KernelFormat;
use firebuild_vm::{Machine, MachineState, RunDir, launch};
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, chain, named, wait_for};

fn signal(machine: &Machine, signal: Signal) {
    let pid = Pid::from_raw(machine.vmm_pid().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_killed_or_dropped_machine_leaves_nothing() {
    let Some(lab) = Lab::open("a_killed_or_dropped_machine_leaves_nothing") else {
        return;
    };
    let mut machine = lab.start(lab.spec(), &lab.backend());
    machine.kill().unwrap();
    machine.wait().unwrap();
    let end = machine.finish();
    assert!(end.killed && end.cleanup.is_empty(), "{end:?}");
    lab.assert_clean();

    // Killed by somebody else.
    let mut machine = lab.start(lab.spec(), &lab.backend());
    signal(&machine, Signal::KILL);
    machine.wait().unwrap();
    let end = machine.finish();
    assert_eq!(end.exit, Some(Exit::Signal(9)));
    assert!(end.cleanup.is_empty(), "{end:?}");
    lab.assert_clean();

    let machine = lab.start(lab.spec(), &lab.backend());
    let pid = machine.vmm_pid().unwrap();
    drop(machine);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    lab.assert_clean();
}

#[test]
fn what_firecracker_refuses_is_told_in_its_words() {
    let Some(lab) = Lab::open("what_firecracker_refuses_is_told_in_its_words") else {
        return;
    };
    let mut spec = lab.spec();
    let kernel = lab.dir.path().join("no-kernel");
    fs::write(&kernel, "this is no kernel").unwrap();
    spec.kernel.path = kernel;
    spec.kernel.format = KernelFormat::Elf;
    let (plan, dir) = lab.plan(spec, &lab.backend());
    let error = launch(&plan, dir).unwrap_err();
    assert!(
        matches!(error.kind(), LaunchErrorKind::Api { .. }),
        "{error:?}"
    );
    let text = chain(&error);
    assert!(text.contains("the VMM did not do PUT /actions"), "{text}");
    assert!(
        text.contains("refused") && text.contains("kernel"),
        "{text}"
    );
    lab.assert_clean();

    // A jailer that cannot go on.
    let (mut plan, dir) = lab.plan(lab.spec(), &lab.backend());
    let args = &mut plan.processes[0].args;
    let at = args.iter().position(|word| word == "--").unwrap();
    args.splice(at..at, ["--netns", "/no/such/namespace"].map(str::to_owned));
    let error = launch(&plan, dir).unwrap_err();
    let text = chain(&error);
    assert!(
        matches!(error.kind(), LaunchErrorKind::Ended { .. }),
        "{text}"
    );
    assert!(
        text.contains("ended with status 1: Firecracker or its jailer"),
        "{text}"
    );
    assert!(text.contains("/no/such/namespace"), "{text}");
    lab.assert_clean();
}

#[test]
fn exit_codes_have_words() {
    let Some(lab) = Lab::open("exit_codes_have_words") else {
        return;
    };
    let signals = [
        (Signal::BUS, 149),
        (Signal::SEGV, 150),
        (Signal::XFSZ, 151),
        (Signal::XCPU, 154),
        (Signal::HUP, 156),
        (Signal::ILL, 157),
        // One that no seccomp filter has caused.
        (Signal::SYS, 2),
    ];
    for (number, code) in signals {
        let mut machine = lab.start(lab.spec(), &lab.backend());
        signal(&machine, number);
        wait_for("it ends", || machine.pump() == MachineState::Ended);
        let end = machine.finish();
        assert_eq!(end.exit, Some(Exit::Code(code)), "{}", end.words());
        let reason = exit_reason(code).unwrap();
        assert!(end.words().contains(reason), "{}", end.words());
        assert!(end.cleanup.is_empty(), "{end:?}");
    }
    // A word in the place of another on the command line.
    for (word, other, code) in [
        ("--show-level", "--no-such-argument", 153),
        ("Warning", "no-such-level", 152),
    ] {
        let (mut plan, dir) = lab.plan(lab.spec(), &lab.backend());
        let args = &mut plan.processes[0].args;
        let at = args.iter().position(|found| found == word).unwrap();
        args[at] = other.to_owned();
        let text = chain(&launch(&plan, dir).unwrap_err());
        let ended = format!("ended with status {code}: {}", exit_reason(code).unwrap());
        assert!(text.contains(&ended), "{text}");
        lab.assert_clean();
    }
}

/// A filter that refuses what a virtual processor does first, in the place of the one that is built in.
const FILTER: &str = r#"{
    "vmm": {"default_action": "allow", "filter_action": "trap", "filter": [{"syscall": "reboot"}]},
    "api": {"default_action": "allow", "filter_action": "trap", "filter": [{"syscall": "reboot"}]},
    "vcpu": {"default_action": "allow", "filter_action": "trap", "filter": [{"syscall": "ioctl"}]}
}"#;

#[test]
fn a_refused_system_call_has_words() {
    let test = "a_refused_system_call_has_words";
    let Some(lab) = Lab::open(test) else {
        return;
    };
    let Some(compiler) = named(test, "FIREBUILD_FIRECRACKER_SECCOMPILER") else {
        return;
    };
    let (text, filter) = (lab.dir.path().join("f.json"), lab.dir.path().join("f.bpf"));
    fs::write(&text, FILTER).unwrap();
    let compiled = Command::new(compiler)
        .args(["--target-arch", "x86_64", "--input-file"])
        .arg(&text)
        .arg("--output-file")
        .arg(&filter)
        .status();
    assert!(compiled.unwrap().success());
    let (mut plan, dir) = lab.plan(lab.spec(), &lab.backend());
    let seen = plan.places.iter().find_map(|place| match place {
        Place::Seen { path, owner, .. } => Some((path.with_file_name("filter"), *owner)),
        _ => None,
    });
    let (path, owner) = seen.unwrap();
    plan.places.push(Place::Seen {
        path,
        source: filter,
        owner,
        access: Access::Read,
    });
    let words = ["--seccomp-filter", "filter"].map(str::to_owned);
    plan.processes[0].args.extend(words);
    let words = match launch(&plan, dir) {
        // The filter is in force while the guest is started, or just after.
        Err(error) => chain(&error),
        Ok(mut machine) => {
            wait_for("it ends", || machine.pump() == MachineState::Ended);
            machine.finish().words()
        }
    };
    let told = format!("ended with status 148: {}", exit_reason(148).unwrap());
    assert!(words.contains(&told), "{words}");
    lab.assert_clean();
}

/// The part of the next test that is killed: a process that owns a machine.
#[test]
fn owner_to_be_killed() {
    let Some(ready) = std::env::var_os("FIREBUILD_TEST_OWNER") else {
        return;
    };
    let lab = Lab::open("owner_to_be_killed").unwrap();
    let machine = lab.start(lab.spec(), &lab.backend());
    let text = format!(
        "{}\n{}\n{}",
        machine.vmm_pid().unwrap(),
        machine.run_dir().unwrap().path().display(),
        lab.dir.path().display()
    );
    let aside = std::path::PathBuf::from(&ready).with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, std::path::PathBuf::from(ready)).unwrap();
    std::thread::sleep(crate::lab::LIMIT);
    drop(machine);
}

#[test]
fn a_killed_owner_takes_its_machine_along_and_the_rest_is_found() {
    let Some(lab) = Lab::open("a_killed_owner_takes_its_machine_along_and_the_rest_is_found")
    else {
        return;
    };
    let ready = lab.dir.path().join("ready");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ends::owner_to_be_killed", "--nocapture"])
        .env("FIREBUILD_TEST_OWNER", &ready)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the machine runs", || ready.exists());
    let text = fs::read_to_string(&ready).unwrap();
    let mut lines = text.lines();
    let pid: i32 = lines.next().unwrap().parse().unwrap();
    let (run, theirs) = (
        Path::new(lines.next().unwrap()),
        Path::new(lines.next().unwrap()),
    );
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("Firecracker dies with its owner", || {
        !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid)
    });
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        mounts().contains(theirs.to_str().unwrap()),
        "its memory is still there"
    );
    assert!(theirs.join("jails").exists() && run.exists());
    reclaim(run).unwrap();
    assert!(!run.exists());
    assert_eq!(fs::read_dir(theirs.join("jails")).unwrap().count(), 0);
    assert!(!mounts().contains(theirs.to_str().unwrap()));
    fs::remove_dir_all(theirs).unwrap();

    // The next machine of that name finds its place free.
    drop(RunDir::create(&lab.dir.path().join("run"), "again").unwrap());
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'))
    })
}
