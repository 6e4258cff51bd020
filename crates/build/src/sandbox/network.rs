//! The network of steps: one for a build, made for the first step that wants one.
//!
//! Steps are kept off the host's loopback as machines are: passt behind the guard of `firebuild-usernet`. All steps of a
//! build are in one network namespace, since to make one takes longer than to run a step; they are one author's.
//!
//! Where passt is not installed or does not work, and where the kernel gives no namespace, steps have the host's network;
//! that is said once.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use firebuild_sandbox::job::{Job, NetworkJob, Reply};
use firebuild_usernet::guest::{GuestNetwork, guest_network};
use firebuild_usernet::host::HostNetwork;
use firebuild_usernet::passt::UserNetwork;

use super::ids::IdSpace;
use crate::exec::{ExecError, ExecErrorKind};

/// How much of the host's `resolv.conf` a step is given.
const MAX_RESOLV_CONF: u64 = 64 << 10;

/// How steps without a wish of their own reach the network.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// passt, or why there is none; without either they have the host's network and nothing is said.
    passt: Option<Result<PathBuf, String>>,
    own: OnceLock<Option<OwnNetwork>>,
    making: Mutex<()>,
}

/// A network that is not the host's.
#[derive(Debug)]
pub(super) struct OwnNetwork {
    /// Namespace that the steps join.
    pub(super) namespace: OwnedFd,
    /// `/etc/resolv.conf` of the steps.
    pub(super) resolv_conf: Vec<u8>,
    /// Holds the way out open.
    _outside: UserNetwork,
}

impl Networks {
    pub(super) fn behind(passt: PathBuf) -> Self {
        Self {
            passt: Some(Ok(passt)),
            ..Self::default()
        }
    }

    pub(super) fn of_the_host(why: String) -> Self {
        Self {
            passt: Some(Err(why)),
            ..Self::default()
        }
    }

    /// The network of the build's steps; none is the host's. `notice` hears, once, why it is that.
    pub(super) fn own(&self, ids: &IdSpace, notice: impl FnOnce(String)) -> Option<&OwnNetwork> {
        let passt = self.passt.as_ref()?;
        if let Some(known) = self.own.get() {
            return known.as_ref();
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.own
            .get_or_init(|| {
                let made = passt
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|passt| make(passt, ids).map_err(|error| chain(&error)));
                made.map_err(|why| notice(format!("RUN steps use the host's network: {why}")))
                    .ok()
            })
            .as_ref()
    }
}

fn chain(error: &ExecError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn make(passt: &std::path::Path, ids: &IdSpace) -> Result<OwnNetwork, ExecError> {
    let failed = |error| ExecError::caused(ExecErrorKind::Host, "cannot start passt", error);
    let host = HostNetwork::discover();
    let guest = guest_network(&host);
    let job = NetworkJob {
        hardware_address: firebuild_usernet::guest::GUEST_MAC.0,
        mtu: firebuild_usernet::guest::MTU,
        addresses: guest
            .interface
            .addresses
            .iter()
            .map(|cidr| (cidr.address, cidr.prefix))
            .collect(),
        gateways: guest
            .interface
            .routes
            .iter()
            .filter_map(|route| route.gateway)
            .collect(),
    };
    let mut running = ids.start(Job::Network(job))?;
    let (reply, fds) = running.reply()?;
    running.finish()?;
    let (Reply::Network, Ok([namespace, frames])) = (reply, <[OwnedFd; 2]>::try_from(fds)) else {
        return Err(ExecError::new(
            ExecErrorKind::Host,
            "the sandbox handed out no network",
        ));
    };
    let outside = UserNetwork::start(passt, &host, frames).map_err(failed)?;
    Ok(OwnNetwork {
        namespace,
        resolv_conf: resolv_conf_of(&guest, &host_resolv_conf()),
        _outside: outside,
    })
}

/// The host's `/etc/resolv.conf`.
pub(super) fn host_resolv_conf() -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = fs_err::File::open("/etc/resolv.conf") {
        // What cannot be read is as if it was not there; a step without names says so itself.
        let _ = file.take(MAX_RESOLV_CONF).read_to_end(&mut bytes);
    }
    bytes
}

/// The host's file with the name servers that the network has.
fn resolv_conf_of(network: &GuestNetwork, host: &[u8]) -> Vec<u8> {
    let mut text: String = network
        .nameservers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for line in String::from_utf8_lossy(host).lines() {
        let word = line.split_whitespace().next();
        if matches!(word, Some("search" | "domain" | "options" | "sortlist")) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use firebuild_usernet::guest::guest_network;
    use firebuild_usernet::host::HostNetwork;

    use super::resolv_conf_of;

    fn steps(host: &str) -> String {
        let found = HostNetwork::from_resolv_conf(host);
        String::from_utf8(resolv_conf_of(&guest_network(&found), host.as_bytes())).unwrap()
    }

    #[test]
    fn name_servers_are_those_that_can_be_reached() {
        assert_eq!(
            steps(
                "# made by x\nnameserver 192.0.2.1\nnameserver 127.0.0.53\noptions ndots:2\nsearch a b\n"
            ),
            "nameserver 192.0.2.1\noptions ndots:2\nsearch a b\n"
        );
        assert_eq!(
            steps("nameserver 127.0.0.53\noptions edns0\n"),
            "nameserver 10.0.2.3\noptions edns0\n"
        );
        assert_eq!(steps(""), "nameserver 10.0.2.3\n");
    }
}
