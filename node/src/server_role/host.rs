//! What is to be known of this host before anything on it is changed, and the refusals that follow from it.

use std::fs::File;
use std::net::IpAddr;

use super::netlink::{Address, Link, Netlink};
use super::nft::{self, Devices, Guard, Mss};
use super::{
    LOOPBACK, Method, Plan, ServerRoleError, TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4, VIPS_MAX, sysctl,
};

/// The headers of IP and TCP without options, as the MSS counts them (RFC 9293 §3.7.1, RFC 8200 §8.3).
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
/// The smallest MSS that makes sense: what every host accepts (RFC 9293 §3.7.1) would be 536, but a tunnel may be
/// smaller; below this only headers travel.
const MSS_MIN: u32 = 88;
/// The smallest MTU for an IPv4 tunnel (RFC 791 §3.1), and that of any link with IPv6 (RFC 8200 §5): below it the kernel
/// takes IPv6 off an interface.
const MTU_MIN_V4: u32 = 576;
const MTU_MIN_V6: u32 = 1280;

/// The links and addresses of this host, as they were when it was read.
pub(super) struct Host {
    pub(super) interface: Link,
    pub(super) loopback: Link,
    links: Vec<Link>,
    addresses: Vec<Address>,
}

impl Host {
    pub(super) async fn read(netlink: &Netlink, interface: &str) -> Result<Self, ServerRoleError> {
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        let named = |name: &str| {
            let found = links.iter().find(|link| link.name == name).cloned();
            found.ok_or_else(|| ServerRoleError::NoInterface(name.to_owned()))
        };
        let (interface, loopback) = (named(interface)?, named(LOOPBACK)?);
        Ok(Self {
            interface,
            loopback,
            links,
            addresses,
        })
    }

    /// Where the tunnel arrives: the planned address, or, where the way there translates it, the first address of its
    /// version on the interface.
    pub(super) fn local(&self, planned: IpAddr) -> Option<IpAddr> {
        if self.addresses.iter().any(|found| found.address == planned) {
            return Some(planned);
        }
        let found = self.addresses.iter().find(|found| {
            found.link == self.interface.index
                && found.address.is_ipv4() == planned.is_ipv4()
                && !is_link_local(found.address)
        });
        found.map(|found| found.address)
    }

    /// Those of `vips` that have to be put on `lo`.
    pub(super) fn missing(&self, vips: &[IpAddr]) -> Result<Vec<IpAddr>, ServerRoleError> {
        if vips.len() > VIPS_MAX {
            return Err(ServerRoleError::TooManyVips(vips.len()));
        }
        let mut missing = Vec::new();
        for &vip in vips {
            if !can_be_vip(vip) {
                return Err(ServerRoleError::NotUnicast(vip));
            }
            self.check_ipv6(vip)?;
            let mut standing = self
                .addresses
                .iter()
                .filter(|found| found.address == vip)
                .peekable();
            if standing.peek().is_none() && !missing.contains(&vip) {
                missing.push(vip);
            }
            if let Some(elsewhere) = standing.find(|found| found.link != self.loopback.index) {
                let link = self.links.iter().find(|link| link.index == elsewhere.link);
                let interface =
                    link.map_or_else(|| elsewhere.link.to_string(), |link| link.name.clone());
                return Err(ServerRoleError::VipIsHostAddress { vip, interface });
            }
        }
        Ok(missing)
    }

    /// Refuses an IPv6 VIP where the kernel would with a number, or would take it and be silent.
    fn check_ipv6(&self, vip: IpAddr) -> Result<(), ServerRoleError> {
        let without = [&self.loopback, &self.interface]
            .into_iter()
            .find(|link| !sysctl::has_ipv6(&link.name));
        match without {
            Some(link) if vip.is_ipv6() => Err(ServerRoleError::NoIpv6 {
                vip,
                interface: link.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The largest TCP segments whose packets still fit the tunnel.
    pub(super) fn mss(&self, plan: &Plan) -> Result<Mss, ServerRoleError> {
        let mtu = self.interface.mtu;
        let ipv6 = plan.has_ipv6();
        let too_small = |needed| ServerRoleError::MtuTooSmall {
            interface: plan.interface.clone(),
            mtu,
            needed,
        };
        if ipv6 && mtu < MTU_MIN_V6 {
            return Err(too_small(MTU_MIN_V6));
        }
        let fitting = |headers| {
            let mss = mtu.checked_sub(overhead(plan.address) + headers)?;
            // The option has 16 bits; only `lo` has an MTU beyond them.
            (mss >= MSS_MIN).then_some(mss.min(u32::from(u16::MAX)))
        };
        Ok(Mss {
            v4: fitting(HEADERS_V4).ok_or_else(|| too_small(MTU_MIN_V4))?,
            v6: if ipv6 { fitting(HEADERS_V6) } else { None },
        })
    }

    /// The MTU of the tunnel device: what fits the tunnel, but never so little that the kernel takes IPv6 off it.
    /// Nothing is ever sent into it, and what comes out of it may be larger.
    pub(super) fn tunnel_mtu(&self, plan: &Plan) -> u32 {
        let fitting = self.interface.mtu.saturating_sub(overhead(plan.address));
        if plan.has_ipv6() {
            fitting.max(MTU_MIN_V6)
        } else {
            fitting
        }
    }

    pub(super) async fn install_table(
        &self,
        plan: &Plan,
        kernel: Option<Devices>,
        held: File,
    ) -> Result<(), ServerRoleError> {
        let rules = nft::Rules {
            vips: &plan.vips,
            mss: self.mss(plan)?,
            kernel_tunnel: kernel.map(|devices| Guard {
                atms: &plan.atms,
                devices,
            }),
        };
        nft::install(&rules, held).await
    }

    /// Refuses to take over a device or a table that no journal calls ours.
    pub(super) async fn check_unoccupied(&self, method: Method) -> Result<(), ServerRoleError> {
        if method != Method::Tunnel {
            return Ok(());
        }
        for name in [TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4] {
            if self.links.iter().any(|link| link.name == name) {
                return Err(ServerRoleError::Occupied {
                    what: format!("the link {name}"),
                    remedy: format!("ip link del {name}"),
                });
            }
        }
        if nft::present().await? {
            let remedy = format!("nft delete table {}", nft::TABLE);
            return Err(ServerRoleError::Occupied {
                what: format!("the nft table {}", nft::TABLE),
                remedy,
            });
        }
        Ok(())
    }
}

/// The outer header: RFC 2003 §3, RFC 4213 §3.2; RFC 2473 §3 without extension headers.
fn overhead(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// Whether one host of the network can have this address on `lo`.
fn can_be_vip(vip: IpAddr) -> bool {
    let special = vip.is_unspecified() || vip.is_loopback() || vip.is_multicast();
    let version = match vip {
        IpAddr::V4(vip) => !vip.is_broadcast(),
        // A mapped address is IPv4 to every socket.
        IpAddr::V6(vip) => vip.to_ipv4_mapped().is_none() && !vip.is_unicast_link_local(),
    };
    !special && version
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mtu: u32) -> Host {
        let link = |index, name: &str| Link {
            index,
            name: name.to_owned(),
            mtu,
            up: true,
        };
        let on = |link, address: &str| Address {
            link,
            address: address.parse().unwrap(),
        };
        Host {
            interface: link(2, "eth0"),
            loopback: link(1, "lo"),
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")],
            addresses: vec![
                on(2, "fe80::11"),
                on(2, "10.1.0.11"),
                on(2, "2001:db8::11"),
                on(3, "10.2.0.11"),
            ],
        }
    }

    fn plan(address: &str, vips: &[&str]) -> Plan {
        Plan {
            interface: "eth0".to_owned(),
            address: address.parse().unwrap(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            method: Method::Tunnel,
            atms: vec![],
            nat_gateway: None,
            state_dir: "state".into(),
        }
    }

    #[test]
    fn segments_fit_each_of_the_four_tunnels() {
        let both = ["10.1.0.100", "2001:db8::100"];
        for (address, mtu, expected) in [
            ("10.1.0.11", 1500, (1440, Some(1420))),
            ("2001:db8::11", 1500, (1420, Some(1400))),
            ("10.1.0.11", 9000, (8940, Some(8920))),
            ("2001:db8::11", 1280, (1200, Some(1180))),
        ] {
            let mss = host(mtu).mss(&plan(address, &both)).unwrap();
            assert_eq!((mss.v4, mss.v6), expected, "{address} at {mtu}");
        }
        let only_v4 = plan("10.1.0.11", &both[..1]);
        assert_eq!(host(576).mss(&only_v4).unwrap(), Mss { v4: 516, v6: None });
    }

    #[test]
    fn an_mtu_without_room_is_refused_with_the_one_that_is_needed() {
        for (vip, mtu, words) in [
            ("10.1.0.100", 100, "raise it to 576 or more"),
            ("2001:db8::100", 1279, "raise it to 1280 or more"),
        ] {
            let error = host(mtu).mss(&plan("10.1.0.11", &[vip])).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn the_tunnel_device_keeps_ipv6_where_the_network_is_small() {
        let v6 = ["2001:db8::100"];
        for (address, vips, mtu, expected) in [
            ("10.1.0.11", &v6[..0], 1500, 1480),
            ("10.1.0.11", &v6[..0], 1280, 1260),
            ("2001:db8::11", &v6[..], 1500, 1460),
            ("2001:db8::11", &v6[..], 1300, 1280),
        ] {
            assert_eq!(host(mtu).tunnel_mtu(&plan(address, vips)), expected);
        }
    }

    #[test]
    fn the_tunnel_arrives_at_the_planned_address_or_at_the_first_of_its_version() {
        for (planned, expected) in [
            ("10.2.0.11", "10.2.0.11"),
            ("192.0.2.1", "10.1.0.11"),
            ("2001:db8::77", "2001:db8::11"),
        ] {
            let local = host(1500).local(planned.parse().unwrap());
            assert_eq!(local, Some(expected.parse().unwrap()), "{planned}");
        }
    }

    #[test]
    fn addresses_that_no_host_has_for_itself_are_no_vips() {
        for (vip, expected) in [
            ("10.1.0.100", true),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("2001:db8::100", true),
            ("fd00::1", true),
            ("fe80::1", false),
            ("::1", false),
            ("::", false),
            ("ff02::1", false),
            ("::ffff:10.1.0.100", false),
        ] {
            assert_eq!(can_be_vip(vip.parse().unwrap()), expected, "{vip}");
        }
    }
}
