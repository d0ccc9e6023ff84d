//! One frame that speaks for a VIP, and telling such frames from all others. Pure.

use std::net::Ipv4Addr;

/// A MAC address.
pub type Mac = [u8; 6];

/// A frame that spoke for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it reached the observer: nanoseconds since 1970, the kernel's timestamp.
    pub at: u64,
    /// Source MAC of the frame.
    pub source: Mac,
    /// The VIP it spoke for.
    pub vip: Ipv4Addr,
    /// What it said.
    pub kind: Kind,
    /// The connection of a forwarded packet; `None` for ARP and for transports without ports.
    pub flow: Option<Flow>,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// "The VIP is at my address", unasked: sender and target protocol address are the VIP (RFC 5227 §1.1, RFC 2002 §4.6).
    GratuitousArp,
    /// "The VIP is at my address", asked.
    ArpAnswer,
    /// A question asked in the VIP's name; hosts learn from it as from an answer (RFC 826).
    ArpQuestion,
    /// A packet for the VIP inside IPIP (RFC 2003), on its way to a server.
    Tunnelled,
    /// A packet for the VIP, not encapsulated, on its way to a server.
    Direct,
    /// A packet for the VIP, not encapsulated, to another ATM: handed on, or the sender is itself a client. Not a voice.
    Relayed,
}

/// Whose connection a forwarded packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// IP protocol number: 6 TCP, 17 UDP.
    pub protocol: u8,
    /// The client.
    pub client: Ipv4Addr,
    /// The client's port.
    pub client_port: u16,
    /// The service's port.
    pub service_port: u16,
}

/// What the observer has to know to understand a frame.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The VIPs.
    pub vips: Vec<Ipv4Addr>,
    /// MACs of the ATMs.
    pub atms: Vec<Mac>,
}

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const PROTOCOL_IPIP: u8 = 4;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Bytes of a frame that [`classify`] may look at: Ethernet, two IPv4 headers with all options, two ports.
pub(crate) const SNAP_BYTES: usize = ETHERNET_HEADER + 60 + 60 + 4;

/// What `frame`, seen at `at`, says for a VIP of `scope`; `None` for all other frames and for malformed ones.
#[must_use]
pub fn classify(frame: &[u8], at: u64, scope: &Scope) -> Option<Event> {
    let destination: Mac = *frame.first_chunk()?;
    let source: Mac = *frame.get(6..)?.first_chunk()?;
    let payload = frame.get(ETHERNET_HEADER..)?;
    let (vip, kind, flow) = match word(frame, 12)? {
        ETHERTYPE_ARP => {
            let (vip, kind) = arp(payload, scope)?;
            (vip, kind, None)
        }
        ETHERTYPE_IPV4 => {
            let outer = Ipv4::parse(payload)?;
            if outer.protocol == PROTOCOL_IPIP {
                // A later fragment of a tunnelled packet holds no inner header; the first one speaks for it.
                let inner = Ipv4::parse(outer.payload.filter(|_| !outer.later_fragment)?)?;
                (
                    known(inner.destination, scope)?,
                    Kind::Tunnelled,
                    inner.flow(),
                )
            } else {
                let kind = if scope.atms.contains(&destination) {
                    Kind::Relayed
                } else {
                    Kind::Direct
                };
                (known(outer.destination, scope)?, kind, outer.flow())
            }
        }
        _ => return None,
    };
    Some(Event {
        at,
        source,
        vip,
        kind,
        flow,
    })
}

/// An ARP packet for IPv4 over Ethernet (RFC 826) whose sender is a VIP.
fn arp(packet: &[u8], scope: &Scope) -> Option<(Ipv4Addr, Kind)> {
    if packet.get(..6)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let sender = known(address(packet, 14)?, scope)?;
    let target = address(packet, 24)?;
    let kind = match (target == sender, word(packet, 6)?) {
        (true, 1 | 2) => Kind::GratuitousArp,
        (false, 1) => Kind::ArpQuestion,
        (false, 2) => Kind::ArpAnswer,
        _ => return None,
    };
    Some((sender, kind))
}

/// An IPv4 header (RFC 791 §3.1) and as much of what follows as was captured.
struct Ipv4<'a> {
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    later_fragment: bool,
    payload: Option<&'a [u8]>,
}

impl<'a> Ipv4<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header < 20 {
            return None;
        }
        Some(Self {
            protocol: *bytes.get(9)?,
            source: address(bytes, 12)?,
            destination: address(bytes, 16)?,
            later_fragment: word(bytes, 6)? & 0x1fff != 0,
            payload: bytes.get(header..),
        })
    }

    fn flow(&self) -> Option<Flow> {
        if self.later_fragment || !matches!(self.protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
            return None;
        }
        let ports = self.payload?;
        Some(Flow {
            protocol: self.protocol,
            client: self.source,
            client_port: word(ports, 0)?,
            service_port: word(ports, 2)?,
        })
    }
}

fn known(address: Ipv4Addr, scope: &Scope) -> Option<Ipv4Addr> {
    scope.vips.contains(&address).then_some(address)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u16::from_be_bytes(*b))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes
        .get(at..)?
        .first_chunk::<4>()
        .map(|b| Ipv4Addr::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::probe::{arp_request, gratuitous_arp};

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
    const A: Mac = [2, 0, 10, 1, 0, 1];
    const B: Mac = [2, 0, 10, 1, 0, 2];
    const SERVER: Mac = [2, 0, 10, 1, 0, 11];

    fn scope() -> Scope {
        Scope {
            vips: vec![VIP],
            atms: vec![A, B],
        }
    }

    fn ip(protocol: u8, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(CLIENT.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    fn ethernet(to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
        [&to[..], &A, &kind.to_be_bytes(), payload].concat()
    }

    fn kind(frame: &[u8]) -> Option<Kind> {
        classify(frame, 1, &scope()).map(|e| e.kind)
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let ports = [0x9c, 0x40, 0, 25];
        let inner = ip(6, VIP, &ports);
        let other = Ipv4Addr::new(10, 1, 0, 11);
        let mut answer = gratuitous_arp(A, VIP, true);
        answer[38..42].copy_from_slice(&CLIENT.octets());
        let mut question = gratuitous_arp(A, VIP, false);
        question[38..42].copy_from_slice(&CLIENT.octets());
        for (name, frame, expected) in [
            (
                "gratuitous, request form",
                gratuitous_arp(A, VIP, false),
                Some(Kind::GratuitousArp),
            ),
            (
                "gratuitous, reply form",
                gratuitous_arp(A, VIP, true),
                Some(Kind::GratuitousArp),
            ),
            ("answer", answer, Some(Kind::ArpAnswer)),
            (
                "question in the VIP's name",
                question,
                Some(Kind::ArpQuestion),
            ),
            ("question about the VIP", arp_request(A, CLIENT, VIP), None),
            (
                "gratuitous for another address",
                gratuitous_arp(A, CLIENT, true),
                None,
            ),
            (
                "tunnelled",
                ethernet(SERVER, 0x0800, &ip(4, other, &inner)),
                Some(Kind::Tunnelled),
            ),
            (
                "tunnelled for another address",
                ethernet(SERVER, 0x0800, &ip(4, other, &ip(6, other, &ports))),
                None,
            ),
            (
                "direct",
                ethernet(SERVER, 0x0800, &inner),
                Some(Kind::Direct),
            ),
            (
                "relayed to another ATM",
                ethernet(B, 0x0800, &inner),
                Some(Kind::Relayed),
            ),
            (
                "other IP",
                ethernet(SERVER, 0x0800, &ip(6, other, &ports)),
                None,
            ),
            ("IPv6", ethernet(SERVER, 0x86dd, &inner), None),
        ] {
            assert_eq!(kind(&frame), expected, "{name}");
        }
    }

    #[test]
    fn the_flow_is_the_inner_one() {
        let inner = ip(6, VIP, &[0x9c, 0x40, 0, 25]);
        let frame = ethernet(SERVER, 0x0800, &ip(4, Ipv4Addr::new(10, 1, 0, 11), &inner));
        let event = classify(&frame, 7, &scope()).unwrap();
        let flow = Flow {
            protocol: 6,
            client: CLIENT,
            client_port: 40000,
            service_port: 25,
        };
        assert_eq!(
            event,
            Event {
                at: 7,
                source: A,
                vip: VIP,
                kind: Kind::Tunnelled,
                flow: Some(flow)
            }
        );
    }

    #[test]
    fn no_prefix_of_a_frame_panics() {
        let inner = ip(6, VIP, &[0x9c, 0x40, 0, 25]);
        let frames = [
            ethernet(SERVER, 0x0800, &ip(4, VIP, &inner)),
            gratuitous_arp(A, VIP, true),
        ];
        for frame in frames {
            for length in 0..frame.len() {
                let _ = classify(&frame[..length], 1, &scope());
            }
        }
    }
}
