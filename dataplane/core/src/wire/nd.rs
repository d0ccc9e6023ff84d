//! Neighbour discovery: solicitations and advertisements (RFC 4861 §4.3, §4.4).

use std::net::Ipv6Addr;
use std::ops::Deref;

use super::checksum::Sum;
use super::ethernet::{self, Ethernet};
use super::ipv6::{self, Header, Ipv6};
use crate::{MacAddr, Malformed};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, flags, target.
const MESSAGE_LEN: usize = 24;
/// Source and target link-layer address (RFC 4861 §4.6.1).
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
/// An option with an Ethernet address.
const LINK_OPTION_LEN: usize = 8;
const MESSAGE_AND_OPTION_LEN: u16 = 32;
/// A packet with another hop limit has passed a router, and is nobody's neighbour's (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// A whole frame of ours.
pub(crate) const FRAME_LEN: usize =
    ethernet::HEADER_LEN + ipv6::HEADER_LEN + MESSAGE_LEN + LINK_OPTION_LEN;

/// ff02::1
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who has `target`?
    Solicitation,
    /// I have `target`.
    Advertisement,
}

/// The fields of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) kind: Kind,
    /// The packet's source; unspecified: somebody is about to take `target` and looks whether it is free (RFC 4862 §5.4).
    pub(crate) source: Ipv6Addr,
    pub(crate) target: Ipv6Addr,
    /// The Ethernet address in the option that belongs to the kind.
    pub(crate) link: Option<MacAddr>,
}

/// Whether a packet may be such a message, before anything else of it is believed.
pub(crate) fn is_message(packet: &[u8]) -> bool {
    ipv6::next_header(packet) == Some(ipv6::ICMPV6)
        && matches!(
            packet.get(ipv6::HEADER_LEN),
            Some(&(SOLICITATION | ADVERTISEMENT))
        )
}

/// The target of what may be such a message, likewise.
pub(crate) fn target(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: &[u8; 16] = packet.get(ipv6::HEADER_LEN + 8..)?.first_chunk()?;
    Some(Ipv6Addr::from(*octets))
}

impl Neighbour {
    /// Validates as RFC 4861 §7.1.1 and §7.1.2 say.
    pub(crate) fn parse<B: Deref<Target = [u8]>>(packet: &Ipv6<B>) -> Result<Self, Malformed> {
        let bytes = packet.payload();
        let message = bytes
            .first_chunk::<MESSAGE_LEN>()
            .ok_or(Malformed::Truncated)?;
        let len = u16::try_from(bytes.len()).map_err(|_| Malformed::TotalLength)?;
        if packet.pseudo_header(len).bytes(bytes).finish() != 0 {
            return Err(Malformed::Checksum);
        }
        let (kind, wanted) = match message[0] {
            SOLICITATION => (Kind::Solicitation, SOURCE_LINK),
            ADVERTISEMENT => (Kind::Advertisement, TARGET_LINK),
            _ => return Err(Malformed::NeighbourDiscovery),
        };
        let target = target(packet.bytes()).ok_or(Malformed::Truncated)?;
        if message[1] != 0 || packet.hop_limit() != HOP_LIMIT || target.is_multicast() {
            return Err(Malformed::NeighbourDiscovery);
        }
        let mut link = None;
        let mut options = &bytes[MESSAGE_LEN..];
        while let [kind, len, ..] = *options {
            let len = usize::from(len) * 8;
            let Some(option) = options.get(..len).filter(|_| len > 0) else {
                return Err(Malformed::NeighbourDiscovery);
            };
            if let (true, [_, _, a, b, c, d, e, f]) = (kind == wanted, option) {
                let mac = MacAddr([*a, *b, *c, *d, *e, *f]);
                if mac.is_group() || mac == MacAddr::ZERO {
                    return Err(Malformed::NeighbourDiscovery);
                }
                link = Some(mac);
            }
            options = &options[len..];
        }
        if !options.is_empty() {
            return Err(Malformed::NeighbourDiscovery);
        }
        let source = packet.source();
        if source.is_unspecified() && (kind == Kind::Advertisement || link.is_some()) {
            return Err(Malformed::NeighbourDiscovery);
        }
        Ok(Self {
            kind,
            source,
            target,
            link,
        })
    }
}

/// The multicast group in which who has `address` listens (RFC 4291 §2.7.1).
pub(crate) const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., low1, low2] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (low1 & 0xff), low2)
}

/// The Ethernet address of a multicast group (RFC 2464 §7).
pub(crate) const fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Asks who has `target`, in the name of `source`; with `to`, only whether that one still has it (RFC 4861 §7.2.2, §7.3.1).
pub(crate) fn solicitation(
    mac: MacAddr,
    source: Ipv6Addr,
    target: Ipv6Addr,
    to: Option<MacAddr>,
) -> [u8; FRAME_LEN] {
    let group = solicited_node(target);
    let (link, destination) = match to {
        Some(to) => (to, target),
        None => (group_mac(group), group),
    };
    frame(
        SOLICITATION,
        0,
        target,
        (SOURCE_LINK, mac),
        (mac, link),
        (source, destination),
    )
}

/// Says that `target` is at `mac`, overriding what is known (RFC 4861 §7.2.4, §7.2.6). `router`: it is one, or hosts that have it as
/// their router would give it up (§7.2.5). `to`: who asked; `None`: everybody.
pub(crate) fn advertisement(
    mac: MacAddr,
    target: Ipv6Addr,
    router: bool,
    to: Option<(MacAddr, Ipv6Addr)>,
) -> [u8; FRAME_LEN] {
    let mut flags = OVERRIDE;
    if to.is_some() {
        flags |= SOLICITED;
    }
    if router {
        flags |= ROUTER;
    }
    let (link, destination) = to.unwrap_or((group_mac(ALL_NODES), ALL_NODES));
    frame(
        ADVERTISEMENT,
        flags,
        target,
        (TARGET_LINK, mac),
        (mac, link),
        (target, destination),
    )
}

fn frame(
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: (u8, MacAddr),
    (from, to): (MacAddr, MacAddr),
    (source, destination): (Ipv6Addr, Ipv6Addr),
) -> [u8; FRAME_LEN] {
    const IP_AT: usize = ethernet::HEADER_LEN;
    const MESSAGE_AT: usize = IP_AT + ipv6::HEADER_LEN;
    const OPTION_AT: usize = MESSAGE_AT + MESSAGE_LEN;
    let header = Header {
        traffic_class: 0,
        payload_len: MESSAGE_AND_OPTION_LEN,
        next_header: ipv6::ICMPV6,
        hop_limit: HOP_LIMIT,
        source,
        destination,
    };
    let link = Ethernet {
        destination: to,
        source: from,
        ethertype: ethernet::IPV6,
    };
    let mut frame = [0; FRAME_LEN];
    frame[..IP_AT].copy_from_slice(&link.bytes());
    frame[IP_AT..MESSAGE_AT].copy_from_slice(&header.bytes());
    frame[MESSAGE_AT] = kind;
    frame[MESSAGE_AT + 4] = flags;
    frame[MESSAGE_AT + 8..OPTION_AT].copy_from_slice(&target.octets());
    frame[OPTION_AT] = option.0;
    frame[OPTION_AT + 1] = 1;
    frame[OPTION_AT + 2..].copy_from_slice(&option.1.0);
    let sum: Sum = header.pseudo_header().bytes(&frame[MESSAGE_AT..]);
    frame[MESSAGE_AT + 2..MESSAGE_AT + 4].copy_from_slice(&sum.finish().to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn read(frame: &[u8]) -> Result<Neighbour, Malformed> {
        assert!(is_message(&frame[14..]));
        Neighbour::parse(&Ipv6::parse(&frame[14..]).unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let (ours, vip) = (address("fe80::1"), address("2001:db8::1:2:3"));
        let frame = solicitation(MAC, ours, vip, None);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 2, 0, 3]);
        let asked = Neighbour {
            kind: Kind::Solicitation,
            source: ours,
            target: vip,
            link: Some(MAC),
        };
        assert_eq!(read(&frame), Ok(asked));
        let to = MacAddr([2, 0, 0, 0, 0, 9]);
        assert_eq!(solicitation(MAC, ours, vip, Some(to))[..6], to.0);
        for (to, router, flags) in [
            (None, false, 0x20),
            (Some((to, ours)), false, 0x60),
            (None, true, 0xa0),
            (Some((to, ours)), true, 0xe0),
        ] {
            let frame = advertisement(MAC, vip, router, to);
            let told = Neighbour {
                kind: Kind::Advertisement,
                source: vip,
                ..asked
            };
            assert_eq!(read(&frame), Ok(told));
            assert_eq!(frame[58], flags);
        }
    }

    #[test]
    fn the_example_of_rfc_4291() {
        assert_eq!(
            solicited_node(address("4037::01:800:200e:8c6c")),
            address("ff02::1:ff0e:8c6c")
        );
    }

    #[test]
    fn what_rfc_4861_forbids_is_malformed() {
        let sound = solicitation(MAC, address("fe80::1"), address("2001:db8::1"), None);
        let reseal = |change: &dyn Fn(&mut [u8])| {
            let mut frame = sound;
            change(&mut frame);
            frame[56..58].fill(0);
            let packet = Ipv6::parse(&frame[14..]).unwrap();
            let sum = packet.pseudo_header(32).bytes(packet.payload()).finish();
            frame[56..58].copy_from_slice(&sum.to_be_bytes());
            read(&frame)
        };
        assert!(reseal(&|_| {}).is_ok());
        let bad = Err(Malformed::NeighbourDiscovery);
        assert_eq!(reseal(&|frame| frame[21] = 254), bad, "hop limit");
        assert_eq!(reseal(&|frame| frame[55] = 1), bad, "code");
        assert_eq!(reseal(&|frame| frame[62] = 0xff), bad, "target");
        assert_eq!(reseal(&|frame| frame[79] = 0), bad, "option of no length");
        assert_eq!(reseal(&|frame| frame[79] = 2), bad, "option past the end");
        assert_eq!(reseal(&|frame| frame[80] = 3), bad, "group as address");
        assert_eq!(
            reseal(&|frame| frame[22..38].fill(0)),
            bad,
            "an address from nobody"
        );
        let mut damaged = sound;
        damaged[60] ^= 1;
        assert_eq!(read(&damaged), Err(Malformed::Checksum));
    }
}
