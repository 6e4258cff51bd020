//! Network namespaces of a test: its own, which is the "host", and another one behind it, which is the outside.
//!
//! ```text
//!   namespace of the test (the "host")                      namespace "outside"
//!   firebuild and its machines   v0 198.51.100.1 ────────── v1 198.51.100.2
//!                                   2001:db8::1                2001:db8::2
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "helpers of tests: what fails here fails the test, and its output must be seen"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fixtures::{Home, static_program};
use crate::skip::{missing, skip};

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "FIREBUILD_E2E_NETNS";
/// `net tcp|udp ADDRESS` asks, `net serve PORT` answers.
const GUEST_PROGRAM: &str = include_str!("../../../crates/vm/tests/vm_boot/guest/net.rs");
/// What the image of [`net_home`] is called.
pub const NET_IMAGE: &str = "net:1";

/// Runs this test again, alone, in a network namespace of its own; whether this is the run inside.
#[must_use]
pub fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        skip(test, "root", "needs root");
        return false;
    }
    if let Some(program) = missing(&["unshare", "nsenter", "ip", "passt", "qemu-system-x86_64"]) {
        skip(test, "vm", &format!("{program} is not installed"));
        return false;
    }
    let output = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    false
}

/// Runs a script that has to succeed.
pub fn shell(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// The namespace of a process.
#[must_use]
pub fn namespace_of(pid: u32) -> Option<PathBuf> {
    fs_err::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// The namespace behind that of the test, as long as this lives.
#[derive(Debug)]
pub struct Outside(Child);

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Outside {
    /// Makes it, and the way there.
    #[must_use]
    pub fn make() -> Self {
        let mut holder = Command::new("unshare");
        let holder = holder
            .args(["--net", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = holder.id();
        let outside = Self(holder);
        while namespace_of(pid) == namespace_of(std::process::id()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        shell(&format!(
            "echo 0 >/proc/sys/net/ipv4/ip_forward; ip link set lo up; ip link add v0 type veth peer name v1 netns {pid}\n\
             ip addr add 198.51.100.1/24 dev v0; ip -6 addr add 2001:db8::1/64 dev v0 nodad; ip link set v0 up\n\
             there() {{ nsenter --net=/proc/{pid}/ns/net \"$@\"; }}\n\
             there ip addr add 198.51.100.2/24 dev v1; there ip -6 addr add 2001:db8::2/64 dev v1 nodad\n\
             there ip link set v1 up; there ip link set lo up\n\
             ip route add default via 198.51.100.2; ip -6 route add default via 2001:db8::2"
        ));
        outside
    }

    /// Does something there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = fs_err::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        // The namespace belongs to the thread that makes the sockets.
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
        .join()
        .unwrap()
    }

    /// Answers there.
    pub fn serve(&self, port: u16) {
        self.inside(move || serve_on(SocketAddr::from(([0u16; 8], port)), "outside"));
    }

    /// Runs a script there.
    pub fn shell(&self, script: &str) {
        shell(&format!(
            "nsenter --net=/proc/{}/ns/net sh -ec '{script}'",
            self.0.id()
        ));
    }
}

/// Answers words on TCP and UDP with `NAME-tcp WORD`, in threads of their own.
pub fn serve_on(address: SocketAddr, name: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(
                &[name.as_bytes(), b"-udp ", &buffer[..count]].concat(),
                peer,
            );
        }
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 64];
            let Ok(count) = stream.read(&mut buffer) else {
                continue;
            };
            let _ = stream.write_all(&[name.as_bytes(), b"-tcp ", &buffer[..count]].concat());
        }
    });
}

/// Says `hi` by TCP; what comes back.
///
/// # Errors
/// When nobody answers.
pub fn ask_tcp(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"hi")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Says `hi` by UDP; what comes back.
///
/// # Errors
/// When nobody answers.
pub fn ask_udp(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = UdpSocket::bind(if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(b"hi", address)?;
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Asks until there is an answer, at most a minute: the application takes a while to listen.
#[must_use]
pub fn answer_of(ask: fn(&str) -> std::io::Result<String>, address: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match ask(address) {
            Ok(answer) if !answer.is_empty() => return answer,
            last => assert!(Instant::now() < deadline, "{address}: {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A home with a kernel and the image [`NET_IMAGE`], whose program is `net`; or a loud skip.
#[must_use]
pub fn net_home(test: &str) -> Option<Home> {
    let (Some(home), Some(busybox)) = (Home::with_kernel(), static_program()) else {
        skip(test, "vm", "no kernel package or no static busybox");
        return None;
    };
    let source = home.context("net", &[("net.rs", GUEST_PROGRAM.as_bytes())]);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args([
            "--edition=2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
        ])
        .args(["-o", "net", "net.rs"])
        .current_dir(&source)
        .status()
        .unwrap();
    assert!(built.success());
    let net = fs_err::read(source.join("net")).unwrap();
    let dockerfile =
        b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY --chmod=0755 busybox /bin/ip\n\
        COPY --chmod=0755 busybox /bin/sleep\nCOPY --chmod=0755 busybox /bin/cat\nCOPY --chmod=0755 net /bin/net\n\
        ENTRYPOINT [\"/bin/sh\", \"-c\"]\n";
    let context = home.context(
        "image",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("net", &net),
        ],
    );
    let _ = home.build(NET_IMAGE, &context).ok();
    Some(home)
}

/// What a program prints.
#[must_use]
pub fn text_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Links, addresses and rules of the network namespace of the caller.
#[must_use]
pub fn links_and_rules() -> String {
    let mut all = text_of("ip", &["-brief", "link"]);
    all.push_str(&text_of("ip", &["-brief", "-4", "addr"]));
    if missing(&["nft"]).is_none() {
        all.push_str(&text_of("nft", &["list", "ruleset"]));
    }
    all
}

/// Programs of machines that run in the network namespace of the caller.
#[must_use]
pub fn machines_here() -> Vec<String> {
    let own = namespace_of(std::process::id());
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(program) = fs_err::read_to_string(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let is_ours = ["qemu", "passt", "firebuild"]
            .iter()
            .any(|ours| program.starts_with(ours))
            // Not the tests of that name.
            || ["firecracker", "jailer"].contains(&program.trim());
        if is_ours && namespace_of(pid) == own {
            found.push(format!("{pid} {}", program.trim()));
        }
    }
    found
}
