//! ICMP that we send in a VIP's name: echo replies and fragmentation-needed.

use std::ops::{Deref, DerefMut};

use crate::gate::Voice;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{checksum, icmp};
use crate::{MacAddr, Sink};

/// TTL of what we send ourselves (RFC 1700).
const TTL: u8 = 64;
/// The longest ICMP error (RFC 1812 §4.3.2.3): every IPv4 host takes packets of 576 bytes.
const ERROR_LEN_MAX: usize = 576;
const HEAD_LEN: usize = ethernet::HEADER_LEN + ipv4::MIN_HEADER_LEN;

/// Answers an echo request (RFC 792) with its own bytes. The checksum is changed, not made anew, so that a message
/// damaged on its way here stays visibly damaged.
pub(crate) fn echo<B: DerefMut<Target = [u8]>, S: Sink>(
    packet: &mut Ipv4<B>,
    ours: MacAddr,
    asker: MacAddr,
    identification: &mut u16,
    voice: &mut Voice<'_, S>,
) {
    if let Some(header) = packet
        .payload_mut()
        .first_chunk_mut::<{ icmp::HEADER_LEN }>()
    {
        let [kind, code, c0, c1, ..] = *header;
        let old = u16::from_be_bytes([kind, code]);
        let new = u16::from_be_bytes([icmp::ECHO_REPLY, code]);
        let sum = checksum::update(u16::from_be_bytes([c0, c1]), old, new);
        header[0] = icmp::ECHO_REPLY;
        header[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let head = head(
        packet,
        packet.payload().len(),
        packet.tos(),
        ours,
        asker,
        identification,
    );
    voice.transmit(&head, packet.payload());
}

/// Tells the sender of a packet that may not be fragmented what fits (RFC 1191 §4), in the name of the VIP it wrote to.
pub(crate) fn fragmentation_needed<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ipv4<B>,
    next_hop_mtu: u16,
    ours: MacAddr,
    sender: MacAddr,
    identification: &mut u16,
    voice: &mut Voice<'_, S>,
) {
    let room = ERROR_LEN_MAX - ipv4::MIN_HEADER_LEN - icmp::HEADER_LEN;
    let quote = packet.bytes().get(..room).unwrap_or(packet.bytes());
    let header = icmp::fragmentation_needed(next_hop_mtu, quote);
    let mut frame_head = [0; HEAD_LEN + icmp::HEADER_LEN];
    // Precedence of internetwork control (RFC 1812 §4.3.2.5).
    let link_and_ip = head(
        packet,
        icmp::HEADER_LEN + quote.len(),
        0xc0,
        ours,
        sender,
        identification,
    );
    frame_head[..HEAD_LEN].copy_from_slice(&link_and_ip);
    frame_head[HEAD_LEN..].copy_from_slice(&header);
    voice.transmit(&frame_head, quote);
}

/// Ethernet and IP headers back to who sent `packet`, from the VIP it was sent to.
fn head<B: Deref<Target = [u8]>>(
    packet: &Ipv4<B>,
    payload_len: usize,
    tos: u8,
    ours: MacAddr,
    to: MacAddr,
    identification: &mut u16,
) -> [u8; HEAD_LEN] {
    *identification = identification.wrapping_add(1);
    let ip = ipv4::Header {
        tos,
        total_len: u16::try_from(ipv4::MIN_HEADER_LEN + payload_len).unwrap_or(u16::MAX),
        identification: *identification,
        dont_fragment: false,
        ttl: TTL,
        protocol: ipv4::ICMP,
        source: packet.destination(),
        destination: packet.source(),
    };
    let link = Ethernet {
        destination: to,
        source: ours,
        ethertype: ethernet::IPV4,
    };
    let mut head = [0; HEAD_LEN];
    head[..ethernet::HEADER_LEN].copy_from_slice(&link.bytes());
    head[ethernet::HEADER_LEN..].copy_from_slice(&ip.bytes());
    head
}
