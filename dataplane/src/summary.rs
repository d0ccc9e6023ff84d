//! What a frame is, for people: from whom to whom, protocol, ports, flags. Nothing is decided by it, and nothing in a
//! frame is believed further than its bytes reach.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dataplane_core::MacAddr;

/// Extension headers that are looked behind: more than any sane packet has.
const EXTENSIONS_MAX: usize = 8;

/// A frame in one line, and what the line is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Where the frame goes on the wire.
    pub link_destination: Option<MacAddr>,
    /// Where its packet comes from; the sender of an ARP packet.
    pub source: Option<IpAddr>,
    /// Where its packet goes; the target of an ARP packet.
    pub destination: Option<IpAddr>,
    /// Source and destination port, of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// `arp`, or the protocol in the IP packet: `tcp`, `udp`, `icmp`.
    pub protocol: Option<String>,
    /// The flags of a TCP segment: `SYN,ACK`.
    pub flags: Option<String>,
    /// The line: `192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN] len 0`.
    pub text: String,
}

impl Summary {
    /// Looks into a frame, cut off or not.
    pub fn of(frame: &[u8]) -> Self {
        let mut summary = Self {
            link_destination: frame.first_chunk().map(|mac| MacAddr(*mac)),
            ..Self::default()
        };
        if summary.ethernet(frame).is_none() {
            let _ = write!(summary.text, "{} bytes", frame.len());
        }
        summary
    }

    fn ethernet(&mut self, frame: &[u8]) -> Option<()> {
        let mut rest = frame.get(12..)?;
        loop {
            let ethertype = word(rest, 0)?;
            rest = rest.get(2..)?;
            let shown = match ethertype {
                // IEEE 802.1Q and 802.1ad.
                0x8100 | 0x88a8 => {
                    let _ = write!(self.text, "vlan {} ", word(rest, 0)? & 0x0fff);
                    rest = rest.get(2..)?;
                    continue;
                }
                0x0800 => self.ipv4(rest),
                0x86dd => self.ipv6(rest),
                0x0806 => self.arp(rest),
                _ => None,
            };
            if shown.is_none() {
                let _ = write!(self.text, "ethertype 0x{ethertype:04x}");
            }
            return Some(());
        }
    }

    fn arp(&mut self, packet: &[u8]) -> Option<()> {
        let sender = v4(packet, 14)?;
        let target = v4(packet, 24)?;
        self.source = Some(sender.into());
        self.destination = Some(target.into());
        self.protocol = Some("arp".to_owned());
        let _ = match word(packet, 6)? {
            1 => write!(self.text, "arp who-has {target} tell {sender}"),
            2 => write!(
                self.text,
                "arp {sender} is-at {}",
                MacAddr(*packet.get(8..)?.first_chunk()?)
            ),
            operation => write!(self.text, "arp operation {operation}"),
        };
        Some(())
    }

    fn ipv4(&mut self, packet: &[u8]) -> Option<()> {
        let (source, destination) = (v4(packet, 12)?, v4(packet, 16)?);
        let header = usize::from(*packet.first()? & 0x0f) * 4;
        let length = usize::from(word(packet, 2)?).saturating_sub(header);
        let fragment = word(packet, 6)?;
        let data = Data::new(packet.get(header..).unwrap_or_default(), length);
        let place = Fragment {
            offset: (fragment & 0x1fff) * 8,
            more: fragment & 0x2000 != 0,
        };
        self.transport((source.into(), destination.into()), packet[9], data, place);
        Some(())
    }

    fn ipv6(&mut self, packet: &[u8]) -> Option<()> {
        let (source, destination) = (v6(packet, 8)?, v6(packet, 24)?);
        let mut protocol = packet[6];
        let length = usize::from(word(packet, 4)?);
        let mut data = Data::new(packet.get(40..).unwrap_or_default(), length);
        let mut place = Fragment::default();
        for _ in 0..EXTENSIONS_MAX {
            // Hop-by-hop, routing, fragment and destination options (RFC 8200 §4.1).
            let length = match protocol {
                0 | 43 | 60 => 8 + data.bytes.get(1).map_or(0, |units| usize::from(*units) * 8),
                44 => {
                    let field = word(data.bytes, 2).unwrap_or_default();
                    place = Fragment {
                        offset: field & 0xfff8,
                        more: field & 1 != 0,
                    };
                    8
                }
                _ => break,
            };
            let (Some(next), Some(rest)) = (data.bytes.first(), data.bytes.get(length..)) else {
                break;
            };
            protocol = *next;
            data = Data::new(rest, data.length.saturating_sub(length));
            if place.offset > 0 {
                break;
            }
        }
        self.transport((source.into(), destination.into()), protocol, data, place);
        Some(())
    }

    fn transport(&mut self, ends: (IpAddr, IpAddr), protocol: u8, data: Data<'_>, place: Fragment) {
        let (source, destination) = ends;
        self.source = Some(source);
        self.destination = Some(destination);
        self.protocol = Some(name(protocol));
        let text = &mut self.text;
        let ports = word(data.bytes, 0)
            .zip(word(data.bytes, 2))
            .filter(|_| place.offset == 0);
        let _ = match (protocol, ports) {
            (6 | 17, Some((from, to))) => {
                self.ports = ports;
                let (from, to) = (
                    SocketAddr::new(source, from),
                    SocketAddr::new(destination, to),
                );
                write!(text, "{from} > {to} ")
            }
            _ => write!(text, "{source} > {destination} "),
        };
        let _ = match protocol {
            _ if place.offset > 0 => write!(text, "{}", name(protocol)),
            1 | 58 => write!(text, "{} {}", name(protocol), message(protocol, data.bytes)),
            6 => match flags(data) {
                Some((flags, length)) => {
                    let written = write!(text, "tcp [{flags}] len {length}");
                    self.flags = Some(flags);
                    written
                }
                None => write!(text, "tcp cut"),
            },
            17 => write!(text, "udp len {}", data.length.saturating_sub(8)),
            _ => write!(text, "{}", name(protocol)),
        };
        if place.offset > 0 || place.more {
            let _ = write!(text, " fragment at {}", place.offset);
        }
    }
}

/// Between whom a frame is: source and destination of its packet. An ARP packet or a neighbour solicitation or
/// advertisement is to the address it asks for or tells of. Costs a few loads: for every frame while somebody looks.
pub(crate) fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let mut at = 12;
    // No sane frame has more than two VLAN tags (IEEE 802.1ad).
    for _tag in 0..3 {
        let packet = frame.get(at + 2..)?;
        return match word(frame, at)? {
            0x8100 | 0x88a8 => {
                at += 4;
                continue;
            }
            0x0800 => Some((v4(packet, 12)?.into(), v4(packet, 16)?.into())),
            0x0806 => Some((v4(packet, 14)?.into(), v4(packet, 24)?.into())),
            0x86dd => {
                // RFC 4861 §4.3 and §4.4: the target stands behind four bytes of header and four of flags.
                let neighbour = packet.get(6) == Some(&58)
                    && packet.get(40).is_some_and(|kind| matches!(kind, 135 | 136));
                let to = if neighbour { 48 } else { 24 };
                Some((v6(packet, 8)?.into(), v6(packet, to)?.into()))
            }
            _ => None,
        };
    }
    None
}

/// What follows an IP header.
#[derive(Clone, Copy, Debug)]
struct Data<'a> {
    /// As much as there is of it.
    bytes: &'a [u8],
    /// How long the header says it is.
    length: usize,
}

impl<'a> Data<'a> {
    fn new(bytes: &'a [u8], length: usize) -> Self {
        Self {
            bytes: bytes.get(..length).unwrap_or(bytes),
            length,
        }
    }
}

/// Where a fragment's bytes belong, and whether there are more behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Fragment {
    offset: u16,
    more: bool,
}

fn name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        4 => "ipip".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        41 => "ipv6".to_owned(),
        58 => "icmp6".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// Flags and length of a TCP segment.
fn flags(data: Data<'_>) -> Option<(String, usize)> {
    const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let (offset, flags) = (data.bytes.get(12)?, data.bytes.get(13)?);
    let set = FLAGS
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 != 0)
        .map(|(_, name)| *name);
    let set: Vec<_> = set.collect();
    let length = data.length.saturating_sub(usize::from(offset >> 4) * 4);
    Some((set.join(","), length))
}

/// An ICMP message by the names that matter here.
fn message(protocol: u8, data: &[u8]) -> String {
    let (Some(kind), Some(code)) = (data.first(), data.get(1)) else {
        return "cut".to_owned();
    };
    match (protocol, kind, code) {
        (1, 8, 0) | (58, 128, 0) => "echo-request".to_owned(),
        (1, 0, 0) | (58, 129, 0) => "echo-reply".to_owned(),
        (1, 3, 4) => "fragmentation-needed".to_owned(),
        (1, 3, code) => format!("unreachable code {code}"),
        (1, 11, _) | (58, 3, _) => "time-exceeded".to_owned(),
        (58, 1, code) => format!("unreachable code {code}"),
        (58, 2, _) => "packet-too-big".to_owned(),
        (58, 135, _) => "neighbour-solicitation".to_owned(),
        (58, 136, _) => "neighbour-advertisement".to_owned(),
        _ => format!("type {kind} code {code}"),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn v4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn v6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(ethertype: [u8; 2], packet: &[u8]) -> String {
        Summary::of(&[&[0xaa; 12][..], &ethertype, packet].concat()).text
    }

    fn v4_packet(protocol: u8, fragment: u16, data: &[u8]) -> Vec<u8> {
        let [total_high, total_low] = u16::try_from(20 + data.len()).unwrap().to_be_bytes();
        let [high, low] = fragment.to_be_bytes();
        let header = [
            0x45, 0, total_high, total_low, 0, 0, high, low, 64, protocol, 0, 0,
        ];
        [&header[..], &[192, 0, 2, 7, 10, 0, 0, 100], data].concat()
    }

    fn v6_packet(protocol: u8, data: &[u8]) -> Vec<u8> {
        let length = u8::try_from(data.len()).unwrap();
        let mut packet = vec![0x60, 0, 0, 0, 0, length, protocol, 64];
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets());
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100).octets());
        [&packet[..], data].concat()
    }

    const SEGMENT: [u8; 22] = [
        0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0, 1, 2,
    ];

    #[test]
    fn frames_of_every_kind() {
        const IPV4: [u8; 2] = [8, 0];
        const IPV6: [u8; 2] = [0x86, 0xdd];
        let datagram = [0x9c, 0x40, 0, 53, 0, 11, 0, 0, 1, 2, 3];
        let arp = |operation| {
            [
                &[0, 1, 8, 0, 6, 4, 0, operation][..],
                &[2, 0, 0, 0, 0, 1],
                &[10, 0, 0, 1],
                &[0; 6],
                &[10, 0, 0, 100],
            ]
            .concat()
        };
        let fragment = [&[6, 0, 0, 1, 0, 0, 0, 0][..], &SEGMENT].concat();
        let later = [&[6, 0, 0x05, 0xa8, 0, 0, 0, 0][..], &SEGMENT].concat();
        for (text, expected) in [
            (
                ip(IPV4, &v4_packet(6, 0x4000, &SEGMENT)),
                "192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN,ACK] len 2",
            ),
            (
                ip(IPV6, &v6_packet(6, &SEGMENT)),
                "[2001:db8::7]:40000 > [2001:db8::100]:80 tcp [SYN,ACK] len 2",
            ),
            (
                ip(IPV4, &v4_packet(17, 0, &datagram)),
                "192.0.2.7:40000 > 10.0.0.100:53 udp len 3",
            ),
            (
                ip(IPV4, &v4_packet(1, 0, &[8, 0, 0, 0])),
                "192.0.2.7 > 10.0.0.100 icmp echo-request",
            ),
            (
                ip(IPV6, &v6_packet(58, &[2, 0, 0, 0])),
                "2001:db8::7 > 2001:db8::100 icmp6 packet-too-big",
            ),
            (
                ip(IPV4, &v4_packet(6, 0x2000, &SEGMENT)),
                "192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN,ACK] len 2 fragment at 0",
            ),
            (
                ip(IPV4, &v4_packet(6, 185, &SEGMENT)),
                "192.0.2.7 > 10.0.0.100 tcp fragment at 1480",
            ),
            (
                ip(IPV6, &v6_packet(44, &fragment)),
                "[2001:db8::7]:40000 > [2001:db8::100]:80 tcp [SYN,ACK] len 2 fragment at 0",
            ),
            (
                ip(IPV6, &v6_packet(44, &later)),
                "2001:db8::7 > 2001:db8::100 tcp fragment at 1448",
            ),
            (
                ip(IPV4, &v4_packet(4, 0, &[])),
                "192.0.2.7 > 10.0.0.100 ipip",
            ),
            (
                ip(IPV4, &v4_packet(132, 0, &[])),
                "192.0.2.7 > 10.0.0.100 protocol 132",
            ),
            (
                ip(IPV4, &v4_packet(6, 0, &SEGMENT[..8])),
                "192.0.2.7:40000 > 10.0.0.100:80 tcp cut",
            ),
            (ip([8, 6], &arp(1)), "arp who-has 10.0.0.100 tell 10.0.0.1"),
            (ip([8, 6], &arp(2)), "arp 10.0.0.1 is-at 02:00:00:00:00:01"),
            (
                ip([0x81, 0], &[&[0, 5, 8, 6][..], &arp(1)].concat()),
                "vlan 5 arp who-has 10.0.0.100 tell 10.0.0.1",
            ),
            (
                ip(
                    IPV4,
                    &v4_packet(6, 0, &[&SEGMENT[..], &[0; 1000]].concat())[..54],
                ),
                "192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN,ACK] len 1002",
            ),
            (ip([0x88, 0xcc], &[]), "ethertype 0x88cc"),
            (Summary::of(&[1; 13]).text, "13 bytes"),
        ] {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_the_line_is_made_of_and_between_whom_it_is() {
        let packet = v4_packet(6, 0x4000, &SEGMENT);
        let tagged = [&[0xaa; 12][..], &[0x81, 0, 0, 5, 8, 0], &packet].concat();
        let summary = Summary::of(&tagged);
        let (client, vip) = (IpAddr::from([192, 0, 2, 7]), IpAddr::from([10, 0, 0, 100]));
        assert_eq!(
            (summary.source, summary.destination, summary.ports),
            (Some(client), Some(vip), Some((40000, 80)))
        );
        assert_eq!(summary.protocol.as_deref(), Some("tcp"));
        assert_eq!(summary.flags.as_deref(), Some("SYN,ACK"));
        assert_eq!(ends(&tagged), Some((client, vip)));

        let (client, vip): (Ipv6Addr, Ipv6Addr) = (
            "2001:db8::7".parse().unwrap(),
            "2001:db8::100".parse().unwrap(),
        );
        let frame = |data: &[u8]| {
            let packet = v6_packet(58, data);
            [&[0xaa; 12][..], &[0x86, 0xdd], &packet].concat()
        };
        let between = |ends: (Ipv6Addr, Ipv6Addr)| Some((ends.0.into(), ends.1.into()));
        assert_eq!(ends(&frame(&[128, 0, 0, 0])), between((client, vip)));
        let target: Ipv6Addr = "2001:db8::200".parse().unwrap();
        let asks = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        assert_eq!(ends(&frame(&asks)), between((client, target)));
        assert_eq!(ends(&frame(&asks[..20])), None);
        assert_eq!(ends(&[0x81, 0].repeat(20)), None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        bolero::check!().for_each(|frame: &[u8]| {
            assert!(!Summary::of(frame).text.is_empty());
            let _any = ends(frame);
            for (ethertype, packet) in [([8, 0], 0x45), ([0x86, 0xdd], 0x60), ([8, 6], 0)] {
                let frame = [&[0; 12][..], &ethertype, &[packet], frame].concat();
                assert!(!Summary::of(&frame).text.is_empty());
            }
        });
    }
}
