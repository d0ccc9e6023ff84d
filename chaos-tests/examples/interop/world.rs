//! The network of the comparison, the same on both sides: one router that forwards to servers by every method, and one to clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_core::MacAddr;

/// The router that is compared: kernel IPVS, or us.
pub(crate) const ROUTER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x0a00, 0x0001);
pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x0a00, 0x0064);
/// The way to the clients.
pub(crate) const UPLINK4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
pub(crate) const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x0a00, 0x00fe);
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
/// A router far away, which sends errors.
pub(crate) const FAR4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// Gateway of the servers behind NAT.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
/// MTU of the network, bytes.
pub(crate) const MTU: usize = 1500;

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Tunnel,
    Direct,
    Nat,
}

/// A virtual service (TCP and UDP of one port) with one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) vip: IpAddr,
    pub(crate) server: IpAddr,
    /// The same on both.
    pub(crate) port: u16,
}

const fn v4(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))
}

const fn v6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x0a00, host))
}

const fn way(name: &'static str, method: Method, ends: (IpAddr, IpAddr), port: u16) -> Way {
    Way {
        name,
        method,
        vip: ends.0,
        server: ends.1,
        port,
    }
}

/// Every way that both sides may have. Full NAT (`source=`) is not among them: mainline IPVS has no such method.
pub(crate) const WAYS: [Way; 7] = [
    way("tunnel 4in4", Method::Tunnel, (v4(100), v4(11)), 81),
    way("tunnel 6in6", Method::Tunnel, (v6(0x64), v6(0x15)), 82),
    way("tunnel 4in6", Method::Tunnel, (v4(100), v6(0x16)), 83),
    way("tunnel 6in4", Method::Tunnel, (v6(0x64), v4(12)), 84),
    way("direct v4", Method::Direct, (v4(100), v4(13)), 85),
    way("direct v6", Method::Direct, (v6(0x64), v6(0x17)), 86),
    way("nat v4", Method::Nat, (v4(100), v4(14)), 87),
];

impl Way {
    /// Bytes that the tunnel adds.
    pub(crate) fn overhead(&self) -> usize {
        match (self.method, self.server) {
            (Method::Tunnel, IpAddr::V4(_)) => 20,
            (Method::Tunnel, IpAddr::V6(_)) => 40,
            (Method::Direct | Method::Nat, _) => 0,
        }
    }
}

impl Method {
    /// As `clusterserver.conf` says it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Direct => "direct",
            Self::Nat => "nat",
        }
    }
}

/// 02:00, then the IPv4 address or the last four bytes of the IPv6 address, as the offline ATM takes it.
pub(crate) fn mac(address: IpAddr) -> MacAddr {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    MacAddr([2, 0, a, b, c, d])
}

/// The configuration of our side.
pub(crate) fn configuration() -> String {
    let mut services = String::new();
    let mut servers = String::new();
    let (mut pool4, mut pool6) = (String::new(), String::new());
    for way in &WAYS {
        let (port, method) = (way.port, way.method.word());
        services +=
            &format!("  Service t{port} tcp:{port} none\n  Service u{port} udp:{port} none\n");
        servers += &format!("  Server s{port} {} {method}\n", way.server);
        let pool = if way.vip.is_ipv4() {
            &mut pool4
        } else {
            &mut pool6
        };
        *pool += &format!("  AddServer s{port} t{port}/1 u{port}/1\n");
    }
    format!(
        "NetworkMask 255.255.255.0\n\
         NAT\n  Subnet 10.0.0.0 255.255.255.0\n  Gateway {GATEWAY}\nEndNAT\n\
         Services\n{services}EndServices\n\
         Servers\n{servers}EndServers\n\
         ServerPool P4\n{pool4}EndServerPool\n\
         ServerPool P6\n{pool6}EndServerPool\n\
         AtmPool ATMs\n  AddAtm {ROUTER4}\n  NumConnections 10000\nEndAtmPool\n\
         VirtualHost v4\n  Address {VIP4}\n  AddAtmPool ATMs\n  AddServerPool P4\nEndVirtualHost\n\
         VirtualHost v6\n  Address {VIP6}\n  AddAtmPool ATMs\n  AddServerPool P6\nEndVirtualHost\n"
    )
}
