//! Published ports are tried before anything starts, so that a taken one is an error with its address. Those that rules lead
//! into a guest are held as long as it runs, so that no other program takes them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::spec::{PortPublish, Protocol};

/// A published port that cannot be listened on.
#[derive(Debug)]
pub struct PortError {
    port: PortPublish,
    source: io::Error,
}

impl PortError {
    /// The port.
    #[must_use]
    pub fn port(&self) -> PortPublish {
        self.port
    }

    /// Whether another program listens there.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortPublish {
            host_port,
            protocol,
            ..
        } = self.port;
        let address = SocketAddr::new(self.port.listen_ip(), host_port);
        write!(f, "cannot publish {}: ", self.port)?;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                let kind = if protocol == Protocol::Udp { 'u' } else { 't' };
                write!(
                    f,
                    "{address}/{protocol} is in use on this host; `ss -ln{kind}p 'sport = :{host_port}'` tells by whom"
                )
            }
            io::ErrorKind::PermissionDenied => write!(
                f,
                "this user may not listen on {address}/{protocol}; take a port from the number in \
                 /proc/sys/net/ipv4/ip_unprivileged_port_start on, or run as root"
            ),
            io::ErrorKind::AddrNotAvailable => write!(f, "{address} is no address of this host"),
            _ => write!(f, "cannot listen on {address}/{protocol}"),
        }
    }
}

impl std::error::Error for PortError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Tries to listen on every port, and lets go of them again.
///
/// # Errors
/// The first port that cannot be had. Another program may still take one before the network of the machine does; then
/// that reports it.
pub fn check_free(ports: &[PortPublish]) -> Result<(), PortError> {
    hold(ports).map(drop)
}

/// Listens on every port. Nobody takes the connections: they never get here where rules lead them elsewhere.
///
/// # Errors
/// The first port that cannot be had.
pub(crate) fn hold(ports: &[PortPublish]) -> Result<Vec<OwnedFd>, PortError> {
    ports
        .iter()
        .map(|&port| listen(port).map_err(|source| PortError { port, source }))
        .collect()
}

fn listen(port: PortPublish) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(port.listen_ip(), port.host_port);
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let kind = if port.protocol == Protocol::Udp {
        SocketType::DGRAM
    } else {
        SocketType::STREAM
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if port.protocol == Protocol::Tcp {
        // A connection that is still in TIME_WAIT does not keep the port; a listener does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if port.protocol == Protocol::Tcp {
        rustix::net::listen(&socket, 1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

    use super::check_free;
    use crate::spec::{PortPublish, Protocol};

    fn publish(ip: IpAddr, host_port: u16, protocol: Protocol) -> PortPublish {
        PortPublish {
            host_ip: Some(ip),
            host_port,
            guest_port: 80,
            protocol,
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_address() {
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let tcp = TcpListener::bind((local, 0)).unwrap();
        let number = tcp.local_addr().unwrap().port();
        let error = check_free(&[publish(local, number, Protocol::Tcp)]).unwrap_err();
        assert!(error.is_in_use());
        let text = error.to_string();
        assert!(
            text.contains(&format!("127.0.0.1:{number}/tcp is in use")),
            "{text}"
        );
        assert!(
            text.contains(&format!("ss -lntp 'sport = :{number}'")),
            "{text}"
        );
        drop(tcp);
        check_free(&[publish(local, number, Protocol::Tcp)]).unwrap();

        let udp = UdpSocket::bind((local, 0)).unwrap();
        let number = udp.local_addr().unwrap().port();
        assert!(
            check_free(&[publish(local, number, Protocol::Udp)])
                .unwrap_err()
                .is_in_use()
        );
    }

    #[test]
    fn a_foreign_address_is_told() {
        let foreign = IpAddr::from(Ipv4Addr::new(203, 0, 113, 7));
        let text = check_free(&[publish(foreign, 8080, Protocol::Tcp)])
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("203.0.113.7:8080 is no address of this host"),
            "{text}"
        );
    }
}
