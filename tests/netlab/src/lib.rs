//! Network namespaces of a test: its own, which is the "host", and another one behind it, which is the outside; and who
//! listens and asks in them.
//!
//! ```text
//!   namespace of the test (the "host")                      namespace "outside"
//!   VMMs, helpers, firebuild     v0 198.51.100.1 ────────── v1 198.51.100.2
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

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Set in the process that runs inside the namespace.
const INSIDE: &str = "FIREBUILD_TEST_NETNS";

/// Whether this is a run in a network namespace of its own ([`run_in_namespace`]).
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a test of the calling program again, alone, in a network namespace of its own; needs root. Its failure is one here.
pub fn run_in_namespace(test: &str) {
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
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
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
    socket.set_read_timeout(Some(PATIENCE))?;
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
