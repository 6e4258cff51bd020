//! Builds and VMs that are killed and interrupted at moments that nobody chose: nothing half-written, nobody left, and the
//! next one goes on. `FIREBUILD_TEST_SEED` repeats a run that failed, `FIREBUILD_TEST_ROUNDS` makes a longer one.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use firebuild_e2e::family::{Dice, Family, rounds};
use firebuild_e2e::{Home, left_in_store, missing, run, skip, static_program, with_base};
use rustix::process::{Pid, Signal, kill_process};

/// Orphans belong to the whole process, so its tests take turns.
static ALONE: Mutex<()> = Mutex::new(());
const LIMIT: Duration = Duration::from_secs(150);
/// Long enough for anything that ends by itself on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Stages that run at once, a cache mount, files, and two outputs: what a build does to a store and to a directory.
fn context(home: &Home, round: usize) -> String {
    let dockerfile = format!(
        "FROM base:1 AS one\nRUN --mount=type=cache,target=/c echo {round} > /c/x; echo {round} > /one; sleep 0.1\n\
         FROM base:1 AS two\nCOPY data /data\nRUN cat /data > /two; echo {round} >> /two; sleep 0.05\n\
         FROM base:1\nCOPY --from=one /one /one\nCOPY --from=two /two /two\nRUN rm -rf /etc/gone; echo {round} > /three\n"
    );
    let data = vec![b'x'; 8 << 20];
    let files: &[(&str, &[u8])] = &[("Dockerfile", dockerfile.as_bytes()), ("data", &data)];
    home.context("ctx", files).display().to_string()
}

/// Whether an archive that has its name is whole.
fn is_whole(archive: &Path) {
    if archive.exists() && missing(&["tar"]).is_none() {
        let mut list = Command::new("tar");
        let _ = run(list.arg("-tf").arg(archive), LIMIT).ok();
    }
}

#[test]
fn builds_that_end_at_any_moment() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(home) = with_base("builds_that_end_at_any_moment") else {
        return;
    };
    let (family, mut dice) = (Family::new(), Dice::new());
    let seed = format!("FIREBUILD_TEST_SEED={}", dice.seed);
    let out = home.path().join("out");
    fs_err::create_dir_all(&out).unwrap();
    let archive = out.join("x.oci");
    let spec = format!("type=oci,dest={}", archive.display());
    let command = |round| {
        let mut command = home.command([
            "build",
            "--progress=plain",
            "-t",
            "t/x:1",
            "-o",
            "type=ext4",
            "-o",
            &spec,
            &context(&home, round),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let whole = run(&mut command(0), LIMIT).ok().elapsed;
    let mut stopped = 0;
    for round in 1..=rounds(10) {
        let signal = [Signal::KILL, Signal::KILL, Signal::INT, Signal::TERM]
            [usize::try_from(dice.below(4)).unwrap()];
        let moment = dice.part_of(whole);
        let what = format!("{seed}, round {round}: {signal:?} after {moment:?} of {whole:?}");
        let mut child = command(round).spawn().unwrap();
        std::thread::sleep(moment);
        let _ = kill_process(Pid::from_child(&child), signal);
        let begin = Instant::now();
        let told = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        let status = child.wait().unwrap();
        assert!(begin.elapsed() < SOON, "{what}: it went on\n{told}");
        let done = status.code() == Some(0);
        stopped += usize::from(!done);
        if signal != Signal::KILL {
            let expected = [Some(0), Some(130)].contains(&status.code());
            // Before the program takes its signals, they do what they do to any process.
            assert!(expected || told.is_empty(), "{what}: {status}\n{told}");
            let left: Vec<_> = fs_err::read_dir(&out)
                .unwrap()
                .flatten()
                .map(|entry| entry.file_name())
                .filter(|name| name != "x.oci")
                .collect();
            assert!(left.is_empty(), "{what}: {left:?} is left of an output");
        }
        if let Err(living) = family.gone(SOON) {
            panic!("{what}: these live on: {living:#?}");
        }
        is_whole(&archive);
        let checked = home.fb(["du", "--verify"]);
        assert_eq!(checked.code, 0, "{what}\n{}", checked.err());
        // What a dead process left in the directory of an output is its user's to remove; it has another name.
        for entry in fs_err::read_dir(&out).unwrap().flatten() {
            if entry.file_name() != "x.oci" {
                fs_err::remove_file(entry.path()).unwrap();
            }
        }
    }
    assert!(
        stopped > 0,
        "{seed}: every build was done before its signal"
    );
    let last = run(&mut command(usize::MAX), LIMIT);
    assert_eq!(last.code, 0, "{seed}\n{}", last.err());
    let tree = home.fb(["image", "tree", "t/x:1"]).ok().out();
    assert!(tree.contains("/three"), "{seed}\n{tree}");
    let left = left_in_store(&home.path().join("home/store"));
    assert!(left.is_empty(), "{seed}: {left:?}");
}

/// An image that says something and stays, and a kernel.
fn machine(test: &str) -> Option<Home> {
    let missing = missing(&["qemu-system-x86_64"]);
    let (None, Some(home), Some(busybox)) = (missing, Home::with_kernel(), static_program()) else {
        skip(
            test,
            "vm",
            "no QEMU, no kernel package or no static busybox",
        );
        return None;
    };
    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCMD [\"sh\", \"-c\", \"echo up; sleep 1; echo down\"]\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("busybox", &busybox)]);
    let _ = home.build("t/vm:1", &context).ok();
    Some(home)
}

#[test]
fn machines_whose_processes_die_at_any_moment() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(home) = machine("machines_whose_processes_die_at_any_moment") else {
        return;
    };
    let (family, mut dice) = (Family::new(), Dice::new());
    let seed = format!("FIREBUILD_TEST_SEED={}", dice.seed);
    let args = ["run", "--mem", "192", "--name", "x"];
    let whole = {
        let mut all = args.to_vec();
        all.push("t/vm:1");
        run(&mut home.command(all), LIMIT).ok().elapsed
    };
    let _ = home.fb(["rm", "x"]).ok();
    for round in 1..=rounds(3) {
        let detached = dice.below(2) == 0;
        let mut all = args.to_vec();
        all.extend(detached.then_some("-d"));
        all.push("t/vm:1");
        let mut child = home
            .command(all)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moment = dice.part_of(whole);
        std::thread::sleep(moment);
        // Anybody: the command, the monitor, the VMM, who carries its network.
        let living = family.living();
        let at = usize::try_from(dice.below(living.len() as u64)).unwrap();
        let victim = living.get(at).copied();
        let who = victim.and_then(|pid| {
            fs_err::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()
        });
        let what = format!(
            "{seed}, round {round}: {who:?} of {} killed after {moment:?} of {whole:?}, detached: {detached}",
            living.len()
        );
        if let Some(victim) = victim {
            let _ = kill_process(victim, Signal::KILL);
        }
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < LIMIT, "{what}: the command does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let removed = home.fb(["rm", "-f", "x"]);
        // Before there is a record there is nothing to remove.
        let absent = removed.err().contains("no VM");
        assert!(removed.code == 0 || absent, "{what}\n{}", removed.err());
        if let Err(living) = family.gone(SOON) {
            panic!("{what}: these live on: {living:#?}");
        }
        let _ = home.fb(["purge"]).ok();
        for dir in ["run", "instances"] {
            let dir = home.path().join("home").join(dir);
            let left: Vec<_> = fs_err::read_dir(&dir)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            let left: Vec<_> = left
                .iter()
                .filter(|path| !path.ends_with(".lock"))
                .collect();
            assert!(left.is_empty(), "{what}: {left:?}");
        }
    }
    let mut last = home.command(["run", "--rm", "--mem", "192", "t/vm:1"]);
    assert_eq!(run(&mut last, LIMIT).ok().out(), "up\ndown\n", "{seed}");
}
