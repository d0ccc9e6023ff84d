//! What the engine needs to know of an interface, asked of the kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use dataplane_core::{Interface, MacAddr};
use pnet::datalink::{self, NetworkInterface};

use super::{addresses6, socket};

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of that name.
    #[error("no interface named {name} (there are: {})", there_are.join(", "))]
    Missing {
        /// What was asked for.
        name: String,
        /// Every interface of this network namespace.
        there_are: Vec<String>,
    },
    /// It has no Ethernet address.
    #[error(
        "interface {0} has no Ethernet address: packets can only be forwarded on an Ethernet interface"
    )]
    NotEthernet(String),
    /// It has no IPv4 address.
    #[error(
        "interface {0} has no IPv4 address: give it one (ip addr add), it is the source of the tunnel's packets"
    )]
    NoIpv4(String),
    /// It does not have the address that was asked for.
    #[error("interface {name} does not have the address {address}")]
    NoSuchAddress {
        /// The interface.
        name: String,
        /// What was asked for.
        address: Ipv4Addr,
    },
    /// Opening a packet socket is not allowed.
    #[error(
        "no permission for packet sockets: run as root or give the program CAP_NET_RAW and CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// The kernel refused something else.
    #[error("cannot use interface {name}")]
    Io {
        /// The interface.
        name: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl InterfaceError {
    /// An error of the kernel about `name`.
    pub(crate) fn io(name: &str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::NotPermitted
        } else {
            Self::Io {
                name: name.to_owned(),
                source,
            }
        }
    }
}

/// An interface as found, for the core and for a port.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) interface: Interface,
    pub(crate) device: NetworkInterface,
}

/// Names of all interfaces of this thread's network namespace, sorted.
pub fn interface_names() -> Vec<String> {
    let mut names: Vec<_> = datalink::interfaces()
        .into_iter()
        .map(|device| device.name)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Finds an interface of this thread's network namespace. Without `address` its first IPv4 address is taken.
pub(crate) fn find(name: &str, address: Option<Ipv4Addr>) -> Result<Found, InterfaceError> {
    let Some(device) = datalink::interfaces()
        .into_iter()
        .find(|device| device.name == name)
    else {
        return Err(InterfaceError::Missing {
            name: name.to_owned(),
            there_are: interface_names(),
        });
    };
    let mac = device
        .mac
        .filter(|_| !device.is_loopback())
        .ok_or_else(|| InterfaceError::NotEthernet(name.to_owned()))?;
    let mut networks = device.ips.iter().filter_map(|network| match network.ip() {
        IpAddr::V4(v4) => Some((v4, network.prefix())),
        IpAddr::V6(_) => None,
    });
    let first = networks
        .clone()
        .next()
        .ok_or_else(|| InterfaceError::NoIpv4(name.to_owned()))?;
    let (address, prefix_len) = match address {
        None => first,
        Some(address) => networks.find(|(have, _)| *have == address).ok_or_else(|| {
            InterfaceError::NoSuchAddress {
                name: name.to_owned(),
                address,
            }
        })?,
    };
    let io = |source| InterfaceError::io(name, source);
    let mtu = socket::mtu(&socket::open(0).map_err(io)?, name).map_err(io)?;
    let ours6 = addresses6(name, None);
    let interface = Interface {
        mac: MacAddr(mac.octets()),
        address,
        prefix_len,
        address6: ours6.address,
        link_local: ours6.link_local,
        // IPv4 packets are never longer, whatever the device could carry.
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
    };
    Ok(Found { interface, device })
}
