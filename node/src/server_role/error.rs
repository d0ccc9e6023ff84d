//! What can keep a host from being a server, each as one sentence with the way out.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4, VIPS_MAX};

/// Why the server role could not be taken, changed or undone.
#[derive(Debug, thiserror::Error)]
pub enum ServerRoleError {
    /// The process may not change the network of this host.
    #[error(
        "the server role needs {0}, which this process does not have: start atmd as root, or give its \
         systemd unit AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"
    )]
    NoPermission(&'static str),
    /// Neither the kernel's tunnel devices nor a TUN device can take the tunnel's packets.
    #[error(
        "cannot receive the tunnel: the kernel has no device for it (ipip, sit, ip6tnl), and /dev/net/tun cannot be \
         used ({source}): run `modprobe tun`, boot a kernel with such devices, or use the forwarding method `direct` \
         for this server"
    )]
    NoTun {
        /// What opening or attaching the device answered.
        source: io::Error,
    },
    /// The interface of the plan does not exist.
    #[error("no interface named {0}: set `interface` in atmd.toml to one that `ip link` shows")]
    NoInterface(String),
    /// A VIP stands on an interface that answers ARP or neighbour solicitations, so this host would speak for it beside the ATM.
    #[error(
        "the VIP {vip} is an address of this host's interface {interface}, where it would speak for it beside \
         the ATM: remove it there (`ip addr del {vip} dev {interface}`) or choose another VIP"
    )]
    VipIsHostAddress {
        /// The VIP.
        vip: IpAddr,
        /// Where it stands.
        interface: String,
    },
    /// An address that no single host can have.
    #[error("{0} cannot be a VIP: choose a unicast address of the network")]
    NotUnicast(IpAddr),
    /// A VIP is IPv6, and the host has none.
    #[error(
        "the VIP {vip} is IPv6, which this host has not on {interface}: set \
         net.ipv6.conf.{interface}.disable_ipv6=0, or leave the VIP to other servers"
    )]
    NoIpv6 {
        /// The VIP.
        vip: IpAddr,
        /// Where IPv6 is missing.
        interface: String,
    },
    /// The first IPv6 VIP came while the kernel unpacks IPv4 only.
    #[error(
        "the VIP {0} is IPv6, and the tunnel of this host was made for IPv4 alone: restart atmd here"
    )]
    TunnelWithoutIpv6(IpAddr),
    /// More VIPs than one host may serve.
    #[error(
        "{0} VIPs on one server are more than the {VIPS_MAX} it may have: spread them over more hosts"
    )]
    TooManyVips(usize),
    /// The interface is too small for a TCP segment inside a tunnel.
    #[error(
        "the MTU {mtu} of {interface} leaves no room for TCP inside the tunnel: raise it to {needed} or more"
    )]
    MtuTooSmall {
        /// The interface of the plan.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The smallest sensible one.
        needed: u32,
    },
    /// The program `nft` is not installed.
    #[error("the program `nft` is not installed: install the Debian package nftables")]
    NoNft,
    /// `nft` refused.
    #[error(
        "nft cannot {action}: {message}; see whether this kernel has nf_tables (`nft list tables`)"
    )]
    Nft {
        /// What was to be done.
        action: &'static str,
        /// The last line that nft printed.
        message: String,
    },
    /// A name that belongs to the server role is in use, and no journal says that it is ours.
    #[error(
        "{what} exists already and nothing here made it: end the other atmd, or remove it with `{remedy}`"
    )]
    Occupied {
        /// The table or link.
        what: String,
        /// The command that removes it.
        remedy: String,
    },
    /// Another process plays the server role with the same state directory.
    #[error(
        "another process holds {0}: end the other atmd, or give this one a state directory of its own"
    )]
    Busy(PathBuf),
    /// A sysctl could not be read or written.
    #[error(
        "cannot set {path} ({source}): in a container, mount /proc/sys writable or set it from outside"
    )]
    Sysctl {
        /// The file below /proc/sys.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A request to the kernel's routing socket failed.
    #[error("the kernel refuses to {action} ({source}): look at `ip addr` and `dmesg`")]
    Netlink {
        /// What was to be done.
        action: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The raw socket or the thread that unpacks the tunnel could not be had.
    #[error(
        "cannot start unpacking the tunnel ({source}): see the limits of this process (`ulimit -a`)"
    )]
    Decapsulation {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The journal could not be read or written; nothing was changed without it.
    #[error(
        "cannot keep the journal {path} ({source}): make its directory writable and give it space"
    )]
    Journal {
        /// The journal or its lock.
        path: PathBuf,
        /// What the file system answered.
        source: io::Error,
    },
    /// The journal of a predecessor cannot be understood, so what it changed is not known.
    #[error(
        "the journal {path} is damaged ({reason}): take back by hand what it lists (VIPs: `ip addr del VIP dev lo`; \
         links: `ip link del {TUNNEL_DEVICE}`, `ip link del {TUNNEL_DEVICE_6IN4}`; table: `nft delete table inet atm_server`; sysctls) or reboot, \
         then delete the file"
    )]
    CorruptJournal {
        /// The journal.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// Some of what was changed could not be taken back; the journal stays and the next start tries again.
    #[error("cannot take back everything that {path} lists ({}): mend that and start atmd again", failures.join("; "))]
    Incomplete {
        /// The journal.
        path: PathBuf,
        /// One sentence for each thing that stayed.
        failures: Vec<String>,
    },
}

impl ServerRoleError {
    /// Whether another version of the configuration may be without the reason; else the host itself has to be mended.
    #[must_use]
    pub fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::VipIsHostAddress { .. }
            | Self::NotUnicast(_)
            | Self::NoIpv6 { .. }
            | Self::TooManyVips(_)
            | Self::MtuTooSmall { .. }
            | Self::NoTun { .. }
            | Self::TunnelWithoutIpv6(_) => true,
            Self::NoPermission(_)
            | Self::NoInterface(_)
            | Self::NoNft
            | Self::Nft { .. }
            | Self::Occupied { .. }
            | Self::Busy(_)
            | Self::Sysctl { .. }
            | Self::Netlink { .. }
            | Self::Decapsulation { .. }
            | Self::Journal { .. }
            | Self::CorruptJournal { .. }
            | Self::Incomplete { .. } => false,
        }
    }

    /// The exit code for a process that ends for this reason, from sysexits.h: 77 permission, 78 configuration,
    /// 69 something on this host is unavailable.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        const UNAVAILABLE: u8 = 69;
        const NO_PERMISSION: u8 = 77;
        const CONFIG: u8 = 78;
        match self {
            Self::NoPermission(_) => NO_PERMISSION,
            Self::Journal { source, .. } | Self::Sysctl { source, .. } => {
                if source.kind() == io::ErrorKind::PermissionDenied {
                    NO_PERMISSION
                } else {
                    UNAVAILABLE
                }
            }
            Self::NoInterface(_)
            | Self::VipIsHostAddress { .. }
            | Self::NotUnicast(_)
            | Self::NoIpv6 { .. }
            | Self::TooManyVips(_)
            | Self::MtuTooSmall { .. }
            | Self::CorruptJournal { .. } => CONFIG,
            Self::NoTun { .. }
            | Self::NoNft
            | Self::Nft { .. }
            | Self::Occupied { .. }
            | Self::Busy(_)
            | Self::Netlink { .. }
            | Self::TunnelWithoutIpv6(_)
            | Self::Decapsulation { .. }
            | Self::Incomplete { .. } => UNAVAILABLE,
        }
    }
}
