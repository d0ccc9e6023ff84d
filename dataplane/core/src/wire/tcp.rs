//! TCP headers (RFC 9293 §3.1).

use super::word;
use crate::Malformed;

/// A header without options.
pub(crate) const MIN_HEADER_LEN: usize = 20;
/// The most that the data offset field can say.
pub(crate) const MAX_HEADER_LEN: usize = 60;
/// Where the sequence number is.
pub(crate) const SEQUENCE_AT: usize = 4;
/// Where the flags are.
pub(crate) const FLAGS_AT: usize = 13;
/// Where the checksum is.
pub(crate) const CHECKSUM_AT: usize = 16;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
/// Congestion Window Reduced (RFC 3168 §6.1.2).
pub(crate) const CWR: u8 = 0x80;

/// What the packet path needs of a header whose length was proved to lie inside its packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    /// `20 <= header_len <= segment length`.
    pub(crate) header_len: usize,
}

impl Tcp {
    /// Reads the header of a whole segment.
    pub(crate) fn parse(segment: &[u8]) -> Result<Self, Malformed> {
        let header = segment
            .first_chunk::<MIN_HEADER_LEN>()
            .ok_or(Malformed::Truncated)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < MIN_HEADER_LEN || header_len > segment.len() {
            return Err(Malformed::HeaderLength);
        }
        Ok(Self {
            source_port: word(header, 0),
            destination_port: word(header, 2),
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            flags: header[FLAGS_AT],
            header_len,
        })
    }

    /// The first packet of a connection: SYN, and nothing that contradicts it (RFC 9293 §3.5).
    pub(crate) fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }
}
