//! The private side of the cluster: what the `NAT` block says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::types::PrefixLength;

/// `NAT` … `EndNAT`: of each line one for each IP version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// `Subnet <network> <mask>`: the private side.
    pub subnet: Option<(Ipv4Addr, PrefixLength)>,
    /// `Subnet <network>/<length>` of IPv6.
    pub subnet6: Option<Network6>,
    /// `Gateway <ip>`: moves with the active ATM.
    pub gateway: Option<Ipv4Addr>,
    /// `Gateway <ip>` of IPv6.
    pub gateway6: Option<Ipv6Addr>,
}

impl Nat {
    /// The gateways, at most one for each IP version.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.gateway.map(IpAddr::V4);
        v4.into_iter().chain(self.gateway6.map(IpAddr::V6))
    }

    /// The gateway in the IP version of a server.
    #[must_use]
    pub fn gateway_of(&self, server: IpAddr) -> Option<IpAddr> {
        self.gateways()
            .find(|gateway| gateway.is_ipv4() == server.is_ipv4())
    }
}

/// An IPv6 network: its address without the bits of hosts, and the length of its prefix, 0..=128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network6 {
    address: Ipv6Addr,
    length: u8,
}

impl Network6 {
    /// The network of that length that an address is in; one of more than 128 bits is the address alone.
    #[must_use]
    pub const fn of(address: Ipv6Addr, length: u8) -> Self {
        let length = if length > 128 { 128 } else { length };
        let mask = match u128::MAX.checked_shl(128 - length as u32) {
            Some(bits) => bits,
            None => 0,
        };
        Self {
            address: Ipv6Addr::from_bits(address.to_bits() & mask),
            length,
        }
    }

    /// Its address.
    #[must_use]
    pub const fn address(self) -> Ipv6Addr {
        self.address
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        Self::of(address, self.length) == self
    }
}

impl fmt::Display for Network6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_ipv6() {
        let address: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        for (length, shown, other, contains) in [
            (0, "::/0", "ffff::", true),
            (64, "2001:db8:1:2::/64", "2001:db8:1:2:ffff::", true),
            (64, "2001:db8:1:2::/64", "2001:db8:1:3::", false),
            (
                127,
                "2001:db8:1:2:3:4:5:6/127",
                "2001:db8:1:2:3:4:5:7",
                true,
            ),
            (
                128,
                "2001:db8:1:2:3:4:5:6/128",
                "2001:db8:1:2:3:4:5:7",
                false,
            ),
        ] {
            let network = Network6::of(address, length);
            assert_eq!(network.to_string(), shown);
            assert_eq!(
                network.contains(other.parse().unwrap()),
                contains,
                "{shown} {other}"
            );
        }
    }
}
