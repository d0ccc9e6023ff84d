//! IPv6 packets (RFC 8200).

use std::net::Ipv6Addr;
use std::ops::{Deref, DerefMut};

use super::checksum::Sum;
use super::word;
use crate::Malformed;

/// The fixed header (RFC 8200 §3).
pub(crate) const HEADER_LEN: usize = 40;
/// The longest chain of extension headers that is walked: eight of the usual 8 bytes, and as much again. A longer one serves
/// nobody but who wants to hide the ports (RFC 7045 §2.1 lets a middlebox set such a bound).
pub(crate) const EXTENSIONS_LEN_MAX: usize = 128;
/// Every link carries packets of this size (RFC 8200 §5).
pub(crate) const MTU_MIN: u16 = 1280;

/// Assigned numbers of next headers (IANA).
pub(crate) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
pub(crate) const ICMPV6: u8 = 58;
/// An IPv6 packet inside (RFC 2473 §3, RFC 4213 §3.5).
pub(crate) const IPV6: u8 = 41;

/// A fragment header (RFC 8200 §4.5).
pub(crate) const FRAGMENT_LEN: usize = 8;
/// More Fragments, in the word of offset and flags (RFC 8200 §4.5).
const MORE_FRAGMENTS: u16 = 1;
const OFFSET_MASK: u16 = 0xfff8;

/// A fragment header's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// In bytes.
    pub(crate) offset: u16,
    /// Where in the packet the data after the fragment header begins.
    pub(crate) data_at: usize,
    pub(crate) more: bool,
    pub(crate) identification: u32,
}

/// A packet whose lengths hold.
///
/// Invariant: `40 <= header_len <= bytes.len()`, and `bytes` ends where the payload length says: trailing padding of the
/// frame is cut off. `header_len` counts the extension headers up to the transport header (or, in a later fragment, to the data).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv6<B> {
    bytes: B,
    headers: Headers,
}

/// What the walk over the headers found.
#[derive(Clone, Copy, Debug)]
struct Headers {
    header_len: usize,
    protocol: u8,
    fragment: Option<Fragment>,
    source_routed: bool,
}

/// The destination of what may be an IPv6 packet, before anything else of it is believed; `None` when it is too short.
pub(crate) fn destination(packet: &[u8]) -> Option<Ipv6Addr> {
    address(packet, 24)
}

/// The source, likewise.
pub(crate) fn source(packet: &[u8]) -> Option<Ipv6Addr> {
    address(packet, 8)
}

/// The first next header, likewise.
pub(crate) fn next_header(packet: &[u8]) -> Option<u8> {
    packet.first_chunk::<HEADER_LEN>().map(|header| header[6])
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let header = packet.first_chunk::<HEADER_LEN>()?;
    let octets: &[u8; 16] = header.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(*octets))
}

impl<'a> Ipv6<&'a mut [u8]> {
    /// Proves the invariant.
    #[inline]
    pub(crate) fn parse_mut(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        let (headers, total_len) = headers(bytes)?;
        Ok(Self {
            bytes: &mut bytes[..total_len],
            headers,
        })
    }
}

impl<'a> Ipv6<&'a [u8]> {
    /// Proves the invariant.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (headers, total_len) = headers(bytes)?;
        Ok(Self {
            bytes: &bytes[..total_len],
            headers,
        })
    }
}

/// The headers, and the length of the whole packet.
#[inline]
fn headers(bytes: &[u8]) -> Result<(Headers, usize), Malformed> {
    let fixed = bytes
        .first_chunk::<HEADER_LEN>()
        .ok_or(Malformed::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(Malformed::Version);
    }
    // A payload length of zero is a jumbogram (RFC 2675) or nothing at all: neither is for us.
    let total_len = HEADER_LEN + usize::from(word(fixed, 4));
    if total_len == HEADER_LEN || total_len > bytes.len() {
        return Err(Malformed::TotalLength);
    }
    Ok((walk(fixed, &bytes[..total_len])?, total_len))
}

/// A fragment header. `offset` is in bytes, and a multiple of eight.
pub(crate) fn fragment_header(
    next_header: u8,
    offset: u16,
    more: bool,
    identification: u32,
) -> [u8; FRAGMENT_LEN] {
    let mut bytes = [next_header, 0, 0, 0, 0, 0, 0, 0];
    let place = offset & OFFSET_MASK | u16::from(more);
    bytes[2..4].copy_from_slice(&place.to_be_bytes());
    bytes[4..].copy_from_slice(&identification.to_be_bytes());
    bytes
}

/// Follows the chain of headers of a packet that `fixed` begins, as far as `bytes` go.
fn walk(fixed: &[u8; HEADER_LEN], bytes: &[u8]) -> Result<Headers, Malformed> {
    let mut found = Headers {
        header_len: HEADER_LEN,
        protocol: fixed[6],
        fragment: None,
        source_routed: false,
    };
    loop {
        // What follows the header of a later fragment is the middle of something.
        if found.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(found);
        }
        let kind = found.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Ok(found);
        }
        let rest = &bytes[found.header_len..];
        let header = rest.first_chunk::<8>().ok_or(Malformed::Truncated)?;
        let len = if kind == FRAGMENT {
            8
        } else {
            8 + usize::from(header[1]) * 8
        };
        if len > rest.len() {
            return Err(Malformed::Truncated);
        }
        found.header_len += len;
        if found.header_len > HEADER_LEN + EXTENSIONS_LEN_MAX {
            return Err(Malformed::HeaderLength);
        }
        match kind {
            FRAGMENT if found.fragment.is_some() => return Err(Malformed::HeaderLength),
            FRAGMENT => {
                let offset = word(header, 2);
                found.fragment = Some(Fragment {
                    offset: offset & OFFSET_MASK,
                    data_at: found.header_len,
                    more: offset & MORE_FRAGMENTS != 0,
                    identification: u32::from_be_bytes([
                        header[4], header[5], header[6], header[7],
                    ]),
                });
            }
            ROUTING => found.source_routed |= header[3] != 0,
            _ => {}
        }
        found.protocol = header[0];
    }
}

/// Transport protocol of a packet of which only the beginning is there, as in the quote of an error, and where its header
/// begins; protocol 0 for a later fragment, which has none.
pub(crate) fn quoted_transport(quote: &[u8]) -> Result<(u8, usize), Malformed> {
    let fixed = quote
        .first_chunk::<HEADER_LEN>()
        .ok_or(Malformed::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(Malformed::Version);
    }
    let found = walk(fixed, quote)?;
    let later = found.fragment.is_some_and(|fragment| fragment.offset != 0);
    Ok((if later { 0 } else { found.protocol }, found.header_len))
}

impl<B: Deref<Target = [u8]>> Ipv6<B> {
    fn fixed(&self) -> &[u8; HEADER_LEN] {
        self.bytes
            .first_chunk()
            .expect("the constructor proved 40 bytes")
    }

    /// The whole packet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The headers before the transport's.
    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes[..self.headers.header_len]
    }

    /// What follows them.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.headers.header_len..]
    }

    /// The traffic class (RFC 8200 §7).
    pub(crate) fn traffic_class(&self) -> u8 {
        let fixed = self.fixed();
        fixed[0] << 4 | fixed[1] >> 4
    }

    /// The transport protocol; in a later fragment that of the whole datagram's first header behind the fragment header.
    pub(crate) const fn protocol(&self) -> u8 {
        self.headers.protocol
    }

    /// Its fragment header, if it is part of something larger; an atomic fragment (RFC 6946) is none.
    pub(crate) fn fragment(&self) -> Option<Fragment> {
        self.headers
            .fragment
            .filter(|fragment| fragment.offset != 0 || fragment.more)
    }

    /// It is to be sent on by the host that it is addressed to (RFC 5095 says why nobody does).
    pub(crate) const fn is_source_routed(&self) -> bool {
        self.headers.source_routed
    }

    pub(crate) fn hop_limit(&self) -> u8 {
        self.fixed()[7]
    }

    pub(crate) fn source(&self) -> Ipv6Addr {
        source(&self.bytes).expect("the constructor proved 40 bytes")
    }

    pub(crate) fn destination(&self) -> Ipv6Addr {
        destination(&self.bytes).expect("the constructor proved 40 bytes")
    }

    /// The pseudo-header under a transport checksum (RFC 8200 §8.1), for `len` bytes of transport header and payload.
    pub(crate) fn pseudo_header(&self, len: u16) -> Sum {
        Sum::default()
            .bytes(&self.fixed()[8..40])
            .word(len)
            .word(u16::from(self.headers.protocol))
    }
}

impl<B: DerefMut<Target = [u8]>> Ipv6<B> {
    /// What follows the headers, to be changed. The headers stay as they were proved.
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.headers.header_len..]
    }

    /// The whole packet, to be changed by who keeps every length as it is.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The fields of a header that we write ourselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) traffic_class: u8,
    pub(crate) payload_len: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
}

impl Header {
    /// The header's bytes. The flow label is zero: we mark no flows (RFC 6437 §2).
    pub(crate) fn bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 0x60 | self.traffic_class >> 4;
        bytes[1] = self.traffic_class << 4;
        bytes[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[6] = self.next_header;
        bytes[7] = self.hop_limit;
        bytes[8..24].copy_from_slice(&self.source.octets());
        bytes[24..40].copy_from_slice(&self.destination.octets());
        bytes
    }

    /// The pseudo-header of a packet with this header and nothing between it and the transport's (RFC 8200 §8.1).
    pub(crate) fn pseudo_header(self) -> Sum {
        Sum::default()
            .bytes(&self.source.octets())
            .bytes(&self.destination.octets())
            .word(self.payload_len)
            .word(u16::from(self.next_header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            traffic_class: 0xb8,
            payload_len: u16::try_from(payload.len()).unwrap(),
            next_header,
            hop_limit: 64,
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
        };
        [&header.bytes()[..], payload].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = packet(17, &[1, 2, 3]);
        bytes.resize(60, 0xee);
        let packet = Ipv6::parse(&bytes).unwrap();
        assert_eq!(
            (packet.header().len(), packet.payload()),
            (40, &[1, 2, 3][..])
        );
        assert_eq!(
            (
                packet.protocol(),
                packet.traffic_class(),
                packet.hop_limit()
            ),
            (17, 0xb8, 64)
        );
        assert_eq!(packet.source().to_string(), "2001:db8::1");
        assert_eq!(packet.destination().to_string(), "2001:db8::2");
        assert_eq!(packet.fragment(), None);
    }

    #[test]
    fn extension_headers_are_walked() {
        let chain = [
            &[60, 0, 1, 4, 0, 0, 0, 0][..],                      // hop by hop
            &[44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // destination options, 16 bytes
            &[6, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef],               // first fragment
            &[9; 20],
        ]
        .concat();
        let bytes = packet(HOP_BY_HOP, &chain);
        let packet = Ipv6::parse(&bytes).unwrap();
        assert_eq!((packet.protocol(), packet.payload()), (6, &[9; 20][..]));
        let fragment = packet.fragment().unwrap();
        assert_eq!(
            (fragment.offset, fragment.more, fragment.identification),
            (0, true, 0xdead_beef)
        );
    }

    #[test]
    fn a_later_fragment_has_no_headers_inside() {
        let bytes = packet(FRAGMENT, &[60, 0, 0, 9, 0, 0, 0, 1, 255, 255]);
        let packet = Ipv6::parse(&bytes).unwrap();
        assert_eq!((packet.protocol(), packet.payload()), (60, &[255, 255][..]));
        assert_eq!(packet.fragment().map(|f| f.offset), Some(8));
    }

    #[test]
    fn an_atomic_fragment_is_whole_and_a_source_route_is_seen() {
        let bytes = packet(FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(Ipv6::parse(&bytes).unwrap().fragment(), None);
        let bytes = packet(ROUTING, &[17, 0, 0, 1, 0, 0, 0, 0, 1]);
        assert!(Ipv6::parse(&bytes).unwrap().is_source_routed());
    }

    #[test]
    fn each_lie_has_its_name() {
        let lie = |bytes: &[u8]| Ipv6::parse(bytes).unwrap_err();
        let sound = packet(17, &[1, 2, 3]);
        assert_eq!(lie(&sound[..39]), Malformed::Truncated);
        assert_eq!(lie(&sound[..42]), Malformed::TotalLength);
        assert_eq!(lie(&packet(17, &[])), Malformed::TotalLength);
        let mut version = sound;
        version[0] = 0x45;
        assert_eq!(lie(&version), Malformed::Version);
        assert_eq!(lie(&packet(HOP_BY_HOP, &[6; 7])), Malformed::Truncated);
        assert_eq!(
            lie(&packet(HOP_BY_HOP, &[6, 1, 0, 0, 0, 0, 0, 0])),
            Malformed::Truncated
        );
        let endless = [0, 0, 0, 0, 0, 0, 0, 0].repeat(40);
        assert_eq!(lie(&packet(HOP_BY_HOP, &endless)), Malformed::HeaderLength);
        let twice = [
            &[44, 0, 0, 1, 0, 0, 0, 1][..],
            &[6, 0, 0, 1, 0, 0, 0, 1],
            &[0; 20],
        ]
        .concat();
        assert_eq!(lie(&packet(FRAGMENT, &twice)), Malformed::HeaderLength);
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(packet) = Ipv6::parse(bytes) {
                assert!(packet.header().len() >= HEADER_LEN);
                assert_eq!(
                    packet.header().len() + packet.payload().len(),
                    packet.bytes().len()
                );
                assert!(packet.bytes().len() <= bytes.len());
                let _ = (packet.fragment(), packet.pseudo_header(0), packet.source());
            }
        });
    }
}
