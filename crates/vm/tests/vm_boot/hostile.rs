//! Guests that mean harm, and ends that nobody announced.

use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitRecord, ExitStatus, GuestMessage, StreamId};
use firebuild_sys::process::Exit;
use firebuild_vm::agent::{AgentError, AgentEvent};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Lab, Words, drive, drive_at_most};

#[test]
fn vm_noise_on_the_channel_ends_the_conversation_only() {
    let Some(lab) = Lab::open("vm_noise_on_the_channel_ends_the_conversation_only") else {
        return;
    };
    let greeting = Words::new().hello().flush().0;
    let spec = lab.spec(
        "say hello\ncat /dev/urandom >&3\nsleep 600",
        &[("hello", greeting)],
    );
    let run = drive(lab.start(spec, &lab.backend(false)), |_, _, _| {});
    assert!(
        matches!(run.error, Some(AgentError::Protocol(_))),
        "{run:?}"
    );
    assert!(run.end.killed);
    assert!(run.end.cleanup.is_empty(), "{run:?}");
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_messages_out_of_order_are_refused() {
    let Some(lab) = Lab::open("vm_messages_out_of_order_are_refused") else {
        return;
    };
    let record = ExitRecord {
        status: ExitStatus::Exited { code: 0 },
        oom_killed: false,
        finished_unix_ns: 0,
    };
    let early = Words::new().message(&GuestMessage::Exit(record)).flush().0;
    let run = drive(
        lab.start(
            lab.spec("say early\nsleep 600", &[("early", early)]),
            &lab.backend(false),
        ),
        |_, _, _| {},
    );
    let error = run.error.unwrap().to_string();
    assert_eq!(error, "the guest sent an exit record out of order");
}

#[test]
fn vm_console_flood_is_bounded_and_stops_nothing() {
    let Some(lab) = Lab::open("vm_console_flood_is_bounded_and_stops_nothing") else {
        return;
    };
    let words = Words::new()
        .started()
        .stream(StreamId::STDOUT, b"still here\n")
        .exit(0);
    let mut spec = lab.spec("yes flood | head -c 300000; say all", &[("all", words)]);
    let log = lab.dir.path().join("console.log");
    spec.console.path = Some(log.clone());
    spec.console.max_bytes = 100_000;
    let run = drive(lab.start(spec, &lab.backend(false)), |_, _, _| {});
    assert_eq!(run.exit_code(), Some(0), "{run:?}");
    assert_eq!(run.stdout, b"still here\n");
    assert_eq!(fs_err::metadata(log).unwrap().len(), 100_000);
}

#[test]
fn vm_killed_from_outside_is_seen_at_once() {
    let Some(lab) = Lab::open("vm_killed_from_outside_is_seen_at_once") else {
        return;
    };
    let greeting = Words::new().started().flush().0;
    let machine = lab.start(
        lab.spec("say all\nsleep 600", &[("all", greeting)]),
        &lab.backend(false),
    );
    let pid = Pid::from_raw(machine.vmm_pid().unwrap()).unwrap();
    let mut killed = None;
    let run = drive(machine, |event, _, _| {
        if matches!(event, AgentEvent::Started { .. }) {
            kill_process(pid, Signal::KILL).unwrap();
            killed = Some(Instant::now());
        }
    });
    assert!(killed.unwrap().elapsed() < Duration::from_secs(5));
    assert_eq!(run.end.exit, Some(Exit::Signal(9)), "{run:?}");
    assert!(!run.end.killed, "it was not us");
    assert!(
        run.end
            .words()
            .starts_with("the VMM was killed by signal 9"),
        "{}",
        run.end.words()
    );
    assert_eq!(run.exit_code(), None);
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_that_restarts_without_a_report_is_no_success() {
    let Some(lab) = Lab::open("vm_that_restarts_without_a_report_is_no_success") else {
        return;
    };
    let run = drive_at_most(
        lab.start(
            lab.spec("echo last-words; sleep 0.3; reboot -f", &[]),
            &lab.backend(false),
        ),
        Duration::from_secs(60),
        |_, _, _| {},
    );
    assert_eq!(run.exit_code(), None);
    assert_eq!(run.end.exit, Some(Exit::Code(0)));
    assert!(
        run.end.words().contains("without a report"),
        "{}",
        run.end.words()
    );
    assert!(run.console().contains("last-words"), "{run:?}");
}
