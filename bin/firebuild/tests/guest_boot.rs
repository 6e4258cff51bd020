//! The guest init in real machines: bare QEMU under TCG, the distribution's kernel, busybox as the application.
//!
//! Needs `qemu-system-x86_64`, `busybox` (static), `mke2fs` and a kernel package (`FIREBUILD_TEST_KERNEL_DEB`).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests to us, though not to clippy"
)]
#![expect(
    clippy::print_stderr,
    reason = "a skip must be seen; CI counts these lines"
)]

mod guest;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use firebuild_guest_proto::{
    Channel, EnvVar, ExitStatus, FailureReason, GuestMessage, HostMessage, Interface, InterfaceRef,
    LogLevel, ROOT_DISK_SERIAL, Resolver, RootLayout, Route, RunConfig, SCRATCH_DISK_SERIAL,
    Signal, WindowSize,
};

use guest::initrd::Archive;
use guest::kernel::Kernel;
use guest::machine::{Machine, Parts};

/// The kernel, unpacked once for all tests; or why there is none.
fn kernel() -> Result<&'static Kernel, &'static str> {
    static KERNEL: OnceLock<Result<Kernel, String>> = OnceLock::new();
    let kernel = KERNEL.get_or_init(|| missing_tool().map_or_else(Kernel::of_package, Err));
    kernel.as_ref().map_err(String::as_str)
}

fn missing_tool() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .any(|directory| directory.join(tool).is_file())
    };
    let tools = ["qemu-system-x86_64", "busybox", "mke2fs", "dpkg-deb"];
    tools
        .iter()
        .find(|tool| !is_there(tool))
        .map(|tool| format!("{tool} is not installed"))
}

/// The kernel, or a skip that is seen.
fn kernel_or_skip(test: &str) -> Option<&'static Kernel> {
    match kernel() {
        Ok(kernel) => Some(kernel),
        Err(reason) => {
            let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|word| word == "vm"),
                "{test} needs a machine: {reason}"
            );
            eprintln!("SKIP {test}: {reason}");
            None
        }
    }
}

fn busybox() -> Vec<u8> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("busybox"))
        .find(|path| path.is_file());
    fs_err::read(found.unwrap()).unwrap()
}

/// An initrd whose root is the application's.
fn busybox_initrd() -> Archive {
    let mut archive = Archive::default();
    for directory in ["/bin", "/etc", "/tmp"] {
        archive.directory(directory);
    }
    archive.file("/bin/busybox", 0o755, &busybox());
    archive.symlink("/bin/sh", "busybox");
    archive
}

fn config(script: &str, root: RootLayout) -> RunConfig {
    let argv = ["/bin/busybox", "sh", "-c", script]
        .map(str::to_owned)
        .to_vec();
    let mut config = RunConfig::new(argv, "guest".to_owned(), root, Channel::virtio_serial());
    config.log_level = LogLevel::Debug;
    config
}

fn boot_initrd(kernel: &Kernel, config: RunConfig) -> Machine {
    Machine::start(
        kernel,
        config,
        Parts {
            extra: Some(busybox_initrd()),
            ..Parts::default()
        },
    )
}

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

/// A root file system of busybox with two users, and an empty scratch disk.
struct Disks {
    directory: tempfile::TempDir,
}

impl Disks {
    fn new() -> Disks {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        for name in ["bin", "etc", "home/app", "opt"] {
            fs_err::create_dir_all(root.join(name)).unwrap();
        }
        fs_err::write(root.join("bin/busybox"), busybox()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        fs_err::set_permissions(root.join("bin/busybox"), mode(0o755)).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        std::os::unix::fs::symlink("/run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        fs_err::write(root.join("etc/passwd"), passwd).unwrap();
        fs_err::write(
            root.join("etc/group"),
            "root:x:0:\napp:x:1001:\nvideo:x:44:app\n",
        )
        .unwrap();
        fs_err::write(root.join("etc/hosts"), "of the image").unwrap();
        let disks = Disks { directory };
        disks.make("image", 16, Some(&root));
        disks.make("scratch", 16, None);
        disks
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn make(&self, name: &str, mib: u64, tree: Option<&Path>) {
        let file = fs_err::File::create(self.path(name)).unwrap();
        file.set_len(mib << 20).unwrap();
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F", "-t", "ext4"]);
        if let Some(tree) = tree {
            command.arg("-d").arg(tree);
        }
        assert!(command.arg(self.path(name)).status().unwrap().success());
    }

    /// Whether the file system on a disk was left clean.
    fn assert_clean(&self, name: &str) {
        let output = Command::new("e2fsck")
            .arg("-fn")
            .arg(self.path(name))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && !text.contains("recovering"),
            "{text}"
        );
    }
}

#[test]
fn an_image_gets_an_overlay_and_the_surroundings_of_a_container() {
    let Some(kernel) =
        kernel_or_skip("an_image_gets_an_overlay_and_the_surroundings_of_a_container")
    else {
        return;
    };
    let disks = Disks::new();
    let script = r#"
        echo "id $(busybox id -u):$(busybox id -g) $(busybox id -G)"
        echo "cwd $(busybox pwd) home $HOME host $HOSTNAME $(busybox hostname) secret $SECRET"
        busybox cat /etc/hostname /run/resolv.conf
        busybox grep guest /etc/hosts
        busybox ip -o addr show | busybox awk '/inet /{print "addr", $2, $4}'
        busybox ip route | busybox awk '{print "route", $1, $3}'
        busybox awk '{print "mount", $2, $3}' /proc/mounts | busybox sort
        echo "limit $(ulimit -Sn) $(ulimit -Hn)"
        echo to-stderr > /dev/stderr
        [ "$(busybox stat -c %a:%U /)" = 755:root ] && echo root-attributes
        for zombie in 1 2 3; do (busybox sleep 0.2 &) ; done; busybox sleep 1
        echo "zombies $(busybox ps -o stat | busybox grep -c ^Z)"
        echo new > /home/app/file && busybox cat /home/app/file
        [ -e /firebuild ] || echo no-initrd
    "#;
    let mut config = config(script, RootLayout::overlay());
    config.user = "app".to_owned();
    config.cwd = "/srv/new/place".to_owned();
    config.env = vec![
        EnvVar::parse("PATH=/bin").unwrap(),
        EnvVar::parse("SECRET=a  b").unwrap(),
    ];
    config.resolver = Some(Resolver {
        nameservers: vec!["10.0.2.3".parse().unwrap()],
        ..Resolver::default()
    });
    config.interfaces = vec![Interface {
        select: InterfaceRef::Mac("52:54:00:00:00:07".parse().unwrap()),
        addresses: vec![
            "10.0.2.15/24".parse().unwrap(),
            "fec0::15/64".parse().unwrap(),
        ],
        routes: vec![
            Route::default_via("10.0.2.2".parse().unwrap()),
            Route::default_via("fec0::2".parse().unwrap()),
        ],
        mtu: Some(1400),
    }];
    let parts = Parts {
        disks: vec![
            // In the wrong order: the serial numbers count.
            (disks.path("scratch"), SCRATCH_DISK_SERIAL, false),
            (disks.path("image"), ROOT_DISK_SERIAL, true),
        ],
        arguments: [
            "-netdev",
            "user,id=n",
            "-device",
            "virtio-net-pci,netdev=n,mac=52:54:00:00:00:07",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Parts::default()
    };
    let before = fs_err::read(disks.path("image")).unwrap();
    fs_err::set_permissions(
        disks.path("root/home/app"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut machine = Machine::start(kernel, config, parts);
    let record = machine.finish();
    let story = machine.story();
    assert_eq!(
        machine.stderr, b"to-stderr\nsh: can't create /home/app/file: Permission denied\n",
        "{story}"
    );
    let text = machine.stdout_text();
    for line in [
        "id 1000:1001 1001 44",
        "cwd /srv/new/place home /home/app host guest guest secret a  b",
        "guest",
        "nameserver 10.0.2.3",
        "10.0.2.15\tguest",
        "addr lo 127.0.0.1/8",
        "addr eth0 10.0.2.15/24",
        "route default 10.0.2.2",
        "mount / overlay",
        "mount /dev devtmpfs",
        "mount /dev/mqueue mqueue",
        "mount /dev/pts devpts",
        "mount /dev/shm tmpfs",
        "mount /proc proc",
        "mount /sys sysfs",
        "mount /sys/fs/cgroup cgroup2",
        "limit 1024 524288",
        "root-attributes",
        "zombies 0",
        "no-initrd",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no line '{line}': {story}"
        );
    }
    assert_eq!(record.exit_code(), 0, "{story}");
    assert!(
        fs_err::read(disks.path("image")).unwrap() == before,
        "the image is shared and never changes"
    );
    disks.assert_clean("scratch");
}

#[test]
fn a_private_copy_is_written_in_place() {
    let Some(kernel) = kernel_or_skip("a_private_copy_is_written_in_place") else {
        return;
    };
    let disks = Disks::new();
    let mut config = config(
        "echo kept > /opt/file; busybox mount | busybox head -n 1",
        RootLayout::private(),
    );
    config.env = vec![EnvVar::parse("PATH=/bin").unwrap()];
    let parts = Parts {
        disks: vec![(disks.path("image"), ROOT_DISK_SERIAL, false)],
        without_console: true,
        ..Parts::default()
    };
    let mut machine = Machine::start(kernel, config, parts);
    let record = machine.finish();
    assert_eq!(record.exit_code(), 0, "{}", machine.story());
    assert!(
        machine.stdout_text().contains("ext4"),
        "{}",
        machine.story()
    );
    let is_told = |message: &GuestMessage| matches!(message, GuestMessage::Log { text, .. } if text.contains("private copy"));
    assert!(machine.messages.iter().any(is_told), "{}", machine.story());
    disks.assert_clean("image");
    let output = Command::new("debugfs")
        .args(["-R", "cat /opt/file"])
        .arg(disks.path("image"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"kept\n");
}

#[test]
fn a_kernel_without_overlayfs_says_so() {
    let Some(kernel) = kernel_or_skip("a_kernel_without_overlayfs_says_so") else {
        return;
    };
    let disks = Disks::new();
    let modules = kernel
        .modules
        .iter()
        .filter(|(name, _)| name != "overlay")
        .cloned()
        .collect();
    let kernel = Kernel {
        image: kernel.image.clone(),
        modules,
    };
    let parts = Parts {
        disks: vec![
            (disks.path("image"), ROOT_DISK_SERIAL, true),
            (disks.path("scratch"), SCRATCH_DISK_SERIAL, false),
        ],
        ..Parts::default()
    };
    let mut machine = Machine::start(&kernel, config("exit 0", RootLayout::overlay()), parts);
    let record = machine.finish();
    let ExitStatus::Failed { reason, .. } = record.status else {
        panic!("{}", machine.story())
    };
    assert_eq!(reason, FailureReason::OverlayMissing);
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
