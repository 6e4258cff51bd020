//! Programs beside the application: streams, users, exit codes, terminals, clients that stall or leave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use firebuild_e2e::{Home, Terminal};
use rustix::process::Signal;

use super::{VM, commands, exec, sh, signal, until};

pub(super) fn programs(home: &Home) {
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

pub(super) fn one_that_stalls_and_one_that_leaves(home: &Home) {
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

pub(super) fn a_terminal(home: &Home) {
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
