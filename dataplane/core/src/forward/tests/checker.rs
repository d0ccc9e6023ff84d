//! Judges a frame by the RFCs alone: shares nothing with what it judges but the sum of [`testing`](crate::testing).

use crate::testing::sum;
use crate::{Checksum, Offload};

const ICMP: u8 = 1;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const ICMPV6: u8 = 58;

/// A packet taken apart.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) v6: bool,
    pub(super) protocol: u8,
    /// It is a fragment, not the whole datagram.
    pub(super) fragment: bool,
    /// Bytes of everything before the payload.
    pub(super) header_len: usize,
    pub(super) dont_fragment: bool,
    addresses: &'a [u8],
    pub(super) payload: &'a [u8],
    /// What follows the packet.
    padding: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an IP packet and checks its lengths, and of IPv4 the sum of its header.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::v4(bytes),
            Some(6) => Self::v6(bytes),
            version => Err(format!("IP version {version:?}")),
        }
    }

    fn v4(bytes: &'a [u8]) -> Result<Self, String> {
        let header_len = usize::from(bytes[0] & 15) * 4;
        if header_len < 20 || bytes.len() < header_len {
            return Err("IPv4 header length".into());
        }
        let len = usize::from(word(bytes, 2));
        if len < header_len || len > bytes.len() {
            return Err("IPv4 total length".into());
        }
        if sum(&bytes[..header_len]) != 0xffff {
            return Err("IPv4 header checksum".into());
        }
        Ok(Self {
            v6: false,
            protocol: bytes[9],
            fragment: word(bytes, 6) & 0x3fff != 0,
            header_len,
            dont_fragment: bytes[6] & 0x40 != 0,
            addresses: &bytes[12..20],
            payload: &bytes[header_len..len],
            padding: &bytes[len..],
        })
    }

    fn v6(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < 40 || bytes.len() < 40 + usize::from(word(bytes, 4)) {
            return Err("IPv6 payload length".into());
        }
        let (packet, padding) = bytes.split_at(40 + usize::from(word(bytes, 4)));
        let (mut next, mut at, mut fragment) = (packet[6], 40, false);
        // RFC 8200 §4.1: hop-by-hop, routing, fragment, destination options.
        while matches!(next, 0 | 43 | 44 | 60) {
            let header = packet.get(at..at + 8).ok_or("IPv6 extension header")?;
            let len = match next {
                44 => {
                    fragment |= word(header, 2) & 0xfff9 != 0;
                    8
                }
                _ => 8 + usize::from(header[1]) * 8,
            };
            next = header[0];
            at += len;
            if fragment {
                break;
            }
        }
        Ok(Self {
            v6: true,
            protocol: next,
            fragment,
            header_len: at,
            dont_fragment: true,
            addresses: &packet[8..40],
            payload: packet.get(at..).ok_or("IPv6 extension header length")?,
            padding,
        })
    }

    /// Checks the transport's sum, or the whole packet inside of a tunnel; of a fragment there is nothing to check.
    fn check_payload(&self) -> Result<(), String> {
        let payload = self.payload;
        let name = match self.protocol {
            _ if self.fragment => return Ok(()),
            IPIP | IPV6 => return check_packet(payload),
            // An IPv4 sender may leave it out (RFC 768), an IPv6 sender not (RFC 8200 §8.1).
            UDP if !self.v6 && payload.get(6..8) == Some(&[0, 0]) => return Ok(()),
            UDP if payload.len() < 8 || usize::from(word(payload, 4)) != payload.len() => {
                return Err("UDP length".into());
            }
            UDP if word(payload, 6) == 0 => return Err("UDP without checksum".into()),
            TCP if payload.len() < 20 => return Err("TCP length".into()),
            ICMP if !self.v6 => "ICMP",
            ICMPV6 if self.v6 => "ICMPv6",
            TCP => "TCP",
            UDP => "UDP",
            _ => return Ok(()),
        };
        let pseudo = if self.protocol == ICMP {
            Vec::new()
        } else {
            self.pseudo_header()
        };
        if sum(&[&pseudo[..], payload].concat()) == 0xffff {
            Ok(())
        } else {
            Err(format!("{name} checksum"))
        }
    }

    /// RFC 9293 §3.1 and RFC 8200 §8.1, which sum to the same.
    fn pseudo_header(&self) -> Vec<u8> {
        let mut pseudo = self.addresses.to_vec();
        pseudo.extend([0, self.protocol]);
        pseudo.extend(u16::try_from(self.payload.len()).unwrap().to_be_bytes());
        pseudo
    }

    /// Where the transport's checksum is in the payload.
    fn checksum_at(&self) -> Option<usize> {
        match self.protocol {
            TCP if self.payload.len() >= 20 => Some(16),
            UDP if self.payload.len() >= 8 => Some(6),
            ICMP | ICMPV6 if self.payload.len() >= 8 => Some(2),
            _ => None,
        }
    }
}

/// Whether a frame that we sent is as it has to be: nothing after the packet, and every checksum.
pub(super) fn check(frame: &[u8]) -> Result<(), String> {
    match frame.get(12..14) {
        Some([0x08, 0x00] | [0x86, 0xdd]) => check_packet(&frame[14..]),
        Some([0x08, 0x06]) if frame.len() == 42 => Ok(()),
        other => Err(format!("Ethernet type {other:02x?}")),
    }
}

/// The same of what we made ourselves: the outermost header.
pub(super) fn check_outside(frame: &[u8]) -> Result<(), String> {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => Ok(()),
        _ => Packet::read(&frame[14..]).map(|_packet| ()),
    }
}

fn check_packet(bytes: &[u8]) -> Result<(), String> {
    let packet = Packet::read(bytes)?;
    if !packet.padding.is_empty() {
        return Err("bytes after the packet".into());
    }
    packet.check_payload()
}

/// Whether a frame came to us in order, considering what its sender left to its device.
pub(super) fn is_right(frame: &[u8], offload: Offload) -> bool {
    let Some([0x08, 0x00] | [0x86, 0xdd]) = frame.get(12..14) else {
        return true;
    };
    let Ok(packet) = Packet::read(&frame[14..]) else {
        return false;
    };
    match offload.checksum {
        Checksum::Complete => packet.check_payload().is_ok(),
        Checksum::Partial { start, offset } => {
            let Some(at) = packet.checksum_at().filter(|_| !packet.fragment) else {
                return false;
            };
            let whole_udp = packet.protocol != UDP
                || usize::from(word(packet.payload, 4)) == packet.payload.len();
            usize::from(start) == 14 + packet.header_len
                && usize::from(offset) == at
                && word(packet.payload, at) == sum(&packet.pseudo_header())
                && whole_udp
        }
    }
}

/// Makes every checksum right again that can be found, so that other changes to a frame get further.
pub(super) fn reseal(frame: &mut [u8]) {
    if frame.len() >= 34 && frame[12..14] == [8, 0] {
        let header_len = usize::from(frame[14] & 15) * 4;
        if let Some(header) = frame
            .get_mut(14..14 + header_len)
            .filter(|_| header_len >= 20)
        {
            header[10..12].fill(0);
            let checksum = !sum(header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }
    let bytes = frame.get(14..).unwrap_or_default();
    let Ok(packet) = Packet::read(bytes) else {
        return;
    };
    let Some(at) = packet.checksum_at().filter(|_| !packet.fragment) else {
        return;
    };
    let mut payload = packet.payload.to_vec();
    payload[at..at + 2].fill(0);
    let pseudo = if packet.protocol == ICMP {
        Vec::new()
    } else {
        packet.pseudo_header()
    };
    let checksum = match !sum(&[&pseudo[..], &payload].concat()) {
        0 if packet.protocol == UDP => 0xffff,
        checksum => checksum,
    };
    let at = 14 + packet.header_len + at;
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The judge itself: each kind of damage is found, inside a tunnel, too.
#[test]
fn every_damage_is_found() {
    use super::*;
    use crate::testing::{Packet, Packet6};
    let to = (VIP, 53);
    for packet in [
        Packet::tcp((CLIENT, 1), to, ACK, b"odd"),
        Packet::udp((CLIENT, 1), to, b"odd"),
        Packet::icmp(CLIENT, VIP, 8, 0, [0; 4], b"odd"),
    ] {
        for packet in [packet.clone(), packet.in_tunnel(ATM_ADDRESS, SERVERS[0], 7)] {
            let sound = packet.frame(ROUTER, ATM);
            assert_eq!(check(&sound), Ok(()));
            for at in 14..sound.len() {
                let mut damaged = sound.clone();
                damaged[at] ^= 0x10;
                assert!(check(&damaged).is_err(), "byte {at} of {packet:?}");
            }
            let mut resealed = packet.frame(ROUTER, ATM);
            resealed[24] ^= 0xff;
            reseal(&mut resealed);
            assert_eq!(resealed, sound);
        }
    }
    let six = Packet6::udp((ipv6::CLIENT6, 1), (ipv6::VIP6, 53), b"odd");
    let sound = six.frame(ROUTER, ATM);
    assert_eq!(check(&sound), Ok(()));
    // All but traffic class, flow label and hop limit is under the checksum, or a length.
    for at in (18..20).chain(22..sound.len()) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        assert!(check(&damaged).is_err(), "byte {at}");
    }
}
