//! `build --isolation=microvm`: the same result as in the sandbox, one cache for both, and an end that leaves nothing.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests to us, though not to clippy"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_e2e::{Home, kernel_deb, missing, skip, with_base};
use rustix::process::{Pid, Signal, kill_process};

const DOCKERFILE: &str = "\
FROM base:1
WORKDIR /work
COPY part /work/part
RUN --mount=type=secret,id=key --mount=type=cache,target=/cache \\
    cat part /run/secrets/key > /cache/kept && id -u && mkdir -p a/b && ln part a/hard && chown 1000:1000 a && mkdir -m 1777 /tmp
RUN <<EOF
set -e
mkfifo pipe; ln -s /etc link; chmod 4755 part
mv /etc/group /etc/moved
EOF
USER app
RUN test ! -e /run/secrets/key && echo $(id -un) $HOME $(pwd) > /tmp/who
";

/// A home with a kernel and a base; nothing when a VM cannot be.
fn home(test: &str) -> Option<Home> {
    if let Some(tool) = missing(&["qemu-system-x86_64"]) {
        skip(test, "tool:qemu", &format!("{tool} is not installed"));
        return None;
    }
    let Some(kernel) = kernel_deb() else {
        skip(test, "kernel", "no kernel package");
        return None;
    };
    let home = with_base(test)?;
    let _ = home
        .fb(["kernel", "import", &kernel.display().to_string()])
        .ok();
    Some(home)
}

fn build(home: &Home, isolation: &str, context: &Path, more: &[&str]) -> Command {
    let context = context.display().to_string();
    let isolation = format!("--isolation={isolation}");
    let mut args = vec!["build", &isolation, "--secret", "id=key,env=SECRET_KEY"];
    args.extend(more);
    if isolation.ends_with("microvm") {
        args.extend(["--accel=tcg", "--mem=512", "--cpu=1"]);
    }
    args.push(&context);
    let mut command = home.command(args);
    command
        .env("SECRET_KEY", "hidden")
        .env("FIREBUILD_RUNTIME_DIR", home.path().join("run"))
        .env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

#[test]
fn a_vm_gives_what_a_sandbox_gives() {
    let Some(home) = home("a_vm_gives_what_a_sandbox_gives") else {
        return;
    };
    let context = home.context(
        "context",
        &[("Dockerfile", DOCKERFILE.as_bytes()), ("part", b"part\n")],
    );
    let limit = Duration::from_secs(240);
    let at = |name: &str| home.path().join(name).display().to_string();
    let output = |name: &str| format!("type=oci,rewrite-timestamp=true,dest={}", at(name));

    let args = ["--progress=json", "--output", &output("one.tar")];
    let made = firebuild_e2e::run(&mut build(&home, "microvm", &context, &args), limit).ok();
    let executed = |text: &str| -> u64 {
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["executed"]
            .as_u64()
            .unwrap()
    };
    assert!(executed(&made.out()) >= 3, "{}", made.out());
    assert!(!made.err().contains("hidden"), "{}", made.err());

    // A result is a result, wherever it was made.
    let args = ["--progress=json", "--output", &output("two.tar")];
    let again = firebuild_e2e::run(&mut build(&home, "sandbox", &context, &args), limit).ok();
    assert_eq!(executed(&again.out()), 0, "{}", again.out());

    let args = ["--no-cache", "--output", &output("three.tar")];
    let _ = firebuild_e2e::run(&mut build(&home, "sandbox", &context, &args), limit).ok();
    let one = fs_err::read(at("one.tar")).unwrap();
    let three = fs_err::read(at("three.tar")).unwrap();
    assert!(one == three, "the images differ");
}

/// The processes below one.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut todo = vec![pid];
    while let Some(pid) = todo.pop() {
        let Ok(tasks) = fs_err::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let children = fs_err::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children
                .split_whitespace()
                .filter_map(|word| word.parse().ok());
            let children: Vec<u32> = children.collect();
            found.extend(&children);
            todo.extend(&children);
        }
    }
    found
}

/// A build whose step has begun and does not end, and the processes that it has started.
fn endless(home: &Home, context: &Path) -> (Child, Vec<u32>) {
    let mut child = build(
        home,
        "microvm",
        context,
        &["--progress=plain", "--no-cache"],
    )
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut said = Vec::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = lines.any(|line| {
        said.push(line.unwrap());
        said.last().is_some_and(|line| line.ends_with(" up"))
    });
    if !begun {
        let status = child.wait().unwrap();
        panic!("the step did not begin, {status}: {said:?}");
    }
    let below = descendants(child.id());
    assert!(!below.is_empty(), "{said:?}");
    (child, below)
}

fn wait_for_end(pids: &[u32]) {
    let end = Instant::now() + Duration::from_secs(20);
    // A zombie has ended, too; whose it is will see to it.
    let runs = |pid: &&u32| {
        fs_err::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|text| !text.contains(") Z ") && !text.contains(") X "))
    };
    while let Some(pid) = pids.iter().find(runs) {
        let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        assert!(Instant::now() < end, "{pid} {name} lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_vm_ends_with_its_build() {
    let Some(home) = home("a_vm_ends_with_its_build") else {
        return;
    };
    let dockerfile = b"FROM base:1\nRUN trap '' TERM INT; echo up; sleep 10000\n";
    let context = home.context("endless", &[("Dockerfile", dockerfile)]);
    let (mut child, below) = endless(&home, &context);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_end(&below);

    let (mut child, below) = endless(&home, &context);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait_for_end(&below);
    // The second build has removed what the killed one left, and nothing of its own is left.
    let left = fs_err::read_dir(home.path().join("run/build")).unwrap();
    assert_eq!(left.count(), 0);
}
