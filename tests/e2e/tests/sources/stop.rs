//! Ctrl+C while a server is silent.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use firebuild_e2e::servers::silent;
use firebuild_e2e::{Home, missing};

#[test]
fn a_stop_ends_every_wait_for_a_server() {
    let home = Home::new();
    let (_listener, port) = silent();
    let empty = home.context("empty", &[("Dockerfile", b"FROM scratch\n")]);
    let add = |source: &str| {
        let text = format!("FROM scratch\nADD {source} /x\n");
        vec!["build".to_owned(), "--dockerfile-inline".to_owned(), text]
    };
    let host = format!("127.0.0.1:{port}");
    let mut cases = vec![
        vec!["build".to_owned(), format!("http://{host}/Dockerfile")],
        vec![
            "build".to_owned(),
            "-f".to_owned(),
            "-".to_owned(),
            empty.display().to_string(),
        ],
        add(&format!("http://{host}/file")),
        vec![
            "build".to_owned(),
            "--dockerfile-inline".to_owned(),
            format!("FROM {host}/image:1\n"),
        ],
    ];
    if missing(&["git"]).is_none() {
        cases.push(add(&format!("git://{host}/repo.git")));
        cases.push(add(&format!("http://{host}/repo.git")));
        cases.push(vec![
            "build".to_owned(),
            format!("git://{host}/repo.git#main"),
        ]);
    }
    for case in cases {
        let mut child = home
            .command(case.iter().map(String::as_str))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept open: it is what the build waits for in one of the cases.
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(b"FROM");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(child.try_wait().unwrap().is_none(), "{case:?} did not wait");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let begin = Instant::now();
        let output = child.wait_with_output().unwrap();
        let took = begin.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "{case:?} went on for {took:?}"
        );
        assert_eq!(
            output.status.code(),
            Some(130),
            "{case:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        drop(stdin);
    }
}
