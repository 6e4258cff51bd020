//! The machine itself: its numbers, pauses, a VMM that hangs, and the end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use firebuild_e2e::Home;
use rustix::process::Signal;
use serde_json::Value;

use super::{VM, commands, exec, fb, inspect, sh, signal, until};

pub(super) fn numbers_and_pauses(home: &Home) {
    let stats = |vm: &[&str]| -> Value {
        let args: Vec<&str> = ["stats", "--no-stream", "--format", "json"]
            .iter()
            .chain(vm)
            .copied()
            .collect();
        serde_json::from_slice(&fb(home, &args).ok().stdout).unwrap()
    };
    let seen = stats(&[VM]);
    assert_eq!(seen["Name"], VM);
    let number = |key: &str| seen["Sample"][key].as_u64().unwrap();
    assert!(
        number("memory_total") > 100 << 20 && number("memory_total") < 256 << 20,
        "{seen}"
    );
    assert!(number("memory_used") < number("memory_total"));
    assert!(number("cpus") >= 1 && number("cpu_ns") > 0 && number("processes") >= 1);
    assert!(
        number("disk_read") > 0 && number("disk_written") > 0,
        "{seen}"
    );
    assert!(seen["CPUPerc"].as_str().unwrap().ends_with('%'), "{seen}");
    let table = fb(home, &["stats", "--no-stream"]).ok().out();
    assert!(table.starts_with("ID ") && table.contains(VM), "{table}");
    let top = fb(home, &["top", VM]).ok().out();
    assert!(top.starts_with("USER") && top.contains("sh -c"), "{top}");
    assert!(
        !top.contains("vminit") && !top.contains("kthreadd"),
        "{top}"
    );

    let _ = fb(home, &["pause", VM]).ok();
    assert_eq!(inspect(home)["State"]["Status"], "paused");
    assert_eq!(inspect(home)["State"]["Paused"], true);
    assert!(fb(home, &["ls"]).ok().out().contains("(Paused)"));
    let refused = exec(home, &[VM, "sh"]).exits(1);
    assert!(refused.err().contains("unpause"), "{}", refused.err());
    assert!(
        fb(home, &["pause", VM])
            .exits(1)
            .err()
            .contains("paused already")
    );
    for words in [
        &["attach", VM][..],
        &["start", VM],
        &["cp", "lived-in:/srv", "-"],
    ] {
        let refused = fb(home, words).exits(1);
        assert!(refused.err().contains("is paused"), "{}", refused.err());
    }
    assert_eq!(stats(&[VM])["CPUPerc"], "--");
    std::thread::sleep(Duration::from_secs(2));
    let _ = fb(home, &["unpause", VM]).ok();
    assert_eq!(inspect(home)["State"]["Status"], "running");
    // Its clock has not stood still.
    let guest: u64 = sh(home, "busybox date +%s")
        .ok()
        .out()
        .trim()
        .parse()
        .unwrap();
    let here = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(here.abs_diff(guest) <= 2, "{guest} is not {here}");
}

pub(super) fn a_vmm_that_hangs(home: &Home) {
    let pid = inspect(home)["State"]["Pid"].to_string();
    let signal = |name: &str| {
        let done = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(done.success());
    };
    signal("-STOP");
    let pause = || {
        let mut pause = home.command(["pause", VM]);
        pause.stdout(Stdio::null()).stderr(Stdio::piped());
        pause.spawn().unwrap()
    };
    let mut both = [pause(), pause()];
    // One of them waits for the VMM, the other one hears of that.
    until("a pause that is told to wait", || {
        both.iter_mut().any(|it| it.try_wait().unwrap().is_some())
    });
    // Meanwhile the monitor answers.
    let _ = fb(home, &["mmds", "get", VM]).ok();
    signal("-CONT");
    let done = both.map(|it| it.wait_with_output().unwrap());
    let words: String = done
        .iter()
        .map(|it| String::from_utf8_lossy(&it.stderr))
        .collect();
    assert!(words.contains("at this moment"), "{words}");
    let well = done.iter().filter(|it| it.status.success()).count();
    assert_eq!(well, 1, "{words}");
    assert_eq!(inspect(home)["State"]["Status"], "paused");
    let _ = fb(home, &["unpause", VM]).ok();
    assert_eq!(sh(home, "echo here").ok().out(), "here\n");
}

pub(super) fn the_end(home: &Home) {
    // Somebody is attached and somebody runs something when it ends.
    let attached = home
        .command(["attach", "--no-stdin", VM])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let beside = home
        .command(["exec", VM, "busybox", "sleep", "1000"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the program", || {
        commands(home).contains(&"busybox sleep 1000".to_owned())
    });
    let _ = fb(home, &["pause", VM]).ok();
    // A paused VM is stopped all the same.
    let _ = fb(home, &["stop", "-t", "60", VM]).ok();
    let ended = attached.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(9));
    assert!(
        ended.stdout.ends_with(b"bye\n"),
        "{:?}",
        String::from_utf8_lossy(&ended.stdout)
    );
    let code = beside.wait_with_output().unwrap().status.code();
    assert!(matches!(code, Some(143 | 137)), "{code:?}");
    let over = exec(home, &[VM, "sh"]).exits(1);
    assert!(over.err().contains("does not run"), "{}", over.err());

    // Once more, attached from the first byte; the end of the input is the application's.
    let mut again = home
        .command(["start", "-ai", VM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = again.stdin.take().unwrap();
    typed.write_all(b"one more\n").unwrap();
    let mut said = BufReader::new(again.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("line:one more\n") {
        assert_ne!(said.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    assert!(lines.starts_with("up\n"), "{lines}");
    // A signal to the command is the application's.
    signal(&again, Signal::TERM);
    assert_eq!(again.wait().unwrap().code(), Some(9));
    let both = fb(home, &["start", "-a", VM, "other"]).exits(2);
    assert!(both.err().contains("one VM"), "{}", both.err());
    let _ = fb(home, &["rm", VM]).ok();
}
