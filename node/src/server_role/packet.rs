//! The check of one packet that came through the tunnel: which bytes of it the server's own stack may see.
//!
//! Invariant: an accepted packet is of the version that its protocol number announced, goes to one of the VIPs and
//! lies whole inside the datagram. Never imports: sockets, clocks.

use std::net::{IpAddr, Ipv6Addr};

use super::header::{Header, Version, set_ecn};

/// What may come out of the tunnel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Filter {
    vips: Vec<IpAddr>,
    atms: Vec<IpAddr>,
}

/// Where the outer header of a datagram is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outer {
    /// IPv4: in the bytes, in front of the packet inside.
    V4,
    /// IPv6: taken off by the kernel with its extension headers; this is what the socket told of it.
    V6 { source: Ipv6Addr, traffic_class: u8 },
}

/// The packet inside, as a range of the bytes it came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Inner {
    pub(super) start: usize,
    /// Its length in bytes.
    pub(super) len: usize,
    /// Set when only the pseudo header is summed up in its transport checksum.
    pub(super) partial: Option<PartialChecksum>,
    /// The ECN codepoint that the way through the tunnel gives it, where it has another.
    ecn: Option<u8>,
}

/// A checksum that the sending host left to its network card, in the words of the virtio network header: the sum
/// from `start` to the end of the packet belongs at `start + offset`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PartialChecksum {
    pub(super) start: u16,
    pub(super) offset: u16,
}

/// Why a datagram was thrown away. Each reason is one counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Discard {
    /// The outer header is no IP header (the kernel never delivers such).
    OuterMalformed,
    /// The sender is none of the cluster's ATMs.
    OuterSource,
    /// A router on the way marked congestion, and the packet inside cannot carry the mark (RFC 6040 §4.2).
    OuterCongestion,
    /// Fewer bytes than a header of its version has.
    InnerTruncated,
    /// Not the version that the protocol number announced.
    InnerVersion,
    /// An IPv4 header length below 20 bytes or behind the end.
    InnerHeaderLength,
    /// A total or payload length below the header's or behind the end.
    InnerTotalLength,
    /// To an address that is none of the VIPs.
    InnerDestination,
}

impl Filter {
    /// Accepts packets to `vips` from `atms`; an empty `atms` accepts every sender.
    pub(super) fn new(vips: &[IpAddr], atms: &[IpAddr]) -> Self {
        let sorted = |addresses: &[IpAddr]| {
            let mut addresses = addresses.to_vec();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        };
        Self {
            vips: sorted(vips),
            atms: sorted(atms),
        }
    }

    /// Checks a datagram with a packet of `version` inside (RFC 2003, RFC 4213 §3, RFC 2473), as a raw socket
    /// delivers it: over IPv4 with its outer header, over IPv6 without.
    pub(super) fn check(
        &self,
        outer: Outer,
        version: Version,
        bytes: &[u8],
    ) -> Result<Inner, Discard> {
        let (start, end, source, outer_ecn) = match outer {
            Outer::V4 => {
                let outer =
                    Header::parse(Version::V4, bytes).map_err(|_| Discard::OuterMalformed)?;
                (outer.header_len, outer.total_len, outer.source, outer.ecn)
            }
            Outer::V6 {
                source,
                traffic_class,
            } => (0, bytes.len(), source.into(), traffic_class & 0b11),
        };
        if !self.atms.is_empty() && self.atms.binary_search(&source).is_err() {
            return Err(Discard::OuterSource);
        }
        let packet = &bytes[start..end];
        let inner = Header::parse(version, packet)?;
        if self.vips.binary_search(&inner.destination).is_err() {
            return Err(Discard::InnerDestination);
        }
        let ecn = decapsulated_ecn(inner.ecn, outer_ecn)?;
        Ok(Inner {
            start,
            len: inner.total_len,
            partial: inner.partial_checksum(packet),
            ecn: (ecn != inner.ecn).then_some(ecn),
        })
    }
}

impl Inner {
    /// Writes what the tunnel changed into the packet, which lies at `start` of what was checked.
    pub(super) fn finish(&self, packet: &mut [u8]) {
        if let Some(ecn) = self.ecn {
            set_ecn(packet, ecn);
        }
    }
}

/// The codepoint of a packet that leaves a tunnel (RFC 6040 §4.2, figure 4): a congestion mark of the way is never
/// lost, and one that the sender cannot understand becomes the loss that it stands for.
fn decapsulated_ecn(inner: u8, outer: u8) -> Result<u8, Discard> {
    const NOT_ECT: u8 = 0b00;
    const ECT1: u8 = 0b01;
    const ECT0: u8 = 0b10;
    const CE: u8 = 0b11;
    match (inner, outer) {
        (NOT_ECT, CE) => Err(Discard::OuterCongestion),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (_, CE) => Ok(CE),
        (ECT0, ECT1) => Ok(ECT1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
mod tests;
