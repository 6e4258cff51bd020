//! Our docker archive in a real dockerd, which the test starts on a socket and in directories of its own.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests to us, though not to clippy"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, missing, run, skip};
use serde_json::{Value, json};

/// A cold start of the daemon and its containerd, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon without networks, as long as this lives.
struct Dockerd {
    child: Child,
    host: String,
}

impl Dockerd {
    fn start(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name).display().to_string();
        let host = format!("unix://{}", at("docker.sock"));
        let log = fs_err::File::create(dir.join("log")).unwrap();
        let child = Command::new("dockerd")
            .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "--host", &host])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn()
            .unwrap();
        let mut dockerd = Self { child, host };
        let began = Instant::now();
        while dockerd.docker(&["version"]).code != 0 {
            let log = fs_err::read_to_string(dir.join("log")).unwrap();
            let ended = dockerd.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        dockerd
    }

    fn docker(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new("docker");
        command.arg("--host").arg(&self.host).args(arguments);
        run(&mut command, PATIENCE)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // It ends its containerd, which a kill would leave behind.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let told = Instant::now();
        while told.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const DOCKERFILE: &str = r#"FROM scratch AS files
ADD files.tar /
FROM files
ENV GREETING="hello there" EMPTY=
LABEL org.example.note="a \"quoted\" word"
WORKDIR /work
COPY --chown=12:34 --chmod=4711 plain /work/
USER 12:34
EXPOSE 80 53/udp
VOLUME /data
SHELL ["/bin/other", "-c"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=7s --retries=2 CMD ["/check"]
ENTRYPOINT ["/work/plain", "--flag"]
CMD ["one", "two words"]
"#;

#[test]
fn docker_load_has_every_file_and_every_word() {
    let name = "docker_load_has_every_file_and_every_word";
    if !rustix::process::geteuid().is_root() {
        return skip(name, "root", "needs root");
    }
    if let Some(program) = missing(&["dockerd", "docker", "tar"]) {
        let reason = format!("{program} is not installed");
        return skip(name, "docker", &reason);
    }
    let home = Home::new();
    let here = home.path();
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", DOCKERFILE.as_bytes()),
            ("plain", b"program\n"),
        ],
    );
    let script = "mkdir -p t/d/deep t/data; cd t; echo one >d/a; ln d/a d/b; ln d/a 'd/deep/c c'; ln -s ../d/a d/link; mkfifo d/pipe; \
        chmod 2640 d/a; chmod 1777 d/deep; chown 5:6 d/a; chown -h 7:8 d/link; head -c 300000 /dev/zero >d/zeros; touch -d @1234567890 d/zeros; \
        touch \"d/$(printf 'n%.0s' $(seq 200))\"; tar --xattrs -cf ../files.tar d data";
    let mut shell = Command::new("bash");
    shell.args(["-euc", script]).current_dir(&context);
    let _ = run(&mut shell, PATIENCE).ok();

    let outputs = ["docker.tar", "tree.tar"].map(|file| here.join(file));
    let to = |kind: &str, file: &Path| format!("type={kind},dest={}", file.display());
    let _ = home
        .fb([
            "build",
            "-q",
            "-t",
            "t/load:1",
            "-o",
            &to("docker", &outputs[0]),
            "-o",
            &to("tar", &outputs[1]),
            &context.display().to_string(),
        ])
        .ok();

    let place = tempfile::Builder::new().prefix("dk").tempdir().unwrap();
    let dockerd = Dockerd::start(place.path());
    let loaded = dockerd
        .docker(&["load", "-i", &outputs[0].display().to_string()])
        .ok();
    assert!(loaded.out().contains("t/load:1"), "{}", loaded.out());

    let inspected = dockerd.docker(&["image", "inspect", "t/load:1"]).ok().out();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected[0]["Config"];
    let environment = config["Env"].as_array().unwrap();
    for variable in ["GREETING=hello there", "EMPTY="] {
        assert!(environment.contains(&json!(variable)), "{config}");
    }
    for (key, value) in [
        ("User", json!("12:34")),
        ("WorkingDir", json!("/work")),
        ("Entrypoint", json!(["/work/plain", "--flag"])),
        ("Cmd", json!(["one", "two words"])),
        ("Shell", json!(["/bin/other", "-c"])),
        ("StopSignal", json!("SIGINT")),
        ("Volumes", json!({"/data": {}})),
        ("ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
        ("Labels", json!({"org.example.note": "a \"quoted\" word"})),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    let health = &config["Healthcheck"];
    assert_eq!(health["Test"], json!(["CMD", "/check"]));
    assert_eq!(health["Interval"], 7_000_000_000_u64);
    assert_eq!(health["Retries"], 2);

    // The files are those of our own tar: names, types, modes, owners, sizes, times and links.
    let _ = dockerd
        .docker(&["create", "--name=loaded", "t/load:1"])
        .ok();
    let exported = here.join("export.tar");
    let _ = dockerd
        .docker(&["export", "-o", &exported.display().to_string(), "loaded"])
        .ok();
    let ours = listing(&outputs[1]);
    assert!(
        ours.iter().any(|line| line.contains("d/deep/c c")),
        "{ours:?}"
    );
    assert_eq!(listing(&exported), ours);
    let _ = dockerd.docker(&["rm", "-v", "loaded"]).ok();
}

/// What a tar holds, a line each, without what docker puts into every container. Docker gives times in whole seconds, and new ones
/// to directories that are mounted on.
fn listing(tar: &Path) -> Vec<String> {
    let unpacked = tempfile::tempdir().unwrap();
    let script = "tar -xpf \"$0\" --same-owner -C \"$1\"; cd \"$1\"; \
        find d data work -printf '%p %y %m %U:%G %n %l' \\( -type f -printf ' %s bytes at %Ts\\n' -o -printf '\\n' \\) | sort";
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", script])
        .arg(tar)
        .arg(unpacked.path());
    let listed = run(&mut shell, PATIENCE).ok().out();
    listed.lines().map(str::to_owned).collect()
}
