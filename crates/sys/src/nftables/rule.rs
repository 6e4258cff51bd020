//! What a rule says: expressions that match, one after the other, and a verdict.
//!
//! An expression loads something into a register and another one compares it; numbers of attributes are in network order,
//! values in registers as the packet or the kernel has them.

use std::net::Ipv4Addr;

use crate::netlink::{attribute, nested, text};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_REG_2: u32 = 2;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_PAYLOAD_LL_HEADER: u32 = 0;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_META_PROTOCOL: u32 = 1;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_L4PROTO: u32 = 16;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
const NFT_NAT_DNAT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const IPS_DST_NAT: u32 = 1 << 5;
/// `NF_CT_STATE_BIT` of the same header for connections that are established or related to one.
const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);
/// `RTN_LOCAL` of `linux/rtnetlink.h`.
const RTN_LOCAL: u32 = 2;
/// `IFNAMSIZ` of `linux/if.h`.
const LINK_NAME: usize = 16;
/// `linux/if_ether.h`.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `linux/in.h`.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A rule as it grows: conditions in their order, then what is done.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    expressions: Vec<u8>,
}

impl Rule {
    /// Matches everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn expressions(&self) -> &[u8] {
        &self.expressions
    }

    /// What arrived by this link.
    #[must_use]
    pub fn from_link(self, name: &str) -> Self {
        self.meta(NFT_META_IIFNAME)
            .compare(NFT_CMP_EQ, &padded(name))
    }

    /// What did not arrive by this link.
    #[must_use]
    pub fn not_from_link(self, name: &str) -> Self {
        self.meta(NFT_META_IIFNAME)
            .compare(NFT_CMP_NEQ, &padded(name))
    }

    /// What leaves by this link.
    #[must_use]
    pub fn to_link(self, name: &str) -> Self {
        self.meta(NFT_META_OIFNAME)
            .compare(NFT_CMP_EQ, &padded(name))
    }

    /// What does not leave by this link.
    #[must_use]
    pub fn not_to_link(self, name: &str) -> Self {
        self.meta(NFT_META_OIFNAME)
            .compare(NFT_CMP_NEQ, &padded(name))
    }

    /// IPv4 source addresses of a network.
    #[must_use]
    pub fn from_network(self, network: Ipv4Addr, prefix: u8) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4)
            .masked_address(network, prefix)
    }

    /// IPv4 destination addresses of a network.
    #[must_use]
    pub fn to_network(self, network: Ipv4Addr, prefix: u8) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4)
            .masked_address(network, prefix)
    }

    /// Destinations that are addresses of this host.
    #[must_use]
    pub fn to_this_host(mut self) -> Self {
        let mut data = Vec::new();
        attribute(&mut data, NFTA_FIB_DREG, &NFT_REG_1.to_be_bytes());
        attribute(
            &mut data,
            NFTA_FIB_RESULT,
            &NFT_FIB_RESULT_ADDRTYPE.to_be_bytes(),
        );
        attribute(&mut data, NFTA_FIB_FLAGS, &NFTA_FIB_F_DADDR.to_be_bytes());
        self.push("fib", &data);
        self.compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    /// A transport protocol with this destination port.
    #[must_use]
    pub fn to_port(self, protocol: Protocol, port: u16) -> Self {
        self.meta(NFT_META_L4PROTO)
            .compare(NFT_CMP_EQ, &[protocol.number()])
            .payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
            .compare(NFT_CMP_EQ, &port.to_be_bytes())
    }

    /// Connections that were given another destination.
    #[must_use]
    pub fn redirected(self) -> Self {
        self.connection(NFT_CT_STATUS, IPS_DST_NAT)
    }

    /// Packets of connections that exist, or that belong to one.
    #[must_use]
    pub fn of_known_connections(self) -> Self {
        self.connection(NFT_CT_STATE, ESTABLISHED_OR_RELATED)
    }

    /// Frames whose sender is not this hardware address.
    #[must_use]
    pub fn not_from_hardware(self, address: [u8; 6]) -> Self {
        self.payload(NFT_PAYLOAD_LL_HEADER, 6, 6)
            .compare(NFT_CMP_NEQ, &address)
    }

    /// IPv4 packets from this address, for [`Family::Netdev`](super::Family::Netdev).
    #[must_use]
    pub fn ipv4_from(self, address: Ipv4Addr) -> Self {
        self.meta(NFT_META_PROTOCOL)
            .compare(NFT_CMP_EQ, &ETH_P_IP.to_be_bytes())
            .payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4)
            .compare(NFT_CMP_EQ, &address.octets())
    }

    /// ARP messages that speak for this address (`RFC 826`: the sender's protocol address), for
    /// [`Family::Netdev`](super::Family::Netdev).
    #[must_use]
    pub fn arp_from(self, address: Ipv4Addr) -> Self {
        self.meta(NFT_META_PROTOCOL)
            .compare(NFT_CMP_EQ, &ETH_P_ARP.to_be_bytes())
            .payload(NFT_PAYLOAD_NETWORK_HEADER, 14, 4)
            .compare(NFT_CMP_EQ, &address.octets())
    }

    /// Lets the packet go on.
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(super::ACCEPT)
    }

    /// Drops the packet.
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(super::DROP)
    }

    /// Gives the connection another destination; for the chains of NAT.
    #[must_use]
    pub fn redirect(mut self, address: Ipv4Addr, port: u16) -> Self {
        self.load(NFT_REG_1, &address.octets());
        self.load(NFT_REG_2, &port.to_be_bytes());
        let mut data = Vec::new();
        for (kind, value) in [
            (NFTA_NAT_TYPE, NFT_NAT_DNAT),
            (NFTA_NAT_FAMILY, NFPROTO_IPV4),
            (NFTA_NAT_REG_ADDR_MIN, NFT_REG_1),
            (NFTA_NAT_REG_PROTO_MIN, NFT_REG_2),
        ] {
            attribute(&mut data, kind, &value.to_be_bytes());
        }
        self.push("nat", &data);
        self
    }

    /// Gives the connection the address of the link that it leaves by; for the chain after routing.
    #[must_use]
    pub fn masquerade(mut self) -> Self {
        self.push("masq", &[]);
        self
    }

    fn push(&mut self, name: &str, data: &[u8]) {
        let mut expression = Vec::new();
        attribute(&mut expression, NFTA_EXPR_NAME, &text(name));
        nested(&mut expression, NFTA_EXPR_DATA, data);
        nested(&mut self.expressions, NFTA_LIST_ELEM, &expression);
    }

    fn meta(mut self, key: u32) -> Self {
        let mut data = Vec::new();
        attribute(&mut data, NFTA_META_DREG, &NFT_REG_1.to_be_bytes());
        attribute(&mut data, NFTA_META_KEY, &key.to_be_bytes());
        self.push("meta", &data);
        self
    }

    fn payload(mut self, base: u32, offset: u32, length: u32) -> Self {
        let mut data = Vec::new();
        for (kind, value) in [
            (NFTA_PAYLOAD_DREG, NFT_REG_1),
            (NFTA_PAYLOAD_BASE, base),
            (NFTA_PAYLOAD_OFFSET, offset),
            (NFTA_PAYLOAD_LEN, length),
        ] {
            attribute(&mut data, kind, &value.to_be_bytes());
        }
        self.push("payload", &data);
        self
    }

    fn compare(mut self, operation: u32, with: &[u8]) -> Self {
        let mut data = Vec::new();
        attribute(&mut data, NFTA_CMP_SREG, &NFT_REG_1.to_be_bytes());
        attribute(&mut data, NFTA_CMP_OP, &operation.to_be_bytes());
        nested(&mut data, NFTA_CMP_DATA, &value(with));
        self.push("cmp", &data);
        self
    }

    /// Keeps these bits of the register.
    fn mask(mut self, mask: &[u8; 4]) -> Self {
        let mut data = Vec::new();
        attribute(&mut data, NFTA_BITWISE_SREG, &NFT_REG_1.to_be_bytes());
        attribute(&mut data, NFTA_BITWISE_DREG, &NFT_REG_1.to_be_bytes());
        attribute(&mut data, NFTA_BITWISE_LEN, &4u32.to_be_bytes());
        nested(&mut data, NFTA_BITWISE_MASK, &value(mask));
        nested(&mut data, NFTA_BITWISE_XOR, &value(&[0; 4]));
        self.push("bitwise", &data);
        self
    }

    fn masked_address(self, network: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix.min(32)))
            .unwrap_or(0);
        let wanted = network.to_bits() & mask;
        self.mask(&mask.to_be_bytes())
            .compare(NFT_CMP_EQ, &wanted.to_be_bytes())
    }

    /// Any of these bits of what is known of the connection.
    fn connection(mut self, key: u32, bits: u32) -> Self {
        let mut data = Vec::new();
        attribute(&mut data, NFTA_CT_DREG, &NFT_REG_1.to_be_bytes());
        attribute(&mut data, NFTA_CT_KEY, &key.to_be_bytes());
        self.push("ct", &data);
        self.mask(&bits.to_ne_bytes()).compare(NFT_CMP_NEQ, &[0; 4])
    }

    fn load(&mut self, register: u32, bytes: &[u8]) {
        let mut data = Vec::new();
        attribute(&mut data, NFTA_IMMEDIATE_DREG, &register.to_be_bytes());
        nested(&mut data, NFTA_IMMEDIATE_DATA, &value(bytes));
        self.push("immediate", &data);
    }

    fn verdict(mut self, code: u32) -> Self {
        let mut verdict = Vec::new();
        attribute(&mut verdict, NFTA_VERDICT_CODE, &code.to_be_bytes());
        let mut held = Vec::new();
        nested(&mut held, NFTA_DATA_VERDICT, &verdict);
        let mut data = Vec::new();
        attribute(
            &mut data,
            NFTA_IMMEDIATE_DREG,
            &NFT_REG_VERDICT.to_be_bytes(),
        );
        nested(&mut data, NFTA_IMMEDIATE_DATA, &held);
        self.push("immediate", &data);
        self
    }
}

fn value(bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    attribute(&mut data, NFTA_DATA_VALUE, bytes);
    data
}

/// A whole name, so that no longer one matches.
fn padded(name: &str) -> [u8; LINK_NAME] {
    let mut bytes = [0; LINK_NAME];
    let length = name.len().min(LINK_NAME - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}
