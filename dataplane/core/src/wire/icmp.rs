//! ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use super::checksum::Sum;
use super::ip::Ip;
use super::{ipv4, ipv6, word};
use crate::Malformed;

/// Type, code, checksum, and four bytes whose meaning depends on the type.
pub(crate) const HEADER_LEN: usize = 8;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const FRAGMENTATION_NEEDED: u8 = 4;

const V6_PACKET_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_ECHO_REQUEST: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;
/// Types below this are errors (RFC 4443 §2.1).
const V6_FIRST_INFORMATIONAL: u8 = 128;

/// What a message means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Icmp {
    EchoRequest,
    /// An error about a packet that somebody sent; the quote says which.
    Error(Quote),
    Other,
}

/// The packet an error quotes: only the header and the first eight bytes are sure to be there (RFC 792).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// 0 for a later fragment, which has no ports.
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Where its transport header begins, counted from the beginning of the message; eight bytes of it are there.
    pub(crate) transport_at: usize,
}

/// What a router says of a packet that was too large for its next link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooBig {
    /// What fits, in bytes of the quoted packet.
    pub(crate) mtu: u16,
    pub(crate) quote: Quote,
}

/// Sizes of packets that links carry (RFC 1191 §7.1): of these one is guessed where a router does not say what fits.
const PLATEAUS: [u16; 9] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];
/// Don't Fragment, in a header's word of flags and offset.
const DONT_FRAGMENT: u16 = 0x4000;

impl TooBig {
    /// Reads fragmentation-needed (RFC 1191 §4) and packet-too-big (RFC 4443 §3.2). `None`: it is another message, it is damaged, or it
    /// contradicts itself, as what fits was not too large and what may be cut is cut.
    pub(crate) fn parse<B: Deref<Target = [u8]>>(packet: &Ip<B>) -> Option<Self> {
        let Ok(Icmp::Error(quote)) = Icmp::parse(packet) else {
            return None;
        };
        let (header, quoted) = packet.payload().split_first_chunk::<HEADER_LEN>()?;
        let (sum, mtu, len) = match (packet, header[0], header[1]) {
            (Ip::V4(_), DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED) => {
                let ip = quoted.first_chunk::<{ ipv4::MIN_HEADER_LEN }>()?;
                if word(ip, 6) & DONT_FRAGMENT == 0 {
                    return None;
                }
                let len = usize::from(word(ip, 2));
                (Sum::default(), usize::from(word(header, 6)), len)
            }
            (Ip::V6(_), V6_PACKET_TOO_BIG, _) => {
                let ip = quoted.first_chunk::<{ ipv6::HEADER_LEN }>()?;
                let len = ipv6::HEADER_LEN + usize::from(word(ip, 4));
                let sum = packet.pseudo_header(u16::try_from(packet.payload().len()).ok()?);
                // Larger than a word is larger than every packet we send.
                let mtu = (word(header, 4) == 0).then_some(word(header, 6))?;
                (sum, usize::from(mtu), len)
            }
            _ => return None,
        };
        if sum.bytes(packet.payload()).finish() != 0 || mtu >= len {
            return None;
        }
        let guessed = || PLATEAUS.into_iter().find(|size| usize::from(*size) < len);
        let mtu = match (packet, u16::try_from(mtu).ok()?) {
            // An old router tells none (RFC 1191 §5); of IPv6 every router tells it (RFC 4443 §3.2).
            (Ip::V4(_), 0) => guessed().unwrap_or(0),
            (_, told) => told,
        };
        Some(Self { mtu, quote })
    }
}

/// The protocol number of the ICMP that goes with a packet's version.
pub(crate) const fn protocol<B>(packet: &Ip<B>) -> u8 {
    match packet {
        Ip::V4(_) => ipv4::ICMP,
        Ip::V6(_) => ipv6::ICMPV6,
    }
}

/// Whether a packet from this address may be one of its version's ICMP, before anything else of it is believed.
pub(crate) fn may_be(source: IpAddr, packet: &[u8]) -> bool {
    match source {
        IpAddr::V4(_) => packet.get(9) == Some(&ipv4::ICMP),
        IpAddr::V6(_) => ipv6::next_header(packet) == Some(ipv6::ICMPV6),
    }
}

/// The type of an echo's reply.
pub(crate) const fn echo_reply<B>(packet: &Ip<B>) -> u8 {
    match packet {
        Ip::V4(_) => ECHO_REPLY,
        Ip::V6(_) => V6_ECHO_REPLY,
    }
}

impl Icmp {
    /// Reads the message of a packet of its version's ICMP; a quote too short to name a connection is malformed.
    pub(crate) fn parse<B: Deref<Target = [u8]>>(packet: &Ip<B>) -> Result<Self, Malformed> {
        let (header, rest) = packet
            .payload()
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Malformed::Truncated)?;
        Ok(match (packet, header[0], header[1]) {
            (Ip::V4(_), ECHO_REQUEST, 0) | (Ip::V6(_), V6_ECHO_REQUEST, 0) => Self::EchoRequest,
            (Ip::V4(_), DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, _) => {
                Self::Error(Quote::v4(rest)?)
            }
            (Ip::V6(_), 1..V6_FIRST_INFORMATIONAL, _) => Self::Error(Quote::v6(rest)?),
            _ => Self::Other,
        })
    }
}

impl Quote {
    /// The total length and the checksum are not believed: the packet is cut, and routers change it on its way.
    fn v4(quote: &[u8]) -> Result<Self, Malformed> {
        let header = quote
            .first_chunk::<{ ipv4::MIN_HEADER_LEN }>()
            .ok_or(Malformed::Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header_len < ipv4::MIN_HEADER_LEN {
            return Err(Malformed::HeaderLength);
        }
        let later_fragment = word(header, 6) & 0x1fff != 0;
        Self::with_ports(
            quote,
            Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            if later_fragment { 0 } else { header[9] },
            header_len,
        )
    }

    fn v6(quote: &[u8]) -> Result<Self, Malformed> {
        let (protocol, header_len) = ipv6::quoted_transport(quote)?;
        let unspecified = Ipv6Addr::UNSPECIFIED;
        Self::with_ports(
            quote,
            ipv6::source(quote).unwrap_or(unspecified).into(),
            ipv6::destination(quote).unwrap_or(unspecified).into(),
            protocol,
            header_len,
        )
    }

    fn with_ports(
        quote: &[u8],
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        header_len: usize,
    ) -> Result<Self, Malformed> {
        let ports = quote
            .get(header_len..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(Malformed::Truncated)?;
        Ok(Self {
            source,
            destination,
            protocol,
            source_port: word(ports, 0),
            destination_port: word(ports, 2),
            transport_at: HEADER_LEN + header_len,
        })
    }
}

/// The header of fragmentation-needed (RFC 1191 §4) over `quote`, checksum included.
pub(crate) fn fragmentation_needed(next_hop_mtu: u16, quote: &[u8]) -> [u8; HEADER_LEN] {
    let [high, low] = next_hop_mtu.to_be_bytes();
    let header = [
        DESTINATION_UNREACHABLE,
        FRAGMENTATION_NEEDED,
        0,
        0,
        0,
        0,
        high,
        low,
    ];
    sealed(header, Sum::default().bytes(quote))
}

/// The header of packet-too-big (RFC 4443 §3.2) over `quote`; `pseudo_header` is that of the packet it will be in.
pub(crate) fn packet_too_big(mtu: u16, quote: &[u8], pseudo_header: Sum) -> [u8; HEADER_LEN] {
    let [high, low] = mtu.to_be_bytes();
    let header = [V6_PACKET_TOO_BIG, 0, 0, 0, 0, 0, high, low];
    sealed(header, pseudo_header.bytes(quote))
}

/// The header of time-exceeded in transit (RFC 792) over `quote`.
pub(crate) fn time_exceeded(quote: &[u8]) -> [u8; HEADER_LEN] {
    let header = [TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0];
    sealed(header, Sum::default().bytes(quote))
}

/// The same for IPv6 (RFC 4443 §3.3); `pseudo_header` is that of the packet it will be in.
pub(crate) fn hop_limit_exceeded(quote: &[u8], pseudo_header: Sum) -> [u8; HEADER_LEN] {
    let header = [V6_TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0];
    sealed(header, pseudo_header.bytes(quote))
}

fn sealed(mut header: [u8; HEADER_LEN], rest: Sum) -> [u8; HEADER_LEN] {
    // The header is of even length, so the order of the pieces does not matter to the sum.
    let checksum = Sum::default().bytes(&header).word(rest.folded()).finish();
    header[2..4].copy_from_slice(&checksum.to_be_bytes());
    header
}
