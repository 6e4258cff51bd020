//! Build contexts of somebody who means harm: links that change while they are looked at, files without an end, very many
//! files, a very long line. A clear error or a correct result, in bounded memory, and nothing from outside gets in.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, missing, run, skip};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(150);

/// Runs a command and gives the most memory that its process held, in MiB.
fn measured(command: &mut Command) -> (Done, u64) {
    /// Also when the command takes too long, which is a panic.
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    let (program, started) = (command.get_program().to_owned(), std::process::id());
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(largest_child(started, Path::new(&program)));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let done = {
            let _ended = Ended(&ended);
            run(command, LIMIT)
        };
        (done, watcher.join().unwrap())
    })
}

/// The most that any child which runs this program has held so far, in MiB.
fn largest_child(parent: u32, program: &Path) -> u64 {
    let children = fs_err::read_dir(format!("/proc/{parent}/task"))
        .unwrap()
        .flatten()
        .filter_map(|task| fs_err::read_to_string(task.path().join("children")).ok())
        .collect::<String>();
    let of = |child: &str| {
        let here = fs_err::read_link(format!("/proc/{child}/exe")).ok()?;
        let status = fs_err::read_to_string(format!("/proc/{child}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        (here == fs_err::canonicalize(program).ok()?).then_some(kib >> 10)
    };
    children
        .split_whitespace()
        .filter_map(of)
        .max()
        .unwrap_or(0)
}

#[test]
fn links_that_change_while_they_are_looked_at() {
    if let Some(program) = missing(&["tar", "grep"]) {
        return skip("links_that_change", "tool:tar", program);
    }
    let home = Home::new();
    let outside = home.context(
        "outside",
        &[("f", b"from-outside"), ("sub/f", b"from-outside")],
    );
    let dockerfile: &[u8] = b"FROM scratch\nCOPY d /d\nCOPY f sub/f /files/\nCOPY . /all/\n";
    let files: &[(&str, &[u8])] = &[
        ("Dockerfile", dockerfile),
        ("f", b"from-inside"),
        ("d/f", b"from-inside"),
        ("d/sub/f", b"from-inside"),
        ("sub/f", b"from-inside"),
    ];
    let context = home.context("ctx", files);
    // A file, a directory and a directory on the way, each of them now itself and now a link that leads out.
    for name in ["f", "d", "sub"] {
        symlink(
            outside.join(if name == "d" { "" } else { name }),
            context.join(format!("{name}.link")),
        )
        .unwrap();
    }
    let ended = AtomicBool::new(false);
    let (mut built, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for name in ["f", "d", "sub"] {
                    swap(&context.join(name), &context.join(format!("{name}.link")));
                }
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(4) {
            let out = home.path().join("out.tar");
            let spec = format!("type=tar,dest={}", out.display());
            let done = home.fb(["build", "-q", "-o", &spec, &context.display().to_string()]);
            if done.code == 0 {
                built += 1;
                let mut grep = Command::new("grep");
                let found = run(grep.args(["-c", "-a", "from-outside"]).arg(&out), LIMIT);
                if found.code != 1 {
                    ended.store(true, Ordering::Relaxed);
                }
                assert_eq!(found.code, 1, "something from outside was taken in");
            } else {
                refused += 1;
                let clear = done.code == 1
                    && done.err().contains("error:")
                    && !done.err().contains("panicked");
                if !clear {
                    ended.store(true, Ordering::Relaxed);
                }
                assert!(clear, "{}", done.err());
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(built + refused >= 5, "{built} builds, {refused} refused");
}

fn swap(one: &Path, other: &Path) {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).unwrap();
}

#[test]
fn files_without_an_end() {
    let home = Home::new();
    for (file, target) in [("Dockerfile", "/dev/zero"), (".dockerignore", "/dev/zero")] {
        let context = home.context(file, &[("f", b"x")]);
        if file != "Dockerfile" {
            fs_err::write(context.join("Dockerfile"), "FROM scratch\nCOPY f /\n").unwrap();
        }
        symlink(target, context.join(file)).unwrap();
        let mut command = home.command(["build", &context.display().to_string()]);
        let (done, peak) = measured(&mut command);
        assert!(
            done.code == 1 && done.err().contains("too large"),
            "{file}: {}",
            done.err()
        );
        assert!(
            done.err().contains(file) && peak < 200,
            "{peak} MiB, {}",
            done.err()
        );
    }
    // A pipe that nobody writes to is waited for, until Ctrl+C.
    let context = home.context("pipe", &[("f", b"x")]);
    let pipe = context.join("Dockerfile");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let mut command = home.command(["build", &context.display().to_string()]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let begin = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(5));
    // A shell's pipes are files as others are.
    if missing(&["bash", "tar"]).is_none() {
        let script = "fb=$1; out=$2; tar -C $3 -cf a.tar Good f; cd $3; \
            $fb build -q -f <(printf 'FROM scratch\\nCOPY f /\\n') -o type=tar,dest=$out.1 . && \
            $fb build -q -f Good -o type=tar,dest=$out.2 <(cat $OLDPWD/a.tar) && tar -tf $out.1 | grep -x f && tar -tf $out.2 | grep -x f";
        fs_err::write(context.join("Good"), "FROM scratch\nCOPY f /\n").unwrap();
        fs_err::remove_file(&pipe).unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-euc", script, "bash"]);
        shell
            .arg(firebuild_e2e::firebuild())
            .arg(home.path().join("out"))
            .arg(&context);
        shell
            .current_dir(home.path())
            .env("FIREBUILD_HOME", home.path().join("home"));
        let _ = run(&mut shell, LIMIT).ok();
    }
}

#[test]
fn a_hundred_thousand_files() {
    let home = Home::new();
    // In memory, where there is such a place: a disk that others use takes minutes for so many.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { home.path() };
    let many = tempfile::tempdir_in(place).unwrap();
    let context = many.path();
    fs_err::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY files /files\n",
    )
    .unwrap();
    for directory in 0..100 {
        let directory = context.join(format!("files/{directory}"));
        fs_err::create_dir_all(&directory).unwrap();
        for file in 0..1000 {
            fs_err::write(directory.join(file.to_string()), file.to_string()).unwrap();
        }
    }
    let context = context.display().to_string();
    let mut command = home.command(["build", "--progress=plain", "-t", "t/many:1", &context]);
    let (done, peak) = measured(&mut command);
    let _ = done.ok();
    assert!((10..400).contains(&peak), "{peak} MiB for 100,000 files");
    let mut command = home.command(["build", "--progress=plain", "-t", "t/many:1", &context]);
    let again = run(&mut command, LIMIT).ok();
    assert!(again.err().contains("CACHED"), "{}", again.err());
    let tree = home.fb(["image", "tree", "t/many:1"]).ok();
    let files = tree
        .out()
        .lines()
        .filter(|line| line.contains("/files/") && line.contains(" file"))
        .count();
    assert_eq!(files, 100_000);
}

#[test]
fn a_line_of_four_megabytes_is_shown_in_part() {
    let home = Home::new();
    let line = format!("FROM scratch\nENV A={}\n", "x".repeat(4 << 20));
    let context = home.context("line", &[("Dockerfile", line.as_bytes())]);
    let mut command = home.command(["build", &context.display().to_string()]);
    let (done, peak) = measured(&mut command);
    assert!(
        done.code == 1 && done.err().len() < 2000,
        "{} bytes",
        done.err().len()
    );
    assert!(
        done.err().contains("65535") && done.err().contains("Dockerfile:2"),
        "{}",
        done.err()
    );
    assert!(peak < 200, "{peak} MiB");
    // The same in pieces is more than a word may have.
    let pieces = "LABEL a=".to_owned() + &format!("{}\\\n", "x".repeat(60_000)).repeat(70) + "y\n";
    let text = format!("FROM scratch\n{pieces}");
    let context = home.context("pieces", &[("Dockerfile", text.as_bytes())]);
    let done = home.fb(["build", "-t", "t/l:1", &context.display().to_string()]);
    let fits = done.code == 1 && done.err().len() < 8000;
    assert!(fits, "{}: {} bytes", done.code, done.err().len());
}

/// What takes long is given up at once: a large file that is hashed, one that is written, a bomb that is unpacked.
#[test]
fn ctrl_c_ends_work_on_large_files() {
    let home = Home::new();
    let context = home.context("large", &[("Dockerfile", b"FROM scratch\nCOPY large /\n")]);
    let large = fs_err::File::create(context.join("large")).unwrap();
    // It takes no room, and long to read.
    large.file().set_len(400 << 30).unwrap();
    let mut cases = vec![context];
    if missing(&["zstd", "tar"]).is_none() {
        let bomb = home.context(
            "bomb",
            &[("Dockerfile", b"FROM scratch\nADD bomb.tar.zst /\n")],
        );
        let mut make = Command::new("bash");
        make.args([
            "-euo",
            "pipefail",
            "-c",
            "truncate -s 3G zeros; tar -cf - zeros | zstd -q -1 > bomb.tar.zst; rm zeros",
        ]);
        let _ = run(make.current_dir(&bomb), LIMIT).ok();
        cases.push(bomb);
    }
    for context in cases {
        let mut command =
            home.command(["build", "--progress=plain", &context.display().to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(
            child.try_wait().unwrap().is_none(),
            "{context:?} did not take long"
        );
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let begin = Instant::now();
        let told = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert_eq!(
            child.wait().unwrap().code(),
            Some(130),
            "{context:?}: {told}"
        );
        let took = begin.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "{context:?} went on for {took:?}"
        );
        assert!(
            told.contains("stopped") && !told.contains("caused by"),
            "{told}"
        );
    }
}
