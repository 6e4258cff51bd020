//! The metadata service, for machines whose VMM has none: Firecracker's MMDS, answered by the init.
//!
//! ```text
//!   the machine's network                      a network of its own
//!   programs ──▶ mmds0 169.254.169.253 ═veth═ 169.254.169.254 ◀── port 80: this
//! ```
//!
//! It has a network namespace of its own, so that the address is there without any other network and port 80 stays free
//! for applications that listen on every address. Whoever asks is served in a few steps of the init's one loop: requests
//! are small, answers are made at once, and who is slow loses the connection.

mod answer;
mod request;
mod tokens;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use firebuild_guest_proto::metadata::{Document, METADATA_ADDRESS, Metadata as Config};
use firebuild_sys::namespace::{Namespaces, join, unshare};
use firebuild_sys::net::veth::{Peer, add_pair};
use firebuild_sys::net::{add_address, add_route, link_up};
use rustix::event::PollFlags;

use request::{Incoming, MAX_REQUEST_BYTES};
use tokens::Tokens;

/// The near end of the pair and its address.
const NEAR: &str = "mmds0";
const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
const FAR: &str = "far";
/// That of Firecracker's service.
const FAR_MAC: [u8; 6] = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];
const MTU: u32 = 1500;
/// Connections at once; the oldest one gives way.
const CONNECTIONS: usize = 32;
/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service.
#[derive(Debug)]
pub(crate) struct Metadata {
    listener: TcpListener,
    tokens: Option<Tokens>,
    document: Document,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    began: Instant,
    request: Vec<u8>,
    /// What is still to be sent, once there is an answer.
    answer: Option<Vec<u8>>,
}

impl Metadata {
    /// Makes the network and listens.
    pub(crate) fn start(config: &Config) -> std::io::Result<Metadata> {
        Ok(Metadata {
            listener: listen()?,
            tokens: config.tokens.then(Tokens::default),
            document: config.document.clone(),
            connections: Vec::new(),
        })
    }

    /// Takes another document.
    pub(crate) fn set(&mut self, document: Document) {
        self.document = document;
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut fds = vec![(self.listener.as_fd(), PollFlags::IN)];
        fds.extend(self.connections.iter().map(|connection| {
            let wanted = match connection.answer {
                Some(_) => PollFlags::OUT,
                None => PollFlags::IN,
            };
            (connection.stream.as_fd(), wanted)
        }));
        fds
    }

    /// When somebody loses patience with somebody.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let began = self.connections.iter().map(|connection| connection.began);
        began.min().and_then(|began| began.checked_add(PATIENCE))
    }

    /// Serves whoever has come, without waiting.
    pub(crate) fn turn(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.connections.len() >= CONNECTIONS {
                self.connections.remove(0);
            }
            self.connections.push(Connection {
                stream,
                began: Instant::now(),
                request: Vec::new(),
                answer: None,
            });
        }
        let (tokens, document) = (&mut self.tokens, &self.document);
        self.connections.retain_mut(|connection| {
            connection.began.elapsed() < PATIENCE && connection.serve(tokens, document)
        });
    }
}

impl Connection {
    /// Whether there is more to do.
    fn serve(&mut self, tokens: &mut Option<Tokens>, document: &Document) -> bool {
        if self.answer.is_none() {
            match self.read() {
                Ok(None) => return true,
                Ok(Some(incoming)) => {
                    self.answer = Some(answer::to(&incoming, tokens, document));
                }
                Err(_) => return false,
            }
        }
        self.write()
    }

    /// The request, once it is whole.
    fn read(&mut self) -> std::io::Result<Option<Incoming>> {
        let mut buffer = [0; 2048];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Some(incoming) = request::parse(&self.request) {
                return Ok(Some(incoming));
            }
            if self.request.len() > MAX_REQUEST_BYTES {
                return Ok(Some(Incoming::Bad("the request is too long")));
            }
        }
    }

    fn write(&mut self) -> bool {
        let Some(answer) = &mut self.answer else {
            return true;
        };
        while !answer.is_empty() {
            match self.stream.write(answer) {
                Ok(count) => drop(answer.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        false
    }
}

/// A listener in a network namespace of its own, which lives as long as it does, and the way there.
fn listen() -> std::io::Result<TcpListener> {
    let here = fs_err::File::open("/proc/self/ns/net")?;
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
    let there = fs_err::File::open("/proc/self/ns/net")?;
    // Of this namespace alone, and there before the link is.
    add_address("lo", IpAddr::from(METADATA_ADDRESS), 32)?;
    link_up("lo")?;
    let listener = TcpListener::bind(SocketAddr::from((METADATA_ADDRESS, 80)))?;
    listener.set_nonblocking(true)?;
    Ok((listener, there))
}
