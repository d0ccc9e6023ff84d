//! ICMP (RFC 792, RFC 1191).

use std::net::Ipv4Addr;

use super::checksum::Sum;
use super::{ipv4, word};
use crate::Malformed;

/// Type, code, checksum, and four bytes whose meaning depends on the type.
pub(crate) const HEADER_LEN: usize = 8;
pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const ECHO_REQUEST: u8 = 8;
const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const FRAGMENTATION_NEEDED: u8 = 4;

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
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

impl Icmp {
    /// Reads a message; a quote too short to name a connection is malformed.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let (header, rest) = message
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Malformed::Truncated)?;
        Ok(match (header[0], header[1]) {
            (ECHO_REQUEST, 0) => Self::EchoRequest,
            (DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, _) => {
                Self::Error(Quote::parse(rest)?)
            }
            _ => Self::Other,
        })
    }
}

impl Quote {
    /// The total length and the checksum are not believed: the packet is cut, and routers change it on its way.
    fn parse(quote: &[u8]) -> Result<Self, Malformed> {
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
        let ports = quote
            .get(header_len..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(Malformed::Truncated)?;
        // A later fragment has no ports; protocol 0 then matches nothing.
        let later_fragment = word(header, 6) & 0x1fff != 0;
        Ok(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
            protocol: if later_fragment { 0 } else { header[9] },
            source_port: word(ports, 0),
            destination_port: word(ports, 2),
        })
    }
}

/// The header of fragmentation-needed (RFC 1191 §4) over `quote`, checksum included.
pub(crate) fn fragmentation_needed(next_hop_mtu: u16, quote: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [
        DESTINATION_UNREACHABLE,
        FRAGMENTATION_NEEDED,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    header[6..8].copy_from_slice(&next_hop_mtu.to_be_bytes());
    let checksum = Sum::default().bytes(&header).bytes(quote).finish();
    header[2..4].copy_from_slice(&checksum.to_be_bytes());
    header
}
