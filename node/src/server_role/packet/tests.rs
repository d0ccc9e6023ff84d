//! Every combination of outer and inner version, what is wrong with each, and what holds of any bytes.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::header::{IPV4_MIN, IPV6_LEN, fold, sum};
use super::*;

const ATM: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const ATM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

fn filter() -> Filter {
    let second = Ipv4Addr::new(10, 1, 0, 101);
    Filter::new(
        &[VIP.into(), VIP6.into(), second.into()],
        &[ATM.into(), ATM6.into()],
    )
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV4_MIN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(
        &u16::try_from(IPV4_MIN + payload.len())
            .unwrap()
            .to_be_bytes(),
    );
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let checksum = !fold(sum(0, &packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6_LEN];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet[6] = protocol;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A packet of the client to the VIP.
fn inside(version: Version, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match version {
        Version::V4 => ipv4(CLIENT, VIP, protocol, payload),
        Version::V6 => ipv6(CLIENT6, VIP6, protocol, payload),
    }
}

/// As the socket for the outer version delivers it, when the ATM sent it with this ECN codepoint.
fn delivered(outer: Version, ecn: u8, inner: &[u8]) -> (Outer, Vec<u8>) {
    match outer {
        Version::V4 => {
            let protocol = if inner.first().is_some_and(|byte| byte >> 4 == 6) {
                41
            } else {
                4
            };
            let mut datagram = ipv4(ATM, SERVER, protocol, inner);
            datagram[1] = ecn;
            (Outer::V4, datagram)
        }
        Version::V6 => {
            let outer = Outer::V6 {
                source: ATM6,
                traffic_class: 0b1010_1000 | ecn,
            };
            (outer, inner.to_vec())
        }
    }
}

fn start_of(outer: Version) -> usize {
    match outer {
        Version::V4 => IPV4_MIN,
        Version::V6 => 0,
    }
}

fn good(start: usize, len: usize) -> Result<Inner, Discard> {
    Ok(Inner {
        start,
        len,
        partial: None,
        ecn: None,
    })
}

fn edited(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

#[test]
fn each_packet_inside_has_one_verdict_whatever_carries_it() {
    let v4 = || inside(Version::V4, 1, b"eightbyt");
    let v6 = || inside(Version::V6, 58, b"eightbyt");
    /// Name, announced version, bytes inside, length of what is accepted.
    type Case = (&'static str, Version, Vec<u8>, Result<usize, Discard>);
    let cases: &[Case] = &[
        ("IPv4 to a VIP", Version::V4, v4(), Ok(28)),
        (
            "to the other VIP",
            Version::V4,
            edited(v4(), 19, 101),
            Ok(28),
        ),
        (
            "bytes behind it",
            Version::V4,
            [v4(), vec![0; 6]].concat(),
            Ok(28),
        ),
        ("IPv6 to a VIP", Version::V6, v6(), Ok(48)),
        (
            "bytes behind it",
            Version::V6,
            [v6(), vec![0; 6]].concat(),
            Ok(48),
        ),
        (
            "IPv6 without payload",
            Version::V6,
            inside(Version::V6, 59, &[]),
            Ok(40),
        ),
        ("nothing", Version::V4, vec![], Err(Discard::InnerTruncated)),
        ("nothing", Version::V6, vec![], Err(Discard::InnerTruncated)),
        (
            "19 bytes",
            Version::V4,
            v4()[..19].to_vec(),
            Err(Discard::InnerTruncated),
        ),
        (
            "39 bytes",
            Version::V6,
            v6()[..39].to_vec(),
            Err(Discard::InnerTruncated),
        ),
        (
            "IPv6 as protocol 4",
            Version::V4,
            v6(),
            Err(Discard::InnerVersion),
        ),
        (
            "IPv4 as protocol 41",
            Version::V6,
            inside(Version::V4, 1, &[0; 40]),
            Err(Discard::InnerVersion),
        ),
        (
            "header of 16 bytes",
            Version::V4,
            edited(v4(), 0, 0x44),
            Err(Discard::InnerHeaderLength),
        ),
        (
            "header behind the end",
            Version::V4,
            edited(v4(), 0, 0x4f),
            Err(Discard::InnerHeaderLength),
        ),
        (
            "total below its header",
            Version::V4,
            edited(v4(), 3, 19),
            Err(Discard::InnerTotalLength),
        ),
        (
            "total behind the end",
            Version::V4,
            edited(v4(), 3, 29),
            Err(Discard::InnerTotalLength),
        ),
        (
            "payload behind the end",
            Version::V6,
            edited(v6(), 5, 9),
            Err(Discard::InnerTotalLength),
        ),
        (
            "to another address",
            Version::V4,
            edited(v4(), 19, 99),
            Err(Discard::InnerDestination),
        ),
        (
            "to another address",
            Version::V6,
            edited(v6(), 39, 99),
            Err(Discard::InnerDestination),
        ),
        (
            "to this server itself",
            Version::V4,
            ipv4(CLIENT, SERVER, 1, &[]),
            Err(Discard::InnerDestination),
        ),
    ];
    for outer in VERSIONS {
        for (name, version, packet, expected) in cases {
            let (carried, bytes) = delivered(outer, 0, packet);
            let expected = expected.and_then(|len| good(start_of(outer), len));
            assert_eq!(
                filter().check(carried, *version, &bytes),
                expected,
                "{name}, {version:?} in {outer:?}"
            );
        }
    }
}

#[test]
fn the_outer_header_is_looked_at_first() {
    let inner = inside(Version::V4, 1, b"eightbyt");
    let check = |datagram: &[u8]| filter().check(Outer::V4, Version::V4, datagram);
    assert_eq!(check(&[]), Err(Discard::OuterMalformed));
    let cut = &ipv4(ATM, SERVER, 4, &inner)[..30];
    assert_eq!(check(cut), Err(Discard::OuterMalformed));
    let mut options = edited(
        ipv4(ATM, SERVER, 4, &[[1; 4].as_slice(), &inner].concat()),
        0,
        0x46,
    );
    options[3] = 52;
    assert_eq!(check(&options), good(24, 28));
    assert_eq!(
        check(&ipv4(CLIENT, SERVER, 4, &inner)),
        Err(Discard::OuterSource)
    );
    let stranger = Outer::V6 {
        source: CLIENT6,
        traffic_class: 0,
    };
    assert_eq!(
        filter().check(stranger, Version::V4, &inner),
        Err(Discard::OuterSource)
    );
    // Known in one version is not known in the other.
    let only_v4 = Filter::new(&[VIP.into()], &[ATM.into()]);
    let from_atm6 = Outer::V6 {
        source: ATM6,
        traffic_class: 0,
    };
    assert_eq!(
        only_v4.check(from_atm6, Version::V4, &inner),
        Err(Discard::OuterSource)
    );
}

#[test]
fn without_a_list_of_atms_every_sender_is_accepted() {
    let anyone = Filter::new(&[VIP.into(), VIP6.into()], &[]);
    let datagram = ipv4(CLIENT, SERVER, 4, &inside(Version::V4, 1, &[]));
    assert_eq!(
        anyone.check(Outer::V4, Version::V4, &datagram),
        good(20, 20)
    );
    let stranger = Outer::V6 {
        source: CLIENT6,
        traffic_class: 0,
    };
    assert_eq!(
        anyone.check(stranger, Version::V6, &inside(Version::V6, 59, &[])),
        good(0, 40)
    );
}

#[test]
fn congestion_on_the_way_arrives_inside() {
    // RFC 6040 §4.2, figure 4: rows inside, columns outside; both Not-ECT, ECT(1), ECT(0), CE in order of their codes.
    let table = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for outer in VERSIONS {
        for version in VERSIONS {
            for (inner_ecn, row) in (0_u8..).zip(table) {
                for (outer_ecn, expected) in (0_u8..).zip(row) {
                    // The other bits of the field are the packet's own.
                    let mut packet = inside(version, 17, b"eightbyt");
                    match version {
                        Version::V4 => packet[1] = 0b1011_0100,
                        Version::V6 => packet[..2].copy_from_slice(&[0x6b, 0b0100_1111]),
                    }
                    if version == Version::V4 {
                        packet[10..12].fill(0);
                        let checksum = !fold(sum(0, &packet[..20]));
                        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                    }
                    set_ecn(&mut packet, inner_ecn);
                    let (carried, mut bytes) = delivered(outer, outer_ecn, &packet);
                    let verdict = filter().check(carried, version, &bytes);
                    let Some(expected) = expected else {
                        assert_eq!(verdict, Err(Discard::OuterCongestion));
                        continue;
                    };
                    let inner = verdict.unwrap();
                    let out = &mut bytes[inner.start..inner.start + inner.len];
                    inner.finish(out);
                    let at = match version {
                        Version::V4 => 0,
                        Version::V6 => 4,
                    };
                    let what = format!(
                        "{version:?} in {outer:?}, {inner_ecn} inside and {outer_ecn} outside"
                    );
                    assert_eq!(out[1] >> at & 0b11, expected, "{what}");
                    assert_eq!(out[1] & !(0b11 << at), packet[1] & !(0b11 << at), "{what}");
                    if version == Version::V4 {
                        assert_eq!(fold(sum(0, &out[..20])), 0xffff, "{what}");
                    }
                }
            }
        }
    }
}

/// The pseudo header's sum of a segment from the client to the VIP.
fn pseudo(version: Version, protocol: u8, len: usize) -> u64 {
    Header::parse(version, &inside(version, protocol, &[]))
        .unwrap()
        .pseudo_header(u16::try_from(len).unwrap())
}

fn partial_of(outer: Version, version: Version, packet: &[u8]) -> Option<PartialChecksum> {
    let (carried, bytes) = delivered(outer, 0, packet);
    filter().check(carried, version, &bytes).unwrap().partial
}

#[test]
fn an_unfinished_checksum_is_told_from_a_finished_one() {
    for (protocol, offset, header) in [(6_u8, 16_usize, 20_usize), (17, 6, 8)] {
        for version in VERSIONS {
            for outer in VERSIONS {
                let mut segment = vec![0x5a; header + 33];
                segment[offset..offset + 2].fill(0);
                let pseudo = pseudo(version, protocol, segment.len());
                let full = !fold(sum(pseudo, &segment));
                let mut check = |value: u16| {
                    segment[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
                    partial_of(outer, version, &inside(version, protocol, &segment))
                };
                let partial = PartialChecksum {
                    start: match version {
                        Version::V4 => 20,
                        Version::V6 => 40,
                    },
                    offset: u16::try_from(offset).unwrap(),
                };
                let what = format!("protocol {protocol}, {version:?} in {outer:?}");
                assert_eq!(check(fold(pseudo)), Some(partial), "{what}");
                assert_eq!(check(full), None, "a full checksum, {what}");
                assert_eq!(check(full ^ 1), None, "a wrong one stays wrong, {what}");
            }
        }
    }
}

#[test]
fn a_full_checksum_that_looks_unfinished_is_left_alone() {
    for version in VERSIONS {
        // The last two bytes are chosen so that the right checksum has the value of the pseudo header's sum.
        let mut segment = vec![0_u8; 22];
        let pseudo = fold(pseudo(version, 6, 22));
        segment[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let missing = !fold(sum(u64::from(pseudo), &segment));
        segment[20..22].copy_from_slice(&missing.to_be_bytes());
        assert_eq!(
            partial_of(Version::V4, version, &inside(version, 6, &segment)),
            None
        );
    }
}

#[test]
fn a_fragment_keeps_its_checksum() {
    let mut segment = vec![0_u8; 24];
    let sum = fold(pseudo(Version::V4, 6, 24));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment[20] = 7;
    let whole = inside(Version::V4, 6, &segment);
    let partial = |packet: &[u8]| partial_of(Version::V4, Version::V4, packet);
    assert!(partial(&whole).is_some());
    assert_eq!(partial(&edited(whole.clone(), 6, 0x20)), None);
    assert_eq!(partial(&edited(whole, 7, 1)), None);

    let sum = fold(pseudo(Version::V6, 6, 24));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    assert!(partial_of(Version::V6, Version::V6, &inside(Version::V6, 6, &segment)).is_some());
    // The fragment header (RFC 8200 §4.5) in front of TCP.
    let fragment = [[6, 0, 0, 1, 0, 0, 0, 9].as_slice(), &segment].concat();
    assert_eq!(
        partial_of(
            Version::V6,
            Version::V6,
            &inside(Version::V6, 44, &fragment)
        ),
        None
    );
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V4), Just(Version::V6)]
}

proptest! {
    #[test]
    fn no_bytes_panic_and_an_accepted_packet_lies_inside(
        head in proptest::collection::vec(any::<u8>(), 0..100),
        wrapped in any::<bool>(),
        outer in versions(),
        version in versions(),
        ecn in 0_u8..4,
    ) {
        let (carried, mut bytes) = if wrapped || outer == Version::V6 {
            delivered(outer, ecn, &head)
        } else {
            (Outer::V4, head)
        };
        if let Ok(inner) = filter().check(carried, version, &bytes) {
            prop_assert!(inner.start >= start_of(outer) && inner.len >= IPV4_MIN);
            prop_assert!(inner.start + inner.len <= bytes.len());
            inner.finish(&mut bytes[inner.start..inner.start + inner.len]);
        }
    }

    /// What an ATM wraps comes out byte for byte, in each of the four combinations.
    #[test]
    fn what_is_wrapped_comes_out(
        segment in proptest::collection::vec(any::<u8>(), 0..64),
        protocol in prop_oneof![Just(6_u8), Just(17), any::<u8>()],
        outer in versions(),
        version in versions(),
    ) {
        let packet = inside(version, protocol, &segment);
        let (carried, mut bytes) = delivered(outer, 0, &packet);
        let inner = filter().check(carried, version, &bytes).unwrap();
        let out = &mut bytes[inner.start..inner.start + inner.len];
        inner.finish(out);
        prop_assert_eq!(&*out, &packet[..]);
    }

    /// One changed byte of the packet inside never panics, and what is accepted is still to a VIP.
    #[test]
    fn damage_is_noticed_or_harmless(
        at in 0_usize..60,
        byte in any::<u8>(),
        outer in versions(),
        version in versions(),
    ) {
        let mut packet = inside(version, 6, &[0x5a; 20]);
        let at = at % packet.len();
        packet[at] = byte;
        let (carried, bytes) = delivered(outer, 0, &packet);
        if let Ok(inner) = filter().check(carried, version, &bytes) {
            let out = &bytes[inner.start..inner.start + inner.len];
            let to_vip = match version {
                Version::V4 => out[16..20] == VIP.octets() || out[16..20] == [10, 1, 0, 101],
                Version::V6 => out[24..40] == VIP6.octets(),
            };
            prop_assert!(to_vip);
        }
    }
}
