//! RUN in a VM: the cases of the sandbox (`crates/build/tests/root_sandbox/cases`) with the other executor, in one VM, and
//! the ends that only a VM has.
//!
//! Needs `qemu-system-x86_64`, a static `busybox` and a kernel package (`FIREBUILD_TEST_KERNEL_DEB`); everything runs
//! under software emulation.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests to us, though not to clippy"
)]
#![allow(dead_code, reason = "not every case of the sandbox concerns a VM")]

#[path = "../../../crates/build/tests/root_sandbox/base.rs"]
mod base;
#[path = "../../../crates/build/tests/root_sandbox/cases.rs"]
mod cases;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use firebuild_build::exec::{ExecErrorKind, Exit};
use firebuild_build::graph::SecurityMode;

use base::{Base, run, shell};
use steps::{subject, user};

/// What concerns the sandbox alone: processes and mounts of the host, ids that cannot be had, copies in place of overlays,
/// and the name of the host's network.
const NOT_HERE: [&str; 6] = [
    "a_cancelled_step_leaves_nothing",
    "a_killed_builder_leaves_no_process",
    "no_mount_is_left",
    "a_copy_does_what_an_overlay_does",
    "surroundings_are_dockers",
    "much_output_arrives_whole",
];

#[test]
fn steps_in_a_vm_do_what_they_do_in_a_sandbox() {
    let test = "steps_in_a_vm_do_what_they_do_in_a_sandbox";
    if let Some(why) = subject::missing() {
        eprintln!("SKIP {test}: {why}");
        return;
    }
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in cases::CASES {
        if NOT_HERE.contains(&case.name) || !case.who.contains(&user::Who::Root) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            (case.run)(directory.path(), user::Who::Root);
        }));
        eprintln!("{} {:?}", case.name, begun.elapsed());
        ran += 1;
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    assert_eq!(failed, Vec::<&str>::new());
    assert!(ran > 20, "only {ran} cases");

    let directory = tempfile::tempdir().unwrap();
    let base = Base::new(directory.path());
    output_arrives_whole(&base);
    a_cancelled_step_ends(&base);
    // Last, since they end the VM.
    a_crash_is_an_error(&base);
    subject::end();
    assert_eq!(subject::machines(), 0, "a VM outlives its executor");
}

fn output_arrives_whole(base: &Base) {
    let ran = base.sh("seq 1 20000; seq 1 10000 >&2; (sleep 0.3; echo late) & exit 0");
    let expected = |count: u32| {
        (1..=count)
            .map(|number| format!("{number}\n"))
            .collect::<String>()
    };
    assert!(ran.ok() == expected(20_000));
    assert!(ran.stderr == expected(10_000));
}

fn a_cancelled_step_ends(base: &Base) {
    let cancel = firebuild_build::cancel::Cancel::new().unwrap();
    let begun = Instant::now();
    let error = std::thread::scope(|scope| {
        let cancel = &cancel;
        let mut output = |_, _: &[u8]| cancel.raise();
        let handle = scope.spawn(move || {
            let step = shell("trap '' TERM INT; echo up; sleep 1000");
            let sandbox = base.sandbox();
            firebuild_build::exec::Executor::run(&sandbox, &base.chain, &step, &mut output, cancel)
                .map(|_| ())
        });
        handle.join().unwrap().unwrap_err()
    });
    assert_eq!(error.kind(), ExecErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(20));
    // Its VM goes on.
    assert_eq!(base.sh("echo on").ok(), "on\n");
}

/// A guest that crashes fails its step soon, and the next step gets another VM.
fn a_crash_is_an_error(base: &Base) {
    let mut step = shell("echo c > /proc/sysrq-trigger; sleep 100");
    step.security = SecurityMode::Insecure;
    let begun = Instant::now();
    let error = run(&base.sandbox(), &base.chain, &step)
        .map(|_| ())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the VM of the build has ended"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
    assert_eq!(base.sh("exit 7").done.status, Exit::Code(7));
}
