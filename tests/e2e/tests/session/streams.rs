//! The streams of the application: attached to, and from the log.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use firebuild_e2e::Home;
use rustix::process::Signal;

use super::{VM, fb, inspect, signal};

pub(super) fn attached(home: &Home) {
    let mut child = home
        .command(["attach", VM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        line
    };
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(next(), "line:hello\n");
    // The end of its input is not the application's.
    drop(stdin);
    signal(&child, Signal::USR1);
    assert_eq!(next(), "user-signal\n");
    signal(&child, Signal::KILL);
    let _ = child.wait();
    // Another one, that only looks, and is not what a signal is for.
    let mut looking = home
        .command(["attach", "--no-stdin", "--sig-proxy=false", VM])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let _ = fb(home, &["kill", "-s", "USR1", VM]).ok();
    let mut line = String::new();
    BufReader::new(looking.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "user-signal\n");
    signal(&looking, Signal::TERM);
    assert_eq!(looking.wait().unwrap().code(), Some(143));
    assert_eq!(inspect(home)["State"]["Status"], "running");
}

pub(super) fn logs(home: &Home) {
    let all = fb(home, &["logs", VM]).ok();
    assert!(
        all.out().starts_with("up\n") && all.out().contains("line:hello\n"),
        "{}",
        all.out()
    );
    assert_eq!(all.err(), "trouble\n");
    let count = all.out().lines().count();
    let timed = fb(home, &["logs", "-t", "-n", "1", VM]).ok().out();
    let (time, rest) = timed.trim_end().split_once(' ').unwrap();
    assert!(time.len() == 30 && time.ends_with('Z'), "{timed}");
    assert_eq!(rest, "user-signal");
    assert_eq!(
        fb(home, &["logs", "-n", "all", VM])
            .ok()
            .out()
            .lines()
            .count(),
        count
    );
    assert_eq!(
        fb(home, &["logs", "--since", time, VM]).ok().out(),
        "user-signal\n"
    );
    assert_eq!(fb(home, &["logs", "--until", "1h", VM]).ok().out(), "");
    assert_eq!(
        fb(home, &["logs", "--since", "1h", VM])
            .ok()
            .out()
            .lines()
            .count(),
        count
    );
    let _ = fb(home, &["logs", "--since", "yesterday", VM]).exits(2);
    let console = fb(home, &["logs", "--console", VM]).ok();
    let lines = console.out().lines().count();
    let few = fb(home, &["logs", "--console", "-n", "2", VM]).ok().out();
    assert!(
        lines >= few.lines().count() && few.lines().count() <= 2,
        "{few}"
    );
}
