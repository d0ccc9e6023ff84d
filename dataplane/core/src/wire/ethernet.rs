//! Ethernet II framing.

use crate::MacAddr;

/// Two addresses and the type.
pub(crate) const HEADER_LEN: usize = 14;
/// IPv4 (RFC 894).
pub(crate) const IPV4: u16 = 0x0800;
/// IPv6 (RFC 2464).
pub(crate) const IPV6: u16 = 0x86dd;
/// ARP (RFC 826).
pub(crate) const ARP: u16 = 0x0806;

/// A header as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ethernet {
    pub(crate) destination: MacAddr,
    pub(crate) source: MacAddr,
    pub(crate) ethertype: u16,
}

impl Ethernet {
    /// Splits a frame into its header and what follows; `None` when it is shorter than the header.
    pub(crate) fn split(frame: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (header, rest) = frame.split_first_chunk_mut::<HEADER_LEN>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let header = Self {
            destination: MacAddr([d0, d1, d2, d3, d4, d5]),
            source: MacAddr([s0, s1, s2, s3, s4, s5]),
            ethertype: u16::from_be_bytes([t0, t1]),
        };
        Some((header, rest))
    }

    /// The header's bytes.
    pub(crate) fn bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        self.write(&mut bytes);
        bytes
    }

    /// Writes the header's bytes where they belong.
    pub(crate) fn write(self, bytes: &mut [u8; HEADER_LEN]) {
        bytes[..6].copy_from_slice(&self.destination.0);
        bytes[6..12].copy_from_slice(&self.source.0);
        bytes[12..].copy_from_slice(&self.ethertype.to_be_bytes());
    }
}
