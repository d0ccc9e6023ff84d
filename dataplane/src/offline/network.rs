//! The hosts on the wire beside the ATM, as far as the core asks for them: it asks by ARP and by neighbour
//! solicitation, and every host answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_core::MacAddr;

/// Ethernet types (IEEE 802 numbers of IANA).
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet over IPv4 (RFC 826), up to the operation.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ICMPV6: u8 = 58;
/// RFC 4861 §4.3 and §4.4.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Neighbour discovery never passes a router (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;

/// Which Ethernet address each host has.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    given: BTreeMap<IpAddr, MacAddr>,
}

impl Network {
    /// All hosts follow the rule of [`mac`](Self::mac) but those that are `given`.
    pub(super) const fn new(given: BTreeMap<IpAddr, MacAddr>) -> Self {
        Self { given }
    }

    /// 02:00 (locally administered), then the IPv4 address or the last four bytes of the IPv6 address.
    pub(super) fn mac(&self, host: IpAddr) -> MacAddr {
        if let Some(mac) = self.given.get(&host) {
            return *mac;
        }
        let [a, b, c, d] = match host {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                [a, b, c, d]
            }
        };
        MacAddr([2, 0, a, b, c, d])
    }

    /// The answer of the host that `frame` asks for; `None`: it is no question. An announcement is none, and neither is
    /// the question whether an address is taken.
    pub(super) fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let (header, packet) = frame.split_first_chunk::<14>()?;
        let asker = MacAddr(*header[6..].first_chunk()?);
        match [header[12], header[13]] {
            ARP => self.arp(packet, asker),
            IPV6 => self.advertisement(packet, asker),
            _ => None,
        }
    }

    /// Whether somebody is asked for its Ethernet address.
    pub(super) fn is_question(frame: &[u8]) -> bool {
        Self::default().answer(frame).is_some()
    }

    fn arp(&self, packet: &[u8], asker: MacAddr) -> Option<Vec<u8>> {
        let (kind, rest) = packet.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let sender_mac = rest.first_chunk::<6>()?;
        let sender = Ipv4Addr::from(*rest.get(6..)?.first_chunk::<4>()?);
        let target = Ipv4Addr::from(*rest.get(16..)?.first_chunk::<4>()?);
        if *kind != ARP_OF_IPV4 || *operation != [0, 1] || sender == target {
            return None;
        }
        let mac = self.mac(target.into());
        let frame = [
            &asker.0[..],
            &mac.0,
            &ARP,
            &ARP_OF_IPV4,
            &[0, 2],
            &mac.0,
            &target.octets(),
            sender_mac,
            &sender.octets(),
        ];
        Some(frame.concat())
    }

    fn advertisement(&self, packet: &[u8], asker: MacAddr) -> Option<Vec<u8>> {
        let (header, message) = packet.split_first_chunk::<40>()?;
        let asking = Ipv6Addr::from(*header[8..].first_chunk::<16>()?);
        let (kind, rest) = message.split_first()?;
        let target = *rest.get(7..)?.first_chunk::<16>()?;
        if header[6] != ICMPV6 || *kind != SOLICITATION || asking.is_unspecified() {
            return None;
        }
        let mac = self.mac(Ipv6Addr::from(target).into());
        // Solicited and override, and the target's Ethernet address as its one option.
        let mut message = [
            &[ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0][..],
            &target,
            &[2, 1],
            &mac.0,
        ]
        .concat();
        let checksum = !checksum_of(&target, &asking.octets(), &message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let frame = [
            &asker.0[..],
            &mac.0,
            &IPV6,
            &[0x60, 0, 0, 0, 0, 32, ICMPV6, HOP_LIMIT],
            &target,
            &asking.octets(),
            &message,
        ];
        Some(frame.concat())
    }
}

/// The one's complement sum over an ICMPv6 message of even length and its pseudo-header (RFC 8200 §8.1).
fn checksum_of(source: &[u8; 16], destination: &[u8; 16], message: &[u8]) -> u16 {
    let words = [source, destination, message];
    let mut sum = u32::from(ICMPV6) + u32::try_from(message.len()).unwrap_or_default();
    for word in words.iter().flat_map(|part| part.chunks_exact(2)) {
        sum += u32::from(word[0]) << 8 | u32::from(word[1]);
    }
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 10, 0, 0, 1]);

    fn network() -> Network {
        let given = (
            "10.0.0.12".parse().unwrap(),
            MacAddr([0x52, 0x54, 0, 0, 0, 0x12]),
        );
        Network::new(BTreeMap::from([given]))
    }

    fn question(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let head = [
            &[0xff; 6][..],
            &ASKER.0,
            &ARP,
            &ARP_OF_IPV4,
            &[0, 1],
            &ASKER.0,
        ]
        .concat();
        [&head[..], &sender, &[0; 6], &target].concat()
    }

    #[test]
    fn a_host_has_the_address_given_or_that_of_the_rule() {
        for (host, mac) in [
            ("10.0.0.11", [2, 0, 10, 0, 0, 11]),
            ("10.0.0.12", [0x52, 0x54, 0, 0, 0, 0x12]),
            ("2001:db8::1234:5678", [2, 0, 0x12, 0x34, 0x56, 0x78]),
        ] {
            assert_eq!(network().mac(host.parse().unwrap()), MacAddr(mac), "{host}");
        }
    }

    #[test]
    fn arp_is_answered_by_whom_it_asks_for() {
        let answer = network()
            .answer(&question([10, 0, 0, 1], [10, 0, 0, 12]))
            .unwrap();
        let expected = [
            &[2, 0, 10, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 0x12, 8, 6][..],
            &[
                0, 1, 8, 0, 6, 4, 0, 2, 0x52, 0x54, 0, 0, 0, 0x12, 10, 0, 0, 12,
            ],
            &[2, 0, 10, 0, 0, 1, 10, 0, 0, 1],
        ];
        assert_eq!(answer, expected.concat());
    }

    #[test]
    fn an_announcement_is_no_question() {
        assert_eq!(
            network().answer(&question([10, 0, 0, 100], [10, 0, 0, 100])),
            None
        );
        let good = question([10, 0, 0, 1], [10, 0, 0, 12]);
        for cut in 1..=good.len() {
            assert_eq!(network().answer(&good[..good.len() - cut]), None);
        }
    }

    #[test]
    fn a_solicitation_is_answered_with_a_right_checksum() {
        let asking: Ipv6Addr = "fe80::1".parse().unwrap();
        let target: Ipv6Addr = "2001:db8::b".parse().unwrap();
        let head = [&[0x33, 0x33, 0xff, 0, 0, 0x0b][..], &ASKER.0, &IPV6].concat();
        let header = [
            &[0x60, 0, 0, 0, 0, 24, 58, 255][..],
            &asking.octets(),
            &[0xff; 16],
        ]
        .concat();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        let question = [head, header, message].concat();
        let answer = network().answer(&question).unwrap();
        assert_eq!(
            answer[..14],
            [&ASKER.0[..], &[2, 0, 0, 0, 0, 0x0b], &IPV6].concat()
        );
        assert_eq!(answer[18..22], [0, 32, 58, 255]);
        assert_eq!(answer[22..54], [target.octets(), asking.octets()].concat());
        assert_eq!(answer[54..56], [136, 0]);
        assert_eq!(answer[58..62], [0x60, 0, 0, 0]);
        assert_eq!(
            answer[62..],
            [&target.octets()[..], &[2, 1, 2, 0, 0, 0, 0, 0x0b]].concat()
        );
        // A message summed with its own checksum gives all ones (RFC 1071 §1).
        assert_eq!(
            checksum_of(&target.octets(), &asking.octets(), &answer[54..]),
            0xffff
        );
        let mut duplicate = question;
        duplicate[22..38].fill(0);
        assert_eq!(network().answer(&duplicate), None);
    }
}
