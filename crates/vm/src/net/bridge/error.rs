//! What can go wrong with the network, and what could not be removed of it.

use std::fmt;
use std::io;

use super::BRIDGE;
use crate::net::ports::PortError;

/// A network that cannot be made or joined.
#[derive(Debug)]
pub struct NetworkError {
    kind: NetworkErrorKind,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkErrorKind {
    /// The caller is not root.
    NotRoot,
    /// A published port cannot be had.
    Port,
    /// Every address of the network is taken.
    Full,
    /// The address that was asked for is none of the network's, or is taken.
    Address,
    /// No subnet is free of what the host reaches already.
    NoSubnet,
    /// A link of our name exists that we did not make.
    Foreign,
    /// A network namespace that is none.
    Namespace,
    /// The kernel refused an operation.
    Io,
}

impl NetworkError {
    pub(super) fn new(kind: NetworkErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    pub(super) fn caused(
        kind: NetworkErrorKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }

    pub(super) fn not_root() -> Self {
        Self::new(
            NetworkErrorKind::NotRoot,
            "the bridge network needs root: run as root, or use --network=user",
        )
    }

    pub(super) fn port(source: PortError) -> Self {
        Self::caused(
            NetworkErrorKind::Port,
            "cannot publish the ports of the machine",
            source,
        )
    }

    pub(super) fn foreign() -> Self {
        Self::new(
            NetworkErrorKind::Foreign,
            format!(
                "there is a link {BRIDGE} on this host that no record of firebuild knows: delete it ('ip link del {BRIDGE}') or \
                 rename it, or use --network=user"
            ),
        )
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> NetworkErrorKind {
        self.kind
    }
}

/// An error of the kernel with what it was about.
pub(super) fn io_error(what: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::caused(NetworkErrorKind::Io, what, source)
}

/// The same of rules. What a kernel does not know of nftables is to it a file that is not there.
pub(super) fn rules_error(what: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| {
        let hint = if source.kind() == io::ErrorKind::NotFound {
            " (this kernel has only a part of nftables: NAT needs its modules nft_chain_nat, nft_nat, nft_masq, nft_ct and \
             nft_fib_ipv4)"
        } else {
            ""
        };
        NetworkError::caused(NetworkErrorKind::Io, format!("{what}{hint}"), source)
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// What could not be removed, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(String, io::Error)>);

impl Failures {
    /// Does it, and remembers if it failed.
    pub(super) fn note(&mut self, what: &str, remove: impl FnOnce() -> io::Result<()>) {
        if let Err(error) = remove() {
            self.push(what, error);
        }
    }

    pub(super) fn push(&mut self, what: &str, error: io::Error) {
        self.0.push((what.to_owned(), error));
    }

    pub(super) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_list(self) -> Vec<(String, io::Error)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::rules_error;

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let told = |kind: io::ErrorKind| rules_error("no rules")(kind.into()).to_string();
        assert!(told(io::ErrorKind::NotFound).contains("nft_nat"));
        assert_eq!(told(io::ErrorKind::PermissionDenied), "no rules");
    }
}
