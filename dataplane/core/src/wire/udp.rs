//! UDP headers (RFC 768).

use super::word;
use crate::Malformed;

/// Ports, length and checksum.
pub(crate) const HEADER_LEN: usize = 8;
/// Where the length is.
pub(crate) const LENGTH_AT: usize = 4;
/// Where the checksum is.
pub(crate) const CHECKSUM_AT: usize = 6;

/// The ports of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Udp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

impl Udp {
    /// Reads the header. `whole`: the datagram is not cut into fragments, so the length field must fit in it.
    pub(crate) fn parse(datagram: &[u8], whole: bool) -> Result<Self, Malformed> {
        let header = datagram
            .first_chunk::<HEADER_LEN>()
            .ok_or(Malformed::Truncated)?;
        let length = usize::from(word(header, LENGTH_AT));
        if whole && !(HEADER_LEN..=datagram.len()).contains(&length) {
            return Err(Malformed::TotalLength);
        }
        Ok(Self {
            source_port: word(header, 0),
            destination_port: word(header, 2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_lengths() {
        let datagram = [0x9c, 0x40, 0, 53, 0, 9, 0, 0, 1];
        let ports = Udp {
            source_port: 40000,
            destination_port: 53,
        };
        assert_eq!(Udp::parse(&datagram, true), Ok(ports));
        assert_eq!(Udp::parse(&datagram[..7], true), Err(Malformed::Truncated));
        assert_eq!(
            Udp::parse(&datagram[..8], true),
            Err(Malformed::TotalLength)
        );
        assert_eq!(Udp::parse(&datagram[..8], false), Ok(ports));
        let mut short = datagram;
        short[5] = 7;
        assert_eq!(Udp::parse(&short, true), Err(Malformed::TotalLength));
    }
}
