//! Cuts a large frame of a local stack into the segments that its sender meant (VIRTIO 1.2 §5.1.6.2: GSO_TCPV4, GSO_TCPV6,
//! GSO_UDP_L4).

use std::ops::Deref;

use super::{HEAD_MAX, Head, Route};
use crate::Sink;
use crate::gate::Voice;
use crate::wire::ip::Ip;
use crate::wire::tcp::{self, Tcp};
use crate::wire::{ipv4, udp};

/// Sends the segments: addresses and options repeated, lengths, identification, sequence numbers and checksums of each its own.
pub(super) fn send<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ip<B>,
    size: usize,
    route: &Route,
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) {
    let transport = match packet.protocol() {
        ipv4::UDP => Transport::Udp,
        _ => match Tcp::parse(packet.payload()) {
            Ok(tcp) => Transport::Tcp(tcp),
            Err(_malformed) => return,
        },
    };
    let Some((header, payload)) = packet.payload().split_at_checked(transport.header_len()) else {
        return;
    };
    let last = payload.len().div_ceil(size.max(1)).saturating_sub(1);
    for (at, body) in payload.chunks(size.max(1)).enumerate() {
        let inner_len = packet.header().len() + header.len() + body.len();
        let dont_fragment = packet.dont_fragment();
        let mut head = Head::<HEAD_MAX>::EMPTY;
        head.begin(route, packet, inner_len, dont_fragment, identification);
        let ip = head.push(packet.header());
        set_length(packet, ip, inner_len, at);
        let segment = head.push(header);
        let checksum_at = match transport {
            Transport::Tcp(tcp) => {
                let before = length(at * size);
                change_tcp(segment, &tcp, u32::from(before), at == 0, at == last);
                tcp::CHECKSUM_AT
            }
            Transport::Udp => {
                let len = length(segment.len() + body.len());
                segment[udp::LENGTH_AT..udp::LENGTH_AT + 2].copy_from_slice(&len.to_be_bytes());
                udp::CHECKSUM_AT
            }
        };
        segment[checksum_at..checksum_at + 2].fill(0);
        let pseudo_header = packet.pseudo_header(length(segment.len() + body.len()));
        let checksum = match (transport, pseudo_header.bytes(segment).bytes(body).finish()) {
            // A sum of zero is sent as all ones: zero says that there is none (RFC 768).
            (Transport::Udp, 0) => 0xffff,
            (_, checksum) => checksum,
        };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        route.emit(head.bytes(), body, identification, voice);
    }
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp(Tcp),
    Udp,
}

impl Transport {
    fn header_len(self) -> usize {
        match self {
            Self::Tcp(tcp) => tcp.header_len,
            Self::Udp => udp::HEADER_LEN,
        }
    }
}

/// The segment's own length, and of IPv4 its own identification: counted up, as Linux does.
fn set_length<B: Deref<Target = [u8]>>(packet: &Ip<B>, ip: &mut [u8], len: usize, at: usize) {
    match packet {
        Ip::V4(v4) => {
            let identification = v4.identification().wrapping_add(length(at));
            ip[2..4].copy_from_slice(&length(len).to_be_bytes());
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            ipv4::seal(ip);
        }
        Ip::V6(_) => {
            let payload_len = len - crate::wire::ipv6::HEADER_LEN;
            ip[4..6].copy_from_slice(&length(payload_len).to_be_bytes());
        }
    }
}

/// The sequence number of its first byte; FIN and PSH only on the last, CWR only on the first (RFC 3168 §6.1.2).
fn change_tcp(header: &mut [u8], tcp: &Tcp, before: u32, first: bool, last: bool) {
    let sequence = tcp.sequence.wrapping_add(before);
    let mut flags = tcp.flags;
    if !last {
        flags &= !(tcp::FIN | tcp::PSH);
    }
    if !first {
        flags &= !tcp::CWR;
    }
    header[tcp::SEQUENCE_AT..tcp::SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
    header[tcp::FLAGS_AT] = flags;
}

/// A part of an IP packet is at most 65,535 bytes.
fn length(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
