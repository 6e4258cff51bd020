//! It never leaks: fifty VMs are started, six at once, and ended at random moments in every way there is; then nothing is
//! there that was not there before, the records of VMs aside.
//!
//! The moments and ways come from a seed, which is printed; `FIREBUILD_LEAK_SEED=N` repeats them (the scheduling of the
//! host aside), `FIREBUILD_LEAK_VMS=N` takes another number of VMs. The VMs are small: 128 MiB, an image of one program.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what fails here fails the test, and its seed must be seen"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use firebuild_e2e::netns::{NET_IMAGE, in_namespace, machines_here, net_home};
use firebuild_e2e::{Home, missing, run};
use firebuild_netlab::{Outside, namespace_of};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

const VMS: usize = 50;
const AT_ONCE: usize = 6;
/// The whole of it, with building the image and looking around.
const LIMIT: Duration = Duration::from_secs(300);
/// A VM is ended at a moment between its start and this; a boot takes about that long when six of them share two cores.
const LATEST: Duration = Duration::from_secs(9);
/// Or between the moment when its application runs and this.
const LATEST_RUNNING: Duration = Duration::from_secs(2);

/// A small generator (xorshift64*), so that a seed is all there is to repeat.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % limit
    }
}

/// How a VM is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// `firebuild kill`
    Kill,
    /// `firebuild stop -t 1`
    Stop,
    /// `firebuild rm -f`
    Remove,
    /// SIGKILL to the monitor
    Monitor,
    /// SIGKILL to the VMM
    Vmm,
    /// SIGKILL to the monitor, the VMM and its helpers, one after the other
    Tree,
    /// SIGSTOP to the monitor, then `firebuild kill`
    Stuck,
    /// SIGKILL to `run` in the foreground
    Foreground,
    /// SIGINT to `run` in the foreground
    Interrupt,
    /// SIGKILL to `run -d` before it has come back
    Launcher,
}

const WAYS: [Way; 10] = [
    Way::Kill,
    Way::Stop,
    Way::Remove,
    Way::Monitor,
    Way::Vmm,
    Way::Tree,
    Way::Stuck,
    Way::Foreground,
    Way::Interrupt,
    Way::Launcher,
];

/// One VM's fate.
#[derive(Clone, Debug)]
struct Fate {
    name: String,
    way: Way,
    /// Whether it runs before it is ended.
    runs: bool,
    after: Duration,
    network: &'static str,
    publish: Option<String>,
    remove: bool,
}

fn fates(seed: u64, count: usize) -> Vec<Fate> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|index| {
            // Each way has its turn; the rest is chance.
            let way = WAYS[index % WAYS.len()];
            // The launcher has to be killed before it comes back, which it does when the application runs.
            let runs = way != Way::Launcher && random.below(2) == 0;
            let latest = match way {
                Way::Launcher => LATEST / 3,
                _ if runs => LATEST_RUNNING,
                _ => LATEST,
            };
            let network = ["bridge", "bridge", "bridge", "user", "none"][random.below(5)];
            let publish = network != "none" && random.below(2) == 0;
            let milliseconds = usize::try_from(latest.as_millis()).unwrap();
            Fate {
                name: format!("leak{index}"),
                way,
                runs,
                after: Duration::from_millis(random.below(milliseconds) as u64),
                network,
                publish: publish.then(|| format!("{}:80", 20_000 + index)),
                remove: random.below(3) == 0,
            }
        })
        .collect()
}

/// What is there, by kinds; everything in it is a line.
type Seen = BTreeSet<String>;

fn look(home: &Home) -> Seen {
    let mut seen = Seen::new();
    let mut add = |kind: &str, lines: &str| {
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            seen.insert(format!("{kind}: {line}"));
        }
    };
    add("process", &machines_here().join("\n"));
    add("process", &of_this_home(home).join("\n"));
    let text_of = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    add("link", &text_of("ip", &["-brief", "link"]));
    add("address", &text_of("ip", &["-oneline", "-brief", "addr"]));
    add("route", &text_of("ip", &["route", "show", "table", "all"]));
    if missing(&["nft"]).is_none() {
        add("rule", &text_of("nft", &["list", "ruleset"]));
    }
    add(
        "forwarding",
        &fs_err::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
    );
    // Numbers of mounts change with every mount of anybody; places do not.
    for line in fs_err::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
    {
        let place = line.split(' ').nth(4).unwrap_or_default();
        if place.contains("firebuild") || place.starts_with(&*home.path().to_string_lossy()) {
            add("mount", place);
        }
    }
    let mut groups = Vec::new();
    directories(Path::new("/sys/fs/cgroup"), 4, &mut groups);
    groups.retain(|group| group.to_string_lossy().contains("firebuild"));
    for group in groups {
        add("cgroup", &group.to_string_lossy());
    }
    let namespace = rustix::fs::stat("/proc/self/ns/net").unwrap().st_ino;
    for dir in [
        home.path().join("home/run"),
        home.path().join("home/instances"),
        format!("/run/firebuild-net/{namespace}").into(),
        "/srv/jailer".into(),
    ] {
        let mut files = Vec::new();
        all_files(&dir, &mut files);
        for file in files {
            let record = file.starts_with(home.path().join("home/instances")) && is_record(&file);
            if !record {
                add("file", &file.to_string_lossy());
            }
        }
    }
    // Ids are shared with other tests of this host: those that nobody holds are nobody's.
    for entry in fs_err::read_dir("/run/firebuild-uids")
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Ok(file) = fs_err::File::open(entry.path())
            && rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok()
        {
            add("id", &entry.path().to_string_lossy());
        }
    }
    seen
}

/// What tells of a VM that has been: documents, logs and locks, no sockets; the disk of one that can be started again.
fn is_record(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_dir() && name.len() == 64
        || [".lock", "lock"].contains(&&*name)
        || name.ends_with(".json") && !name.starts_with('.')
        || name.ends_with(".log")
        || name == "scratch.raw" && path.with_file_name("order.json").exists()
}

fn directories(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            if depth > 0 {
                directories(&entry.path(), depth - 1, found);
            }
        }
    }
}

fn all_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all_files(&entry.path(), found);
        }
    }
}

/// Processes that have this home in their arguments or open files, whatever namespace they are in.
fn of_this_home(home: &Home) -> Vec<String> {
    let home = home.path().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid == std::process::id() || namespace_of(pid).is_none() {
            continue;
        }
        let links = fs_err::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten();
        let holds = links.flatten().any(|link| {
            fs_err::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().starts_with(&home))
        });
        if holds {
            let program = fs_err::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("{pid} {} holds files of the home", program.trim()));
        }
    }
    found
}

/// Starts a VM in a process group of its own.
fn start(home: &Home, fate: &Fate) -> Child {
    let mut args = vec![
        "run",
        "--name",
        &fate.name,
        "--mem",
        "128",
        "--network",
        fate.network,
    ];
    let foreground = matches!(fate.way, Way::Foreground | Way::Interrupt);
    if !foreground {
        args.push("-d");
    }
    if let Some(port) = &fate.publish {
        args.extend(["-p", port]);
    }
    if fate.remove {
        args.push("--rm");
    }
    args.extend([NET_IMAGE, "--", "echo up; exec sleep 1000"]);
    let mut command = home.command(args);
    use std::os::unix::process::CommandExt as _;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Processes of a VM as its record has them: the monitor first.
fn processes(home: &Home, name: &str) -> Vec<Pid> {
    let done = run(&mut home.command(["inspect", name]), LIMIT);
    let seen: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let machine = &seen["Firebuild"]["Machine"];
    let helpers = machine["helpers"].as_array().cloned().unwrap_or_default();
    [&machine["monitor"], &machine["vmm"]]
        .into_iter()
        .chain(&helpers)
        .filter_map(|process| process["pid"].as_i64())
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .collect()
}

/// Ends a VM, or what there is of it at this moment.
fn end(home: &Home, fate: &Fate, child: &Child) {
    let fb = |args: &[&str]| {
        let _ = run(&mut home.command(args.iter().copied()), LIMIT);
    };
    let signal = |pid: &Pid, signal: Signal| {
        let _ = kill_process(*pid, signal);
    };
    let name = fate.name.as_str();
    match fate.way {
        Way::Kill => fb(&["kill", name]),
        Way::Stop => fb(&["stop", "-t", "1", name]),
        Way::Remove => fb(&["rm", "-f", name]),
        Way::Monitor | Way::Vmm | Way::Tree => {
            let processes = processes(home, name);
            let chosen = match fate.way {
                Way::Monitor => processes.get(..1),
                Way::Vmm => processes.get(1..2),
                _ => processes.get(..),
            };
            for pid in chosen.unwrap_or_default() {
                signal(pid, Signal::KILL);
            }
        }
        Way::Stuck => {
            if let Some(monitor) = processes(home, name).first() {
                signal(monitor, Signal::STOP);
            }
            let begin = Instant::now();
            fb(&["kill", name]);
            assert!(
                begin.elapsed() < Duration::from_secs(40),
                "kill of {name} took {:?}",
                begin.elapsed()
            );
        }
        Way::Foreground | Way::Launcher => {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        }
        Way::Interrupt => {
            let _ = kill_process_group(Pid::from_child(child), Signal::INT);
        }
    }
}

/// One VM from its start to the end of all that is left of it, as far as commands go.
fn live_and_die(home: &Home, fate: &Fate) {
    let mut child = start(home, fate);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    if fate.runs {
        // What runs in the foreground says so; what is detached has its id printed then.
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        assert!(!line.is_empty(), "{fate:?} did not run");
    }
    std::thread::sleep(fate.after);
    end(home, fate, &child);
    // It was not there yet when it was to be ended, or it takes an end by itself: now it is ended for certain.
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.wait();
    let mut words = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut words);
    for wrong in ["panicked", "cannot clean up"] {
        assert!(!words.contains(wrong), "{fate:?}: {words}");
    }
    let _ = run(&mut home.command(["kill", &fate.name]), LIMIT);
}

/// A VM in its prime, to see that what must not be left can be seen at all.
fn proves_that_it_looks(home: &Home, before: &Seen) {
    let _ = home
        .fb([
            "run",
            "-d",
            "--name",
            "prime",
            "--mem",
            "128",
            "--network=bridge",
            "-p",
            "19999:80",
            NET_IMAGE,
            "--",
            "exec sleep 1000",
        ])
        .ok();
    let seen: Vec<String> = look(home).difference(before).cloned().collect();
    let mut kinds = vec!["process: ", "link: fb", "address: fb", "file: ", "route: "];
    if missing(&["nft"]).is_none() {
        kinds.push("rule: ");
    }
    for kind in kinds {
        assert!(
            seen.iter().any(|line| line.starts_with(kind)),
            "no {kind:?} in {seen:#?}"
        );
    }
    let _ = home.fb(["rm", "-f", "prime"]).ok();
    let left: Vec<String> = look(home).difference(before).cloned().collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// How many of the VMs that were not removed with their record had been launched, and how many had run.
fn how_far(home: &Home) -> (usize, usize) {
    let instances = fs_err::read_dir(home.path().join("home/instances")).unwrap();
    let dirs: Vec<PathBuf> = instances.flatten().map(|entry| entry.path()).collect();
    let with = |name: &str| dirs.iter().filter(|dir| dir.join(name).exists()).count();
    (with("machine.json"), with("started.json"))
}

fn seed() -> u64 {
    let given = std::env::var("FIREBUILD_LEAK_SEED").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_secs()
    })
}

#[test]
fn fifty_vms_that_end_in_every_way_leave_nothing() {
    let test = "fifty_vms_that_end_in_every_way_leave_nothing";
    if !in_namespace(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(home) = net_home(test) else { return };
    let begin = Instant::now();
    let (seed, count) = (
        seed(),
        std::env::var("FIREBUILD_LEAK_VMS").map_or(VMS, |text| text.parse().unwrap()),
    );
    eprintln!("FIREBUILD_LEAK_SEED={seed}");
    // One that ends well, so that directories which are kept are there.
    one_that_ends_well(&home);
    let before = look(&home);
    proves_that_it_looks(&home, &before);

    let fates = fates(seed, count);
    let next = AtomicUsize::new(0);
    let told = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(fate) = fates.get(next.fetch_add(1, Ordering::Relaxed)) {
                    live_and_die(&home, fate);
                    told.lock().unwrap().push(fate.name.clone());
                }
            });
        }
    });
    assert_eq!(told.lock().unwrap().len(), count);
    let (launched, ran) = how_far(&home);
    eprintln!(
        "{count} VMs lived and died in {:?}; of those with a record {launched} were launched and {ran} ran",
        begin.elapsed()
    );
    assert!(ran > 0, "seed {seed}: none of them ran");

    // The next start finds what the killed ones left, before anybody purges.
    one_that_ends_well(&home);
    let left: Vec<String> = look(&home).difference(&before).cloned().collect();
    assert!(left.is_empty(), "seed {seed}: {left:#?}");

    // And purge finds nothing but their records.
    let purged = home.fb(["purge"]).ok().out();
    for line in purged.lines() {
        assert!(line.contains(" leak"), "seed {seed}: {line}");
    }
    let records = fs_err::read_dir(home.path().join("home/instances")).unwrap();
    let records: Vec<_> = records.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(records, [".lock"], "seed {seed}");
    assert!(begin.elapsed() < LIMIT, "it took {:?}", begin.elapsed());
}

fn one_that_ends_well(home: &Home) {
    let args = [
        "run",
        "--rm",
        "--mem",
        "128",
        "--network=bridge",
        NET_IMAGE,
        "--",
        "true",
    ];
    let _ = home.fb(args).ok();
}
