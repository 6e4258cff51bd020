//! A machine never outlives its owner, however that one ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_vm::run_dir;

use crate::harness::{Lab, Words};

/// Where the owner that a test starts of itself makes its run dirs.
const BASE: &str = "FIREBUILD_VM_TEST_OWNER";

/// The owner: launches a machine, says its process ids, and waits to be killed. Only runs when a test asks for it.
#[test]
fn vm_owner_process() {
    let Some(base) = std::env::var_os(BASE) else {
        return;
    };
    let Some(lab) = Lab::open("vm_owner_process") else {
        return;
    };
    let backend = lab.backend(true);
    let greeting = Words::new().started().flush().0;
    let mut spec = lab.spec("say all\nsleep 600", &[("all", greeting)]);
    spec.network = firebuild_vm::spec::Network::User(firebuild_vm::spec::UserNetwork::default());
    let checked = spec
        .check(&firebuild_vm::Backend::capabilities(&backend))
        .unwrap();
    let dir = run_dir::RunDir::create(Path::new(&base), "owned").unwrap();
    let plan = firebuild_vm::Backend::plan(&backend, &checked, &dir).unwrap();
    let mut machine = firebuild_vm::launch(&plan, dir).unwrap();
    let pids: Vec<String> = machine
        .pids()
        .iter()
        .map(|(_, pid)| pid.to_string())
        .collect();
    println!("\npids {}", pids.join(" "));
    machine.wait().unwrap();
}

#[test]
fn vm_dies_with_its_owner() {
    let Some(lab) = Lab::open("vm_dies_with_its_owner") else {
        return;
    };
    let base = lab.run_base();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "owner::vm_owner_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(BASE, &base)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pids: Vec<String> = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            line.strip_prefix("pids ")
                .map(|pids| pids.split(' ').map(str::to_owned).collect())
        })
        .expect("the owner says which processes it has");
    let run_dir = base.join("owned");
    assert!(run_dir::is_alive(&run_dir).unwrap());
    assert!(
        run_dir::reclaim(&run_dir).is_err(),
        "a live machine is not reclaimed"
    );
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let alive = |pid: &String| {
        // A killed child of a killed parent is reaped by init; until then it is a zombie, which holds nothing.
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while pids.iter().any(alive) {
        assert!(
            Instant::now() < deadline,
            "processes {pids:?} outlive their owner"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // What is left is the directory, and who comes next may have it.
    assert!(!run_dir::is_alive(&run_dir).unwrap());
    run_dir::reclaim(&run_dir).unwrap();
    assert!(!run_dir.exists());
}
