//! One application in a root that is the initrd: its streams, its signals, its ends.

use firebuild_guest_proto::{
    EnvVar, ExitStatus, FailureReason, GuestMessage, HostMessage, RootLayout, Signal, WindowSize,
};

use super::guest::machine::{Machine, Parts};
use super::{boot_initrd, busybox_initrd, config, kernel_or_skip};

#[test]
fn an_initrd_machine_runs_its_application_and_ends_when_told() {
    let Some(kernel) = kernel_or_skip("an_initrd_machine_runs_its_application_and_ends_when_told")
    else {
        return;
    };
    let script =
        "echo out; echo err >&2; busybox ls -A /firebuild 2>/dev/null; busybox date +%s; exit 3";
    let mut config = config(script, RootLayout::Initrd);
    config.env = vec![EnvVar::parse("PATH=/bin").unwrap()];
    config.entropy = vec![7; 64];
    let extra = busybox_initrd();
    let garbage = b"left over from somebody else\0\xff".to_vec();
    let mut machine = Machine::start(
        kernel,
        config,
        Parts {
            extra: Some(extra),
            garbage,
            ..Parts::default()
        },
    );
    let record = machine.finish();
    assert_eq!(
        record.status,
        ExitStatus::Exited { code: 3 },
        "{}",
        machine.story()
    );
    assert!(!record.oom_killed);
    assert_eq!(machine.stderr, b"err\n");
    let text = machine.stdout_text();
    let (first, date) = text.trim_end().split_once('\n').unwrap();
    assert_eq!(
        first, "out",
        "and nothing of the initrd's own directory is left"
    );
    // The clock follows the host's.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now.abs_diff(date.parse().unwrap()) < 60, "{date} {now}");
    let kinds: Vec<_> = machine
        .messages
        .iter()
        .filter(|message| !matches!(message, GuestMessage::Log { .. }))
        .collect();
    assert!(
        matches!(
            kinds[..],
            [
                GuestMessage::Hello(_),
                GuestMessage::ConfigAck,
                GuestMessage::Started { .. },
                GuestMessage::Exit(_)
            ]
        ),
        "{}",
        machine.story()
    );
    // For people who look into a slow boot; each step comes with its time.
    eprintln!("{}", machine.console());
}

#[test]
fn streams_are_carried_to_their_last_byte() {
    let Some(kernel) = kernel_or_skip("streams_are_carried_to_their_last_byte") else {
        return;
    };
    // What comes in goes out again, and then more, with a daemon that holds stdout open when the application is gone.
    let script = "busybox cat; busybox yes 0123456789abcdef | busybox head -c 52428800; \
        (trap '' TERM; exec busybox sleep 1000) & busybox printf last >&2";
    let mut config = config(script, RootLayout::Initrd);
    config.stdin = true;
    let mut machine = boot_initrd(kernel, config);
    let input: Vec<u8> = (0..300_000u32)
        .map(|n| u8::try_from(n % 249).unwrap())
        .collect();
    machine.until("the start", Machine::has_started);
    machine.write_stdin(&input);
    machine.end_stdin();
    let record = machine.finish();
    assert_eq!(
        record.status,
        ExitStatus::Exited { code: 0 },
        "{}",
        machine.story()
    );
    assert!(machine.stdout.starts_with(&input));
    let rest = &machine.stdout[input.len()..];
    assert_eq!(rest.len(), 52_428_800);
    assert!(
        rest.chunks(17)
            .all(|line| b"0123456789abcdef\n".starts_with(line))
    );
    assert_eq!(machine.stderr, b"last");
}

#[test]
fn a_stalled_reader_blocks_neither_the_other_stream_nor_the_end() {
    let Some(kernel) =
        kernel_or_skip("a_stalled_reader_blocks_neither_the_other_stream_nor_the_end")
    else {
        return;
    };
    let script = "trap 'echo bye >&2; exit 9' INT; (busybox yes | busybox head -c 2000000; echo done >&2) & \
        echo ready >&2; while :; do busybox sleep 0.1; done";
    let mut config = config(script, RootLayout::Initrd);
    config.stop_signal = Signal::INT;
    let mut machine = boot_initrd(kernel, config);
    machine.reads_stdout = false;
    machine.until("stderr beside a stalled stdout", |machine| {
        machine.stderr == b"ready\n"
    });
    let window = 256 * 1024;
    machine.until("a full window", |machine| {
        machine.stdout_waiting() == window
    });
    machine.send(&HostMessage::Shutdown { grace_ms: 60_000 });
    machine.until("the stop signal", |machine| {
        machine.stderr.ends_with(b"bye\n")
    });
    // A window of what was written is here or on its way; the record waits for its reader.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(machine.exit().is_none());
    machine.reads_stdout = true;
    let record = machine.finish();
    assert_eq!(
        record.status,
        ExitStatus::Exited { code: 9 },
        "{}",
        machine.story()
    );
    assert!(machine.stdout.len() >= window, "{}", machine.stdout.len());
}

#[test]
fn signals_end_the_application_by_their_default_action() {
    let Some(kernel) = kernel_or_skip("signals_end_the_application_by_their_default_action") else {
        return;
    };
    let mut machine = boot_initrd(
        kernel,
        config("exec busybox sleep 1000", RootLayout::Initrd),
    );
    machine.until("the start", Machine::has_started);
    machine.send(&HostMessage::Signal {
        signal: Signal::TERM,
    });
    let record = machine.finish();
    assert_eq!(
        record.status,
        ExitStatus::Signaled {
            signal: Signal::TERM,
            core_dumped: false
        }
    );
    assert_eq!(record.exit_code(), 143);

    // One that takes no stop signal is killed after its grace.
    let mut machine = boot_initrd(
        kernel,
        config(
            "trap '' TERM; echo on; while :; do busybox sleep 1; done",
            RootLayout::Initrd,
        ),
    );
    machine.until("the first line", |machine| machine.stdout == b"on\n");
    machine.send(&HostMessage::Shutdown { grace_ms: 300 });
    assert_eq!(machine.finish().exit_code(), 137);
}

#[test]
fn a_terminal_has_its_size_and_is_the_controlling_one() {
    let Some(kernel) = kernel_or_skip("a_terminal_has_its_size_and_is_the_controlling_one") else {
        return;
    };
    let script = "busybox stty size; [ -t 0 ] && [ -t 2 ] && echo tty $TERM; echo x > /dev/tty; read line; busybox stty size; \
        echo \"got $line\"; busybox cat";
    let mut config = config(script, RootLayout::Initrd);
    config.terminal = Some(WindowSize {
        rows: 33,
        columns: 101,
    });
    config.stdin = true;
    let mut machine = boot_initrd(kernel, config);
    machine.until("the first lines", |machine| {
        machine.stdout_text().contains("x\r\n")
    });
    machine.send(&HostMessage::WindowSize(WindowSize {
        rows: 12,
        columns: 34,
    }));
    machine.write_stdin(b"hello\n");
    machine.until("the answer", |machine| {
        machine.stdout_text().contains("got hello\r\n")
    });
    machine.end_stdin();
    let record = machine.finish();
    assert_eq!(record.exit_code(), 0, "{}", machine.story());
    assert_eq!(
        machine.stdout_text().replace("hello\r\n12", "12"),
        "33 101\r\ntty xterm\r\nx\r\n12 34\r\ngot hello\r\n",
        "{}",
        machine.story()
    );
}

#[test]
fn an_application_that_cannot_start_is_reported() {
    let Some(kernel) = kernel_or_skip("an_application_that_cannot_start_is_reported") else {
        return;
    };
    let cases: [(&[&str], &str, FailureReason, &str); 4] = [
        (
            &["nope"],
            "",
            FailureReason::NotFound,
            "exec nope: executable file not found in $PATH",
        ),
        (
            &["/bin/text"],
            "",
            FailureReason::CannotExecute,
            "exec /bin/text: permission denied",
        ),
        (&["/bin/script"], "", FailureReason::NotFound, "interpreter"),
        (
            &["/bin/sh"],
            "nobody-there",
            FailureReason::UnknownUser,
            "nobody-there",
        ),
    ];
    for (argv, user, expected, words) in cases {
        let mut config = config("", RootLayout::Initrd);
        config.argv = argv.iter().map(|&word| word.to_owned()).collect();
        user.clone_into(&mut config.user);
        let mut extra = busybox_initrd();
        extra.file("/bin/text", 0o644, b"text");
        extra.file("/bin/script", 0o755, b"#!/no/such/interpreter\n");
        let mut machine = Machine::start(
            kernel,
            config,
            Parts {
                extra: Some(extra),
                ..Parts::default()
            },
        );
        let record = machine.finish();
        let ExitStatus::Failed { reason, message } = &record.status else {
            panic!("{}", machine.story())
        };
        assert_eq!(*reason, expected, "{message}");
        assert!(message.contains(words), "{message}");
        assert!(
            machine.console().contains(message.as_str()),
            "{}",
            machine.console()
        );
        assert!(!machine.has_started());
    }
}

#[test]
fn a_machine_whose_host_has_gone_ends_by_itself() {
    let Some(kernel) = kernel_or_skip("a_machine_whose_host_has_gone_ends_by_itself") else {
        return;
    };
    let mut machine = boot_initrd(kernel, config("exit 0", RootLayout::Initrd));
    machine.until("the exit record", |machine| machine.exit().is_some());
    let seconds = machine.abandon().as_secs();
    assert!((5..60).contains(&seconds), "{seconds}");
}

#[test]
fn a_process_that_the_kernel_kills_for_memory_is_reported() {
    let Some(kernel) = kernel_or_skip("a_process_that_the_kernel_kills_for_memory_is_reported")
    else {
        return;
    };
    // A string that doubles until memory is used up.
    let script = "exec busybox awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }'";
    let mut machine = boot_initrd(kernel, config(script, RootLayout::Initrd));
    let record = machine.finish();
    assert!(record.oom_killed, "{}", machine.story());
    assert_eq!(record.exit_code(), 137);
}
