//! Addresses, links and the default route of this host, through the kernel's routing socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, CacheInfo};
use rtnetlink::packet_route::link::{Ip6TunnelFlags, LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteType};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkIp6Tnl, LinkIpIp, LinkSit, LinkUnspec, RouteMessageBuilder,
};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::ServerRoleError;

/// A routing socket of this thread's network namespace. Its task ends with it.
pub(super) struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

/// A link as the kernel describes it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// The largest IP packet in bytes.
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) link: u32,
    pub(super) address: IpAddr,
}

/// A device of the kernel that unpacks what comes to one address of this host.
#[derive(Clone, Copy, Debug)]
pub(super) enum KernelTunnel {
    /// ipip: IPv4 in IPv4.
    Ipip(Ipv4Addr),
    /// sit: IPv6 in IPv4.
    Sit(Ipv4Addr),
    /// ip6tnl: both in IPv6.
    Ip6tnl(Ipv6Addr),
}

/// The route of an IPv6 address is there in some milliseconds: it waits for whoever changes links just then. Two seconds
/// in all, so that a lasting fault ends the start.
const LOCAL_TRIES: u32 = 1000;
const LOCAL_PAUSE: Duration = Duration::from_millis(2);

/// A valid lifetime without end (include/net/addrconf.h, INFINITY_LIFE_TIME).
const FOREVER: u32 = u32::MAX;

/// The host route of a VIP: no other address of the subnet becomes local with it.
fn vip_prefix_len(vip: IpAddr) -> u8 {
    match vip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Netlink {
    pub(super) fn connect() -> Result<Self, ServerRoleError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| ServerRoleError::Netlink {
                action: "open a routing socket".to_owned(),
                source,
            })?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    pub(super) async fn links(&self) -> Result<Vec<Link>, ServerRoleError> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list the links"))?;
        let links = messages.into_iter().filter_map(|message| {
            let mut link = Link {
                index: message.header.index,
                name: String::new(),
                mtu: 0,
                up: message.header.flags.contains(LinkFlags::Up),
            };
            for attribute in message.attributes {
                if let LinkAttribute::IfName(name) = attribute {
                    link.name = name;
                } else if let LinkAttribute::Mtu(mtu) = attribute {
                    link.mtu = mtu;
                }
            }
            (!link.name.is_empty()).then_some(link)
        });
        Ok(links.collect())
    }

    pub(super) async fn addresses(&self) -> Result<Vec<Address>, ServerRoleError> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list the addresses"))?;
        let addresses = messages.into_iter().filter_map(|message| {
            let link = message.header.index;
            // `Address` is the peer's where there is a `Local`; IPv6 addresses without a peer have no `Local`.
            let (mut local, mut any) = (None, None);
            for attribute in message.attributes {
                if let AddressAttribute::Local(address) = attribute {
                    local = Some(address);
                } else if let AddressAttribute::Address(address) = attribute {
                    any = Some(address);
                }
            }
            let address = local.or(any)?;
            Some(Address { link, address })
        });
        Ok(addresses.collect())
    }

    /// Adds `vip` to a link; one that is there already is no error.
    ///
    /// An IPv6 VIP is nobody's to detect as a duplicate, for its owner is the ATM, and deprecated from the start
    /// (RFC 4862 §5.5.4): it answers, and no connection that this host opens takes it as its source.
    pub(super) async fn add_vip(&self, link: u32, vip: IpAddr) -> Result<(), ServerRoleError> {
        let mut request = self.handle.address().add(link, vip, vip_prefix_len(vip));
        if vip.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = FOREVER;
            message
                .attributes
                .push(AddressAttribute::CacheInfo(lifetime));
        }
        let action = format!("put the VIP {vip} on lo");
        unless(Errno::EXIST, request.execute().await).map_err(refused(action.clone()))?;
        match vip {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(vip) => self.until_local(vip, action).await,
        }
    }

    /// Waits until packets to an address reach this host's own stack. The kernel makes the route of an IPv6 address
    /// after it has acknowledged the address, and until then tells its clients that there is none.
    async fn until_local(&self, address: Ipv6Addr, action: String) -> Result<(), ServerRoleError> {
        for _ in 0..LOCAL_TRIES {
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, vip_prefix_len(address.into()))
                .build();
            // Where there is no route at all the kernel answers with an error.
            let found: Result<Vec<_>, _> =
                self.handle.route().get(route).execute().try_collect().await;
            if found.is_ok_and(|found| found.iter().any(|r| r.header.kind == RouteType::Local)) {
                return Ok(());
            }
            tokio::time::sleep(LOCAL_PAUSE).await;
        }
        let source = io::ErrorKind::TimedOut.into();
        Err(ServerRoleError::Netlink { action, source })
    }

    /// Removes `vip` from a link. Says whether it was there.
    pub(super) async fn remove_vip(&self, link: u32, vip: IpAddr) -> Result<bool, ServerRoleError> {
        let prefix_len = vip_prefix_len(vip);
        let message = match vip {
            IpAddr::V4(vip) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(link)
                .address(vip, prefix_len)
                .build(),
            IpAddr::V6(vip) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(link)
                .address(vip, prefix_len)
                .build(),
        };
        let done = self.handle.address().del(message).execute().await;
        unless(Errno::ADDRNOTAVAIL, done).map_err(refused(format!("take the VIP {vip} off lo")))
    }

    /// Makes one of the kernel's own tunnel devices. Says whether this kernel has such devices.
    pub(super) async fn add_tunnel(
        &self,
        name: &str,
        kind: KernelTunnel,
    ) -> Result<bool, ServerRoleError> {
        let message = match kind {
            KernelTunnel::Ipip(local) => LinkIpIp::new(name).local(local).build(),
            KernelTunnel::Sit(local) => LinkSit::new(name).local(local).build(),
            // Without a protocol it takes both. The sender may be this host itself, when it is the active ATM as well.
            KernelTunnel::Ip6tnl(local) => LinkIp6Tnl::new(name)
                .local(local)
                .set_flag(Ip6TunnelFlags::AllowLocalRemote, true)
                .build(),
        };
        let done = self.handle.link().add(message).execute().await;
        unless(Errno::OPNOTSUPP, done).map_err(refused(format!("make the tunnel device {name}")))
    }

    /// The routers of this host's default route of IPv4, or of IPv6, all of them where it has several; of several default
    /// routes, that of the lowest metric. Only the main table counts.
    pub(super) async fn default_gateways(&self, v6: bool) -> Result<Vec<IpAddr>, ServerRoleError> {
        let all = if v6 {
            RouteMessageBuilder::<Ipv6Addr>::new().build()
        } else {
            RouteMessageBuilder::<Ipv4Addr>::new().build()
        };
        let messages: Vec<_> = self
            .handle
            .route()
            .get(all)
            .execute()
            .try_collect()
            .await
            .map_err(refused("list the routes"))?;
        let defaults = messages.into_iter().filter(|message| {
            message.header.destination_prefix_length == 0
                && message.header.table == RouteHeader::RT_TABLE_MAIN
        });
        let best = defaults.min_by_key(|message| metric(&message.attributes));
        Ok(best.map_or_else(Vec::new, |message| gateways(&message.attributes)))
    }

    /// Removes a link. Says whether it was there.
    pub(super) async fn remove_link(&self, name: &str) -> Result<bool, ServerRoleError> {
        let message = LinkUnspec::new_with_name(name).build();
        let done = self.handle.link().del_with_message(message).execute().await;
        unless(Errno::NODEV, done).map_err(refused(format!("remove the link {name}")))
    }

    pub(super) async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), ServerRoleError> {
        let link = LinkUnspec::new_with_name(name).mtu(mtu).build();
        self.handle
            .link()
            .set(link)
            .execute()
            .await
            .map_err(refused(format!("give the link {name} the MTU {mtu}")))
    }

    pub(super) async fn set_up(&self, name: &str) -> Result<(), ServerRoleError> {
        let link = LinkUnspec::new_with_name(name).up().build();
        self.handle
            .link()
            .set(link)
            .execute()
            .await
            .map_err(refused(format!("set the link {name} up")))
    }

    pub(super) async fn set_down(&self, name: &str) -> Result<(), ServerRoleError> {
        let link = LinkUnspec::new_with_name(name).down().build();
        self.handle
            .link()
            .set(link)
            .execute()
            .await
            .map_err(refused(format!("set the link {name} down")))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The kernel's 0 is the best and goes without saying.
fn metric(attributes: &[RouteAttribute]) -> u32 {
    let found = attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Priority(metric) = attribute {
            Some(*metric)
        } else {
            None
        }
    });
    found.unwrap_or(0)
}

fn gateways(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for attribute in attributes {
        if let RouteAttribute::Gateway(RouteAddress::Inet(gateway)) = attribute {
            found.push(IpAddr::V4(*gateway));
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) = attribute {
            found.push(IpAddr::V6(*gateway));
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            // Hops do not nest.
            found.extend(hops.iter().flat_map(|hop| gateways(&hop.attributes)));
        }
    }
    found
}

/// `true` for success, `false` for the one error that means there was nothing to do.
fn unless(harmless: Errno, done: Result<(), rtnetlink::Error>) -> Result<bool, rtnetlink::Error> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if to_io(&error).raw_os_error() == Some(harmless.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

fn refused(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> ServerRoleError {
    let action = action.into();
    move |error| {
        let source = to_io(&error);
        if source.kind() == io::ErrorKind::PermissionDenied {
            ServerRoleError::NoPermission("CAP_NET_ADMIN")
        } else {
            ServerRoleError::Netlink { action, source }
        }
    }
}

fn to_io(error: &rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error.to_string())
    }
}
