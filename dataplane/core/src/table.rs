//! What the replicated state says, compiled for the packet path. Swapped whole between two batches.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use model::conf::{ForwardingMethod, Protocol, Replication, Scheduler};
use model::ids::{ServerId, VirtualServiceId};
use model::sticky::StickyRules;

use crate::MacAddr;

/// The interface a forwarder works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// Our own IPv4 address: source of ARP requests and of the outer tunnel header.
    pub address: Ipv4Addr,
    /// Length of the connected network's prefix, 0..=32.
    pub prefix_len: u8,
    /// Our own global IPv6 address: source of the outer header of a tunnel over IPv6; `None`: we have none.
    pub address6: Option<Ipv6Addr>,
    /// Our link-local address: source of neighbour solicitations; `None`: IPv6 is off on this interface.
    pub link_local: Option<Ipv6Addr>,
    /// MTU in bytes (IP packet, without the Ethernet header).
    pub mtu: u16,
}

/// Bounds of one forwarder; all are counts of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections waiting for their record to be committed, each holding at most one frame.
    pub pending_max: usize,
    /// Connections in all states (`NumConnections`).
    pub connections_max: usize,
}

/// One version of the forwarding table.
#[derive(Clone, Debug, Default)]
pub struct ForwardingTable {
    /// Raft index of the state it was compiled from: tables are installed in this order.
    pub applied_index: u64,
    /// Addresses this ATM speaks for when it holds the lease: the VIPs (also those no longer configured while connections live on
    /// them), the `Gateway` of servers behind NAT, and the source addresses of full NAT. Frames to any other address are the host's.
    pub vips: Vec<IpAddr>,
    /// Those of them that hosts have as their router: a `Gateway`.
    pub gateways: Vec<IpAddr>,
    /// Where packets to a client go on our interface, where answers pass here.
    pub next_hop: NextHop,
    /// Which clients keep their server.
    pub sticky: StickyRules,
    /// Virtual services; also those no longer configured while connections live on them (they have no `share`).
    pub services: Vec<VirtualService>,
    /// Servers; also those no longer configured while connections live on them.
    pub servers: Vec<Real>,
    /// `NumConnections`.
    pub connections_max: usize,
    /// Idle time after which an established connection is closed (`ConnectionTimeout`).
    pub connection_timeout: Duration,
    /// Interval of the announcements (gratuitous ARP, unsolicited neighbour advertisements) after the burst at a takeover (`SendArpDelay`).
    pub send_arp_delay: Duration,
}

/// Says where packets to an address go on our interface: to itself, to a router, or (`None`) nowhere.
#[derive(Clone)]
pub struct NextHop(Arc<dyn Fn(IpAddr) -> Option<IpAddr> + Send + Sync>);

impl NextHop {
    /// As this function says. It has to be quick, and always to say the same.
    pub fn new(rule: impl Fn(IpAddr) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// The next hop towards an address.
    pub fn of(&self, address: IpAddr) -> Option<IpAddr> {
        (self.0)(address)
    }
}

impl Default for NextHop {
    /// Everybody is on the connected network.
    fn default() -> Self {
        Self::new(Some)
    }
}

impl fmt::Debug for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextHop")
    }
}

/// VIP, protocol and port, and who serves it. No two in a table have the same three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Its number in the replicated records.
    pub id: VirtualServiceId,
    /// The VIP.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// How new connections are shared out.
    pub scheduler: Scheduler,
    /// When a first packet may leave.
    pub replication: Replication,
    /// Healthy servers that take new connections, with their weights (0 takes none), in configuration order.
    pub share: Vec<(ServerId, u16)>,
    /// Servers that are down and whose connections are to be reset, sorted.
    pub reset: Vec<ServerId>,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Real {
    /// Its number in the replicated records.
    pub id: ServerId,
    /// Its address.
    pub address: IpAddr,
    /// Where frames to it go on our interface: itself when it is on the connected network, else the router towards it; `None`: nowhere.
    pub next_hop: Option<IpAddr>,
    /// It is this very host: its packets go to the host's own stack, and never to the wire (ADR-0012).
    pub here: bool,
    /// How packets reach it; a `direct` server that is an ATM is reached by `tunnel`.
    pub method: ForwardingMethod,
    /// Full NAT: the address that packets to it come from; else `None`.
    pub source: Option<IpAddr>,
}
