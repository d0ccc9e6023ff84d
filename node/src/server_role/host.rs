//! What is to be known of this host before anything on it is changed, and the refusals that follow from it.

use std::fs::File;
use std::net::Ipv4Addr;

use super::netlink::{Address, Link, Netlink};
use super::{LOOPBACK, Method, Plan, ServerRoleError, TUNNEL_DEVICE, VIPS_MAX, nft};

/// The outer header of IP-in-IP (RFC 2003 §3).
pub(super) const TUNNEL_OVERHEAD: u32 = 20;
/// The headers of IPv4 and TCP without options, as the MSS counts them (RFC 6691 §2).
const HEADERS: u32 = 40;
/// The smallest MSS that makes sense: what every host accepts (RFC 9293 §3.7.1) would be 536, but a tunnel may be
/// smaller; below this only headers travel.
const MSS_MIN: u32 = 88;

/// The links and addresses of this host, as they were when it was read.
pub(super) struct Host {
    pub(super) interface: Link,
    pub(super) loopback: Link,
    links: Vec<Link>,
    addresses: Vec<Address>,
    /// The first address of the interface, to which the ATMs send the tunnel.
    pub(super) local: Option<Ipv4Addr>,
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
        let local = addresses
            .iter()
            .find(|address| address.link == interface.index)
            .map(|found| found.address);
        Ok(Self {
            interface,
            loopback,
            links,
            addresses,
            local,
        })
    }

    /// Those of `vips` that have to be put on `lo`.
    pub(super) fn missing(&self, vips: &[Ipv4Addr]) -> Result<Vec<Ipv4Addr>, ServerRoleError> {
        if vips.len() > VIPS_MAX {
            return Err(ServerRoleError::TooManyVips(vips.len()));
        }
        let mut missing = Vec::new();
        for &vip in vips {
            if vip.is_unspecified() || vip.is_loopback() || vip.is_multicast() || vip.is_broadcast()
            {
                return Err(ServerRoleError::NotUnicast(vip));
            }
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

    /// The largest TCP segment whose packet still fits the tunnel.
    pub(super) fn mss(&self, plan: &Plan) -> Result<u32, ServerRoleError> {
        let mtu = self.interface.mtu;
        let too_small = || ServerRoleError::MtuTooSmall {
            interface: plan.interface.clone(),
            mtu,
        };
        let mss = mtu
            .checked_sub(TUNNEL_OVERHEAD + HEADERS)
            .filter(|mss| *mss >= MSS_MIN);
        // The option has 16 bits; only `lo` has an MTU beyond them.
        mss.map(|mss| mss.min(u32::from(u16::MAX)))
            .ok_or_else(too_small)
    }

    pub(super) async fn install_table(
        &self,
        plan: &Plan,
        in_kernel: bool,
        held: File,
    ) -> Result<(), ServerRoleError> {
        let rules = nft::Rules {
            vips: &plan.vips,
            mss: Some(self.mss(plan)?),
            kernel_tunnel: in_kernel.then_some(&plan.atms),
        };
        nft::install(&rules, held).await
    }

    /// Refuses to take over a device or a table that no journal calls ours.
    pub(super) async fn check_unoccupied(&self, method: Method) -> Result<(), ServerRoleError> {
        if method == Method::Direct {
            return Ok(());
        }
        if self.links.iter().any(|link| link.name == TUNNEL_DEVICE) {
            let remedy = format!("ip link del {TUNNEL_DEVICE}");
            return Err(ServerRoleError::Occupied {
                what: format!("the link {TUNNEL_DEVICE}"),
                remedy,
            });
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
