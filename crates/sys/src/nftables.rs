//! nftables by netlink, without the program `nft`: `linux/netfilter/nf_tables.h`, `nft(8)`.
//!
//! Changes are collected in a [`Batch`] and take effect together or not at all. Everything acts on the network namespace of
//! the thread that opened the [`Socket`].
//!
//! ```text
//! Batch: add_table ▸ add_chain ▸ add_rule… ── commit ──▶ Socket ──▶ kernel, all or nothing
//! ```
//!
//! No crate does this without C libraries or under a licence that fits: `nftnl` binds libnftnl, `rustables` is GPL and runs
//! bindgen, `nftables` executes `nft`. What is needed of it here is small: base chains and a dozen kinds of expressions
//! ([`Rule`]).

mod rule;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{netlink as family, sockopt};

use crate::netlink::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, attribute, attributes, dump, message, nested,
    request_all, socket, text,
};
pub use rule::{Protocol, Rule};

/// `NFNL_SUBSYS_NFTABLES` of `linux/netfilter/nfnetlink.h`; the high byte of each message's type.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const GETTABLE: u16 = (SUBSYSTEM << 8) | 1;
const DELTABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEWCHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEWRULE: u16 = (SUBSYSTEM << 8) | 6;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_OWNER: u32 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

/// `NF_DROP` and `NF_ACCEPT` of `linux/netfilter.h`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Which packets a table sees: `nft(8)`, "address families".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip,
    /// Every frame that a link receives.
    Netdev,
}

impl Family {
    /// `NFPROTO_IPV4`, `NFPROTO_NETDEV` of `linux/netfilter.h`.
    fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Netdev => 5,
        }
    }
}

/// A table by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// What it sees.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// Where a chain is attached: `nft(8)`, "hooks" and "priority".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook<'a> {
    /// Before connections are tracked.
    Raw,
    /// Where packets that arrive get another destination.
    NatPrerouting,
    /// Where packets of this host get another destination.
    NatOutput,
    /// Where packets that leave get another source.
    NatPostrouting,
    /// What this host forwards.
    Forward,
    /// What a link receives; for [`Family::Netdev`].
    Ingress(&'a str),
}

impl Hook<'_> {
    /// Type of the chain, number of the hook, priority: `NF_INET_*` of `linux/netfilter.h`, `NF_IP_PRI_*` of
    /// `linux/netfilter_ipv4.h`.
    fn place(self) -> (&'static str, u32, i32) {
        match self {
            Self::Raw => ("filter", 0, -300),
            Self::NatPrerouting => ("nat", 0, -100),
            Self::NatOutput => ("nat", 3, -100),
            Self::NatPostrouting => ("nat", 4, 100),
            Self::Forward => ("filter", 2, 0),
            Self::Ingress(_) => ("filter", 0, 0),
        }
    }
}

/// What becomes of packets that no rule of a base chain decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They go on.
    Accept,
    /// They are gone.
    Drop,
}

/// A connection to nftables. Tables that were added as owned vanish when it is closed, however that happens.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` for a kernel without netfilter.
    pub fn open() -> io::Result<Self> {
        socket(Some(family::NETFILTER)).map(Self)
    }

    /// Names of the tables of a family.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; when the kernel does not give the list.
    pub fn tables(&self, family: Family) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        dump(&self.0, GETTABLE, &header(family.number(), 0), |entry| {
            let name = attributes(entry.get(4..).unwrap_or_default())
                .find(|(kind, _)| *kind == NFTA_TABLE_NAME);
            if let Some((_, name)) = name {
                let name = name.strip_suffix(b"\0").unwrap_or(name);
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        })?;
        Ok(names)
    }
}

/// Changes that take effect together.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<u8>,
    count: u32,
    /// Where the flags of the last message are.
    last: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// No changes yet.
    #[must_use]
    pub fn new() -> Self {
        let mut batch = Self {
            messages: Vec::new(),
            count: 0,
            last: 0,
        };
        batch.push(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
        batch
    }

    fn push(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.last = self.messages.len() + 6; // nlmsg_flags
        message(&mut self.messages, kind, flags, self.count, body);
        self.count += 1;
    }

    /// Adds a table; one that is there already stays as it is. An owned one vanishes with the socket that the batch is
    /// committed by, and nobody else can change it.
    pub fn add_table(&mut self, table: Table<'_>, owned: bool) {
        let mut body = header(table.family.number(), 0);
        attribute(&mut body, NFTA_TABLE_NAME, &text(table.name));
        if owned {
            attribute(
                &mut body,
                NFTA_TABLE_FLAGS,
                &NFT_TABLE_F_OWNER.to_be_bytes(),
            );
        }
        self.push(NEWTABLE, NLM_F_CREATE, &body);
    }

    /// Deletes a table with everything in it. That there is none makes the batch fail with `ENOENT`.
    pub fn delete_table(&mut self, table: Table<'_>) {
        let mut body = header(table.family.number(), 0);
        attribute(&mut body, NFTA_TABLE_NAME, &text(table.name));
        self.push(DELTABLE, 0, &body);
    }

    /// Adds a chain that packets come to by themselves.
    pub fn add_chain(&mut self, table: Table<'_>, name: &str, hook: Hook<'_>, policy: Policy) {
        let (kind, number, priority) = hook.place();
        let mut place = Vec::new();
        attribute(&mut place, NFTA_HOOK_HOOKNUM, &number.to_be_bytes());
        attribute(&mut place, NFTA_HOOK_PRIORITY, &priority.to_be_bytes());
        if let Hook::Ingress(link) = hook {
            attribute(&mut place, NFTA_HOOK_DEV, &text(link));
        }
        let policy = match policy {
            Policy::Accept => ACCEPT,
            Policy::Drop => DROP,
        };
        let mut body = header(table.family.number(), 0);
        attribute(&mut body, NFTA_CHAIN_TABLE, &text(table.name));
        attribute(&mut body, NFTA_CHAIN_NAME, &text(name));
        nested(&mut body, NFTA_CHAIN_HOOK, &place);
        attribute(&mut body, NFTA_CHAIN_POLICY, &policy.to_be_bytes());
        attribute(&mut body, NFTA_CHAIN_TYPE, &text(kind));
        self.push(NEWCHAIN, NLM_F_CREATE, &body);
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, rule: &Rule) {
        let mut body = header(table.family.number(), 0);
        attribute(&mut body, NFTA_RULE_TABLE, &text(table.name));
        attribute(&mut body, NFTA_RULE_CHAIN, &text(chain));
        nested(&mut body, NFTA_RULE_EXPRESSIONS, rule.expressions());
        self.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &body);
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// The kernel's first one, and then nothing has changed: `EPERM` without `CAP_NET_ADMIN` or for a table that somebody
    /// else owns, `ENOENT` for what is not there or what this kernel does not know, `EOPNOTSUPP`, `EEXIST`.
    pub fn commit(mut self, socket: &Socket) -> io::Result<()> {
        // Errors come unasked; that all went well is told for the last change only, or a long batch would fill the socket.
        let flags = &mut self.messages[self.last..self.last + 2];
        let asking = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&asking.to_ne_bytes());
        self.push(BATCH_END, 0, &header(0, SUBSYSTEM));
        // A batch is one datagram. Whoever may change rules may also raise this limit.
        let room = self.messages.len().saturating_mul(2).max(64 << 10);
        if sockopt::set_socket_send_buffer_size_force(&socket.0, room).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket.0, room);
        }
        request_all(&socket.0, &self.messages)
    }
}

/// `struct nfgenmsg`: family, version, and a number in network order.
fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

#[cfg(test)]
mod tests;
