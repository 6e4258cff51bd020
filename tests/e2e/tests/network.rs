//! User-mode networking as users see it: out of the guest, in by published ports, never to the host's loopback. Each test
//! runs in a network namespace of its own, with another one behind it as the outside.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and its output must be seen"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_e2e::{Home, missing, skip, static_program};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "FIREBUILD_E2E_NETNS";
/// `net tcp|udp ADDRESS` asks, `net serve PORT` answers.
const GUEST_PROGRAM: &str = include_str!("../../../crates/vm/tests/vm_boot/guest/net.rs");

/// Runs this test again, alone, in a network namespace of its own; whether this is the run inside.
fn in_namespace(test: &str) -> bool {
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

fn shell(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// The namespace behind that of the test, as long as this lives: 198.51.100.2 and 2001:db8::2.
struct Outside(Child);

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Outside {
    fn make() -> Self {
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
            "ip link set lo up; ip link add v0 type veth peer name v1 netns {pid}\n\
             ip addr add 198.51.100.1/24 dev v0; ip -6 addr add 2001:db8::1/64 dev v0 nodad; ip link set v0 up\n\
             there() {{ nsenter --net=/proc/{pid}/ns/net \"$@\"; }}\n\
             there ip addr add 198.51.100.2/24 dev v1; there ip -6 addr add 2001:db8::2/64 dev v1 nodad\n\
             there ip link set v1 up; there ip link set lo up\n\
             ip route add default via 198.51.100.2; ip -6 route add default via 2001:db8::2"
        ));
        outside
    }

    fn serve(&self, port: u16) {
        let namespace = fs_err::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        // The namespace belongs to the thread that makes the sockets.
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            serve_on(SocketAddr::from(([0u16; 8], port)), "outside");
        })
        .join()
        .unwrap();
    }
}

fn namespace_of(pid: u32) -> Option<std::path::PathBuf> {
    fs_err::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// Answers words on TCP and UDP with `NAME-tcp WORD`, in threads of their own.
fn serve_on(address: SocketAddr, name: &'static str) {
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

fn ask_tcp(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"hi")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_udp(address: &str) -> std::io::Result<String> {
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
fn answer_of(ask: fn(&str) -> std::io::Result<String>, address: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match ask(address) {
            Ok(answer) if !answer.is_empty() => return answer,
            last => assert!(Instant::now() < deadline, "{address}: {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A home with a kernel and the image `net:1`, whose program is the test's; or a loud skip.
fn home(test: &str) -> Option<Home> {
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
        b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY --chmod=0755 net /bin/net\n\
        ENTRYPOINT [\"/bin/sh\", \"-c\"]\n";
    let context = home.context(
        "image",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("net", &net),
        ],
    );
    let _ = home.build("net:1", &context).ok();
    Some(home)
}

/// Programs of machines that run in this network namespace.
fn machines_here() -> Vec<String> {
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
        if ["qemu", "passt", "firebuild"]
            .iter()
            .any(|ours| program.starts_with(ours))
            && namespace_of(pid) == own
        {
            found.push(format!("{pid} {}", program.trim()));
        }
    }
    found
}

#[test]
fn a_guest_reaches_the_outside_and_not_the_hosts_loopback() {
    let test = "a_guest_reaches_the_outside_and_not_the_hosts_loopback";
    if !in_namespace(test) {
        return;
    }
    let outside = Outside::make();
    outside.serve(4000);
    for address in ["127.0.0.1:4001", "[::1]:4001"] {
        serve_on(address.parse().unwrap(), "LOOPBACK");
    }
    let Some(home) = home(test) else { return };
    let script = "for k in tcp udp; do\n\
        for a in 198.51.100.2:4000 [2001:db8::2]:4000 10.0.2.2:4001 10.0.2.3:4001 198.51.100.1:4001; do net $k $a; done\n\
        done; net tcp 198.51.100.2:4999";
    let done = home.fb(["run", "--rm", "net:1", "--", script]).ok();
    let told = done.out();
    for kind in ["tcp", "udp"] {
        for address in ["198.51.100.2:4000", "[2001:db8::2]:4000"] {
            let expected = format!("RESULT {kind} {address} outside-{kind} word\n");
            assert!(
                told.contains(&expected),
                "no {expected:?} in\n{told}{}",
                done.err()
            );
        }
    }
    assert!(!told.contains("LOOPBACK"), "{told}");
    assert_eq!(told.matches(":4001 none").count(), 6, "{told}");
    assert!(
        told.contains(":4999 none (Connection refused"),
        "a refusal is no time-out: {told}"
    );
    assert_eq!(machines_here(), Vec::<String>::new());

    let done = home
        .fb([
            "run",
            "--rm",
            "--network",
            "none",
            "net:1",
            "--",
            "net tcp 198.51.100.2:4000",
        ])
        .ok();
    assert!(
        done.out().contains("none (Network is unreachable"),
        "{}",
        done.out()
    );
}

#[test]
fn published_ports_lead_into_the_guest_and_leave_nothing() {
    let test = "published_ports_lead_into_the_guest_and_leave_nothing";
    if !in_namespace(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(home) = home(test) else { return };
    let published = [
        "8000:7000",
        "8000:7000/udp",
        "127.0.0.1:80:7000",
        "[::]:8443:7000",
        "[::]:8443:7000/udp",
    ];
    let mut args = vec!["run", "-d", "--name", "served"];
    args.extend(published.iter().flat_map(|port| ["-p", *port]));
    args.extend(["net:1", "--", "exec net serve 7000"]);
    let _ = home.fb(args).ok();
    for address in [
        "127.0.0.1:8000",
        "198.51.100.1:8000",
        "127.0.0.1:80",
        "[::1]:8443",
    ] {
        assert_eq!(answer_of(ask_tcp, address), "guest-tcp hi", "{address}");
    }
    for address in ["127.0.0.1:8000", "198.51.100.1:8000", "[::1]:8443"] {
        assert_eq!(answer_of(ask_udp, address), "guest-udp hi", "{address}");
    }
    assert!(
        ask_tcp("198.51.100.1:80").is_err(),
        "only the address that was named"
    );
    assert!(!machines_here().is_empty());

    let second = home
        .fb(["run", "--rm", "-p", "8000:1", "net:1", "--", "true"])
        .exits(125);
    let words = second.err();
    assert!(
        words.contains("0.0.0.0:8000/tcp is in use on this host") && words.contains("ss -lntp"),
        "{words}"
    );

    let _ = home.fb(["kill", "served"]).ok();
    let _ = home.fb(["wait", "served"]).ok();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !machines_here().is_empty() {
        assert!(Instant::now() < deadline, "{:?} are left", machines_here());
        std::thread::sleep(Duration::from_millis(50));
    }
    for port in ["0.0.0.0:8000", "127.0.0.1:80", "[::]:8443"] {
        TcpListener::bind(port).unwrap();
        UdpSocket::bind(port).unwrap();
    }
    let _ = home.fb(["rm", "served"]).ok();
    assert!(
        !Path::new(&home.path().join("home/run"))
            .join("served")
            .exists()
    );
}
