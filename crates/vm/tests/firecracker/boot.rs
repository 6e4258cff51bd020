//! As far as a guest gets on any host whose KVM makes machines: to the kernel's start of its init.

use firebuild_vm::MachineState;
use rustix::event::{Timespec, poll};

use crate::lab::{LIMIT, Lab, chain};

/// What a kernel says last before its user space begins.
const INIT: &str = "Run /init as init process";

#[test]
fn the_kernel_comes_to_its_init() {
    let Some(lab) = Lab::open("the_kernel_comes_to_its_init") else {
        return;
    };
    let mut spec = lab.spec();
    // Its own words are what is waited for.
    spec.kernel_args.push("loglevel=7".to_owned());
    spec.console.path = Some(lab.dir.path().join("console.log"));
    let mut machine = lab.start(spec, &lab.backend());
    // Where the hypervisor underneath interprets the guest this takes a minute, and more on a busy machine.
    let deadline = std::time::Instant::now() + LIMIT * 4;
    let reached = |machine: &firebuild_vm::Machine| {
        let console = machine.console().unwrap();
        let lines = console.last_lines(400);
        lines.iter().any(|line| line.contains(INIT))
    };
    while machine.pump() == MachineState::Running
        && !reached(&machine)
        && std::time::Instant::now() < deadline
    {
        let mut fds = Vec::new();
        machine.poll_fds(&mut fds);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let _ = poll(&mut fds, Some(&timeout));
    }
    let end = machine.finish();
    // A guest whose user space faults is gone at once: what it said last is read at its end.
    let log = fs_err::read_to_string(lab.dir.path().join("console.log")).unwrap();
    assert!(log.contains(INIT), "{}\n{log}", end.words());
    assert!(
        end.cleanup.is_empty(),
        "{:?}",
        end.cleanup.iter().map(|e| chain(e)).collect::<Vec<_>>()
    );
    lab.assert_clean();
}
