//! What is to be known of this host before anything on it is changed, and the refusals that follow from it.

use std::fs::File;
use std::net::IpAddr;

use model::server::nft::{Devices, Guard, Rules, TABLE, TABLE_NAME};
use model::server::{Mss, can_be_vip};

use super::netlink::{Address, Link, Netlink};
use super::{
    LOOPBACK, Method, Plan, ServerRoleError, TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4, VIPS_MAX, nft,
    sysctl,
};
use crate::filter_watch::{Family, changed};

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
        model::server::mss(mtu, plan.address, plan.has_ipv6()).map_err(|needed| {
            ServerRoleError::MtuTooSmall {
                interface: plan.interface.clone(),
                mtu,
                needed,
            }
        })
    }

    /// The MTU of the tunnel device.
    pub(super) fn tunnel_mtu(&self, plan: &Plan) -> u32 {
        model::server::tunnel_mtu(self.interface.mtu, plan.address, plan.has_ipv6())
    }

    /// Puts the table in place that a plan needs, and returns what is in it then, if that is known.
    pub(super) async fn install_table(
        &self,
        plan: &Plan,
        kernel: Option<Devices>,
        held: File,
    ) -> Result<Option<String>, ServerRoleError> {
        let rules = Rules {
            vips: &plan.vips,
            mss: self.mss(plan)?,
            kernel_tunnel: kernel.map(|devices| Guard {
                atms: &plan.atms,
                devices,
            }),
        };
        let install = async || nft::install(&rules, held).await;
        let ((), listed) = changed((Family::Inet, TABLE_NAME), install).await?;
        Ok(listed)
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
            let remedy = format!("nft delete table {TABLE}");
            return Err(ServerRoleError::Occupied {
                what: format!("the nft table {TABLE}"),
                remedy,
            });
        }
        Ok(())
    }
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
    fn an_mtu_without_room_is_refused_by_the_name_of_the_interface() {
        let error = host(100)
            .mss(&plan("10.1.0.11", &["10.1.0.100"]))
            .unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("of eth0") && words.contains("raise it to 576"),
            "{words}"
        );
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
}
