//! From start to end, whichever end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Stream;
use firebuild_build::exec::{ExecErrorKind, Executor, Exit};

use crate::base::{Base, run, shell};
use crate::user::Who;

pub(super) fn codes_signals_and_streams(directory: &Path, _: Who) {
    let base = Base::new(directory);
    for code in [0, 1, 42, 255] {
        let ran = base.sh(&format!("exit {code}"));
        assert_eq!(ran.done.status, Exit::Code(code));
        assert_eq!(ran.done.layer.is_some(), code == 0);
    }
    // A child's signal is the shell's business; process 1 of a namespace cannot kill itself, as in a container.
    assert_eq!(base.sh("sh -c 'kill -9 $$'; echo $?").ok(), "137\n");
    assert_eq!(base.sh("kill -9 $$; echo still $$").ok(), "still 1\n");
    let ran = base.sh("echo out; echo err >&2; echo more");
    assert_eq!((ran.ok(), ran.stderr.as_str()), ("out\nmore\n", "err\n"));
    assert_eq!(base.sh("cat; echo end of input").ok(), "end of input\n");
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn programs_that_cannot_be_executed(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let chain = base.layer(
        &base.chain,
        "/bin/text file 0755 0:0 1000 0 data:no\\x20program\n/bin/closed file 0644 0:0 1000 0 data:x\n\
         /bin/script file 0755 0:0 1000 0 data:#!/no/interpreter\\x0a",
    );
    for (argv, code, text) in [
        (
            "nothing-like-this",
            127,
            "executable file not found in $PATH",
        ),
        ("/nothing", 127, "no such file or directory"),
        ("/bin/script", 127, "no such file or directory"),
        ("/bin/text", 126, "exec format error"),
        ("/bin/closed", 126, "permission denied"),
        ("/bin", 126, "permission denied"),
    ] {
        let mut step = shell("");
        step.argv = vec![argv.into()];
        let ran = run(&base.sandbox(), &chain, &step).unwrap();
        assert_eq!(ran.done.status, Exit::Code(code), "{argv}: {}", ran.stderr);
        assert_eq!(ran.stderr, format!("exec: {argv:?}: {text}\n"));
    }
    let mut step = shell("");
    step.argv = vec!["echo".into(), "found".into()];
    assert_eq!(run(&base.sandbox(), &chain, &step).unwrap().ok(), "found\n");
}

pub(super) fn much_output_arrives_whole(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let ran = base.sh("seq 1 300000; seq 1 100000 >&2; (sleep 0.3; echo late) & exit 0");
    let expected = |count: u32| {
        (1..=count)
            .map(|number| format!("{number}\n"))
            .collect::<String>()
    };
    assert!(ran.ok() == expected(300_000));
    assert!(ran.stderr == expected(100_000));
}

/// Whether a process with this word in its arguments is there.
fn is_running(word: &str) -> bool {
    fs_err::read_dir("/proc").unwrap().flatten().any(|entry| {
        let path = entry.path().join("cmdline");
        let is_process = entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        is_process
            && entry.file_name().to_string_lossy() != std::process::id().to_string()
            && fs_err::read(path)
                .is_ok_and(|line| line.windows(word.len()).any(|part| part == word.as_bytes()))
    })
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A word that no other process on this machine has in its arguments, as a number of seconds.
fn word(directory: &Path) -> String {
    let sum: u64 = directory
        .to_string_lossy()
        .bytes()
        .fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
    format!("9{sum}{}", std::process::id())
}

/// Three processes that try to live on: one in a session of its own, one that ignores signals.
fn stubborn(word: &str) -> String {
    format!(
        "trap '' TERM INT HUP; setsid sleep {word} & (trap '' TERM; sleep {word}) & echo up; sleep {word}"
    )
}

pub(super) fn a_cancelled_step_leaves_nothing(directory: &Path, _: Who) {
    let base = Base::new(directory);
    base.sh("true").ok();
    let cancel = Cancel::new().unwrap();
    let word = word(directory);
    let mut output = |_: Stream, _: &[u8]| {};
    let started = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the step runs", || is_running(&word));
            cancel.raise();
        });
        base.sandbox()
            .run(&base.chain, &shell(&stubborn(&word)), &mut output, &cancel)
            .unwrap_err()
    });
    assert_eq!(error.kind(), ExecErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert!(!is_running(&word));
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

/// The process that will be killed.
pub(super) fn builder(directory: &Path, word: &str) {
    let base = Base::new(directory);
    // A directory that may belong to a lent id, which only a process with that id can remove.
    let script = format!(
        "mkdir /srv/c; touch /srv/c/f; chmod 700 /srv/c; chown 1000 /srv/c 2> /dev/null; {}",
        stubborn(word)
    );
    let _ = run(&base.sandbox(), &base.chain, &shell(&script));
}

pub(super) fn a_killed_builder_leaves_no_process(directory: &Path, _: Who) {
    let word = word(directory);
    let mut builder = Command::new("/proc/self/exe")
        .args([super::BUILDER, directory.to_str().unwrap(), &word])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let sleeps = || {
        fs_err::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{word}\0").into_bytes()
            })
            .count()
    };
    wait_until("all of the step runs", || sleeps() == 3);
    builder.kill().unwrap();
    builder.wait().unwrap();
    wait_until("nothing of the step runs", || !is_running(&word));
    // The next process finds the store whole, and its first step removes what is left.
    let base = Base::new(directory);
    base.sh("true").ok();
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn what_a_step_leaves_running_ends(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let word = word(directory);
    base.sh(&format!(
        "setsid sleep {word} & sleep {word} & sleep 0.1; exit 0"
    ))
    .ok();
    assert!(!is_running(&word));
    // Even when it holds the output open, and when the step fails.
    let ran = base.sh(&format!("setsid sleep {word} & exit 3"));
    assert_eq!(ran.done.status, Exit::Code(3));
    assert!(!is_running(&word));
}

pub(super) fn steps_run_at_the_same_time(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let sandbox = base.sandbox();
    // All at once, so that they meet at the snapshots and at the namespace, too.
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (sandbox, base) = (&sandbox, &base);
            scope.spawn(move || {
                let ran = run(
                    sandbox,
                    &base.chain,
                    &shell(&format!("echo {number}; echo {number} > /tmp/n")),
                )
                .unwrap();
                assert_eq!(ran.ok(), format!("{number}\n"));
                let after = base.after(&base.chain, &ran);
                let ran = run(sandbox, &after, &shell("cat /tmp/n")).unwrap();
                assert_eq!(ran.ok(), format!("{number}\n"));
            });
        }
    });
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn no_mount_is_left(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mounts = || fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    base.sh("echo x > /srv/x").ok();
    base.sh("exit 1");
    assert_eq!(mounts(), before);
}
