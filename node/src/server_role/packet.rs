//! PURE. The check of one packet that came through the tunnel: which bytes of it the server's own stack may see.
//!
//! Invariant: an accepted packet is an IPv4 packet to one of the VIPs that lies whole inside the datagram, at least
//! one outer header behind its start. Never imports: sockets, clocks.

use std::net::Ipv4Addr;

/// What may come out of the tunnel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Filter {
    vips: Vec<Ipv4Addr>,
    atms: Vec<Ipv4Addr>,
}

/// The packet inside, as a range of the datagram it came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Inner {
    /// Where it begins; at least [`MIN_HEADER_LEN`].
    pub(super) start: usize,
    /// Its length in bytes.
    pub(super) len: usize,
    /// Set when only the pseudo header is summed up in its transport checksum.
    pub(super) partial: Option<PartialChecksum>,
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
    /// The outer header is no IPv4 header (the kernel never delivers such).
    OuterMalformed,
    /// The sender is none of the cluster's ATMs.
    OuterSource,
    /// Fewer bytes than an IPv4 header has.
    InnerTruncated,
    /// Not version 4.
    InnerVersion,
    /// A header length below 20 bytes or behind the end.
    InnerHeaderLength,
    /// A total length below the header's or behind the end.
    InnerTotalLength,
    /// To an address that is none of the VIPs.
    InnerDestination,
}

/// An IPv4 header without options (RFC 791 §3.1).
pub(super) const MIN_HEADER_LEN: usize = 20;

impl Filter {
    /// Accepts packets to `vips` from `atms`; an empty `atms` accepts every sender.
    pub(super) fn new(vips: &[Ipv4Addr], atms: &[Ipv4Addr]) -> Self {
        let sorted = |addresses: &[Ipv4Addr]| {
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

    /// Checks a whole IP-in-IP datagram (RFC 2003), outer header included, as a raw socket delivers it.
    pub(super) fn check(&self, datagram: &[u8]) -> Result<Inner, Discard> {
        let outer = Header::parse(datagram).map_err(|_| Discard::OuterMalformed)?;
        if !self.atms.is_empty() && self.atms.binary_search(&outer.source).is_err() {
            return Err(Discard::OuterSource);
        }
        let start = outer.header_len;
        let bytes = &datagram[start..outer.total_len];
        let inner = Header::parse(bytes)?;
        if self.vips.binary_search(&inner.destination).is_err() {
            return Err(Discard::InnerDestination);
        }
        let partial = partial_checksum(&inner, &bytes[..inner.total_len]);
        Ok(Inner {
            start,
            len: inner.total_len,
            partial,
        })
    }
}

/// Invariant: `20 <= header_len <= total_len <= bytes.len()` (RFC 791 §3.1).
struct Header {
    header_len: usize,
    total_len: usize,
    fragment: bool,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Discard> {
        let Some(header) = bytes.first_chunk::<MIN_HEADER_LEN>() else {
            return Err(Discard::InnerTruncated);
        };
        if header[0] >> 4 != 4 {
            return Err(Discard::InnerVersion);
        }
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header_len < MIN_HEADER_LEN || header_len > bytes.len() {
            return Err(Discard::InnerHeaderLength);
        }
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if total_len < header_len || total_len > bytes.len() {
            return Err(Discard::InnerTotalLength);
        }
        // More-fragments flag or an offset (RFC 791 §3.1): then the transport checksum covers more than is here.
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Ok(Self {
            header_len,
            total_len,
            fragment,
            protocol: header[9],
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
        })
    }
}

/// Finds a checksum that is not finished. Packets of a client on the same machine, and packets that this host's
/// receive offload merged into a large one, carry only the pseudo header's sum; a raw socket delivers them so and
/// does not say which they are. The full sum is computed only where the field equals the pseudo header's.
fn partial_checksum(header: &Header, packet: &[u8]) -> Option<PartialChecksum> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let offset = match header.protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    if header.fragment {
        return None;
    }
    let segment = &packet[header.header_len..];
    let field = segment.get(offset..offset + 2)?;
    let length = u16::try_from(segment.len()).ok()?;
    // RFC 9293 §3.1, RFC 768: addresses, zero, protocol, length.
    let mut pseudo = sum(0, &header.source.octets());
    pseudo = sum(pseudo, &header.destination.octets());
    pseudo += u64::from(header.protocol) + u64::from(length);
    if u16::from_be_bytes([field[0], field[1]]) != fold(pseudo)
        || fold(sum(pseudo, segment)) == 0xffff
    {
        return None;
    }
    let start = u16::try_from(header.header_len).ok()?;
    Some(PartialChecksum {
        start,
        offset: u16::try_from(offset).ok()?,
    })
}

/// Adds 16-bit words, the last one padded with zero (RFC 1071 §1). 64 bits hold the sum of 2^48 words.
fn sum(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    words.iter().fold(start + last, |sum, &word| {
        sum + u64::from(u16::from_be_bytes(word))
    })
}

/// Folds the carries back in (RFC 1071 §2).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ATM: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

    fn filter() -> Filter {
        Filter::new(&[VIP, Ipv4Addr::new(10, 1, 0, 101)], &[ATM])
    }

    fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; MIN_HEADER_LEN];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(
            &u16::try_from(MIN_HEADER_LEN + payload.len())
                .unwrap()
                .to_be_bytes(),
        );
        packet[8] = 64;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        packet.extend_from_slice(payload);
        packet
    }

    fn tunnelled(inner: &[u8]) -> Vec<u8> {
        ipv4(ATM, SERVER, 4, inner)
    }

    fn edited(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
        bytes[at] = value;
        bytes
    }

    #[test]
    fn each_datagram_has_one_verdict() {
        let inner = || ipv4(CLIENT, VIP, 1, b"eightbyt");
        let good = Ok(Inner {
            start: 20,
            len: 28,
            partial: None,
        });
        let with_options = {
            let mut outer = edited(
                ipv4(ATM, SERVER, 4, &[[1; 4].as_slice(), &inner()].concat()),
                0,
                0x46,
            );
            outer[3] = 52;
            outer
        };
        let cases: &[(&str, Vec<u8>, Result<Inner, Discard>)] = &[
            ("to a VIP", tunnelled(&inner()), good),
            (
                "to the other VIP",
                tunnelled(&edited(inner(), 19, 101)),
                good,
            ),
            (
                "bytes behind the inner packet",
                tunnelled(&[inner(), vec![0; 6]].concat()),
                good,
            ),
            (
                "outer options",
                with_options,
                Ok(Inner {
                    start: 24,
                    len: 28,
                    partial: None,
                }),
            ),
            ("nothing", vec![], Err(Discard::OuterMalformed)),
            (
                "outer cut short",
                tunnelled(&inner())[..30].to_vec(),
                Err(Discard::OuterMalformed),
            ),
            (
                "not from an ATM",
                ipv4(CLIENT, SERVER, 4, &inner()),
                Err(Discard::OuterSource),
            ),
            (
                "nothing inside",
                tunnelled(&[]),
                Err(Discard::InnerTruncated),
            ),
            (
                "19 bytes inside",
                tunnelled(&inner()[..19]),
                Err(Discard::InnerTruncated),
            ),
            (
                "IPv6 inside",
                tunnelled(&edited(inner(), 0, 0x60)),
                Err(Discard::InnerVersion),
            ),
            (
                "inner header of 16 bytes",
                tunnelled(&edited(inner(), 0, 0x44)),
                Err(Discard::InnerHeaderLength),
            ),
            (
                "inner header behind the end",
                tunnelled(&edited(inner(), 0, 0x4f)),
                Err(Discard::InnerHeaderLength),
            ),
            (
                "inner total below its header",
                tunnelled(&edited(inner(), 3, 19)),
                Err(Discard::InnerTotalLength),
            ),
            (
                "inner total behind the end",
                tunnelled(&edited(inner(), 3, 29)),
                Err(Discard::InnerTotalLength),
            ),
            (
                "to another address",
                tunnelled(&edited(inner(), 19, 99)),
                Err(Discard::InnerDestination),
            ),
            (
                "to this server itself",
                tunnelled(&ipv4(CLIENT, SERVER, 1, &[])),
                Err(Discard::InnerDestination),
            ),
        ];
        for (name, datagram, expected) in cases {
            assert_eq!(filter().check(datagram), *expected, "{name}");
        }
    }

    #[test]
    fn without_a_list_of_atms_every_sender_is_accepted() {
        let datagram = ipv4(CLIENT, SERVER, 4, &ipv4(CLIENT, VIP, 1, &[]));
        assert_eq!(
            Filter::new(&[VIP], &[]).check(&datagram),
            Ok(Inner {
                start: 20,
                len: 20,
                partial: None
            })
        );
    }

    #[test]
    fn an_unfinished_checksum_is_told_from_a_finished_one() {
        for (protocol, offset, header) in [(6_u8, 16_usize, 20_usize), (17, 6, 8)] {
            let mut segment = vec![0x5a; header + 33];
            segment[offset..offset + 2].fill(0);
            let pseudo = sum(sum(0, &CLIENT.octets()), &VIP.octets())
                + u64::from(protocol)
                + segment.len() as u64;
            let full = !fold(sum(pseudo, &segment));
            let mut check = |value: u16| {
                segment[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
                filter()
                    .check(&tunnelled(&ipv4(CLIENT, VIP, protocol, &segment)))
                    .unwrap()
                    .partial
            };
            let partial = PartialChecksum {
                start: 20,
                offset: u16::try_from(offset).unwrap(),
            };
            assert_eq!(check(fold(pseudo)), Some(partial), "protocol {protocol}");
            assert_eq!(check(full), None, "a full checksum, protocol {protocol}");
            assert_eq!(
                check(full ^ 1),
                None,
                "a wrong checksum stays wrong, protocol {protocol}"
            );
        }
    }

    #[test]
    fn a_full_checksum_that_looks_unfinished_is_left_alone() {
        // The last two bytes are chosen so that the right checksum has the value of the pseudo header's sum.
        let mut segment = vec![0_u8; 22];
        let pseudo = fold(sum(sum(0, &CLIENT.octets()), &VIP.octets()) + 6 + 22);
        segment[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let missing = !fold(sum(u64::from(pseudo), &segment));
        segment[20..22].copy_from_slice(&missing.to_be_bytes());
        let datagram = tunnelled(&ipv4(CLIENT, VIP, 6, &segment));
        assert_eq!(filter().check(&datagram).unwrap().partial, None);
    }

    #[test]
    fn a_fragment_keeps_its_checksum() {
        let mut segment = vec![0_u8; 24];
        let pseudo = fold(sum(sum(0, &CLIENT.octets()), &VIP.octets()) + 6 + 24);
        segment[16..18].copy_from_slice(&pseudo.to_be_bytes());
        segment[20] = 7;
        let whole = ipv4(CLIENT, VIP, 6, &segment);
        assert!(
            filter()
                .check(&tunnelled(&whole))
                .unwrap()
                .partial
                .is_some()
        );
        assert_eq!(
            filter()
                .check(&tunnelled(&edited(whole.clone(), 6, 0x20)))
                .unwrap()
                .partial,
            None
        );
        assert_eq!(
            filter()
                .check(&tunnelled(&edited(whole, 7, 1)))
                .unwrap()
                .partial,
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_an_accepted_packet_lies_inside(
            head in proptest::collection::vec(any::<u8>(), 0..80),
            outer in any::<bool>(),
        ) {
            let datagram = if outer { tunnelled(&head) } else { head };
            if let Ok(inner) = filter().check(&datagram) {
                prop_assert!(inner.start >= MIN_HEADER_LEN && inner.len >= MIN_HEADER_LEN);
                prop_assert!(inner.start + inner.len <= datagram.len());
            }
        }

        #[test]
        fn no_transport_bytes_panic(
            segment in proptest::collection::vec(any::<u8>(), 0..64),
            protocol in prop_oneof![Just(6_u8), Just(17), any::<u8>()],
        ) {
            let datagram = tunnelled(&ipv4(CLIENT, VIP, protocol, &segment));
            prop_assert_eq!(filter().check(&datagram).map(|inner| inner.len), Ok(20 + segment.len()));
        }
    }
}
