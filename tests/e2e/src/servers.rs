//! Servers on loopback for what is built from elsewhere: files and repositories over HTTP, git and SSH.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to begin.
const START: Duration = Duration::from_secs(20);

/// A program that ends with its holder.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // With all that it started: `git daemon` is a child of `git`.
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Files below a directory over HTTP: Python's server, which redirects directories to their slash.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn web(dir: &Path) -> Server {
    let mut child = Command::new("python3")
        .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("python3 is there");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it was piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the server says where it listens");
    let port = line
        .split_whitespace()
        .skip_while(|word| *word != "port")
        .nth(1);
    let port = port.and_then(|port| port.parse().ok()).expect("a port");
    Server { child, port }
}

/// Repositories below a directory over git's own protocol.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn git_daemon(dir: &Path) -> Server {
    let port = free_port();
    let child = Command::new("git")
        .args([
            "daemon",
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
        ])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", dir.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("git is there");
    let server = Server { child, port };
    wait_for(port);
    server
}

/// The SSH server with a configuration of its own.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn sshd(config: &Path, port: u16) -> Server {
    let child = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sshd is there");
    let server = Server { child, port };
    wait_for(port);
    server
}

/// A server that takes connections and never says anything. It listens as long as the value lives.
///
/// # Panics
/// When nothing can listen.
#[must_use]
pub fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    let taker = listener.try_clone().expect("descriptors are left");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = taker.accept() {
            held.push(std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
            }));
        }
    });
    (listener, port)
}

/// A port that was free a moment ago.
///
/// # Panics
/// When none is.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    listener.local_addr().expect("it is bound").port()
}

fn wait_for(port: u16) {
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < START, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes a bare repository `<name>.git` in `dir` from files by name and text: branch `main` with two commits, the first of
/// them under the annotated tag `v1`, and a branch `other/main` with a file more. Gives the first commit.
///
/// # Panics
/// When git fails.
#[must_use]
pub fn repository(dir: &Path, name: &str, files: &[(&str, &str)]) -> String {
    let work = dir.join(format!("{name}-work"));
    for (file, text) in files {
        let path = work.join(file);
        fs_err::create_dir_all(path.parent().expect("a file is in a directory"))
            .expect("the disk is writable");
        fs_err::write(path, text).expect("the disk is writable");
    }
    let git = |args: &[&str]| git(&work, args);
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "first"]);
    git(&["tag", "-a", "v1", "-m", "v1"]);
    let first = git(&["rev-parse", "HEAD"]);
    git(&["checkout", "-qb", "other/main"]);
    fs_err::write(work.join("other.txt"), "other\n").expect("the disk is writable");
    git(&["add", "-A"]);
    git(&["commit", "-qm", "other"]);
    git(&["checkout", "-q", "main"]);
    fs_err::write(work.join("second.txt"), "second\n").expect("the disk is writable");
    git(&["add", "-A"]);
    git(&["commit", "-qm", "second"]);
    let bare = dir.join(format!("{name}.git"));
    git(&["clone", "-q", "--bare", ".", &bare.display().to_string()]);
    // For servers that are no more than files.
    git(&[
        "--git-dir",
        &bare.display().to_string(),
        "update-server-info",
    ]);
    first
}

/// Runs git as the maker of repositories does, in 2022; gives its output.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn git_output(dir: &Path, args: &[&str]) -> String {
    git(dir, args)
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .envs(["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
            [
                (format!("GIT_{who}_NAME"), "t"),
                (format!("GIT_{who}_EMAIL"), "t@t"),
                (format!("GIT_{who}_DATE"), "1650000000 +0000"),
            ]
        }))
        .output()
        .expect("git is there");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
