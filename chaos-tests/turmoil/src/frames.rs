//! Frames of the simulated clients and servers, and what is read of the ATMs'.

use std::net::Ipv4Addr;

use dataplane_core::MacAddr;

use crate::configuration::{self, PORT, VIP};

/// TCP flags (RFC 9293 section 3.1).
pub(crate) const SYN: u8 = 0x02;
/// See [`SYN`].
pub(crate) const ACK: u8 = 0x10;

/// What a frame of an ATM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It asks for a neighbour's Ethernet address, in its own name.
    Asks {
        /// Whose.
        target: Ipv4Addr,
        /// Who asks.
        sender: (MacAddr, Ipv4Addr),
    },
    /// It speaks ARP for the VIP.
    Claims,
    /// A client's packet on its way to a server.
    Forwards {
        /// The server's Ethernet address.
        to: MacAddr,
        /// The client.
        client: (Ipv4Addr, u16),
        /// TCP flags.
        flags: u8,
    },
    /// A client's packet on its way to another ATM.
    Relays {
        /// That ATM's Ethernet address.
        to: MacAddr,
    },
    /// Anything else that only the holder of the lease says.
    Other,
}

/// A TCP packet of a client to the VIP, as a frame to `to`.
pub(crate) fn to_vip(to: MacAddr, client: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[0..2].copy_from_slice(&client.1.to_be_bytes());
    segment[2..4].copy_from_slice(&PORT.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    let mut pseudo = [client.0.octets(), VIP.octets()].concat();
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&segment);
    let checksum = !sum(&pseudo);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let mut header = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 61, 6, 0, 0];
    header.extend(client.0.octets());
    header.extend(VIP.octets());
    let checksum = !sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let link = [&to.0[..], &[2, 0, 0, 0, 2, 1], &[8, 0]].concat();
    [link, header, segment].concat()
}

/// An answer to an ARP request (RFC 826).
pub(crate) fn arp_answer(sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    [
        &target.0.0[..],
        &sender.0.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &sender.0.0,
        &sender.1.octets(),
        &target.0.0,
        &target.1.octets(),
    ]
    .concat()
}

/// The ATM with this Ethernet address.
pub(crate) fn atm_of(mac: MacAddr) -> Option<usize> {
    (0..configuration::ATMS_MAX).find(|index| configuration::atm_mac(*index) == mac)
}

/// Reads a frame of an ATM.
pub(crate) fn read(frame: &[u8]) -> Seen {
    let four = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let six = |at: usize| -> Option<MacAddr> {
        let octets: [u8; 6] = frame.get(at..at + 6)?.try_into().ok()?;
        Some(MacAddr(octets))
    };
    match frame.get(12..14) {
        Some([8, 6]) => match (frame.get(20..22), six(22), four(28), four(38)) {
            (Some([0, 1]), Some(mac), Some(sender), Some(target)) if sender != VIP => Seen::Asks {
                target,
                sender: (mac, sender),
            },
            _ => Seen::Claims,
        },
        Some([8, 0]) => match (six(0), four(26), four(30), frame.get(34..48)) {
            (Some(to), Some(_), Some(VIP), Some(_)) if atm_of(to).is_some() => Seen::Relays { to },
            (Some(to), Some(client), Some(VIP), Some(tcp)) if frame.get(23) == Some(&6) => {
                Seen::Forwards {
                    to,
                    client: (client, u16::from_be_bytes([tcp[0], tcp[1]])),
                    flags: tcp[13],
                }
            }
            _ => Seen::Other,
        },
        _ => Seen::Other,
    }
}

/// The one's complement sum (RFC 1071 section 4.1) of an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let total = bytes.chunks_exact(2).fold(0, |total, pair| {
        fold(total + u32::from(u16::from_be_bytes([pair[0], pair[1]])))
    });
    u16::try_from(fold(total)).unwrap_or(u16::MAX)
}
