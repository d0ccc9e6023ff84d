//! The kernel's routing socket (rtnetlink(7)): all routes at once, and word that something changed.
//!
//! A message of a change is not read for what it says: the kernel tells some changes in pieces and others not at all
//! (the IPv4 routes that go with a link). Each is a reason to ask for all routes again, and so is a message that was lost.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily as SocketFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use tracing::debug;

use super::message;
use super::table::{Full, ROUTES_MAX, RouteTable};

/// What the kernel writes at once at most (`NLMSG_GOODSIZE` and `max_recvmsg_len`, net/netlink/af_netlink.c), doubled.
const ANSWER_MAX: usize = 65_536;
/// The kernel answers while it is asked; one that is silent for so long does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Times an answer is asked for again that changed while it was given.
const TRIES_MAX: usize = 3;
/// Messages thrown away at once, a socket's buffer full of them. What is left is a reason for another look.
const FORGET_MAX: usize = 4096;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Nexthop,
];

/// Why the kernel's routes are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoutesError {
    /// The interface is not there.
    #[error("there is no interface {0}")]
    Interface(String),
    /// The routing socket failed.
    #[error("cannot ask the kernel for its routes")]
    Netlink(#[from] io::Error),
    /// More than the table holds.
    #[error("the interface has more than {ROUTES_MAX} routes")]
    TooMany,
}

/// Word from the kernel that links, addresses or routes changed.
pub(crate) struct Changes {
    socket: TokioSocket,
}

impl Changes {
    /// From now on, in this thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS
            .iter()
            .fold(0, |all, group| all | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Returns when something has changed since the last call, or may have.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        poll_fn(|context| {
            // The rest of a longer message goes with it.
            let mut nothing = [0; 64];
            self.socket.poll_recv(context, &mut &mut nothing[..])
        })
        .await
        .or_else(lost)
    }

    /// Throws away what has come so far: whoever looks now sees it.
    pub(crate) fn forget(&self) {
        for _ in 0..FORGET_MAX {
            let mut nothing = [0; 64];
            let taken = self.socket.socket_ref().recv(&mut &mut nothing[..], 0);
            // An error other than that nothing is left is for the next wait to find.
            if taken.map(drop).or_else(lost).is_err() {
                break;
            }
        }
    }
}

/// Messages were lost (netlink(7)): what they said is asked for in any case.
fn lost(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) {
        Ok(())
    } else {
        Err(error)
    }
}

/// All routes of both families that say something of packets on an interface of this thread's network namespace. Waits
/// for the kernel: microseconds, or 100 ms with as many routes as a table holds.
pub(crate) fn routes(interface: &str) -> Result<RouteTable, RoutesError> {
    let mut found = RouteTable::default();
    for _ in 0..TRIES_MAX {
        // NETLINK_ROUTE is protocol 0.
        let socket = socket_with(
            SocketFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)?;
        let index = name_to_index(&socket, interface)
            .map_err(|_missing| RoutesError::Interface(interface.to_owned()))?;
        // Only the kernel is listened to: nobody else has port 0.
        connect(&socket, &SocketAddrNetlink::new(0, 0)).map_err(io::Error::from)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(io::Error::from)?;
        let mut routes = RouteTable::default();
        let mut consistent = true;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            consistent &= ask(&socket, family, |message| {
                message::route(message, index).map_or(Ok(()), |route| routes.add(route))
            })?;
        }
        found = routes;
        if consistent {
            break;
        }
    }
    // Changes kept coming; word of the last of them leads here again.
    Ok(found)
}

/// Has every route of a family told. `false`: they changed meanwhile, so some may be missing (`NLM_F_DUMP_INTR`).
fn ask(
    socket: &OwnedFd,
    family: AddressFamily,
    mut each: impl FnMut(&RouteMessage) -> Result<(), Full>,
) -> Result<bool, RoutesError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    send(socket, &bytes, SendFlags::empty()).map_err(io::Error::from)?;

    let mut answer = vec![0; ANSWER_MAX];
    let mut consistent = true;
    loop {
        let length = match recv(socket, &mut answer[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            other => other.map_err(io::Error::from)?.0,
        };
        let mut rest = answer.get(..length).unwrap_or_default();
        while let Some((message, after)) = split(rest)? {
            rest = after;
            let parsed = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                Ok(parsed) => parsed,
                Err(error) => {
                    // One route of a kind that this program does not know hides no other.
                    debug!(%error, "a route of the kernel cannot be read");
                    continue;
                }
            };
            consistent &= parsed.header.flags & NLM_F_DUMP_INTR == 0;
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) =
                &parsed.payload
            {
                each(route).map_err(|Full| RoutesError::TooMany)?;
            } else if let NetlinkPayload::Done(_) = parsed.payload {
                return Ok(consistent);
            } else if let NetlinkPayload::Error(error) = &parsed.payload {
                return Err(error.to_io().into());
            }
        }
    }
}

/// The first message of a datagram and what follows it: `nlmsg_len` bytes, and then a multiple of four (netlink(7)).
pub(crate) fn split(datagram: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    const HEADER_LEN: usize = 16;
    let Some(length) = datagram.first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_ne_bytes(*length)).map_err(io::Error::other)?;
    let message = datagram
        .get(..length)
        .filter(|message| message.len() >= HEADER_LEN)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut"))?;
    let after = datagram
        .get(length.next_multiple_of(4)..)
        .unwrap_or_default();
    Ok(Some((message, after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_split_into_messages() {
        let message = |length: u32, bytes: usize| {
            let mut message = vec![0; bytes];
            message[..4].copy_from_slice(&length.to_ne_bytes());
            message
        };
        let two = [message(17, 20), message(16, 16)].concat();
        let (first, rest) = split(&two).unwrap().unwrap();
        assert_eq!((first.len(), rest.len()), (17, 16));
        let (second, rest) = split(rest).unwrap().unwrap();
        assert_eq!((second.len(), rest.len()), (16, 0));
        assert_eq!(split(rest).unwrap(), None);
        for (length, bytes) in [(0, 16), (15, 16), (17, 16), (u32::MAX, 64)] {
            assert!(split(&message(length, bytes)).is_err(), "{length}");
        }
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = routes("no-such-if").unwrap_err();
        assert_eq!(error.to_string(), "there is no interface no-such-if");
    }

    #[test]
    fn the_kernel_tells_its_routes() {
        // What this host has is not known, but it must be readable to the end, and nothing leaves by the loopback.
        let routes = routes("lo").unwrap();
        assert_eq!(routes.next_hop("203.0.113.1".parse().unwrap()), None);
    }
}
