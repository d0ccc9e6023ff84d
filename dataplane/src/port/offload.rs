//! What the sending stack left undone in a frame: read from a virtio-net header, or inferred where there is none.

use std::ops::Range;

use dataplane_core::{Checksum, Gso, Offload};

use super::outbox::VNET_HDR_LEN;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`
const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_ECN`: a flag beside the type. The segments carry the frame's own ECN bits, so it asks nothing more.
const GSO_ECN: u8 = 0x80;

const ETHERNET_LEN: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const IPV4_LEN_MIN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN_MIN: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// RFC 793 §3.1: the checksum is at byte 16 of the header.
const TCP_CHECKSUM_AT: usize = 16;
/// RFC 768: the checksum is at byte 6 of the header.
const UDP_CHECKSUM_AT: usize = 6;

/// Reads a virtio-net header (VIRTIO 1.2 §5.1.6) in host byte order, as AF_PACKET gives it.
pub(super) fn from_vnet_header(header: &[u8; VNET_HDR_LEN]) -> Offload {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let checksum = if header[0] & NEEDS_CSUM == 0 {
        Checksum::Complete
    } else {
        Checksum::Partial {
            start: word(6),
            offset: word(8),
        }
    };
    let gso = match header[1] & !GSO_ECN {
        0 => Gso::None,
        GSO_TCPV4 | GSO_TCPV6 => Gso::Tcp { segment: word(4) },
        GSO_UDP_L4 => Gso::Udp { segment: word(4) },
        other => Gso::Other(other),
    };
    Offload { checksum, gso }
}

/// Infers what a port without virtio-net header cannot be told (the `pnet` port).
///
/// A transport checksum that equals the folded, not complemented pseudo-header sum is taken for a partial one. This is
/// safe: let P be the pseudo-header's sum and D that of header and payload, so a finished checksum is ~(P + D).
/// When a *finished* one happens to equal P (2^-16), it is finished again from the same P and D, which gives the same
/// value. Only a frame that was damaged on the way *and* carries exactly P (2^-16 of the damaged ones) would be given
/// a fresh checksum; the receiving NIC drops nearly all damaged frames before (FCS).
///
/// A TCP frame longer than the MTU is an unsegmented one (GSO, or merged by GRO). Its segment size is not known; it
/// is cut so that each piece fits into the tunnel too. Smaller pieces than the sender planned are the same byte
/// stream (RFC 9293 §3.7.1 bounds segments from above only), and no piece is ever too big for the path it is for.
pub(super) fn infer(frame: &[u8], mtu: u16) -> Offload {
    let Some(transport) = Transport::find(frame) else {
        return Offload::default();
    };
    let checksum = if transport.checksum_is_partial(frame) {
        Checksum::Partial {
            start: transport.start,
            offset: transport.checksum_offset,
        }
    } else {
        Checksum::Complete
    };
    let gso = if frame.len() <= ETHERNET_LEN + usize::from(mtu) {
        Gso::None
    } else if transport.protocol == PROTOCOL_TCP {
        let headers = usize::from(transport.start) - ETHERNET_LEN + transport.header_len;
        // Room for the outer header of either version.
        let room = usize::from(mtu).saturating_sub(IPV6_LEN + headers);
        Gso::Tcp {
            segment: u16::try_from(room).unwrap_or(u16::MAX).max(1),
        }
    } else {
        Gso::Other(GSO_UDP_L4)
    };
    Offload { checksum, gso }
}

/// `VIRTIO_NET_HDR_GSO_UDP_L4`
const GSO_UDP_L4: u8 = 5;

/// Where a frame's TCP or UDP header is. Only a hint for [`infer`]: the core checks every length itself.
struct Transport {
    protocol: u8,
    start: u16,
    header_len: usize,
    checksum_offset: u16,
    /// Bytes of the transport header and payload.
    length: u16,
    /// The folded sum of source and destination address.
    addresses: u32,
}

impl Transport {
    fn find(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET_LEN..)?;
        let (protocol, header_len, total_len, addresses) = match frame.get(12..14)?.try_into() {
            Ok(ETHERTYPE_IPV4) => ipv4(ip)?,
            Ok(ETHERTYPE_IPV6) => ipv6(ip)?,
            Ok(_) | Err(_) => return None,
        };
        let transport = ip.get(header_len..total_len)?;
        let (transport_header_len, checksum_offset) = match protocol {
            PROTOCOL_TCP if transport.len() >= TCP_LEN_MIN => {
                (usize::from(transport[12] >> 4) * 4, TCP_CHECKSUM_AT)
            }
            PROTOCOL_UDP if transport.len() >= 8 => (8, UDP_CHECKSUM_AT),
            _ => return None,
        };
        Some(Self {
            protocol,
            start: u16::try_from(ETHERNET_LEN + header_len).ok()?,
            header_len: transport_header_len,
            checksum_offset: u16::try_from(checksum_offset).ok()?,
            length: u16::try_from(transport.len()).ok()?,
            addresses: fold(ip.get(addresses)?),
        })
    }

    fn checksum_is_partial(&self, frame: &[u8]) -> bool {
        let at = usize::from(self.start) + usize::from(self.checksum_offset);
        let have = u16::from_be_bytes([frame[at], frame[at + 1]]);
        // RFC 9293 §3.1, RFC 8200 §8.1: source, destination, protocol, length; folded twice (RFC 1071 §2).
        let sum = self.addresses + u32::from(self.protocol) + u32::from(self.length);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u32::from(have) == sum
    }
}

/// Protocol, header length, length of the whole packet, and where its addresses are.
type Network = (u8, usize, usize, Range<usize>);

fn ipv4(ip: &[u8]) -> Option<Network> {
    if ip.len() < IPV4_LEN_MIN || ip[0] >> 4 != 4 {
        return None;
    }
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // A fragment has no transport header of its own, and its checksum covers other fragments as well.
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    let fits = (IPV4_LEN_MIN..=total_len).contains(&header_len) && total_len <= ip.len();
    (fits && !fragment).then_some((ip[9], header_len, total_len, 12..20))
}

/// A local stack's TCP and UDP come without extension headers.
fn ipv6(ip: &[u8]) -> Option<Network> {
    if ip.len() < IPV6_LEN || ip[0] >> 4 != 6 {
        return None;
    }
    let total_len = IPV6_LEN + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    (total_len <= ip.len()).then_some((ip[6], IPV6_LEN, total_len, 8..40))
}

fn fold(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    let sum = words
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum::<u32>();
    (sum & 0xffff) + (sum >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(payload: usize, partial: bool) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4);
        let total = u16::try_from(40 + payload).unwrap();
        let [high, low] = total.to_be_bytes();
        frame.extend([0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0]);
        frame.extend([0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(vec![7; payload]);
        let pseudo = 0x0a00 + 1 + 0x0a00 + 2 + 6 + u32::from(total - 20);
        let value = if partial {
            pseudo
        } else {
            let padded: Vec<u8> = frame[34..].iter().copied().chain([0]).collect();
            let sum = padded
                .chunks_exact(2)
                .map(|p| u32::from(u16::from_be_bytes([p[0], p[1]])))
                .sum::<u32>()
                + pseudo;
            let sum = (sum & 0xffff) + (sum >> 16);
            0xffff - ((sum & 0xffff) + (sum >> 16))
        };
        frame[50..52].copy_from_slice(&u16::try_from(value).unwrap().to_be_bytes());
        frame
    }

    #[test]
    fn a_partial_checksum_is_told_from_a_finished_one() {
        assert_eq!(
            infer(&tcp(11, true), 1500).checksum,
            Checksum::Partial {
                start: 34,
                offset: 16
            }
        );
        assert_eq!(infer(&tcp(11, false), 1500), Offload::default());
    }

    #[test]
    fn ipv6_has_its_own_pseudo_header() {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0, 0, 9, PROTOCOL_UDP, 64]);
        frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
        ]);
        let pseudo: u32 = 2 * (0x2001 + 0x0db8) + 1 + 0xffff + u32::from(PROTOCOL_UDP) + 9;
        let [high, low] = u16::try_from((pseudo & 0xffff) + (pseudo >> 16))
            .unwrap()
            .to_be_bytes();
        frame.extend([0, 1, 0, 53, 0, 9, high, low, 7]);
        let partial = Checksum::Partial {
            start: 54,
            offset: 6,
        };
        assert_eq!(infer(&frame, 1500).checksum, partial);
        frame[60] ^= 1;
        assert_eq!(infer(&frame, 1500).checksum, Checksum::Complete);
    }

    #[test]
    fn a_frame_longer_than_the_mtu_is_cut_to_fit_the_tunnel() {
        assert_eq!(infer(&tcp(1460, true), 1500).gso, Gso::None);
        assert_eq!(
            infer(&tcp(20_000, true), 1500).gso,
            Gso::Tcp { segment: 1420 }
        );
        assert_eq!(infer(&tcp(20_000, true), 30).gso, Gso::Tcp { segment: 1 });
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = tcp(40, true);
        for length in 0..whole.len() {
            let _any = infer(&whole[..length], 1500);
        }
        for at in 12..54 {
            for value in [0, 1, 0x0f, 0x4f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                let _any = infer(&broken, 1500);
            }
        }
    }

    #[test]
    fn virtio_net_headers() {
        let mut header = [0; VNET_HDR_LEN];
        assert_eq!(from_vnet_header(&header), Offload::default());
        header[0] = 1;
        header[1] = 0x81;
        header[4..6].copy_from_slice(&1448_u16.to_ne_bytes());
        header[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        header[8..10].copy_from_slice(&16_u16.to_ne_bytes());
        let partial = Checksum::Partial {
            start: 34,
            offset: 16,
        };
        assert_eq!(
            from_vnet_header(&header),
            Offload {
                checksum: partial,
                gso: Gso::Tcp { segment: 1448 }
            }
        );
        header[1] = 4;
        assert_eq!(from_vnet_header(&header).gso, Gso::Tcp { segment: 1448 });
        header[1] = 5;
        assert_eq!(from_vnet_header(&header).gso, Gso::Udp { segment: 1448 });
        header[1] = 3;
        assert_eq!(from_vnet_header(&header).gso, Gso::Other(3));
        // NEEDS_CSUM is bit 0; DATA_VALID (bit 1) means the device checked it.
        header[0] = 2;
        assert_eq!(from_vnet_header(&header).checksum, Checksum::Complete);
    }
}
