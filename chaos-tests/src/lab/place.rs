//! Where in the lab a host stands: its segment, its further addresses, its routes; and the IPv6 twin of every address. Pure.
//!
//! Invariant: a host's IPv6 addresses are the twins of its IPv4 addresses, so whatever is laid out for one version holds for
//! the other.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Length of the prefix of every IPv6 network of the lab.
pub const PREFIX_LENGTH_V6: u8 = 64;

/// First part of every IPv6 address of the lab: a unique local one (RFC 4193 section 3.1, L = 1).
const ULA: u16 = 0xfd00;

/// Smallest and largest path MTU that a router of the lab can be given: every IPv6 link carries the one (RFC 8200 section 5),
/// an ordinary Ethernet link no more than the other.
pub const PATH_MTU_MIN: u16 = 1280;
/// See [`PATH_MTU_MIN`].
pub const PATH_MTU_MAX: u16 = 1500;

/// An Ethernet network of the lab: one bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Segment {
    /// ATMs, the servers without a router before them, NAT servers in their own subnet.
    #[default]
    Cluster,
    /// Clients behind a router.
    Clients,
    /// Servers behind a router.
    Servers,
}

impl Segment {
    /// Name of its bridge, in the namespace of the switch.
    pub(crate) fn bridge(self) -> &'static str {
        match self {
            Self::Cluster => "br0",
            Self::Clients => "br1",
            Self::Servers => "br2",
        }
    }
}

/// A /24 of the lab, and the /64 that is its twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network(pub [u8; 3]);

impl Network {
    /// The network of `address`.
    #[must_use]
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        Self([a, b, c])
    }

    /// Its host number `host`.
    #[must_use]
    pub fn host(self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, host)
    }

    /// `10.1.0.0/24` and `fd00:10:1::/64`.
    pub(crate) fn prefixes(self) -> [String; 2] {
        let first = self.host(0);
        [
            format!("{first}/24"),
            format!("{}/{PREFIX_LENGTH_V6}", twin(first)),
        ]
    }
}

/// A route by way of a host of the same network, for both IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to; `None`: everywhere else.
    pub to: Option<Network>,
    /// The next hop; its twin for IPv6.
    pub via: Ipv4Addr,
}

/// What a host has besides its address on `eth0`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The segment of `eth0`.
    pub segment: Segment,
    /// Further addresses of `eth0`.
    pub further: Vec<Ipv4Addr>,
    /// Segment and address of `eth1`, of a router.
    pub second: Option<(Segment, Ipv4Addr)>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Of a router: the largest packet that it passes on, in bytes, in both directions; a larger one is answered with the ICMP
    /// error that says so. `None`: as large as its links carry.
    pub path_mtu: Option<u16>,
}

impl Place {
    /// Whether the host passes packets on.
    #[must_use]
    pub fn is_router(&self) -> bool {
        self.second.is_some()
    }
}

/// Whether the machine's kernel has IPv6; without it the lab is an IPv4 one.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// The IPv6 address that goes with `address`: `fd00:10:1::11` for `10.1.0.11`. Each byte's decimal digits stand as they are.
#[must_use]
pub fn twin(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(spelled);
    Ipv6Addr::new(ULA, a, b, c, 0, 0, 0, d)
}

/// The IPv4 address whose twin `address` is; `None` if there is none.
#[must_use]
pub fn twin_of(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [ULA, a, b, c, 0, 0, 0, d] = address.segments() else {
        return None;
    };
    let mut octets = [0; 4];
    for (octet, part) in octets.iter_mut().zip([a, b, c, d]) {
        *octet = format!("{part:x}").parse().ok()?;
    }
    let found = Ipv4Addr::from(octets);
    (octets[0] != 0 && twin(found) == address).then_some(found)
}

/// `11` becomes `0x11`.
fn spelled(byte: u8) -> u16 {
    let byte = u16::from(byte);
    ((byte / 100) << 8) | ((byte / 10 % 10) << 4) | (byte % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_spelled_alike() {
        for (v4, v6) in [
            ([10, 1, 0, 11], "fd00:10:1::11"),
            ([192, 168, 7, 201], "fd00:192:168:7::201"),
            ([255, 255, 255, 255], "fd00:255:255:255::255"),
        ] {
            assert_eq!(twin(v4.into()), v6.parse::<Ipv6Addr>().unwrap());
            assert_eq!(twin_of(v6.parse().unwrap()), Some(v4.into()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        for byte in 0..=u8::MAX {
            let address = Ipv4Addr::new(10, byte, byte, byte);
            assert_eq!(twin_of(twin(address)), Some(address));
        }
    }

    #[test]
    fn what_is_no_twin_has_none() {
        for v6 in [
            "fd00::1",
            "2001:db8::1",
            "fd00:10:1:0:1::11",
            "fd00:1f:1::11",
            "fd00:256:1::1",
            "::",
        ] {
            assert_eq!(twin_of(v6.parse().unwrap()), None, "{v6}");
        }
    }

    #[test]
    fn a_network_has_both_prefixes() {
        let network = Network::of(Ipv4Addr::new(192, 168, 7, 9));
        assert_eq!(
            network.prefixes(),
            ["192.168.7.0/24", "fd00:192:168:7::/64"]
        );
        assert_eq!(network.host(9), Ipv4Addr::new(192, 168, 7, 9));
    }
}
