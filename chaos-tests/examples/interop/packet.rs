//! Frames taken apart by hand, sharing no code with what they judge, up to what a server's stack hands to its transport:
//! fragments put together, tunnels opened. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
/// IPv4 and IPv6 as what a tunnel carries (RFC 2003, RFC 2473, RFC 4213).
const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;
/// Ethernet types.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERNET_LEN: usize = 14;
/// A packet has fewer extension headers; more is a chain that somebody made up.
const EXTENSIONS_MAX: usize = 8;

/// One IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// TOS byte or traffic class.
    pub(crate) tos: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// Protocol or the next header after the last extension.
    pub(crate) protocol: u8,
    /// IPv4 only.
    pub(crate) id: Option<u16>,
    /// Don't Fragment; `false` for IPv6, which has no such bit.
    pub(crate) df: bool,
    /// Flow label; 0 for IPv4.
    pub(crate) flow: u32,
    /// IPv4 options or IPv6 extension headers, but no fragment header.
    pub(crate) extra: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Set: it is a fragment.
    pub(crate) part: Option<Part>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: u32,
    /// Bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// The outer header of a tunnel. Without its identification, which every router counts for itself (RFC 6864).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) df: bool,
    pub(crate) flow: u32,
}

/// What arrives at a host: whole, and out of its tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) link_source: Mac,
    pub(crate) link_destination: Mac,
    pub(crate) outer: Option<Outer>,
    pub(crate) packet: Packet,
    /// Frames that it came in.
    pub(crate) frames: usize,
}

/// Everything that arrives by `frames`, in the order in which it is complete; fragments that belong to nothing whole come last, each
/// with its `part`.
///
/// # Errors
/// A sentence about the first frame that no host would take: lengths that contradict one another, a wrong header checksum.
pub(crate) fn deliveries(frames: &[Vec<u8>]) -> Result<Vec<Delivery>, String> {
    let mut received = Vec::new();
    for frame in frames {
        received.push(link(frame)?);
    }
    let mut opened = Vec::new();
    for (key, packet, frames) in assemble(received) {
        let in_tunnel = matches!(packet.protocol, IPIP | IPV6_IN) && packet.part.is_none();
        if in_tunnel {
            let outer = Outer::of(&packet);
            opened.push(((key, Some(outer)), Packet::parse(&packet.payload)?, frames));
        } else {
            opened.push(((key, None), packet, frames));
        }
    }
    let delivered = assemble(opened).into_iter();
    Ok(delivered
        .map(
            |(((link_source, link_destination), outer), packet, frames)| Delivery {
                link_source,
                link_destination,
                outer,
                packet,
                frames,
            },
        )
        .collect())
}

type Link = (Mac, Mac);

fn link(frame: &[u8]) -> Result<(Link, Packet, usize), String> {
    let too_short = || format!("a frame of {} bytes", frame.len());
    let (head, packet) = frame
        .split_first_chunk::<ETHERNET_LEN>()
        .ok_or_else(too_short)?;
    let mac = |at: usize| {
        let mut mac = Mac::default();
        mac.copy_from_slice(&head[at..at + 6]);
        mac
    };
    let packet = match [head[12], head[13]] {
        IPV4 | IPV6 => Packet::parse(packet)?,
        [a, b] => return Err(format!("a frame of type 0x{a:02x}{b:02x}")),
    };
    Ok(((mac(6), mac(0)), packet, 1))
}

/// Puts fragments together (RFC 791 §3.2, RFC 8200 §4.5); `key`: what else must agree. The numbers of frames add up.
fn assemble<K: PartialEq + Clone>(pieces: Vec<(K, Packet, usize)>) -> Vec<(K, Packet, usize)> {
    let mut whole = Vec::new();
    let mut waiting: Vec<Vec<(K, Packet, usize)>> = Vec::new();
    for piece in pieces {
        if piece.1.part.is_none() {
            whole.push(piece);
            continue;
        }
        let at = waiting
            .iter()
            .position(|group| group[0].belongs_with(&piece));
        let at = at.unwrap_or_else(|| {
            waiting.push(Vec::new());
            waiting.len() - 1
        });
        waiting[at].push(piece);
        if let Some(complete) = join(&waiting[at]) {
            waiting.remove(at);
            whole.push(complete);
        }
    }
    whole.extend(waiting.into_iter().flatten());
    whole
}

trait Piece {
    fn belongs_with(&self, other: &Self) -> bool;
}

impl<K: PartialEq> Piece for (K, Packet, usize) {
    fn belongs_with(&self, other: &Self) -> bool {
        let id = |packet: &Packet| packet.part.map(|part| part.id);
        let ends = |packet: &Packet| (packet.source, packet.destination, packet.protocol);
        self.0 == other.0 && ends(&self.1) == ends(&other.1) && id(&self.1) == id(&other.1)
    }
}

fn join<K: Clone>(pieces: &[(K, Packet, usize)]) -> Option<(K, Packet, usize)> {
    let mut ordered: Vec<_> = pieces
        .iter()
        .filter_map(|piece| Some((piece.1.part?, piece)))
        .collect();
    ordered.sort_by_key(|(part, _)| part.offset);
    let mut payload = Vec::new();
    let mut frames = 0;
    for (part, (_, packet, count)) in &ordered {
        if part.offset != payload.len() {
            return None;
        }
        payload.extend(&packet.payload);
        frames += count;
    }
    if ordered.last()?.0.more {
        return None;
    }
    let (key, first, _) = ordered.first()?.1;
    let packet = Packet {
        payload,
        part: None,
        ..first.clone()
    };
    Some((key.clone(), packet, frames))
}

impl Outer {
    fn of(packet: &Packet) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            tos: packet.tos,
            ttl: packet.ttl,
            df: packet.df,
            flow: packet.flow,
        }
    }
}

impl Packet {
    /// Reads a packet; bytes behind its end are padding.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::v4(bytes),
            Some(6) => Self::v6(bytes),
            _ => Err("no IP packet".to_owned()),
        }
    }

    fn v4(bytes: &[u8]) -> Result<Self, String> {
        let header_len = usize::from(bytes[0] & 0x0f) * 4;
        let total = usize::from(word(bytes, 2)?);
        if header_len < 20 || total < header_len || bytes.len() < total {
            return Err(format!(
                "an IPv4 packet of {} bytes that says {header_len} and {total}",
                bytes.len()
            ));
        }
        let (header, payload) = (&bytes[..header_len], &bytes[header_len..total]);
        if sum(header) != 0xffff {
            return Err("an IPv4 packet with a wrong header checksum".to_owned());
        }
        let id = word(bytes, 4)?;
        let fragment = word(bytes, 6)?;
        let part = Part {
            id: u32::from(id),
            offset: usize::from(fragment & 0x1fff) * 8,
            more: fragment & 0x2000 != 0,
        };
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        Ok(Self {
            source: address(12).into(),
            destination: address(16).into(),
            tos: bytes[1],
            ttl: bytes[8],
            protocol: bytes[9],
            id: Some(id),
            df: fragment & 0x4000 != 0,
            flow: 0,
            extra: header[20..].to_vec(),
            payload: payload.to_vec(),
            part: (part.more || part.offset > 0).then_some(part),
        })
    }

    fn v6(bytes: &[u8]) -> Result<Self, String> {
        let (header, rest) = bytes
            .split_first_chunk::<40>()
            .ok_or("an IPv6 packet without its header")?;
        let mut rest = rest
            .get(..usize::from(word(header, 4)?))
            .ok_or("an IPv6 packet that is cut off")?;
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            Ipv6Addr::from(octets)
        };
        let mut packet = Self {
            source: address(8).into(),
            destination: address(24).into(),
            tos: header[0] << 4 | header[1] >> 4,
            ttl: header[7],
            protocol: header[6],
            id: None,
            df: false,
            flow: u32::from_be_bytes([0, header[1] & 0x0f, header[2], header[3]]),
            extra: Vec::new(),
            payload: Vec::new(),
            part: None,
        };
        for _ in 0..EXTENSIONS_MAX {
            let cut = || "an IPv6 packet with a cut extension header".to_owned();
            let first = rest.first_chunk::<8>();
            let len = match packet.protocol {
                0 | 43 | 60 => 8 + usize::from(first.ok_or_else(cut)?[1]) * 8,
                44 => {
                    let fragment = first.ok_or_else(cut)?;
                    let place = word(fragment, 2)?;
                    let [.., a, b, c, d] = *fragment;
                    packet.part = Some(Part {
                        id: u32::from_be_bytes([a, b, c, d]),
                        offset: usize::from(place & 0xfff8),
                        more: place & 1 != 0,
                    });
                    8
                }
                _ => break,
            };
            let (extension, behind) = rest.split_at_checked(len).ok_or_else(cut)?;
            if packet.protocol != 44 {
                packet.extra.extend(extension);
            }
            packet.protocol = extension[0];
            rest = behind;
            if packet.part.is_some() {
                break;
            }
        }
        packet.payload = rest.to_vec();
        Ok(packet)
    }

    /// Whether the transport checksum is right. A fragment has none of its own, a UDP datagram of IPv4 may do without.
    pub(crate) fn is_sound(&self) -> bool {
        let with_pseudo = match self.protocol {
            ICMP => false,
            UDP if self.payload.get(6..8) == Some(&[0, 0]) => return self.source.is_ipv4(),
            TCP | UDP | ICMPV6 => true,
            _ => return true,
        };
        if self.part.is_some() {
            return true;
        }
        let mut summed = Vec::new();
        if with_pseudo {
            match (self.source, self.destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => summed.extend([a.octets(), b.octets()].concat()),
                (IpAddr::V6(a), IpAddr::V6(b)) => summed.extend([a.octets(), b.octets()].concat()),
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
            }
            summed.extend(
                u32::try_from(self.payload.len())
                    .unwrap_or(u32::MAX)
                    .to_be_bytes(),
            );
            summed.extend([0, 0, 0, self.protocol]);
        }
        summed.extend(&self.payload);
        sum(&summed) == 0xffff
    }

    /// Type and code, if it is an ICMP message of its version.
    pub(crate) fn icmp(&self) -> Option<(u8, u8)> {
        let of_version = if self.source.is_ipv4() { ICMP } else { ICMPV6 };
        let [kind, code] = *self.payload.first_chunk::<2>()?;
        (self.protocol == of_version && self.part.is_none()).then_some((kind, code))
    }

    /// The packet that an ICMP error quotes; `None`: it is no error.
    pub(crate) fn quote(&self) -> Option<&[u8]> {
        let is_error = match (self.source, self.icmp()?) {
            (IpAddr::V4(_), (kind, _)) => matches!(kind, 3 | 11 | 12),
            (IpAddr::V6(_), (kind, _)) => kind < 128,
        };
        self.payload.get(8..).filter(|_| is_error)
    }

    /// The message of an ICMP error without its checksum, and without that of the TCP or UDP header in its quote, if it is there.
    pub(crate) fn error_without_sums(&self) -> Vec<u8> {
        let mut message = self.payload.clone();
        let transport = match (self.source, message.get(8)) {
            (IpAddr::V4(_), Some(first)) => 8 + usize::from(first & 0x0f) * 4,
            (IpAddr::V4(_), None) | (IpAddr::V6(_), _) => 8 + 40,
        };
        let protocol_at = if self.source.is_ipv4() { 8 + 9 } else { 8 + 6 };
        let sum_at = match message.get(protocol_at) {
            Some(6) => Some(transport + 16),
            Some(17) => Some(transport + 6),
            _ => None,
        };
        for at in [Some(2), sum_at].into_iter().flatten() {
            if let Some(sum) = message.get_mut(at..at + 2) {
                sum.fill(0);
            }
        }
        message
    }

    /// The next hop's MTU in fragmentation-needed (RFC 1191 §4) or packet-too-big (RFC 4443 §3.2).
    pub(crate) fn next_hop_mtu(&self) -> Option<u32> {
        let field: [u8; 4] = *self.payload.get(4..)?.first_chunk()?;
        match (self.source, self.icmp()?) {
            (IpAddr::V4(_), (3, 4)) => Some(u32::from_be_bytes(field) & 0xffff),
            (IpAddr::V6(_), (2, 0)) => Some(u32::from_be_bytes(field)),
            _ => None,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u16, String> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>());
    word.map(|word| u16::from_be_bytes(*word))
        .ok_or_else(|| "a packet without its header".to_owned())
}

/// The one's complement sum (RFC 1071 §4.1).
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use dataplane_core::MacAddr;
    use dataplane_core::testing::{self, ACK};

    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
    const ATM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);

    fn segment(data: &[u8]) -> testing::Packet {
        testing::Packet::tcp((CLIENT, 4000), (VIP, 80), ACK, data).with(|p| p.fragment = 0)
    }

    fn cut(packet: &testing::Packet, at: usize) -> [testing::Packet; 2] {
        let (first, second) = packet.payload.split_at(at);
        let part = |payload: &[u8], word: u16| {
            let payload = payload.to_vec();
            packet
                .clone()
                .with(|p| (p.payload, p.fragment) = (payload, word))
        };
        let behind = u16::try_from(at / 8).unwrap();
        [part(first, 0x2000), part(second, behind)]
    }

    #[test]
    fn a_tunnelled_packet_comes_out_whole_wherever_it_was_cut() {
        let packet = segment(&[7; 1000]);
        let inside = cut(&packet, 504).map(|p| p.in_tunnel(ATM, SERVER, 9).frame(A, B));
        let outside = cut(&packet.in_tunnel(ATM, SERVER, 9), 800).map(|p| p.frame(A, B));
        let at_once = [packet.in_tunnel(ATM, SERVER, 9).frame(A, B)];
        let [at_once] = deliveries(&at_once).unwrap().try_into().unwrap();
        assert_eq!((at_once.frames, at_once.packet.id), (1, Some(0x1234)));
        assert!(at_once.packet.is_sound());
        assert_eq!(at_once.packet.payload, packet.payload);
        assert_eq!(
            at_once.outer.as_ref().unwrap().destination,
            IpAddr::V4(SERVER)
        );
        let expected = vec![Delivery {
            frames: 2,
            ..at_once
        }];
        for mut frames in [inside, outside] {
            assert_eq!(deliveries(&frames).unwrap(), expected);
            frames.reverse();
            assert_eq!(deliveries(&frames).unwrap(), expected);
        }
    }

    #[test]
    fn fragments_of_ipv6_come_out_whole() {
        let (client, vip) = (
            "2001:db8:1::7".parse().unwrap(),
            "2001:db8::64".parse().unwrap(),
        );
        let whole = testing::Packet6::udp((client, 4000), (vip, 53), &[3; 100]);
        let part = |payload: &[u8], place: [u8; 2]| {
            let header = [&[UDP, 0][..], &place, &[0, 0, 0, 7]].concat();
            let payload = [header, payload.to_vec()].concat();
            testing::Packet6::new(client, vip, 44, payload).frame(A, B)
        };
        let (first, second) = whole.payload.split_at(64);
        let frames = [part(first, [0, 1]), part(second, [0, 64])];
        let [delivery] = deliveries(&frames).unwrap().try_into().unwrap();
        assert_eq!((delivery.frames, delivery.packet.protocol), (2, UDP));
        assert_eq!(delivery.packet.payload, whole.payload);
        assert!(delivery.packet.is_sound());
    }

    #[test]
    fn a_fragment_without_the_others_stays_one() {
        let [first, _] = cut(&segment(&[7; 1000]), 504);
        let [delivery] = deliveries(&[first.frame(A, B)])
            .unwrap()
            .try_into()
            .unwrap();
        assert!(delivery.packet.part.unwrap().more);
    }

    #[test]
    fn what_no_host_takes_is_an_error() {
        let frame = segment(&[]).frame(A, B);
        for damage in [14, 16, 17, 24] {
            let mut damaged = frame.clone();
            damaged[damage] ^= 0x40;
            assert!(deliveries(&[damaged]).is_err(), "byte {damage}");
        }
        assert!(deliveries(&[frame[..40].to_vec()]).is_err());
        let arp = testing::arp((A, B), 1, (A, ATM), (B, VIP));
        assert!(deliveries(&[arp]).is_err());
    }

    #[test]
    fn a_wrong_transport_checksum_is_seen() {
        let mut packet = segment(b"data");
        assert!(Packet::parse(&packet.bytes()).unwrap().is_sound());
        packet.payload[17] ^= 1;
        assert!(!Packet::parse(&packet.bytes()).unwrap().is_sound());
    }

    #[test]
    fn errors_say_their_mtu_and_what_they_quote() {
        let quote = segment(&[]).bytes();
        let needed = testing::Packet::icmp(VIP, CLIENT, 3, 4, [0, 0, 5, 200], &quote);
        let needed = Packet::parse(&needed.bytes()).unwrap();
        assert_eq!(needed.next_hop_mtu(), Some(1480));
        assert_eq!(needed.quote(), Some(&quote[..]));
        let echo = testing::Packet::icmp(VIP, CLIENT, 0, 0, [0; 4], &quote);
        let echo = Packet::parse(&echo.bytes()).unwrap();
        assert_eq!((echo.next_hop_mtu(), echo.quote()), (None, None));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            for ethertype in [IPV4, IPV6] {
                let frame = [&[0; 12][..], &ethertype, bytes].concat();
                if let Ok(found) = deliveries(&[frame.clone(), frame]) {
                    for delivery in found {
                        let _ = (delivery.packet.is_sound(), delivery.packet.next_hop_mtu());
                        let _ = delivery.packet.quote();
                    }
                }
            }
        });
    }
}
