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
use firebuild_usernet::guest::{guest_network, resolv_conf};
use firebuild_usernet::host::{self, HostNetwork};
use firebuild_usernet::passt::UserNetwork;

use super::ids::IdSpace;
use crate::exec::{ExecError, ExecErrorKind};

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
        resolv_conf: resolv_conf(&guest, &host::resolv_conf()),
        _outside: outside,
    })
}
