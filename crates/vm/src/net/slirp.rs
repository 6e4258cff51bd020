//! QEMU's own user-mode networking.

use firebuild_usernet::guest::GUEST_IPV4;

use crate::spec::{PortPublish, UserNetwork};

/// Options of QEMU's `-netdev user` for this network.
pub(crate) fn options(network: &UserNetwork) -> String {
    let mut options = String::from("restrict=on,ipv6=off,net=10.0.2.0/24");
    for port in &network.publish {
        let PortPublish {
            host_port,
            guest_port,
            protocol,
            ..
        } = port;
        let listen = port.listen_ip();
        options.push_str(&format!(
            ",hostfwd={protocol}:{listen}:{host_port}-{GUEST_IPV4}:{guest_port}"
        ));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::options;
    use crate::spec::{PortPublish, Protocol, UserNetwork};

    #[test]
    fn published_ports_are_the_only_way() {
        let options = options(&UserNetwork {
            publish: vec![PortPublish {
                host_ip: Some("127.0.0.1".parse().unwrap()),
                host_port: 5353,
                guest_port: 53,
                protocol: Protocol::Udp,
            }],
        });
        assert!(
            options.starts_with("restrict=on,"),
            "the way to the host's loopback"
        );
        assert!(options.ends_with(",hostfwd=udp:127.0.0.1:5353-10.0.2.15:53"));
    }
}
