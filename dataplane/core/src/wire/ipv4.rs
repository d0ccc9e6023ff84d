//! IPv4 packets (RFC 791).

use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};

use super::checksum::Sum;
use super::word;
use crate::Malformed;

/// A header without options (RFC 791 §3.1).
pub(crate) const MIN_HEADER_LEN: usize = 20;
/// The most that the header length field can say.
pub(crate) const MAX_HEADER_LEN: usize = 60;
/// Don't Fragment, in the word of flags and fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;
/// More Fragments.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Assigned protocol numbers (IANA, RFC 9293, 792, 2003).
pub(crate) const ICMP: u8 = 1;
pub(crate) const IPIP: u8 = 4;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// A packet whose lengths and header checksum hold.
///
/// Invariant: `20 <= header_len <= bytes.len()`, and `bytes` ends where the total length field says: trailing
/// padding of the frame is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4<B> {
    bytes: B,
    header_len: usize,
}

/// The destination of what may be an IPv4 packet, before anything else of it is believed; `None` when it is too
/// short to have one.
pub(crate) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = packet.first_chunk::<MIN_HEADER_LEN>()?;
    Some(Ipv4Addr::new(
        header[16], header[17], header[18], header[19],
    ))
}

/// The source, likewise.
pub(crate) fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = packet.first_chunk::<MIN_HEADER_LEN>()?;
    Some(Ipv4Addr::new(
        header[12], header[13], header[14], header[15],
    ))
}

impl<'a> Ipv4<&'a mut [u8]> {
    /// Proves the invariant, and the header checksum (RFC 1812 §5.2.2).
    pub(crate) fn parse_mut(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        let (header_len, total_len) = lengths(bytes)?;
        Ok(Self {
            bytes: &mut bytes[..total_len],
            header_len,
        })
    }
}

#[cfg(test)]
impl<'a> Ipv4<&'a [u8]> {
    /// Proves the invariant, and the header checksum (RFC 1812 §5.2.2).
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header_len, total_len) = lengths(bytes)?;
        Ok(Self {
            bytes: &bytes[..total_len],
            header_len,
        })
    }
}

fn lengths(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
    let header = bytes
        .first_chunk::<MIN_HEADER_LEN>()
        .ok_or(Malformed::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(Malformed::Version);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(word(header, 2));
    if header_len < MIN_HEADER_LEN {
        return Err(Malformed::HeaderLength);
    }
    if total_len < header_len || total_len > bytes.len() {
        return Err(Malformed::TotalLength);
    }
    if Sum::default().bytes(&bytes[..header_len]).finish() != 0 {
        return Err(Malformed::Checksum);
    }
    Ok((header_len, total_len))
}

impl<B: Deref<Target = [u8]>> Ipv4<B> {
    fn fixed(&self) -> &[u8; MIN_HEADER_LEN] {
        self.bytes
            .first_chunk()
            .expect("the constructor proved 20 bytes")
    }

    /// The whole packet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The header with its options.
    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes[..self.header_len]
    }

    /// What follows the header.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.header_len..]
    }

    pub(crate) fn tos(&self) -> u8 {
        self.fixed()[1]
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.fixed()[9]
    }

    pub(crate) fn identification(&self) -> u16 {
        word(self.fixed(), 4)
    }

    /// Don't Fragment.
    pub(crate) fn dont_fragment(&self) -> bool {
        word(self.fixed(), 6) & DONT_FRAGMENT != 0
    }

    /// Part of a fragmented packet: it has an offset, or more follow.
    pub(crate) fn is_fragment(&self) -> bool {
        word(self.fixed(), 6) & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Where in its datagram the payload belongs, in bytes.
    pub(crate) fn fragment_offset(&self) -> u16 {
        (word(self.fixed(), 6) & OFFSET_MASK) << 3
    }

    /// The flag More Fragments, in its place.
    pub(crate) fn more_fragments(&self) -> u16 {
        word(self.fixed(), 6) & MORE_FRAGMENTS
    }

    pub(crate) fn ttl(&self) -> u8 {
        self.fixed()[8]
    }

    pub(crate) fn source(&self) -> Ipv4Addr {
        let header = self.fixed();
        Ipv4Addr::new(header[12], header[13], header[14], header[15])
    }

    pub(crate) fn destination(&self) -> Ipv4Addr {
        let header = self.fixed();
        Ipv4Addr::new(header[16], header[17], header[18], header[19])
    }

    /// The pseudo-header under a transport checksum (RFC 9293 §3.1), for `len` bytes of transport header and payload.
    pub(crate) fn pseudo_header(&self, len: u16) -> Sum {
        Sum::default()
            .bytes(&self.fixed()[12..20])
            .word(u16::from(self.protocol()))
            .word(len)
    }
}

impl<B: DerefMut<Target = [u8]>> Ipv4<B> {
    /// What follows the header, to be changed. The header stays as it was proved.
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.header_len..]
    }

    /// The whole packet, to be changed by who keeps every length as it is.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The fields of a header that we write ourselves, without options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) tos: u8,
    pub(crate) total_len: u16,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Header {
    /// The header's bytes, checksum included.
    pub(crate) fn bytes(self) -> [u8; MIN_HEADER_LEN] {
        let mut bytes = [0; MIN_HEADER_LEN];
        bytes[0] = 0x45;
        bytes[1] = self.tos;
        bytes[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.identification.to_be_bytes());
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        bytes[8] = self.ttl;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.source.octets());
        bytes[16..20].copy_from_slice(&self.destination.octets());
        seal(&mut bytes);
        bytes
    }
}

/// Counts up what identifies the packets we make, and returns what has room in an IPv4 header.
pub(crate) fn next_identification(last: &mut u32) -> u16 {
    *last = last.wrapping_add(1);
    let [_, _, high, low] = last.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// Puts the right checksum into a header (RFC 791 §3.1); `header` is at least 20 bytes, as every caller's type or proof says.
pub(crate) fn seal(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = Sum::default().bytes(header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let header = Header {
            tos: 0,
            total_len: 24,
            identification: 7,
            dont_fragment: true,
            ttl: 64,
            protocol: TCP,
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(192, 0, 2, 2),
        };
        let mut bytes = header.bytes().to_vec();
        bytes.extend([1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = packet();
        let packet = Ipv4::parse(&bytes).unwrap();
        assert_eq!(
            (packet.header().len(), packet.payload()),
            (20, &[1, 2, 3, 4][..])
        );
        assert_eq!((packet.protocol(), packet.identification()), (TCP, 7));
        assert!(packet.dont_fragment() && !packet.is_fragment());
        assert_eq!(packet.source(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(packet.destination(), Ipv4Addr::new(192, 0, 2, 2));
    }

    #[test]
    fn padding_after_the_packet_is_not_part_of_it() {
        let mut bytes = packet();
        bytes.resize(46, 0xee);
        assert_eq!(Ipv4::parse(&bytes).unwrap().bytes().len(), 24);
    }

    #[test]
    fn each_lie_has_its_name() {
        let lie = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = packet();
            change(&mut bytes);
            Ipv4::parse(&bytes).unwrap_err()
        };
        assert_eq!(lie(&|bytes| bytes.truncate(19)), Malformed::Truncated);
        assert_eq!(lie(&|bytes| bytes[0] = 0x65), Malformed::Version);
        assert_eq!(lie(&|bytes| bytes[0] = 0x44), Malformed::HeaderLength);
        assert_eq!(lie(&|bytes| bytes[0] = 0x4f), Malformed::TotalLength);
        assert_eq!(lie(&|bytes| bytes[3] = 19), Malformed::TotalLength);
        assert_eq!(lie(&|bytes| bytes[3] = 25), Malformed::TotalLength);
        assert_eq!(lie(&|bytes| bytes[10] ^= 1), Malformed::Checksum);
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(packet) = Ipv4::parse(bytes) {
                assert!(packet.header().len() >= MIN_HEADER_LEN);
                assert_eq!(
                    packet.header().len() + packet.payload().len(),
                    packet.bytes().len()
                );
                assert!(packet.bytes().len() <= bytes.len());
                let _ = (packet.tos(), packet.is_fragment(), packet.pseudo_header(0));
            }
        });
    }
}
