//! An IP header of either version inside or around the tunnel: its lengths proved, its fields read.
//!
//! Invariant: `version's fixed part <= header_len <= total_len <= bytes.len()`. Never imports: sockets, clocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Discard, PartialChecksum};

/// The version of a packet, which the protocol number in front of it announces (4: RFC 2003, 41: RFC 4213, RFC 2473).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    V4,
    V6,
}

/// What the server role reads of a header.
pub(super) struct Header {
    /// The fixed part and IPv4's options; IPv6's extension headers are behind it.
    pub(super) header_len: usize,
    pub(super) total_len: usize,
    /// The transport checksum covers more than is here.
    fragment: bool,
    /// The protocol, or IPv6's next header, right behind `header_len`.
    protocol: u8,
    /// The ECN codepoint (RFC 3168 §5): the low two bits of IPv4's TOS, of IPv6's traffic class.
    pub(super) ecn: u8,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// An IPv4 header without options (RFC 791 §3.1).
pub(super) const IPV4_MIN: usize = 20;
/// The IPv6 header (RFC 8200 §3).
pub(super) const IPV6_LEN: usize = 40;

impl Header {
    pub(super) fn parse(version: Version, bytes: &[u8]) -> Result<Self, Discard> {
        match version {
            Version::V4 => Self::parse_v4(bytes),
            Version::V6 => Self::parse_v6(bytes),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, Discard> {
        let Some(header) = bytes.first_chunk::<IPV4_MIN>() else {
            return Err(Discard::InnerTruncated);
        };
        if header[0] >> 4 != 4 {
            return Err(Discard::InnerVersion);
        }
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header_len < IPV4_MIN || header_len > bytes.len() {
            return Err(Discard::InnerHeaderLength);
        }
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if total_len < header_len || total_len > bytes.len() {
            return Err(Discard::InnerTotalLength);
        }
        // More-fragments flag or an offset (RFC 791 §3.1).
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Ok(Self {
            header_len,
            total_len,
            fragment,
            protocol: header[9],
            ecn: header[1] & 0b11,
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, Discard> {
        let Some((header, payload)) = bytes.split_first_chunk::<IPV6_LEN>() else {
            return Err(Discard::InnerTruncated);
        };
        if header[0] >> 4 != 6 {
            return Err(Discard::InnerVersion);
        }
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if payload_len > payload.len() {
            return Err(Discard::InnerTotalLength);
        }
        let (addresses, _) = header[8..].as_chunks::<16>();
        let [source, destination] = [addresses[0], addresses[1]].map(Ipv6Addr::from);
        Ok(Self {
            header_len: IPV6_LEN,
            total_len: IPV6_LEN + payload_len,
            // A fragment has its header between this one and the transport's, whose protocol is then not read here.
            fragment: false,
            protocol: header[6],
            ecn: header[1] >> 4 & 0b11,
            source: source.into(),
            destination: destination.into(),
        })
    }

    /// Finds a checksum that is not finished. Packets of a client on the same machine, and packets that this host's
    /// receive offload merged into a large one, carry only the pseudo header's sum; a raw socket delivers them so and
    /// does not say which they are. The full sum is computed only where the field equals the pseudo header's. Behind
    /// IPv6 extension headers none is looked for: offloads leave such packets alone.
    pub(super) fn partial_checksum(&self, packet: &[u8]) -> Option<PartialChecksum> {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        let offset = match self.protocol {
            TCP => 16,
            UDP => 6,
            _ => return None,
        };
        if self.fragment {
            return None;
        }
        let segment = packet.get(self.header_len..self.total_len)?;
        let field = segment.get(offset..offset + 2)?;
        let length = u16::try_from(segment.len()).ok()?;
        let pseudo = self.pseudo_header(length);
        if u16::from_be_bytes([field[0], field[1]]) != fold(pseudo)
            || fold(sum(pseudo, segment)) == 0xffff
        {
            return None;
        }
        Some(PartialChecksum {
            start: u16::try_from(self.header_len).ok()?,
            offset: u16::try_from(offset).ok()?,
        })
    }

    /// The sum of addresses, protocol and transport length: RFC 9293 §3.1 and RFC 8200 §8.1 differ in the places of
    /// these values only, which a sum does not see.
    pub(super) fn pseudo_header(&self, length: u16) -> u64 {
        let add = |start, address: IpAddr| match address {
            IpAddr::V4(address) => sum(start, &address.octets()),
            IpAddr::V6(address) => sum(start, &address.octets()),
        };
        add(add(0, self.source), self.destination) + u64::from(self.protocol) + u64::from(length)
    }
}

/// Writes an ECN codepoint into a packet whose header was parsed; IPv4's checksum follows (RFC 1624 §3), so that a
/// wrong one stays wrong.
pub(super) fn set_ecn(packet: &mut [u8], ecn: u8) {
    let Some(header) = packet.first_chunk_mut::<IPV4_MIN>() else {
        return;
    };
    if header[0] >> 4 == 6 {
        header[1] = header[1] & !0x30 | ecn << 4;
        return;
    }
    let before = u16::from_be_bytes([header[0], header[1]]);
    header[1] = header[1] & !0b11 | ecn;
    let after = u16::from_be_bytes([header[0], header[1]]);
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    let changed = u64::from(!checksum) + u64::from(!before) + u64::from(after);
    header[10..12].copy_from_slice(&(!fold(changed)).to_be_bytes());
}

/// Adds 16-bit words, the last one padded with zero (RFC 1071 §1). 64 bits hold the sum of 2^48 words.
pub(super) fn sum(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    words.iter().fold(start + last, |sum, &word| {
        sum + u64::from(u16::from_be_bytes(word))
    })
}

/// Folds the carries back in (RFC 1071 §2).
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
