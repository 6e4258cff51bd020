//! What can be asked of a Firecracker whose guest runs.

use std::os::fd::OwnedFd;

use firebuild_sys::pidfd;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::Signal;
use serde_json::Value;

use super::api::{Vm, VmState};
use super::client::ApiClient;
use crate::backend::{Control, ControlError, ControlErrorKind};
use crate::hardware::BalloonStatistics;

/// The control connection of a Firecracker.
#[derive(Debug)]
pub struct FirecrackerControl {
    client: ApiClient,
}

impl FirecrackerControl {
    /// Takes over the connection.
    #[must_use]
    pub fn new(connection: OwnedFd) -> Self {
        Self {
            client: ApiClient::new(connection),
        }
    }

    /// The whole configuration as Firecracker has it.
    ///
    /// # Errors
    /// When it refuses or has ended.
    pub fn config(&mut self) -> Result<Value, ControlError> {
        self.client.request("GET", "/vm/config", None)
    }

    /// The metadata document.
    ///
    /// # Errors
    /// When it refuses or has ended.
    pub fn metadata(&mut self) -> Result<Value, ControlError> {
        self.client.request("GET", "/mmds", None)
    }

    /// Changes members of the metadata document (a JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// When it refuses (a document that gets too large) or has ended.
    pub fn patch_metadata(&mut self, changes: &Value) -> Result<(), ControlError> {
        self.client
            .request("PATCH", "/mmds", Some(changes))
            .map(drop)
    }

    fn set_state(&mut self, state: VmState) -> Result<(), ControlError> {
        let body = super::plan::body(&Vm { state });
        self.client.request("PATCH", "/vm", Some(&body)).map(drop)
    }
}

impl Control for FirecrackerControl {
    fn pause(&mut self) -> Result<(), ControlError> {
        self.set_state(VmState::Paused)
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.set_state(VmState::Resumed)
    }

    /// A machine whose metadata nobody configured gets a document that nobody can ask for: the caller knows which it is.
    fn put_metadata(&mut self, document: &Value) -> Result<bool, ControlError> {
        self.client
            .request("PUT", "/mmds", Some(document))
            .map(|_| true)
    }

    fn balloon_statistics(&mut self) -> Result<BalloonStatistics, ControlError> {
        let path = "/balloon/statistics";
        let answer = self.client.request("GET", path, None)?;
        serde_json::from_value(answer).map_err(|_| {
            let problem = ControlErrorKind::Protocol("something other than statistics");
            ControlError::new(path, problem)
        })
    }

    /// The API has no word for it, so it is a signal: to the process that made the socket at the other end.
    fn quit(&mut self) -> Result<(), ControlError> {
        let failed = |error: std::io::Error| ControlError::io("quit", error);
        let peer = socket_peercred(self.client.connection()).map_err(|e| failed(e.into()))?;
        let pidfd = pidfd::open(peer.pid).map_err(failed)?;
        // A Firecracker that answers is the one that made it: its number has not become another process.
        self.client
            .request("GET", "/", None)
            .map_err(|error| ControlError::new("quit", error.kind().clone()))?;
        match pidfd::signal(&pidfd, Signal::KILL) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
                Err(ControlError::new("quit", ControlErrorKind::Closed))
            }
            result => result.map_err(failed),
        }
    }
}
