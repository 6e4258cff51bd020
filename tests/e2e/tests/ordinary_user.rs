//! RUN as an ordinary user, with ranges of subordinate ids and without. The tests make the user and remove it.

#![expect(
    clippy::unwrap_used,
    reason = "what a test prepares must succeed, also outside of its function"
)]

use firebuild_e2e::{Done, Home, kernel_deb, missing, run, skip, static_program};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An account for one test, and a directory that it may write to.
struct User {
    name: String,
    id: u32,
    group: u32,
    home: Home,
}

/// Tests of one process run at once, each with a user of its own.
static USERS: AtomicU32 = AtomicU32::new(0);

impl User {
    fn new(test: &str, ranges: bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "root", "only root can make a user");
            return None;
        }
        if let Some(program) = missing(&["useradd", "usermod", "userdel", "newuidmap"]) {
            skip(
                test,
                &format!("tool:{program}"),
                &format!("{program} is not installed"),
            );
            return None;
        }
        let name = format!(
            "fbt{}-{}",
            std::process::id(),
            USERS.fetch_add(1, Ordering::Relaxed)
        );
        // System accounts get no ranges by themselves.
        account(Command::new("useradd").args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/bin/sh",
            &name,
        ]));
        let home = Home::new();
        let mut user = Self {
            name,
            id: 0,
            group: 0,
            home,
        };
        if ranges {
            let range = "1000000000-1000065535";
            account(Command::new("usermod").args([
                "--add-subuids",
                range,
                "--add-subgids",
                range,
                &user.name,
            ]));
        }
        let passwd = fs_err::read_to_string("/etc/passwd").unwrap();
        let line = passwd
            .lines()
            .find(|line| line.starts_with(&format!("{}:", user.name)))
            .unwrap();
        let ids: Vec<u32> = line
            .split(':')
            .skip(2)
            .take(2)
            .map(|id| id.parse().unwrap())
            .collect();
        (user.id, user.group) = (ids[0], ids[1]);
        // The program under test may lie where only root looks.
        let program = user.program();
        let _ = fs_err::copy(firebuild_e2e::firebuild(), &program).unwrap();
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        fs_err::set_permissions(user.home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["own", "own/home"] {
            let dir = user.home.path().join(dir);
            fs_err::create_dir(&dir).unwrap();
            std::os::unix::fs::chown(&dir, Some(user.id), Some(user.group)).unwrap();
        }
        Some(user)
    }

    fn program(&self) -> PathBuf {
        self.home.path().join("firebuild")
    }

    fn store(&self) -> PathBuf {
        self.home.path().join("own/home/store")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command
            .args(args)
            .uid(self.id)
            .gid(self.group)
            .current_dir("/");
        command
            .env("FIREBUILD_HOME", self.home.path().join("own/home"))
            .env("HOME", self.home.path().join("own"));
        command.env("USER", &self.name).env("LOGNAME", &self.name);
        command
    }

    fn fb(&self, args: &[&str]) -> Done {
        run(&mut self.command(args), Duration::from_secs(100))
    }

    fn build(&self, tag: &str, context: &Path) -> Done {
        self.fb(&[
            "build",
            "--progress=plain",
            "-t",
            tag,
            &context.display().to_string(),
        ])
    }

    /// A context with a shell: the steps follow one that makes its commands.
    fn context(&self, test: &str, dockerfile: &str) -> Option<PathBuf> {
        let Some(busybox) = static_program() else {
            skip(test, "tool:busybox", "no static busybox");
            return None;
        };
        let base = "FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\n\
                    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
        let files = [
            ("Dockerfile", [base, dockerfile].concat()),
            (".dockerignore", "Dockerfile\n".to_owned()),
        ];
        let dir = self.home.context("ctx", &[("busybox", &busybox)]);
        for (name, text) in files {
            fs_err::write(dir.join(name), text).unwrap();
        }
        Some(dir)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        account(Command::new("userdel").arg(&self.name));
    }
}

/// Changes the accounts; another test may hold the lock.
fn account(command: &mut Command) {
    let begin = Instant::now();
    loop {
        let done = run(command, Duration::from_secs(30));
        if done.code == 0 {
            return;
        }
        if begin.elapsed() > Duration::from_secs(20) {
            // A panic in a drop during a panic would hide the first one.
            assert!(std::thread::panicking(), "{command:?}: {}", done.err());
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn line(tree: &str, path: &str) -> String {
    let start = format!("{path} ");
    tree.lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("{path} is not in\n{tree}"))
        .to_owned()
}

#[test]
fn with_ranges_every_owner_is_possible_and_what_is_not_stays() {
    let name = "with_ranges_every_owner_is_possible";
    if let Some(program) = missing(&["mknod", "e2fsck"]) {
        return skip(
            name,
            &format!("tool:{program}"),
            &format!("{program} is not installed"),
        );
    }
    let Some(user) = User::new(name, true) else {
        return;
    };
    let steps = "COPY null /made/null\nCOPY --chown=7:8 busybox /made/copied\n\
        RUN mkdir /d && touch /d/f && chown 3000:4000 /d/f && chown 5:6 /d && chmod 4755 /d/f && mkfifo /d/p && ls -ln /made\n\
        RUN rm -r /d/p && mv /made /moved\n\
        USER 3000:4000\nRUN test \"$(id -u):$(id -g)\" = 3000:4000 && echo more >> /d/f\n";
    let Some(context) = user.context(name, steps) else {
        return;
    };
    let _ = run(
        Command::new("mknod")
            .arg(context.join("null"))
            .args(["c", "1", "3"]),
        Duration::from_secs(10),
    )
    .ok();
    let ext4 = user.home.path().join("own/disk.ext4");
    let spec = format!("type=ext4,dest={}", ext4.display());
    let path = context.display().to_string();
    let _ = user
        .fb(&[
            "build",
            "--progress=plain",
            "-t",
            "t/user:1",
            "--output",
            &spec,
            &path,
        ])
        .ok();
    let tree = user.fb(&["image", "tree", "t/user:1"]).ok().out();
    assert!(line(&tree, "/d").contains("dir 0755 5:6"), "{tree}");
    assert!(line(&tree, "/d/f").contains("3000:4000"), "{tree}");
    assert!(line(&tree, "/moved/copied").contains("7:8"), "{tree}");
    assert!(!tree.contains("/d/p "), "{tree}");
    let _ = run(
        Command::new("e2fsck").arg("-fn").arg(&ext4),
        Duration::from_secs(60),
    )
    .ok();
    let again = user.build("t/user:1", &context).ok();
    // Nothing was executed.
    assert_eq!(again.err().matches("CACHED").count(), 8, "{}", again.err());
    // Snapshots hold files of lent ids; a prune removes them all the same.
    let _ = user.fb(&["prune", "--all", "--force"]).ok();
    let left = fs_err::read_dir(user.store().join("snapshots")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_device_node_of_the_base_outlives_steps_that_cannot_make_one() {
    let name = "a_device_node_of_the_base";
    if let Some(program) = missing(&["mknod"]) {
        return skip(
            name,
            &format!("tool:{program}"),
            &format!("{program} is not installed"),
        );
    }
    let Some(user) = User::new(name, true) else {
        return;
    };
    let Some(context) = user.context(
        name,
        "COPY null /nodes/null\nRUN echo > /nodes/beside\nRUN rm /nodes/beside; echo > /other\n",
    ) else {
        return;
    };
    let _ = run(
        Command::new("mknod")
            .arg(context.join("null"))
            .args(["c", "1", "3"]),
        Duration::from_secs(10),
    )
    .ok();
    let _ = user.build("t/node:1", &context).ok();
    let tree = user.fb(&["image", "tree", "t/node:1"]).ok().out();
    assert!(line(&tree, "/nodes/null").ends_with("1:3"), "{tree}");
    assert!(!tree.contains("/nodes/beside"), "{tree}");
}

#[test]
fn a_killed_build_leaves_nothing_that_its_user_cannot_remove() {
    let name = "a_killed_build_leaves_nothing";
    let Some(user) = User::new(name, true) else {
        return;
    };
    let Some(context) = user.context(
        name,
        "RUN mkdir /d && chown 9:9 /d && echo slow && sleep 30\n",
    ) else {
        return;
    };
    let path = context.display().to_string();
    let mut child = user
        .command(&["build", "--progress=plain", "-t", "t/x:1", &path])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let mut stderr = child.stderr.take().unwrap();
    while !String::from_utf8_lossy(&said).contains(" slow\n") {
        let mut byte = [0];
        assert_eq!(
            std::io::Read::read(&mut stderr, &mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    let dockerfile = fs_err::read_to_string(context.join("Dockerfile")).unwrap();
    fs_err::write(
        context.join("Dockerfile"),
        dockerfile.replace("sleep 30", "true"),
    )
    .unwrap();
    let done = user.build("t/x:1", &context).ok();
    assert!(done.err().matches("CACHED").count() >= 2, "{}", done.err());
    let left = firebuild_e2e::left_in_store(&user.store());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_ranges_one_id_is_mapped_and_more_has_a_remedy() {
    let name = "without_ranges_one_id_is_mapped";
    let Some(user) = User::new(name, false) else {
        return;
    };
    let Some(context) = user.context(
        name,
        "RUN test \"$(id -u)\" = 0 && echo > /made && chmod 4711 /made\n",
    ) else {
        return;
    };
    let _ = user.build("t/one:1", &context).ok();
    let tree = user.fb(&["image", "tree", "t/one:1"]).ok().out();
    assert!(line(&tree, "/made").contains("4711 0:0"), "{tree}");
    // Files of other owners are kept by steps that cannot have them.
    let _ = user
        .context(name, "COPY --chown=7:8 busybox /its\nRUN echo > /made\n")
        .unwrap();
    let _ = user.build("t/one:1", &context).ok();
    let tree = user.fb(&["image", "tree", "t/one:1"]).ok().out();
    assert!(line(&tree, "/its").contains("7:8"), "{tree}");
    for step in ["USER 3000\nRUN true\n", "RUN touch /x && chown 5 /x\n"] {
        let _ = user.context(name, step).unwrap();
        let done = user.build("t/bad:1", &context).exits(1);
        let text = done.err();
        for word in ["--add-subuids", &user.name, "Dockerfile:"] {
            assert!(text.contains(word), "{step:?} should say {word:?}: {text}");
        }
        let _ = user.fb(&["image", "config", "t/bad:1"]).exits(1);
    }
}

/// Processes of this user.
fn processes_of(user: &User) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs_err::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == user.id))
        .filter_map(|entry| fs_err::read_to_string(entry.path().join("comm")).ok())
        .collect()
}

#[test]
fn a_user_runs_vms_and_nothing_is_left_of_them() {
    let name = "a_user_runs_vms_and_nothing_is_left_of_them";
    if let Some(program) = missing(&["qemu-system-x86_64", "passt"]) {
        return skip(name, "vm", &format!("{program} is not installed"));
    }
    let (Some(user), Some(package)) = (User::new(name, false), kernel_deb()) else {
        return skip(name, "vm", "no kernel package");
    };
    // Where the package is, only root may look.
    let copied = user.home.path().join("kernel.deb");
    let _ = fs_err::copy(package, &copied).unwrap();
    fs_err::set_permissions(&copied, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _ = user
        .fb(&["kernel", "import", &copied.display().to_string()])
        .ok();
    let Some(context) = user.context(name, "") else {
        return;
    };
    fs_err::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY --chmod=0755 busybox /bin/nc\n",
    )
    .unwrap();
    let _ = user.build("t/run:1", &context).ok();

    let script = "echo out; echo err >&2; exit 7";
    let words = [
        "run",
        "--rm",
        "--mem=192",
        "t/run:1",
        "--",
        "sh",
        "-c",
        script,
    ];
    let done = user.fb(&words).exits(7);
    assert_eq!(done.out(), "out\n");
    assert!(done.err().contains("err\n"), "{}", done.err());

    let port = {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        free.local_addr().unwrap().port()
    };
    let publish = format!("127.0.0.1:{port}:7000");
    // A server that speaks first.
    let server = "nc -ll -p 7000 -e sh -c 'echo hello; read line'";
    let words = [
        "run",
        "-d",
        "--mem=192",
        "--name=served",
        "-p",
        &publish,
        "t/run:1",
        "--",
        "sh",
        "-c",
        server,
    ];
    let _ = user.fb(&words).ok();
    let begin = Instant::now();
    let heard = loop {
        let mut heard = [0; 6];
        let connected = std::net::TcpStream::connect(("127.0.0.1", port));
        let read = connected.and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            std::io::Read::read_exact(&mut stream, &mut heard)
        });
        if read.is_ok() {
            break heard;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{read:?}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(&heard, b"hello\n");
    assert!(!processes_of(&user).is_empty());
    assert!(user.fb(&["ls"]).ok().out().contains("served"));
    let _ = user.fb(&["kill", "served"]).ok();
    assert_eq!(user.fb(&["wait", "served"]).ok().out(), "137\n");
    let _ = user.fb(&["rm", "served"]).ok();

    let begin = Instant::now();
    while !processes_of(&user).is_empty() {
        let left = processes_of(&user);
        assert!(begin.elapsed() < Duration::from_secs(10), "{left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    for dir in ["run", "instances"] {
        let dir = user.home.path().join("own/home").join(dir);
        let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| !path.ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let _ = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn the_same_bytes_as_root() {
    let name = "the_same_bytes_as_root";
    let Some(user) = User::new(name, true) else {
        return;
    };
    let lines = "WORKDIR /made/here\nCOPY --chown=12:34 busybox /owned\n\
                 RUN mkdir -p /a/b && echo x > /a/b/c && ln /a/b/c /a/link && chown 5:6 /a/link && chmod 4711 /a/b/c && rm /owned\n";
    let Some(context) = user.context(name, lines) else {
        return;
    };
    let context = context.display().to_string();
    let own = user.home.path().join("own");
    let root = Home::new();
    let spec = |dir: &Path, kind: &str| format!("type={kind},dest={}/x.{kind}", dir.display());
    let mut told = Vec::new();
    for (dir, mut command) in [
        (own.clone(), user.command(&["build", "-q"])),
        (root.path().to_owned(), root.command(["build", "-q"])),
    ] {
        for kind in ["ext4", "erofs", "initrd", "tar"] {
            command.args(["-o", &spec(&dir, kind)]);
        }
        command.args([
            "-o",
            &format!("{},rewrite-timestamp=true", spec(&dir, "oci")),
        ]);
        command.arg(&context).env("SOURCE_DATE_EPOCH", "1000000000");
        told.push(run(&mut command, Duration::from_secs(100)).ok().out());
    }
    assert_eq!(told[0], told[1]);
    for kind in ["ext4", "erofs", "initrd", "tar", "oci"] {
        let file = format!("x.{kind}");
        let (a, b) = (own.join(&file), root.path().join(&file));
        assert!(
            fs_err::read(a).unwrap() == fs_err::read(b).unwrap(),
            "{kind}: a user and root make different bytes"
        );
    }
}
