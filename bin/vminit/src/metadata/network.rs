//! The way to the metadata service: its address is there without any other network, and port 80 stays free for applications
//! that listen on every address.
//!
//! ```text
//!   programs ──▶ lo 169.254.169.254:80 ──steered──▶ 169.254.169.254:1 ◀── this
//! ```
//!
//! The kernel has a program of ours choose the socket for new connections ([`firebuild_sys::bpf`]). A kernel without such
//! programs gets a network namespace with a pair of links to it, which takes a module and, under emulation, 0.1 s more of a
//! start: two links, and all that the kernel does about addresses of theirs.
//!
//! ```text
//!   the machine's network                      a network of its own
//!   programs ──▶ mmds0 169.254.169.253 ═veth═ 169.254.169.254 ◀── port 80: this
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use firebuild_guest_proto::metadata::METADATA_ADDRESS;
use firebuild_sys::bpf::steer;
use firebuild_sys::namespace::{Namespaces, join, unshare};
use firebuild_sys::net::veth::{Peer, add_pair};
use firebuild_sys::net::{add_address, add_host_address, add_route, link_index, link_up};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, listen as listen_on, socket_with,
    sockopt,
};

use crate::journal::Journal;
use crate::modules::Spare;

const PORT: u16 = 80;
/// The network namespace that this thread is in; there is one thread, but for tests.
const HERE: &str = "/proc/thread-self/ns/net";
/// Where the socket is bound in truth: a port that no application listens on (`tcpmux`).
const OWN_PORT: u16 = 1;
/// Connections that wait for the init.
const BACKLOG: i32 = 128;
/// The near end of the pair and its address.
const NEAR: &str = "mmds0";
const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
const FAR: &str = "far";
/// That of Firecracker's service.
const FAR_MAC: [u8; 6] = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];
const MTU: u32 = 1500;

/// A listener that programs reach at the service's address.
#[derive(Debug)]
pub(super) struct Reachable {
    pub(super) listener: TcpListener,
    /// Connections are steered as long as this is open.
    _steering: Option<OwnedFd>,
}

/// Makes one, in whichever way the kernel knows.
pub(super) fn listen(
    outside: &[String],
    spare: Spare,
    journal: &mut Journal,
) -> std::io::Result<Reachable> {
    steered(outside).or_else(|error| {
        journal.debug(&format!("connections cannot be steered: {error}"));
        spare.load(journal);
        Ok(Reachable {
            listener: in_a_namespace()?,
            _steering: None,
        })
    })
}

/// The address comes last: where something fails before, nothing is left.
fn steered(outside: &[String]) -> std::io::Result<Reachable> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    // Its connections count as ones at port 80, beside which others may listen who say the same.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let own = SocketAddrV4::new(METADATA_ADDRESS, OWN_PORT);
    bind(&socket, &SocketAddrAny::from(own))?;
    listen_on(&socket, BACKLOG)?;
    let closed: std::io::Result<Vec<u32>> = outside.iter().map(|name| link_index(name)).collect();
    let here = fs_err::File::open(HERE)?;
    let to = SocketAddrV4::new(METADATA_ADDRESS, PORT);
    let steering = steer(to, socket.as_fd(), &closed?, here.as_fd())?;
    add_host_address("lo", METADATA_ADDRESS)?;
    Ok(Reachable {
        listener: TcpListener::from(socket),
        _steering: Some(steering),
    })
}

/// A listener in a network namespace of its own, which lives as long as it does, and the way there.
fn in_a_namespace() -> std::io::Result<TcpListener> {
    let here = fs_err::File::open(HERE)?;
    unshare(Namespaces::NET)?;
    let made = far_side();
    // Whatever came of it: the rest of the init belongs where it was.
    join(here.as_fd())?;
    let (listener, there) = made?;
    let peer = Peer {
        name: FAR,
        address: FAR_MAC,
        namespace: there.as_fd(),
    };
    add_pair(NEAR, MTU, peer)?;
    join(there.as_fd())?;
    let up = link_up(FAR).and_then(|()| add_route(FAR, None, None));
    join(here.as_fd())?;
    up?;
    add_address(NEAR, IpAddr::from(NEAR_ADDRESS), 32)?;
    link_up(NEAR)?;
    add_route(NEAR, Some((IpAddr::from(METADATA_ADDRESS), 32)), None)?;
    Ok(listener)
}

/// The listener, and the namespace that this thread is in.
fn far_side() -> std::io::Result<(TcpListener, fs_err::File)> {
    let there = fs_err::File::open(HERE)?;
    // Of this namespace alone, and there before the link is.
    add_address("lo", IpAddr::from(METADATA_ADDRESS), 32)?;
    link_up("lo")?;
    let listener = TcpListener::bind(SocketAddr::from((METADATA_ADDRESS, PORT)))?;
    listener.set_nonblocking(true)?;
    Ok((listener, there))
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use firebuild_guest_proto::metadata::METADATA_ADDRESS;
    use firebuild_sys::namespace::{Namespaces, unshare};
    use firebuild_sys::net::link_up;

    use super::{NEAR, OWN_PORT, PORT, listen};
    use crate::journal::Journal;
    use crate::modules::Spare;

    /// Somebody has the port to which connections would be steered, so that the kernel's other way is taken.
    #[test]
    fn what_cannot_be_steered_has_a_namespace_of_its_own() {
        let name = "what_cannot_be_steered_has_a_namespace_of_its_own";
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {name}: needs root");
            return;
        }
        // The namespace is this thread's, and goes with it.
        let test = std::thread::spawn(|| {
            unshare(Namespaces::NET).unwrap();
            link_up("lo").unwrap();
            let before = fs_err::read_link(super::HERE).unwrap();
            let _taken = TcpListener::bind(("0.0.0.0", OWN_PORT)).unwrap();
            let reachable = listen(&[], Spare::default(), &mut Journal::new()).unwrap();
            assert!(reachable._steering.is_none());
            assert_eq!(fs_err::read_link(super::HERE).unwrap(), before);
            let links = fs_err::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert!(links.contains(NEAR), "{links}");

            // Its port is the application's, too.
            let all = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
            all.set_nonblocking(true).unwrap();
            let mut client = TcpStream::connect((METADATA_ADDRESS, PORT)).unwrap();
            let (mut served, peer) = reachable.listener.accept().unwrap();
            assert_eq!(peer.ip(), super::NEAR_ADDRESS);
            assert_eq!(all.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
            served.set_nonblocking(false).unwrap();
            client.write_all(b"ask").unwrap();
            let mut asked = [0; 3];
            served.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"ask");
        });
        test.join().unwrap();
    }
}
