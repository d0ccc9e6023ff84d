//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::ethernet::{self, Ethernet};
use super::word;
use crate::{MacAddr, Malformed};

/// Hardware and protocol type, two lengths, operation, two pairs of addresses.
const PACKET_LEN: usize = 28;
/// A whole frame.
pub(crate) const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// `ares_op$REQUEST` and `ares_op$REPLY` (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Request,
    Reply,
}

/// The fields of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) operation: Operation,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: MacAddr,
    pub(crate) target: Ipv4Addr,
}

/// The two protocol addresses of what may be an ARP packet, before anything else of it is believed;
/// `None` when it is too short to have them.
pub(crate) fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let packet = packet.first_chunk::<PACKET_LEN>()?;
    Some((address(packet, 14), address(packet, 24)))
}

impl Arp {
    /// Checks types and lengths (Ethernet 1, IPv4, 6, 4), the operation, and that the sender can be answered.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let packet = packet
            .first_chunk::<PACKET_LEN>()
            .ok_or(Malformed::Truncated)?;
        if packet[..6] != [0, 1, 8, 0, 6, 4] {
            return Err(Malformed::Arp);
        }
        let operation = match word(packet, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Arp),
        };
        let sender_mac = mac(packet, 8);
        if sender_mac.is_group() || sender_mac == MacAddr::ZERO {
            return Err(Malformed::Arp);
        }
        Ok(Self {
            operation,
            sender_mac,
            sender: address(packet, 14),
            target_mac: mac(packet, 18),
            target: address(packet, 24),
        })
    }

    /// The packet as a frame from its sender to `destination`.
    pub(crate) fn frame(&self, destination: MacAddr) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        let link = Ethernet {
            destination,
            source: self.sender_mac,
            ethertype: ethernet::ARP,
        };
        frame[..14].copy_from_slice(&link.bytes());
        frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        frame[21] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        frame[22..28].copy_from_slice(&self.sender_mac.0);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac.0);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }
}

const fn address(packet: &[u8; PACKET_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

const fn mac(packet: &[u8; PACKET_LEN], at: usize) -> MacAddr {
    MacAddr([
        packet[at],
        packet[at + 1],
        packet[at + 2],
        packet[at + 3],
        packet[at + 4],
        packet[at + 5],
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Arp = Arp {
        operation: Operation::Reply,
        sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        sender: Ipv4Addr::new(10, 1, 0, 1),
        target_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        target: Ipv4Addr::new(10, 1, 0, 2),
    };

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(
            Arp::parse(&PACKET.frame(MacAddr::BROADCAST)[14..]),
            Ok(PACKET)
        );
    }

    #[test]
    fn a_sender_that_cannot_be_answered_is_malformed() {
        for sender_mac in [MacAddr::BROADCAST, MacAddr::ZERO] {
            let frame = Arp {
                sender_mac,
                ..PACKET
            }
            .frame(MacAddr::BROADCAST);
            assert_eq!(Arp::parse(&frame[14..]), Err(Malformed::Arp));
        }
    }

    #[test]
    fn every_bit_of_types_and_lengths_counts() {
        for bit in 0..6 * 8 {
            let mut frame = PACKET.frame(MacAddr::BROADCAST);
            frame[14 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Arp::parse(&frame[14..]), Err(Malformed::Arp), "bit {bit}");
        }
    }
}
