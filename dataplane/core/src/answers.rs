//! ICMP that we send in a VIP's name: echo replies, fragmentation-needed and packet-too-big, time-exceeded.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use crate::gate::Voice;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ip::Ip;
use crate::wire::{checksum, icmp, ipv4, ipv6};
use crate::{MacAddr, Sink};

/// TTL of what we send ourselves (RFC 1700; RFC 8200 leaves it to us).
const TTL: u8 = 64;
/// The longest ICMP error (RFC 1812 §4.3.2.3): every IPv4 host takes packets of 576 bytes.
const ERROR_LEN_MAX: usize = 576;
/// Precedence of internetwork control (RFC 1812 §4.3.2.5); the same bits are CS6 (RFC 2474 §4.2.2.2).
const ERROR_TOS: u8 = 0xc0;
const HEAD_LEN_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// Answers an echo request (RFC 792, RFC 4443 §4.2) with its own bytes. The checksum is changed, not made anew, so that a message
/// damaged on its way here stays visibly damaged; exchanging the addresses does not change it.
pub(crate) fn echo<B: DerefMut<Target = [u8]>, S: Sink>(
    packet: &mut Ip<B>,
    ours: MacAddr,
    asker: MacAddr,
    identification: &mut u16,
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
    let head = Head::back(
        packet,
        packet.destination(),
        packet.payload().len(),
        packet.tos(),
        (ours, asker),
        identification,
    );
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
    identification: &mut u16,
    voice: &mut Voice<'_, S>,
) {
    let (len_max, ip_len) = match packet {
        Ip::V4(_) => (ERROR_LEN_MAX, ipv4::MIN_HEADER_LEN),
        Ip::V6(_) => (usize::from(ipv6::MTU_MIN), ipv6::HEADER_LEN),
    };
    let room = len_max - ip_len - icmp::HEADER_LEN;
    let quote = packet.bytes().get(..room).unwrap_or(packet.bytes());
    let len = icmp::HEADER_LEN + quote.len();
    let link = (ours, sender);
    let mut head = Head::back(packet, name, len, ERROR_TOS, link, identification);
    let message = match (packet, problem) {
        (Ip::V4(_), Problem::TooBig { mtu }) => icmp::fragmentation_needed(mtu, quote),
        (Ip::V4(_), Problem::TimeExceeded) => icmp::time_exceeded(quote),
        (Ip::V6(v6), problem) => {
            let pseudo_header = header6(v6, name, len, ERROR_TOS).pseudo_header();
            match problem {
                Problem::TooBig { mtu } => icmp::packet_too_big(mtu, quote, pseudo_header),
                Problem::TimeExceeded => icmp::hop_limit_exceeded(quote, pseudo_header),
            }
        }
    };
    head.push(&message);
    voice.transmit(head.bytes(), quote);
}

/// Ethernet and IP headers, and the ICMP header of an error.
struct Head {
    bytes: [u8; HEAD_LEN_MAX + icmp::HEADER_LEN],
    len: usize,
}

impl Head {
    /// Back to who sent `packet`, from `name`; were that of the other IP version, from whom it was sent to.
    fn back<B: Deref<Target = [u8]>>(
        packet: &Ip<B>,
        name: IpAddr,
        payload_len: usize,
        tos: u8,
        (ours, to): (MacAddr, MacAddr),
        identification: &mut u16,
    ) -> Self {
        let mut head = Self {
            bytes: [0; HEAD_LEN_MAX + icmp::HEADER_LEN],
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
                *identification = identification.wrapping_add(1);
                let ip = ipv4::Header {
                    tos,
                    total_len: u16::try_from(ipv4::MIN_HEADER_LEN + payload_len)
                        .unwrap_or(u16::MAX),
                    identification: *identification,
                    dont_fragment: false,
                    ttl: TTL,
                    protocol: ipv4::ICMP,
                    source: match name {
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
                head.push(&header6(packet, name, payload_len, tos).bytes());
            }
        }
        head
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn header6<B: Deref<Target = [u8]>>(
    packet: &ipv6::Ipv6<B>,
    name: IpAddr,
    payload_len: usize,
    traffic_class: u8,
) -> ipv6::Header {
    ipv6::Header {
        traffic_class,
        payload_len: u16::try_from(payload_len).unwrap_or(u16::MAX),
        next_header: ipv6::ICMPV6,
        hop_limit: TTL,
        source: match name {
            IpAddr::V6(v6) => v6,
            IpAddr::V4(_) => packet.destination(),
        },
        destination: packet.source(),
    }
}
