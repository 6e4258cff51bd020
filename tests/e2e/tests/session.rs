//! Working with a VM that runs: programs beside its application, copies, logs, statistics. One VM, many checks.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, Terminal, run};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A boot under TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
const IMAGE: &str = "test/session:1";
/// The VM.
const VM: &str = "lived-in";
/// What its application does: answers lines and a signal.
const SCRIPT: &str = "echo up; echo trouble >&2; trap 'echo user-signal' USR1; trap 'echo bye; exit 9' TERM; \
    while :; do read -t 1 line && echo \"line:$line\"; done";
/// A file that is large for a VM in software.
const LARGE: usize = 200 << 20;

fn home(test: &str) -> Option<Home> {
    let (home, busybox) = Home::for_machines(test)?;
    let dockerfile = b"FROM scratch\n\
        COPY --chmod=0755 busybox /bin/busybox\n\
        COPY --chmod=0755 busybox /bin/sh\n\
        COPY etc /etc\n\
        ENV BASE=yes GONE=here\n\
        WORKDIR /srv\n";
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    let files: [(&str, &[u8]); 4] = [
        ("Dockerfile", dockerfile),
        ("busybox", &busybox),
        ("etc/passwd", passwd),
        ("etc/group", b"root:x:0:\napp:x:1000:\n"),
    ];
    let context = home.context("ctx", &files);
    let _ = home.build(IMAGE, &context).ok();
    Some(home)
}

fn fb(home: &Home, args: &[&str]) -> Done {
    run(&mut home.command(args.iter().copied()), LIMIT)
}

fn exec(home: &Home, words: &[&str]) -> Done {
    let args: Vec<&str> = ["exec"].iter().chain(words).copied().collect();
    fb(home, &args)
}

fn sh(home: &Home, script: &str) -> Done {
    exec(home, &[VM, "sh", "-c", script])
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command lines of the guest's processes.
fn commands(home: &Home) -> Vec<String> {
    let list: Value =
        serde_json::from_slice(&fb(home, &["top", "--format", "json", VM]).ok().stdout).unwrap();
    let command = |process: &Value| process["command"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(command).collect()
}

fn inspect(home: &Home) -> Value {
    serde_json::from_slice(&fb(home, &["inspect", VM]).ok().stdout).unwrap()
}

#[test]
fn a_vm_is_lived_in() {
    let Some(home) = home("a_vm_is_lived_in") else {
        return;
    };
    let refused = exec(&home, &[VM, "sh"]).exits(1);
    assert!(refused.err().contains("no VM called"), "{}", refused.err());
    let flags = [
        "run",
        "-di",
        "--mem",
        "256",
        "--name",
        VM,
        "-e",
        "TOKEN=hunter2",
        IMAGE,
    ];
    let args: Vec<&str> = flags
        .iter()
        .chain(&["--", "sh", "-c", SCRIPT])
        .copied()
        .collect();
    let _ = fb(&home, &args).ok();
    programs(&home);
    one_that_stalls_and_one_that_leaves(&home);
    a_terminal(&home);
    copies_in_and_out(&home);
    a_copy_of_200_mb(&home);
    attached(&home);
    logs(&home);
    numbers_and_pauses(&home);
    a_vmm_that_hangs(&home);
    the_end(&home);
}

fn programs(home: &Home) {
    let done = sh(home, "echo out; echo err >&2; exit 7").exits(7);
    assert_eq!(
        (done.out().as_str(), done.err().as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(sh(home, "kill -9 $$").code, 137);
    let missing = exec(home, &[VM, "no-such-program"]).exits(127);
    assert!(missing.err().contains("not found"), "{}", missing.err());
    let plain = exec(home, &[VM, "/etc/passwd"]).exits(126);
    assert!(plain.err().contains("permission denied"), "{}", plain.err());
    let nobody = exec(home, &["-u", "nobody-here", VM, "sh"]).exits(126);
    assert!(nobody.err().contains("nobody-here"), "{}", nobody.err());
    let nowhere = exec(home, &["-w", "/not/there", VM, "sh"]).exits(126);
    assert!(nowhere.err().contains("/not/there"), "{}", nowhere.err());
    let _ = exec(home, &["-it", VM, "sh"]).exits(2);

    // The application's surroundings, and others.
    let script = "echo $BASE $GONE $TOKEN $HOME $PWD; busybox id -u; echo $A";
    let same = sh(home, script).ok().out();
    assert_eq!(same, "yes here hunter2 /root /srv\n0\n\n");
    let env_file = home.path().join("env");
    fs_err::write(&env_file, "BASE=other\nA=file\n").unwrap();
    let file = env_file.display().to_string();
    let flags = [
        "--env-file",
        &file,
        "-e",
        "A=b c",
        "-e",
        "GONE",
        "-u",
        "app",
        "-w",
        "/tmp",
        VM,
    ];
    let words: Vec<&str> = flags.iter().chain(&["sh", "-c", script]).copied().collect();
    let other = exec(home, &words).ok().out();
    assert_eq!(other, "other hunter2 /home/app /tmp\n1000\nb c\n");

    // A megabyte there and back, and input that nobody carries.
    let mut child = home
        .command(["exec", "-i", VM, "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let data: Vec<u8> = (0..1 << 20)
        .map(|n: u32| u8::try_from(n % 253).unwrap())
        .collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(back == data, "what came back is not what went");
    assert_eq!(exec(home, &[VM, "busybox", "cat"]).ok().out(), "");

    // More than a control message holds.
    let long = "x".repeat(100_000);
    let counted = exec(home, &[VM, "sh", "-c", "echo ${#1}", "sh", &long])
        .ok()
        .out();
    assert_eq!(counted, "100000\n");

    // Nobody waits for this one.
    let _ = exec(home, &["-d", VM, "sh", "-c", "echo done > /tmp/detached"]).ok();
    until("the detached program", || {
        sh(home, "test done = \"$(busybox cat /tmp/detached)\"").code == 0
    });
    // What is left in the background is left alone.
    let left = sh(home, "busybox sleep 3333 & echo $!").ok().out();
    assert!(commands(home).contains(&"busybox sleep 3333".to_owned()));
    let _ = sh(home, &format!("kill {left}")).ok();

    // A signal to the command is the program's.
    let mut child = home
        .command([
            "exec",
            VM,
            "sh",
            "-c",
            "trap 'echo caught; exit 5' TERM; echo ready; while :; do busybox sleep 0.1; done",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    signal(&child, Signal::TERM);
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "caught\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

fn one_that_stalls_and_one_that_leaves(home: &Home) {
    let mut stalled = home
        .command(["exec", VM, "busybox", "yes", "stalled"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begin = [0; 8];
    stalled
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut begin)
        .unwrap();
    // Its windows are full by now; another one does not notice.
    std::thread::sleep(Duration::from_millis(500));
    let took = Instant::now();
    assert_eq!(sh(home, "echo free").ok().out(), "free\n");
    assert!(
        took.elapsed() < Duration::from_secs(10),
        "one holds up the other"
    );
    signal(&stalled, Signal::KILL);
    let _ = stalled.wait();
    until("the end of what stalled", || {
        !commands(home).iter().any(|command| command.contains("yes"))
    });

    // kill -9 of a command: all that its program started goes, in whatever session.
    let script = "busybox setsid busybox sleep 4711 & (busybox sleep 4712 &) ; echo ready; busybox sleep 4713";
    let mut gone = home
        .command(["exec", VM, "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(gone.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    until("the processes", || {
        commands(home)
            .iter()
            .filter(|command| command.contains("sleep 47"))
            .count()
            == 3
    });
    signal(&gone, Signal::KILL);
    let _ = gone.wait();
    until("the end of its processes", || {
        !commands(home)
            .iter()
            .any(|command| command.contains("sleep 47"))
    });
}

fn a_terminal(home: &Home) {
    let mut terminal = Terminal::new(33, 99);
    let mut child = home
        .command(["exec", "-it", VM, "sh"])
        .stdin(terminal.end())
        .stdout(terminal.end())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    terminal.expect("# ");
    assert!(!terminal.is_cooked());
    terminal.type_in("busybox stty size; busybox tty; echo TERM=$TERM.\n");
    terminal.expect("33 99");
    terminal.expect("/dev/pts/");
    terminal.expect("TERM=xterm.");
    terminal.resize(44, 111);
    signal(&child, Signal::WINCH);
    terminal.type_in(
        "until busybox stty size | busybox grep '44 111'; do busybox sleep 0.1; done; echo al''l\n",
    );
    terminal.expect("all");
    terminal.type_in("busybox sleep 1000\n");
    terminal.expect("sleep 1000");
    std::thread::sleep(Duration::from_millis(500));
    terminal.type_in("\x03");
    terminal.expect("# ");
    terminal.type_in("exit 3\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(terminal.is_cooked());

    // Left by its keys, a program goes on, however much it prints.
    let script = "busybox seq 100000; until busybox test -e /tmp/enough; do busybox sleep 0.1; done; echo over >/tmp/over";
    let mut child = home
        .command(["exec", "-it", "--detach-keys", "ctrl-x,y", VM, "sh"])
        .stdin(terminal.end())
        .stdout(terminal.end())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    terminal.expect("# ");
    terminal.type_in(&format!("busybox mkdir -p /tmp; {script}\n"));
    terminal.expect("echo over");
    terminal.type_in("\x18y");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(terminal.is_cooked());
    let _ = sh(home, "echo >/tmp/enough").ok();
    until("the end of what was left", || {
        sh(home, "busybox cat /tmp/over").out() == "over\n"
    });
}

fn mode(path: &Path) -> u32 {
    fs_err::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn copies_in_and_out(home: &Home) {
    let tree = home.path().join("tree");
    fs_err::create_dir_all(tree.join("sub")).unwrap();
    fs_err::write(tree.join("sub/file"), "text\n").unwrap();
    fs_err::set_permissions(
        tree.join("sub/file"),
        std::fs::Permissions::from_mode(0o4751),
    )
    .unwrap();
    fs_err::hard_link(tree.join("sub/file"), tree.join("sub/same")).unwrap();
    symlink("sub/file", tree.join("link")).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(tree.join("sub"), Some(1000), Some(1000)).unwrap();
    }
    let has_xattrs = lsetxattr(
        tree.join("sub/file"),
        "user.note",
        b"kept",
        XattrFlags::empty(),
    )
    .is_ok();
    let from = tree.display().to_string();
    let _ = fb(home, &["cp", &from, "lived-in:/srv/plain"]).ok();
    let seen = sh(home, "cd plain && busybox stat -c '%n %a %u' sub sub/file && busybox readlink link && busybox cat link").ok().out();
    assert_eq!(seen, "sub 755 0\nsub/file 751 0\nsub/file\ntext\n");
    let _ = fb(
        home,
        &["cp", "-a", &format!("{from}/."), "lived-in:/srv/kept"],
    )
    .ok();
    let seen = sh(home, "cd kept && busybox stat -c '%a %u %h' sub sub/file")
        .ok()
        .out();
    let owner = if is_root { 1000 } else { 0 };
    assert!(
        seen.starts_with(&format!("755 {owner} ")) && seen.contains("4751 0 2"),
        "{seen}"
    );

    // Back again: links and attributes as they were, set-id bits not without -a.
    let back = home.path().join("back");
    let to = back.display().to_string();
    let _ = fb(home, &["cp", "lived-in:srv/kept", &to]).ok();
    assert_eq!(fs_err::read_to_string(back.join("link")).unwrap(), "text\n");
    assert_eq!(mode(&back.join("sub/file")), 0o751);
    let inode = |name: &str| fs_err::metadata(back.join(name)).unwrap().ino();
    assert_eq!(inode("sub/file"), inode("sub/same"));
    if has_xattrs {
        let mut value = [0; 16];
        let count = lgetxattr(back.join("sub/file"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..count], b"kept");
    }
    if is_root {
        let kept = home.path().join("back-kept");
        let to = kept.display().to_string();
        let _ = fb(home, &["cp", "-a", "lived-in:/srv/kept", &to]).ok();
        assert_eq!(mode(&kept.join("sub/file")), 0o4751);
        assert_eq!(fs_err::metadata(kept.join("sub")).unwrap().uid(), 1000);
    }
    // Into what is there, over what is there, and what cannot be.
    let _ = fb(home, &["cp", "lived-in:/srv/kept/sub/file", &to]).ok();
    assert_eq!(fs_err::read_to_string(back.join("file")).unwrap(), "text\n");
    for (args, why) in [
        (
            ["lived-in:/not/there", to.as_str()],
            "cannot find /not/there",
        ),
        (["lived-in:/srv/kept", "/etc/hostname"], "is a file"),
        (
            [from.as_str(), "lived-in:/not/there/x"],
            "cannot open the directory /not/there",
        ),
        (["/not/there", "lived-in:/"], "cannot find /not/there"),
    ] {
        let done = fb(home, &["cp", args[0], args[1]]).exits(1);
        assert!(done.err().contains(why), "{args:?}: {}", done.err());
    }
    let _ = fb(home, &["cp", "a", "b"]).exits(2);

    // Archives through pipes.
    let made = fb(home, &["cp", "lived-in:/srv/kept", "-"]).ok();
    let archive = home.path().join("archive.tar");
    fs_err::write(&archive, &made.stdout).unwrap();
    let listed = Command::new("tar")
        .arg("-tf")
        .arg(&archive)
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.starts_with("kept/\n") && listed.contains("kept/sub/file\n"),
        "{listed}"
    );
    let mut command = home.command(["cp", "-", "lived-in:/tmp"]);
    let _ = run(
        command.stdin(fs_err::File::open(&archive).unwrap().into_file()),
        LIMIT,
    )
    .ok();
    assert_eq!(sh(home, "busybox cat /tmp/kept/link").ok().out(), "text\n");
}

fn a_copy_of_200_mb(home: &Home) {
    let (one, other) = (home.path().join("large"), home.path().join("large-back"));
    let mut block = vec![0_u8; 1 << 20];
    let mut file = fs_err::File::create(&one).unwrap();
    for number in 0..LARGE >> 20 {
        for (at, byte) in block.iter_mut().enumerate() {
            *byte = u8::try_from((at * 7 + number * 13) % 251).unwrap();
        }
        file.write_all(&block).unwrap();
    }
    drop(file);
    let begin = Instant::now();
    let _ = fb(
        home,
        &["cp", &one.display().to_string(), "lived-in:/srv/large"],
    )
    .ok();
    let there = begin.elapsed();
    let _ = fb(
        home,
        &["cp", "lived-in:/srv/large", &other.display().to_string()],
    )
    .ok();
    let back = begin.elapsed() - there;
    let same = Command::new("cmp").arg(&one).arg(&other).status().unwrap();
    assert!(same.success(), "the copy differs");
    #[expect(clippy::print_stderr, reason = "a figure for whoever looks")]
    {
        eprintln!("200 MiB: {there:?} into the VM, {back:?} out of it");
    }
    for path in [one, other] {
        fs_err::remove_file(path).unwrap();
    }
    let _ = sh(home, "busybox rm /srv/large").ok();
}

fn attached(home: &Home) {
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

fn logs(home: &Home) {
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

fn numbers_and_pauses(home: &Home) {
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

fn a_vmm_that_hangs(home: &Home) {
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

fn the_end(home: &Home) {
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
