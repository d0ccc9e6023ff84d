//! Neighbour solicitations for IPv6 VIPs: the groups they are sent to, joined on the interface.
//!
//! Who looks for an IPv6 address asks its solicited-node multicast group, not everybody (RFC 4861 §7.2.2). The VIP is no
//! address of this host's kernel, so nobody else joins that group: without it the network card's filter and switches
//! that watch MLD (RFC 4541 §3) would keep the question from us. A socket that joins makes the kernel do all of that:
//! filter, MLD reports (RFC 3810), and again after the link was away.
//!
//! Active and backup ATMs join alike, so that a takeover waits for no switch. The groups are left when the process ends.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::{set_ipv6_add_membership, set_ipv6_drop_membership};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Groups joined at most: about 64 bytes each of the 20 KiB that a socket may have for options on older kernels
/// (`net.core.optmem_max`), and of a network card's filter more than most can hold before they take every group.
const GROUPS_MAX: usize = 256;

/// Why solicitations for some IPv6 VIPs may not arrive. All other groups are joined.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The interface is not there.
    #[error("no interface {interface} to join the groups of IPv6 VIPs on")]
    Interface {
        /// Its name.
        interface: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// No socket for IPv6: the kernel has none.
    #[error("cannot open an IPv6 socket")]
    Socket(#[source] io::Error),
    /// The kernel refused groups.
    #[error("{count} groups of IPv6 VIPs are not joined, {group} the first of them")]
    Refused {
        /// The first group that was refused.
        group: Ipv6Addr,
        /// How many were.
        count: usize,
        /// The kernel's reason for the first.
        #[source]
        source: io::Error,
    },
    /// More groups than are joined.
    #[error("IPv6 VIPs need {wanted} multicast groups, and only {GROUPS_MAX} are joined")]
    TooMany {
        /// Groups of all VIPs.
        wanted: usize,
    },
}

/// The solicited-node groups of the VIPs, joined on one interface for as long as this value lives.
#[derive(Debug)]
pub struct SolicitedNodes {
    interface: String,
    joined: Option<Joined>,
}

#[derive(Debug)]
struct Joined {
    /// Bound to nothing, so it receives nothing itself.
    socket: OwnedFd,
    /// The interface that had the name. Another one under it knows nothing of what was joined on this.
    index: u32,
    groups: BTreeSet<Ipv6Addr>,
}

impl SolicitedNodes {
    /// Of an interface of the calling thread's network namespace. Joins nothing yet.
    pub fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            joined: None,
        }
    }

    /// Joins the groups of these VIPs and leaves all others. What failed is tried again by the next call.
    pub fn follow(&mut self, vips: &[IpAddr]) -> Result<(), GroupError> {
        let all = groups(vips);
        if all.is_empty() {
            // Closing the socket leaves whatever was joined.
            self.joined = None;
            return Ok(());
        }
        let count = all.len();
        let wanted: BTreeSet<Ipv6Addr> = all.into_iter().take(GROUPS_MAX).collect();
        let joined = self.on_interface()?;
        let superfluous: Vec<Ipv6Addr> = joined.groups.difference(&wanted).copied().collect();
        for group in superfluous {
            // The kernel refuses only what it does not have: then it is left as well.
            let _left = set_ipv6_drop_membership(&joined.socket, &group, joined.index);
            joined.groups.remove(&group);
        }
        let mut refused = Vec::new();
        for group in wanted {
            if joined.groups.contains(&group) {
                continue;
            }
            match set_ipv6_add_membership(&joined.socket, &group, joined.index) {
                Ok(()) => {
                    joined.groups.insert(group);
                }
                Err(errno) => refused.push((group, errno)),
            }
        }
        match refused.first() {
            Some(&(group, errno)) => Err(GroupError::Refused {
                group,
                count: refused.len(),
                source: errno.into(),
            }),
            None if count > GROUPS_MAX => Err(GroupError::TooMany { wanted: count }),
            None => Ok(()),
        }
    }

    /// What is joined on the interface as it is now.
    fn on_interface(&mut self) -> Result<&mut Joined, GroupError> {
        let fresh = socket_with(
            AddressFamily::INET6,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| GroupError::Socket(errno.into()))?;
        let index =
            name_to_index(&fresh, &self.interface).map_err(|errno| GroupError::Interface {
                interface: self.interface.clone(),
                source: errno.into(),
            })?;
        let kept = self.joined.take().filter(|joined| joined.index == index);
        Ok(self.joined.insert(kept.unwrap_or(Joined {
            socket: fresh,
            index,
            groups: BTreeSet::new(),
        })))
    }
}

/// The solicited-node multicast address: ff02::1:ff00:0/104 and the last 24 bits of the address (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The groups of all IPv6 VIPs. Addresses with the same last 24 bits share one.
fn groups(vips: &[IpAddr]) -> BTreeSet<Ipv6Addr> {
    vips.iter()
        .filter_map(|vip| match vip {
            IpAddr::V6(vip) => Some(solicited_node(*vip)),
            IpAddr::V4(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_that_of_the_rfc() {
        // The example of RFC 4291 §2.7.1.
        let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
        let group: Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address), group);
    }

    #[test]
    fn addresses_with_the_same_end_share_a_group() {
        let vips = [
            "10.0.0.1",
            "2001:db8::1:2",
            "2001:db8:1::1:2",
            "2001:db8::3",
        ]
        .map(|vip| vip.parse().unwrap());
        let expected = ["ff02::1:ff00:3", "ff02::1:ff01:2"].map(|group| group.parse().unwrap());
        assert_eq!(groups(&vips), BTreeSet::from(expected));
    }

    #[test]
    fn nothing_is_opened_without_an_ipv6_vip_and_a_missing_interface_is_named() {
        let mut nodes = SolicitedNodes::new("no-such-if");
        nodes.follow(&[]).unwrap();
        nodes.follow(&["10.0.0.1".parse().unwrap()]).unwrap();
        assert!(nodes.joined.is_none());
        let error = nodes.follow(&["2001:db8::1".parse().unwrap()]).unwrap_err();
        match error {
            GroupError::Interface { interface, .. } => assert_eq!(interface, "no-such-if"),
            // A kernel without IPv6 gets no further.
            GroupError::Socket(_) => {}
            GroupError::Refused { .. } | GroupError::TooMany { .. } => panic!("{error}"),
        }
    }
}
