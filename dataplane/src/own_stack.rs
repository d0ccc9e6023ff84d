//! The way to the host's own stack: tunnel packets from this host to itself, for the server role beside this ATM (ADR-0012).
//!
//! A raw socket of IPPROTO_RAW takes whole IP packets of its family (raw(7), and inet6_create of Linux). One that is addressed
//! to the host itself comes out of the loopback interface, and the server role unpacks it like one that came over the wire.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use tracing::info;

use crate::offload::{EgressGate, VOICE_MARK};
use crate::port::{self, Outbox};

/// The longest outer header: that of IPv6.
const OUTER_LEN_MAX: usize = 40;

/// Packets for the host's own stack until the end of the batch, and the sockets that take them.
#[derive(Debug)]
pub(crate) struct OwnStack {
    /// Packets, without Ethernet header.
    pub(crate) outbox: Outbox,
    v4: Result<OwnedFd, io::Error>,
    v6: Result<OwnedFd, io::Error>,
}

impl OwnStack {
    /// Opens the way, in this thread's network namespace. `frame_len_max` bounds what the interface brings. A family that the kernel
    /// does not have is told in the log, and each packet of it fails. Where `gate` can stand at the loopback interface it looks at these
    /// packets, too.
    pub(crate) fn open(frame_len_max: usize, gate: Option<&EgressGate>) -> io::Result<Self> {
        let v4 = socket(AddressFamily::INET);
        let v6 = socket(AddressFamily::INET6);
        if let (Err(error), Err(_)) = (&v4, &v6) {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        for (family, socket) in [("IPv4", &v4), ("IPv6", &v6)] {
            if let Err(error) = socket {
                info!(%error, family, "no tunnel of this family reaches this host's own server");
            }
        }
        if let Some(gate) = gate {
            let marked = gate.attach_to_loopback().and_then(|()| {
                let sockets = [&v4, &v6].into_iter().flatten();
                sockets
                    .into_iter()
                    .try_for_each(|socket| port::set_mark(socket, VOICE_MARK))
            });
            if let Err(error) = marked {
                info!(%error, "the kernel does not check the lease on the way to this host's own server");
            }
        }
        Ok(Self {
            outbox: Outbox::new(frame_len_max + OUTER_LEN_MAX),
            v4,
            v6,
        })
    }

    /// A way that takes nothing.
    #[cfg(test)]
    pub(crate) fn closed(frame_len_max: usize) -> Self {
        let closed = || Err(io::ErrorKind::NotConnected.into());
        Self {
            outbox: Outbox::new(frame_len_max + OUTER_LEN_MAX),
            v4: closed(),
            v6: closed(),
        }
    }

    /// Hands over the packet in slot `index` without waiting.
    pub(crate) fn send(&self, index: usize) -> io::Result<()> {
        let packet = self.outbox.frame(index);
        let sent = match packet.first().map(|first| first >> 4) {
            Some(4) => {
                let to: [u8; 4] = part(packet, 16)?;
                let to = SocketAddrV4::new(Ipv4Addr::from(to), 0);
                sendto(open(&self.v4)?, packet, SendFlags::DONTWAIT, &to)
            }
            _ => {
                let to: [u8; 16] = part(packet, 24)?;
                let to = SocketAddrV6::new(Ipv6Addr::from(to), 0, 0, 0);
                sendto(open(&self.v6)?, packet, SendFlags::DONTWAIT, &to)
            }
        };
        sent.map(drop).map_err(io::Error::from)
    }
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))?;
    port::enlarge_send_buffer(&socket)?;
    Ok(socket)
}

fn open(socket: &Result<OwnedFd, io::Error>) -> io::Result<&OwnedFd> {
    socket
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

fn part<const N: usize>(packet: &[u8], at: usize) -> io::Result<[u8; N]> {
    let found = packet.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or(io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{RecvFlags, recv};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;
    use crate::clock::boottime;
    use crate::port::Push;

    const OWN4: [u8; 4] = [10, 9, 0, 1];
    const OWN6: [u8; 16] = [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    /// An IPv4 packet in a packet of IPv4 (RFC 2003) from this host to itself; its checksum is the kernel's to make.
    fn in_v4(inner: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + inner.len()).unwrap().to_be_bytes();
        let mut outer = vec![0x45, 0, len[0], len[1], 0, 7, 0x40, 0, 64, 4, 0, 0];
        outer.extend(OWN4);
        outer.extend(OWN4);
        [&outer[..], inner].concat()
    }

    /// The same in a packet of IPv6 (RFC 2473).
    fn in_v6(inner: &[u8]) -> Vec<u8> {
        let len = u16::try_from(inner.len()).unwrap().to_be_bytes();
        let mut outer = vec![0x60, 0, 0, 0, len[0], len[1], 4, 64];
        outer.extend(OWN6);
        outer.extend(OWN6);
        [&outer[..], inner].concat()
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "ip {arguments}");
    }

    fn namespace() -> io::Result<()> {
        // SAFETY: only the network namespace of this thread changes; nothing of the process depends on it.
        #[expect(
            unsafe_code,
            reason = "the tests need a loopback interface of their own"
        )]
        unsafe {
            unshare_unsafe(UnshareFlags::NEWNET)?;
        }
        ip("link set lo up");
        ip("addr add 10.9.0.1/32 dev lo");
        ip("addr add fd00:9::1/128 dev lo nodad");
        Ok(())
    }

    /// What arrives for the server role, which listens with sockets like this one.
    struct Role(OwnedFd);

    impl Role {
        fn new(family: AddressFamily) -> Self {
            let protocol = Some(ipproto::IPIP);
            let socket =
                socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol).unwrap();
            Self(socket)
        }

        /// What comes within 5 s.
        fn hears(&self) -> Option<Vec<u8>> {
            self.hears_within(Duration::from_secs(5))
        }

        fn hears_within(&self, wait: Duration) -> Option<Vec<u8>> {
            set_socket_timeout(&self.0, Timeout::Recv, Some(wait)).unwrap();
            let mut bytes = [0; 4096];
            let (length, _) = recv(&self.0, &mut bytes[..], RecvFlags::empty()).ok()?;
            Some(bytes[..length].to_vec())
        }
    }

    fn in_a_namespace(test: fn()) {
        thread::spawn(move || match namespace() {
            Ok(()) => test(),
            Err(reason) => {
                let _ = writeln!(io::stderr(), "skipped: no namespaces: {reason}");
            }
        })
        .join()
        .unwrap();
    }

    fn send(way: &mut OwnStack, packet: &[u8]) -> io::Result<()> {
        way.outbox.clear();
        assert_eq!(way.outbox.push(packet, &[]), Push::Stored);
        way.send(0)
    }

    #[test]
    fn a_tunnel_packet_to_oneself_arrives_as_one_from_the_wire_would() {
        in_a_namespace(|| {
            let mut way = OwnStack::open(1518, None).unwrap();
            let inner = [7; 100];
            let role = Role::new(AddressFamily::INET);
            send(&mut way, &in_v4(&inner)).unwrap();
            let heard = role.hears().unwrap();
            assert_eq!(
                (&heard[12..20], &heard[20..]),
                (&[OWN4, OWN4].concat()[..], &inner[..])
            );
            // A raw IPv6 socket never gives the header. The kernel makes the local route a moment after it has acknowledged the address.
            let role = Role::new(AddressFamily::INET6);
            let heard = (0..50).find_map(|_| {
                // Without the route this is an error, or goes nowhere.
                let _sent = send(&mut way, &in_v6(&inner));
                role.hears_within(Duration::from_millis(100))
            });
            assert_eq!(heard.unwrap(), inner);
        });
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error_of_that_packet_alone() {
        in_a_namespace(|| {
            let mut way = OwnStack::open(1518, None).unwrap();
            ip("link set lo mtu 1400");
            let refused = send(&mut way, &in_v4(&[7; 1400])).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE), "{refused}");
            assert!(send(&mut way, &in_v4(&[7; 1000])).is_ok());
            let nobody = send(&mut way, &[0x45; 19]).unwrap_err();
            assert_eq!(nobody.kind(), io::ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn the_gate_stands_on_this_way_too() {
        in_a_namespace(|| {
            let gate = match EgressGate::load() {
                Ok(gate) => gate,
                Err(reason) => {
                    let _ = writeln!(io::stderr(), "skipped: no gate in this kernel: {reason}");
                    return;
                }
            };
            let mut way = OwnStack::open(1518, Some(&gate)).unwrap();
            let role = Role::new(AddressFamily::INET);
            gate.set_deadline(boottime().as_nanos() + 60_000_000_000);
            send(&mut way, &in_v4(&[1; 60])).unwrap();
            assert!(role.hears().is_some(), "the lease is held");
            gate.set_deadline(boottime().as_nanos() - 1);
            // Whether the socket hears of it is the kernel's business.
            let _told = send(&mut way, &in_v4(&[2; 60]));
            assert_eq!(
                role.hears_within(Duration::from_millis(300)),
                None,
                "the lease has run out"
            );
            assert_eq!(gate.dropped(), 1);
        });
    }
}
