//! Every parser on bytes from anywhere: none panics, and what a parser proved is true. IPv4 and IPv6 have their own, beside them.

use super::arp::{self, Arp};
use super::icmp::{Icmp, Quote, TooBig};
use super::ip::Ip;
use super::ipv6::{self, Ipv6};
use super::nd::{self, Neighbour};
use super::tcp::{self, Tcp};
use super::udp::{self, Udp};
use crate::MacAddr;
use crate::fragments::part::Place;

#[test]
fn arp_never_panics_and_is_written_as_it_was_read() {
    bolero::check!().for_each(|bytes: &[u8]| {
        // Most bytes are no ARP: the same with the fixed fields in place get further.
        let likely = [&[0, 1, 8, 0, 6, 4, 0, 1][..], bytes].concat();
        for packet in [bytes, &likely] {
            let addresses = arp::addresses(packet);
            if let Ok(arp) = Arp::parse(packet) {
                assert_eq!(addresses, Some((arp.sender, arp.target)));
                assert_eq!(arp.frame(MacAddr::BROADCAST)[14..], packet[..28]);
            }
        }
    });
}

#[test]
fn neighbour_discovery_never_panics_and_proves_its_checksum() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let kind = if bytes.len().is_multiple_of(2) {
            135
        } else {
            136
        };
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], bytes].concat();
        let source = std::net::Ipv6Addr::LOCALHOST;
        let sound = crate::testing::Packet6::new(source, source, 58, message)
            .with(|packet| packet.hops = 255)
            .sealed(2)
            .bytes();
        for packet in [bytes, &sound] {
            let may_be = nd::is_message(packet);
            let Ok(ip) = Ipv6::parse(packet) else {
                continue;
            };
            if let Ok(neighbour) = Neighbour::parse(&ip) {
                assert!(may_be || ip.header().len() > ipv6::HEADER_LEN);
                assert!(!neighbour.target.is_multicast());
                assert!(neighbour.link.is_none_or(|mac| !mac.is_group()));
            }
        }
    });
}

#[test]
fn tcp_never_panics_and_its_header_lies_in_the_segment() {
    bolero::check!().for_each(|bytes: &[u8]| match Tcp::parse(bytes) {
        Ok(tcp) => {
            assert!((tcp::MIN_HEADER_LEN..=tcp::MAX_HEADER_LEN).contains(&tcp.header_len));
            assert!(tcp.header_len <= bytes.len());
        }
        Err(_malformed) => assert!(
            bytes.len() < tcp::MIN_HEADER_LEN || {
                let said = usize::from(bytes[12] >> 4) * 4;
                said < tcp::MIN_HEADER_LEN || said > bytes.len()
            }
        ),
    });
}

#[test]
fn udp_never_panics_and_its_length_fits() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (whole, first) = (Udp::parse(bytes, true), Udp::parse(bytes, false));
        assert_eq!(first.is_ok(), bytes.len() >= udp::HEADER_LEN);
        if whole.is_ok() {
            let len = u16::from_be_bytes([bytes[4], bytes[5]]);
            assert!((udp::HEADER_LEN..=bytes.len()).contains(&usize::from(len)));
            assert_eq!(whole, first);
        }
    });
}

/// Either version, whole packets and ICMP of both in packets that are sound.
#[test]
fn ip_icmp_and_fragments_never_panic_and_stay_in_their_packet() {
    let (v4, v6) = (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST);
    bolero::check!().for_each(|bytes: &[u8]| {
        let rest = bytes.get(1..).unwrap_or_default();
        let fragment = u16::from_be_bytes([0, bytes.first().copied().unwrap_or(0)]) << 6;
        let inside = crate::testing::Packet::new(v4, v4, 1, bytes.to_vec())
            .with(|packet| packet.fragment = fragment)
            .bytes();
        // An error about a packet that is whole but for what the bytes say of it.
        let quote4 = crate::testing::Packet::icmp(v4, v4, 3, 4, [0; 4], bytes).bytes();
        let quote6 = crate::testing::Packet6::icmp(v6, v6, 2, 0, [0; 4], bytes).bytes();
        let chain = crate::testing::Packet6::new(v6, v6, 44, bytes.to_vec()).bytes();
        let versions = [0x45, 0x60].map(|first| [&[first], rest].concat());
        let all = [inside, quote4, quote6, chain].into_iter().chain(versions);
        for mut packet in all.chain([bytes.to_vec()]) {
            let len = packet.len();
            let read = Ip::parse(&packet).map(|ip| check(&ip, len));
            let changeable = Ip::parse_mut(&mut packet).map(|_ip| ());
            assert_eq!(read, changeable, "for reading and for changing alike");
        }
    });
}

fn check(ip: &Ip<&[u8]>, len: usize) {
    assert!(ip.len() <= len);
    assert_eq!(ip.header().len() + ip.payload().len(), ip.len());
    let _ = (ip.source(), ip.destination(), ip.tos(), ip.ttl());
    let _ = (ip.dont_fragment(), ip.pseudo_header(0), ip.as_payload());
    assert_eq!(ip.part().is_some(), ip.is_fragment());
    if let Some((_key, part)) = ip.part() {
        assert!(part.len <= ip.len());
        match part.place() {
            Ok(Place::First) => assert!(part.more && part.len >= 8),
            Ok(Place::Later) => assert!(part.offset > 0 && part.len > 0),
            Ok(Place::Whole) | Err(_) => {}
        }
    }
    if let Ok(Icmp::Error(quote)) = Icmp::parse(ip) {
        let Quote { transport_at, .. } = quote;
        assert!(transport_at + 8 <= ip.payload().len());
    }
    if let Some(TooBig { quote, .. }) = TooBig::parse(ip) {
        assert_eq!(Icmp::parse(ip), Ok(Icmp::Error(quote)));
    }
}
