//! Addresses and links of this host, through the kernel's routing socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{AddressMessageBuilder, Handle, LinkIpIp, LinkUnspec};
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

/// An IPv4 address of this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) link: u32,
    pub(super) address: Ipv4Addr,
}

/// The host route of a VIP: no other address of the subnet becomes local with it.
const VIP_PREFIX_LEN: u8 = 32;

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
            // The local address; `Address` is the peer's on point-to-point links.
            message.attributes.into_iter().find_map(|attribute| {
                if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                    Some(Address { link, address })
                } else {
                    None
                }
            })
        });
        Ok(addresses.collect())
    }

    /// Adds `vip`/32 to a link; one that is there already is no error.
    pub(super) async fn add_vip(&self, link: u32, vip: Ipv4Addr) -> Result<(), ServerRoleError> {
        let done = self
            .handle
            .address()
            .add(link, vip.into(), VIP_PREFIX_LEN)
            .execute()
            .await;
        unless(Errno::EXIST, done)
            .map_err(refused(format!("put the VIP {vip} on lo")))
            .map(drop)
    }

    /// Removes `vip`/32 from a link. Says whether it was there.
    pub(super) async fn remove_vip(
        &self,
        link: u32,
        vip: Ipv4Addr,
    ) -> Result<bool, ServerRoleError> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link)
            .address(vip, VIP_PREFIX_LEN)
            .build();
        let done = self.handle.address().del(message).execute().await;
        unless(Errno::ADDRNOTAVAIL, done).map_err(refused(format!("take the VIP {vip} off lo")))
    }

    /// Makes the kernel's own tunnel device for packets to `local`. Says whether this kernel has such devices.
    pub(super) async fn add_ipip(
        &self,
        name: &str,
        local: Ipv4Addr,
    ) -> Result<bool, ServerRoleError> {
        let done = self
            .handle
            .link()
            .add(LinkIpIp::new(name).local(local).build())
            .execute()
            .await;
        unless(Errno::OPNOTSUPP, done).map_err(refused(format!("make the ipip device {name}")))
    }

    /// Removes a link. Says whether it was there.
    pub(super) async fn remove_link(&self, name: &str) -> Result<bool, ServerRoleError> {
        let message = LinkUnspec::new_with_name(name).build();
        let done = self.handle.link().del_with_message(message).execute().await;
        unless(Errno::NODEV, done).map_err(refused(format!("remove the link {name}")))
    }

    pub(super) async fn set_up(&self, name: &str, mtu: Option<u32>) -> Result<(), ServerRoleError> {
        let link = LinkUnspec::new_with_name(name).up();
        let link = match mtu {
            Some(mtu) => link.mtu(mtu),
            None => link,
        };
        self.handle
            .link()
            .set(link.build())
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
