//! The TCP reset that a client gets in the name of its VIP, so that it connects anew (RFC 9293 §3.10.7.1).
//!
//! This ATM does not know what the server has sent and received, and needs not: a reset that answers a segment takes its numbers from
//! that segment, and so is the one that the client expects next (RFC 5961 §3.2).

use std::ops::Deref;

use crate::gate::Voice;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ip::Ip;
use crate::wire::tcp::{self, Tcp};
use crate::wire::{ipv4, ipv6};
use crate::{MacAddr, Malformed, Sink};

/// TTL of what we send ourselves (RFC 1700; RFC 8200 leaves it to us).
const TTL: u8 = 64;
const LEN_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::MIN_HEADER_LEN;

/// Answers a client's segment with a reset. The caller sees to it that the segment is none itself: nobody answers those.
pub(crate) fn reset<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ip<B>,
    (ours, sender): (MacAddr, MacAddr),
    identification: &mut u16,
    voice: &mut Voice<'_, S>,
) -> Result<(), Malformed> {
    let segment = Tcp::parse(packet.payload())?;
    let mut frame = Frame::default();
    let ethertype = match packet {
        Ip::V4(_) => ethernet::IPV4,
        Ip::V6(_) => ethernet::IPV6,
    };
    let link = Ethernet {
        destination: sender,
        source: ours,
        ethertype,
    };
    frame.push(&link.bytes());
    let header = answer(&segment, packet.payload());
    match packet {
        Ip::V4(packet) => {
            *identification = identification.wrapping_add(1);
            let total_len = ipv4::MIN_HEADER_LEN + tcp::MIN_HEADER_LEN;
            let ip = ipv4::Header {
                tos: 0,
                total_len: u16::try_from(total_len).unwrap_or(u16::MAX),
                identification: *identification,
                dont_fragment: true,
                ttl: TTL,
                protocol: ipv4::TCP,
                source: packet.destination(),
                destination: packet.source(),
            };
            frame.push(&ip.bytes());
        }
        Ip::V6(packet) => {
            let ip = ipv6::Header {
                traffic_class: 0,
                payload_len: u16::try_from(tcp::MIN_HEADER_LEN).unwrap_or(u16::MAX),
                next_header: ipv4::TCP,
                hop_limit: TTL,
                source: packet.destination(),
                destination: packet.source(),
            };
            frame.push(&ip.bytes());
        }
    }
    // The sum over both addresses, the protocol and the length is the same in either direction (RFC 9293 §3.1).
    let len = u16::try_from(tcp::MIN_HEADER_LEN).unwrap_or(u16::MAX);
    let checksum = packet.pseudo_header(len).bytes(&header).finish();
    let at = frame.len + tcp::CHECKSUM_AT;
    frame.push(&header);
    frame.bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    voice.transmit(&frame.bytes[..frame.len], &[]);
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

/// A frame under construction.
struct Frame {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            bytes: [0; LEN_MAX],
            len: 0,
        }
    }
}

impl Frame {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}
