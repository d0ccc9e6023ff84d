//! What we send in a VIP's name to who sent a packet: the head of it all, and of ICMP echo replies, fragmentation-needed and
//! packet-too-big, time-exceeded. TCP resets are in `resets`.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use crate::gate::Voice;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ip::Ip;
use crate::wire::{checksum, icmp, ipv4, ipv6, tcp};
use crate::{MacAddr, Sink};

/// TTL of what we send ourselves (RFC 1700; RFC 8200 leaves it to us).
const TTL: u8 = 64;
/// The longest ICMP error (RFC 1812 §4.3.2.3): every IPv4 host takes packets of 576 bytes.
const ERROR_LEN_MAX: usize = 576;
/// Precedence of internetwork control (RFC 1812 §4.3.2.5); the same bits are CS6 (RFC 2474 §4.2.2.2).
const ERROR_TOS: u8 = 0xc0;
/// The longest head: of a TCP reset over IPv6.
const HEAD_LEN_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::MIN_HEADER_LEN;

/// Answers an echo request (RFC 792, RFC 4443 §4.2) with its own bytes. The checksum is changed, not made anew, so that a message
/// damaged on its way here stays visibly damaged; exchanging the addresses does not change it.
pub(crate) fn echo<B: DerefMut<Target = [u8]>, S: Sink>(
    packet: &mut Ip<B>,
    ours: MacAddr,
    asker: MacAddr,
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) {
    let reply = icmp::echo_reply(packet);
    if let Some(header) = packet
        .payload_mut()
        .first_chunk_mut::<{ icmp::HEADER_LEN }>()
    {
        let [kind, code, c0, c1, ..] = *header;
        let old = u16::from_be_bytes([kind, code]);
        let new = u16::from_be_bytes([reply, code]);
        let sum = checksum::update(u16::from_be_bytes([c0, c1]), old, new);
        header[0] = reply;
        header[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let envelope = Envelope {
        name: packet.destination(),
        protocol: icmp::protocol(packet),
        payload_len: packet.payload().len(),
        tos: packet.tos(),
        dont_fragment: false,
    };
    let head = Head::back(packet, envelope, (ours, asker), identification);
    voice.transmit(head.bytes(), packet.payload());
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Nobody may cut it, and so much fits (RFC 1191 §4, RFC 4443 §3.2).
    TooBig { mtu: u16 },
    /// It has passed as many routers as it may (RFC 792, RFC 4443 §3.3).
    TimeExceeded,
}

/// Tells the sender of a packet what is wrong with it, in the name of an address that is spoken for here.
pub(crate) fn error<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ip<B>,
    problem: Problem,
    name: IpAddr,
    (ours, sender): (MacAddr, MacAddr),
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) {
    let (len_max, ip_len) = match packet {
        Ip::V4(_) => (ERROR_LEN_MAX, ipv4::MIN_HEADER_LEN),
        Ip::V6(_) => (usize::from(ipv6::MTU_MIN), ipv6::HEADER_LEN),
    };
    let room = len_max - ip_len - icmp::HEADER_LEN;
    let quote = packet.bytes().get(..room).unwrap_or(packet.bytes());
    let len = icmp::HEADER_LEN + quote.len();
    let envelope = Envelope {
        name,
        protocol: icmp::protocol(packet),
        payload_len: len,
        tos: ERROR_TOS,
        dont_fragment: false,
    };
    let mut head = Head::back(packet, envelope, (ours, sender), identification);
    let message = match (packet, problem) {
        (Ip::V4(_), Problem::TooBig { mtu }) => icmp::fragmentation_needed(mtu, quote),
        (Ip::V4(_), Problem::TimeExceeded) => icmp::time_exceeded(quote),
        (Ip::V6(v6), problem) => {
            let pseudo_header = header6(v6, envelope).pseudo_header();
            match problem {
                Problem::TooBig { mtu } => icmp::packet_too_big(mtu, quote, pseudo_header),
                Problem::TimeExceeded => icmp::hop_limit_exceeded(quote, pseudo_header),
            }
        }
    };
    head.push(&message);
    voice.transmit(head.bytes(), quote);
}

/// What the IP header of an answer says; its destination is who sent the packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    /// Who speaks; were it of the other IP version, whom the packet was sent to.
    pub(crate) name: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) payload_len: usize,
    pub(crate) tos: u8,
    /// Of IPv4.
    pub(crate) dont_fragment: bool,
}

/// Ethernet and IP headers of an answer, and the header that follows.
pub(crate) struct Head {
    bytes: [u8; HEAD_LEN_MAX],
    len: usize,
}

impl Head {
    /// Back to who sent `packet`, over the Ethernet addresses `ours` and `to`.
    pub(crate) fn back<B: Deref<Target = [u8]>>(
        packet: &Ip<B>,
        envelope: Envelope,
        (ours, to): (MacAddr, MacAddr),
        identification: &mut u32,
    ) -> Self {
        let mut head = Self {
            bytes: [0; HEAD_LEN_MAX],
            len: 0,
        };
        let link = |ethertype| {
            Ethernet {
                destination: to,
                source: ours,
                ethertype,
            }
            .bytes()
        };
        match packet {
            Ip::V4(packet) => {
                let total_len = ipv4::MIN_HEADER_LEN + envelope.payload_len;
                let ip = ipv4::Header {
                    tos: envelope.tos,
                    total_len: u16::try_from(total_len).unwrap_or(u16::MAX),
                    identification: ipv4::next_identification(identification),
                    dont_fragment: envelope.dont_fragment,
                    ttl: TTL,
                    protocol: envelope.protocol,
                    source: match envelope.name {
                        IpAddr::V4(v4) => v4,
                        IpAddr::V6(_) => packet.destination(),
                    },
                    destination: packet.source(),
                };
                head.push(&link(ethernet::IPV4));
                head.push(&ip.bytes());
            }
            Ip::V6(packet) => {
                head.push(&link(ethernet::IPV6));
                head.push(&header6(packet, envelope).bytes());
            }
        }
        head
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn header6<B: Deref<Target = [u8]>>(packet: &ipv6::Ipv6<B>, envelope: Envelope) -> ipv6::Header {
    ipv6::Header {
        traffic_class: envelope.tos,
        payload_len: u16::try_from(envelope.payload_len).unwrap_or(u16::MAX),
        next_header: envelope.protocol,
        hop_limit: TTL,
        source: match envelope.name {
            IpAddr::V6(v6) => v6,
            IpAddr::V4(_) => packet.destination(),
        },
        destination: packet.source(),
    }
}
