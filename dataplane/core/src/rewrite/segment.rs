//! Cuts a large TCP frame of a local stack into the segments that its sender meant (VIRTIO 1.2 §5.1.6.2, GSO_TCPV4).

use std::ops::Deref;

use super::{Head, Route};
use crate::Sink;
use crate::gate::Voice;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::tcp::{self, Tcp};

/// Sends the segments: addresses and options repeated, lengths, identification, sequence numbers and both checksums of
/// each its own; FIN and PSH only on the last, CWR only on the first (RFC 3168 §6.1.2).
pub(super) fn send<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ipv4<B>,
    size: usize,
    route: &Route,
    identification: &mut u16,
    voice: &mut Voice<'_, S>,
) {
    let Ok(tcp) = Tcp::parse(packet.payload()) else {
        return;
    };
    let (tcp_header, payload) = packet.payload().split_at(tcp.header_len);
    let headers = packet.header().len() + tcp.header_len;
    let last = payload.len().div_ceil(size.max(1)).saturating_sub(1);
    let mut sequence = tcp.sequence;
    let mut inner_identification = packet.identification();
    for (at, body) in payload.chunks(size.max(1)).enumerate() {
        let mut head = Head::new(
            route,
            headers + body.len(),
            packet.tos(),
            packet.dont_fragment(),
            identification,
        );

        let ip = head.push(packet.header());
        ip[2..4].copy_from_slice(&length(headers + body.len()).to_be_bytes());
        ip[4..6].copy_from_slice(&inner_identification.to_be_bytes());
        ipv4::seal(ip);

        let mut flags = tcp.flags;
        if at != last {
            flags &= !(tcp::FIN | tcp::PSH);
        }
        if at != 0 {
            flags &= !tcp::CWR;
        }
        let header = head.push(tcp_header);
        header[tcp::SEQUENCE_AT..tcp::SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
        header[tcp::FLAGS_AT] = flags;
        header[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].fill(0);
        let pseudo_header = packet.pseudo_header(length(tcp.header_len + body.len()));
        let checksum = pseudo_header.bytes(header).bytes(body).finish();
        header[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());

        voice.transmit(head.bytes(), body);
        sequence = sequence.wrapping_add(u32::from(length(body.len())));
        inner_identification = inner_identification.wrapping_add(1);
    }
}

/// A part of an IPv4 packet is at most 65,535 bytes.
fn length(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
