//! A packet of either version, for all that does not care which.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use super::checksum::Sum;
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use crate::Malformed;
use crate::fragments::Key;
use crate::fragments::part::Part;

/// A packet whose lengths were proved by the constructor of its version.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ip<B> {
    V4(Ipv4<B>),
    V6(Ipv6<B>),
}

impl<'a> Ip<&'a mut [u8]> {
    /// Reads the version and proves the rest.
    pub(crate) fn parse_mut(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        match version(bytes)? {
            4 => Ipv4::parse_mut(bytes).map(Self::V4),
            6 => Ipv6::parse_mut(bytes).map(Self::V6),
            _ => Err(Malformed::Version),
        }
    }
}

#[cfg(test)]
impl<'a> Ip<&'a [u8]> {
    /// Reads the version and proves the rest.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match version(bytes)? {
            4 => Ipv4::parse(bytes).map(Self::V4),
            6 => Ipv6::parse(bytes).map(Self::V6),
            _ => Err(Malformed::Version),
        }
    }
}

fn version(bytes: &[u8]) -> Result<u8, Malformed> {
    bytes
        .first()
        .map(|first| first >> 4)
        .ok_or(Malformed::Truncated)
}

impl<B: Deref<Target = [u8]>> Ip<B> {
    /// The whole packet.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(packet) => packet.bytes(),
            Self::V6(packet) => packet.bytes(),
        }
    }

    /// Every header before the transport's.
    pub(crate) fn header(&self) -> &[u8] {
        match self {
            Self::V4(packet) => packet.header(),
            Self::V6(packet) => packet.header(),
        }
    }

    /// What follows them.
    pub(crate) fn payload(&self) -> &[u8] {
        match self {
            Self::V4(packet) => packet.payload(),
            Self::V6(packet) => packet.payload(),
        }
    }

    /// Bytes of the whole packet.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// TOS or traffic class: the same bits (RFC 2474 §3).
    pub(crate) fn tos(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.tos(),
            Self::V6(packet) => packet.traffic_class(),
        }
    }

    pub(crate) fn ttl(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.ttl(),
            Self::V6(packet) => packet.hop_limit(),
        }
    }

    /// The transport protocol's number.
    pub(crate) fn protocol(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.protocol(),
            Self::V6(packet) => packet.protocol(),
        }
    }

    /// The protocol number of this packet inside another.
    pub(crate) const fn as_payload(&self) -> u8 {
        match self {
            Self::V4(_) => ipv4::IPIP,
            Self::V6(_) => ipv6::IPV6,
        }
    }

    /// Whether nobody on the way may cut it: always so of IPv6 (RFC 8200 §4.5).
    pub(crate) fn dont_fragment(&self) -> bool {
        match self {
            Self::V4(packet) => packet.dont_fragment(),
            Self::V6(_) => true,
        }
    }

    /// It is a part of a larger packet.
    pub(crate) fn is_fragment(&self) -> bool {
        match self {
            Self::V4(packet) => packet.is_fragment(),
            Self::V6(packet) => packet.fragment().is_some(),
        }
    }

    /// Its place in its datagram, and which one that is; `None` if it is whole.
    pub(crate) fn part(&self) -> Option<(Key, Part)> {
        match self {
            Self::V4(packet) => packet.is_fragment().then(|| {
                let protocol = packet.protocol();
                let (source, destination) = (packet.source(), packet.destination());
                let part = Part {
                    protocol,
                    offset: packet.fragment_offset() >> 3,
                    more: packet.more_fragments() != 0,
                    len: packet.payload().len(),
                    header_len: packet.header().len(),
                };
                let id = packet.identification();
                (Key::ipv4(source, destination, id, protocol), part)
            }),
            Self::V6(packet) => packet.fragment().map(|fragment| {
                /// The fragment header (RFC 8200 §4.5), which is not counted.
                const NOT_COUNTED: usize = ipv6::HEADER_LEN + 8;
                let part = Part {
                    protocol: packet.protocol(),
                    offset: fragment.offset >> 3,
                    more: fragment.more,
                    len: packet.bytes().len() - fragment.data_at,
                    header_len: fragment.data_at.saturating_sub(NOT_COUNTED),
                };
                let (source, destination) = (packet.source(), packet.destination());
                (
                    Key::ipv6(source, destination, fragment.identification),
                    part,
                )
            }),
        }
    }

    pub(crate) fn source(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.source().into(),
            Self::V6(packet) => packet.source().into(),
        }
    }

    pub(crate) fn destination(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.destination().into(),
            Self::V6(packet) => packet.destination().into(),
        }
    }

    /// The pseudo-header under a transport checksum, for `len` bytes of transport header and payload.
    pub(crate) fn pseudo_header(&self, len: u16) -> Sum {
        match self {
            Self::V4(packet) => packet.pseudo_header(len),
            Self::V6(packet) => packet.pseudo_header(len),
        }
    }
}

impl<B: DerefMut<Target = [u8]>> Ip<B> {
    /// What follows the headers, to be changed.
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        match self {
            Self::V4(packet) => packet.payload_mut(),
            Self::V6(packet) => packet.payload_mut(),
        }
    }
}
