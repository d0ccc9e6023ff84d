//! The TCP reset that a client gets in the name of its VIP, so that it connects anew (RFC 9293 §3.10.7.1).
//!
//! This ATM does not know what the server has sent and received, and needs not: a reset that answers a segment takes its numbers from
//! that segment, and so is the one that the client expects next (RFC 5961 §3.2).

use std::ops::Deref;

use crate::answers::{Envelope, Head};
use crate::gate::Voice;
use crate::wire::ip::Ip;
use crate::wire::ipv4;
use crate::wire::tcp::{self, Tcp};
use crate::{MacAddr, Malformed, Sink};

/// Answers a client's segment with a reset, over the Ethernet addresses `link`: ours, and who sent it. The caller sees to it that the segment is none itself: nobody answers those.
pub(crate) fn reset<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ip<B>,
    link: (MacAddr, MacAddr),
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) -> Result<(), Malformed> {
    let segment = Tcp::parse(packet.payload())?;
    let envelope = Envelope {
        name: packet.destination(),
        protocol: ipv4::TCP,
        payload_len: tcp::MIN_HEADER_LEN,
        tos: 0,
        // As Linux sends its own.
        dont_fragment: true,
    };
    let mut head = Head::back(packet, envelope, link, identification);
    let mut header = answer(&segment, packet.payload());
    // The sum over both addresses, the protocol and the length is the same in either direction (RFC 9293 §3.1).
    let len = u16::try_from(tcp::MIN_HEADER_LEN).unwrap_or(u16::MAX);
    let checksum = packet.pseudo_header(len).bytes(&header).finish();
    header[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
    head.push(&header);
    voice.transmit(head.bytes(), &[]);
    Ok(())
}

/// The header that answers a segment, without its checksum.
fn answer(segment: &Tcp, bytes: &[u8]) -> [u8; tcp::MIN_HEADER_LEN] {
    const ACKNOWLEDGEMENT_AT: usize = 8;
    let acknowledged = bytes
        .get(ACKNOWLEDGEMENT_AT..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |word| u32::from_be_bytes(*word));
    let counts = |flag: u8| u32::from(segment.flags & flag != 0);
    let data = u32::try_from(bytes.len() - segment.header_len).unwrap_or(0);
    let after = segment
        .sequence
        .wrapping_add(data)
        .wrapping_add(counts(tcp::SYN) + counts(tcp::FIN));
    let (sequence, acknowledgement, flags) = if segment.flags & tcp::ACK != 0 {
        (acknowledged, 0, tcp::RST)
    } else {
        (0, after, tcp::RST | tcp::ACK)
    };
    let mut header = [0; tcp::MIN_HEADER_LEN];
    header[0..2].copy_from_slice(&segment.destination_port.to_be_bytes());
    header[2..4].copy_from_slice(&segment.source_port.to_be_bytes());
    header[tcp::SEQUENCE_AT..tcp::SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
    header[ACKNOWLEDGEMENT_AT..ACKNOWLEDGEMENT_AT + 4]
        .copy_from_slice(&acknowledgement.to_be_bytes());
    // Five words of four bytes, and no options.
    header[12] = 5 << 4;
    header[tcp::FLAGS_AT] = flags;
    header
}
