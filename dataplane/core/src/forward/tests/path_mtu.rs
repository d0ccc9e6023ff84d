//! Path MTUs of tunnels: routers on the way to servers tell us, and we tell the clients.

use std::net::Ipv6Addr;

use super::ipv6::{ATM6, CLIENT6, FOUR_IN_SIX, SERVER6, SIX_IN_FOUR, SIX_IN_SIX, VIP6};
use super::*;
use crate::Event;
use crate::testing::Packet6;
use crate::wire::ip::Ip;

const HOP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
const HOP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);

/// The router's message about the last frame that was sent, quoting `keep` bytes of it.
fn too_big(outer: &[u8], mtu: u16, keep: usize) -> Packet {
    let [high, low] = mtu.to_be_bytes();
    let quote = &outer[..keep.min(outer.len())];
    Packet::icmp(HOP, ATM_ADDRESS, 3, 4, [0, 0, high, low], quote).with(|p| p.fragment = 0)
}

fn too_big6(outer: &[u8], mtu: u32) -> Packet6 {
    let quote = &outer[..outer.len().min(1232)];
    Packet6::icmp(HOP6, ATM6, 2, 0, mtu.to_be_bytes(), quote)
}

/// A connection by tunnel, and an outer packet of 1500 bytes that went to its server.
fn rig() -> (Rig, Vec<u8>) {
    let mut rig = Rig::active();
    rig.established(1);
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, ACK, &[7; 1440])),
        Verdict::Transmit
    );
    let outer = rig.sent()[0][14..].to_vec();
    assert_eq!(outer.len(), 1500);
    (rig, outer)
}

/// What the client is told of a packet that fits the link.
fn told(rig: &mut Rig) -> Option<u16> {
    rig.sent();
    let verdict = rig.packet(&tcp(1, QUORUM, ACK, &[7; 1440]));
    let sent = rig.sent();
    if verdict == Verdict::Transmit {
        return None;
    }
    assert_eq!(verdict, Verdict::FragmentationNeeded);
    Some(u16::from_be_bytes([sent[0][40], sent[0][41]]))
}

#[test]
fn the_client_is_told_what_a_router_behind_us_told() {
    for keep in [28, 48, 528] {
        let (mut rig, outer) = rig();
        assert_eq!(told(&mut rig), None);
        let error = too_big(&outer, 1400, keep);
        // The kernel has it, too.
        assert_eq!(rig.packet(&error), Verdict::Host);
        assert_eq!(rig.counters().event(Event::PathMtuLearned), 1);
        assert_eq!(told(&mut rig), Some(1380), "{keep}");
        let fits = tcp(1, QUORUM, ACK, &[7; 1340]);
        assert_eq!(rig.packet(&fits), Verdict::Transmit);
        assert_eq!(rig.sent()[0].len(), 14 + 1400);
        // Nobody else's path.
        assert_eq!(rig.packet(&tcp(1, DIRECT, SYN, b"")), Verdict::Transmit);
        assert_eq!(
            rig.packet(&tcp(1, DIRECT, ACK, &[7; 1460])),
            Verdict::Transmit
        );
        rig.sent();
        // What may be cut is cut to what fits.
        let cut = tcp(1, QUORUM, ACK, &[7; 1440]).with(|p| p.fragment = 0);
        assert_eq!(rig.packet(&cut), Verdict::Transmit);
        let lens: Vec<_> = rig.sent().iter().map(|frame| frame.len() - 14).collect();
        assert_eq!(lens.len(), 2);
        assert!(lens.iter().all(|len| *len <= 1400), "{lens:?}");
    }
}

#[test]
fn it_only_gets_less_and_is_forgotten_after_ten_minutes() {
    let (mut rig, outer) = rig();
    for (mtu, expected, news) in [
        (1400, 1380, 1),
        (1450, 1380, 1),
        (1300, 1280, 2),
        (1, 556, 3),
    ] {
        assert_eq!(rig.packet(&too_big(&outer, mtu, 28)), Verdict::Host);
        assert_eq!(told(&mut rig), Some(expected), "{mtu}");
        assert_eq!(rig.counters().event(Event::PathMtuLearned), news, "{mtu}");
    }
    for _ in 0..29 {
        rig.sleep(Duration::from_secs(20));
        rig.neighbours_answer();
        assert_eq!(told(&mut rig), Some(556));
    }
    rig.sleep(Duration::from_secs(20));
    rig.neighbours_answer();
    assert_eq!(told(&mut rig), None);
}

#[test]
fn a_router_that_does_not_say_what_fits_is_believed_as_far_as_the_next_usual_size() {
    let (mut rig, outer) = rig();
    assert_eq!(rig.packet(&too_big(&outer, 0, 28)), Verdict::Host);
    assert_eq!(told(&mut rig), Some(1472));
}

#[test]
fn what_is_not_about_a_tunnel_of_ours_teaches_nothing() {
    let (_, outer) = rig();
    let sound = too_big(&outer, 1400, 48);
    let quoting = |change: &dyn Fn(&mut Packet)| {
        let mut inner = Packet::new(ATM_ADDRESS, SERVERS[0], 4, outer[20..].to_vec());
        change(&mut inner);
        too_big(&inner.bytes(), 1400, 48)
    };
    let cases: [(&str, Packet); 11] = [
        (
            "another code",
            Packet::icmp(HOP, ATM_ADDRESS, 3, 1, [0, 0, 5, 0x78], &outer[..48]),
        ),
        (
            "another type",
            Packet::icmp(HOP, ATM_ADDRESS, 11, 4, [0, 0, 5, 0x78], &outer[..48]),
        ),
        ("damaged", sound.clone().with(|p| p.payload[30] ^= 1)),
        ("too short", too_big(&outer, 1400, 27)),
        ("a fragment", sound.clone().with(|p| p.fragment = 0x2000)),
        ("not to us", sound.clone().with(|p| p.destination = HOP)),
        ("of another sender", quoting(&|p| p.source = HOP)),
        (
            "to another server",
            quoting(&|p| p.destination = SERVERS[1]),
        ),
        ("no tunnel", quoting(&|p| p.protocol = 6)),
        ("may be cut", quoting(&|p| p.fragment = 0)),
        ("was not too large", too_big(&outer, 1500, 48)),
    ];
    for (name, packet) in cases {
        let (mut rig, _) = rig();
        assert_eq!(rig.packet(&packet), Verdict::Host, "{name}");
        assert_eq!(rig.counters().event(Event::PathMtuLearned), 0, "{name}");
        assert_eq!(told(&mut rig), None, "{name}");
    }
    let (mut rig, _) = rig();
    assert_eq!(rig.packet(&quoting(&|_| ())), Verdict::Host);
    assert_eq!(told(&mut rig), Some(1380));
}

#[test]
fn tunnels_over_ipv6_and_their_clients_of_both_versions() {
    // What the router tells, and what then still goes: inside of IPv6 at least 1280 bytes of IPv6.
    for (mtu, fits4, fits6) in [
        (1400, 1360, 1360),
        (1300, 1260, 1280),
        (1280, 1240, 1280),
        (1279, 1460, 1460),
        (0, 1460, 1460),
    ] {
        let mut rig = Rig::active6();
        let four = |data: usize| tcp(1, FOUR_IN_SIX, ACK, &vec![7; data - 40]);
        let six =
            |data: usize| Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_SIX), ACK, &vec![7; data - 60]);
        assert_eq!(
            rig.packet(&tcp(1, FOUR_IN_SIX, SYN, b"")),
            Verdict::Transmit
        );
        let syn = Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_SIX), SYN, b"");
        assert_eq!(rig.raw(&syn.frame(ROUTER, ATM)), Verdict::Transmit);
        rig.sent();
        assert_eq!(rig.packet(&four(1460)), Verdict::Transmit);
        let outer = rig.sent()[0][14..].to_vec();
        let error = too_big6(&outer, mtu);
        assert_eq!(rig.raw(&error.frame(ROUTER, ATM)), Verdict::Host);
        for (len, verdict) in [
            (fits4, Verdict::Transmit),
            (fits4 + 1, Verdict::FragmentationNeeded),
        ] {
            assert_eq!(rig.packet(&four(len)), verdict, "{mtu} {len}");
        }
        for (len, verdict) in [
            (fits6, Verdict::Transmit),
            (fits6 + 1, Verdict::FragmentationNeeded),
        ] {
            assert_eq!(
                rig.raw(&six(len).frame(ROUTER, ATM)),
                verdict,
                "{mtu} {len}"
            );
        }
        // Another server.
        let syn = Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_FOUR), SYN, b"");
        assert_eq!(rig.raw(&syn.frame(ROUTER, ATM)), Verdict::Transmit);
        let big = Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_FOUR), ACK, &[7; 1420]);
        assert_eq!(rig.raw(&big.frame(ROUTER, ATM)), Verdict::Transmit);
    }
    // Of a word and more nothing is learned.
    let mut rig = Rig::active6();
    let outer = Packet6::new(ATM6, SERVER6, 4, vec![0; 1460]);
    assert_eq!(
        rig.raw(&too_big6(&outer.bytes(), 0x1_0578).frame(ROUTER, ATM)),
        Verdict::Host
    );
    assert_eq!(rig.counters().event(Event::PathMtuLearned), 0);
    assert_eq!(
        rig.raw(&too_big6(&outer.bytes(), 1400).frame(ROUTER, ATM)),
        Verdict::Host
    );
    assert_eq!(rig.counters().event(Event::PathMtuLearned), 1);
}

#[test]
fn a_server_that_leaves_takes_its_path_along() {
    let (mut rig, outer) = rig();
    assert_eq!(rig.packet(&too_big(&outer, 1400, 28)), Verdict::Host);
    let mut without = table();
    without.applied_index = 2;
    without.servers.remove(0);
    rig.forwarder.install(without, rig.now);
    let back = ForwardingTable {
        applied_index: 3,
        ..table()
    };
    rig.forwarder.install(back, rig.now);
    rig.tick();
    rig.neighbours_answer();
    rig.sent();
    assert_eq!(told(&mut rig), None);
}

/// The load of one outer packet of a tunnel, whole or a fragment: offset, whether more follow, identification, bytes.
fn load(frame: &[u8], mtu: usize) -> (usize, bool, u32, Vec<u8>) {
    let bytes = &frame[14..];
    assert!(bytes.len() <= mtu, "{} over {mtu}", bytes.len());
    match Ip::parse(bytes).unwrap() {
        Ip::V4(v4) => {
            assert_eq!((v4.protocol(), v4.bytes().len()), (41, bytes.len()));
            let offset = usize::from(v4.fragment_offset());
            let more = v4.more_fragments() != 0;
            let id = v4.identification().into();
            (offset, more, id, v4.payload().to_vec())
        }
        Ip::V6(v6) => {
            assert_eq!((v6.protocol(), v6.bytes().len()), (41, bytes.len()));
            let (offset, more, id) = v6.fragment().map_or((0, false, 0), |part| {
                (usize::from(part.offset), part.more, part.identification)
            });
            (
                offset,
                more,
                id,
                bytes[if more || offset > 0 { 48 } else { 40 }..].to_vec(),
            )
        }
    }
}

#[test]
fn what_no_client_may_be_told_of_goes_in_fragments_of_the_tunnel() {
    for (port, overhead, mtu) in [
        (SIX_IN_SIX, 40, 1319_usize),
        (SIX_IN_SIX, 40, 1300),
        (SIX_IN_SIX, 40, 1280),
        (SIX_IN_FOUR, 20, 1299),
        (SIX_IN_FOUR, 20, 1280),
        (SIX_IN_FOUR, 20, 576),
    ] {
        let mut rig = Rig::active6();
        rig.forwarder.interface.mtu = u16::try_from(mtu).unwrap();
        let syn = Packet6::tcp((CLIENT6, 1), (VIP6, port), SYN, b"");
        assert_eq!(rig.raw(&syn.frame(ROUTER, ATM)), Verdict::Transmit);
        rig.sent();
        let mut ids = Vec::new();
        for len in [mtu - overhead, mtu - overhead + 1, 1279, 1280] {
            let name = format!("port {port} mtu {mtu} len {len}");
            let data: Vec<u8> = (0..=250).cycle().take(len - 60).collect();
            let packet = Packet6::tcp((CLIENT6, 1), (VIP6, port), ACK, &data);
            assert_eq!(
                rig.raw(&packet.frame(ROUTER, ATM)),
                Verdict::Transmit,
                "{name}"
            );
            let sent = rig.sent();
            let whole = len + overhead <= mtu;
            assert_eq!(sent.len() == 1, whole, "{name}");
            let mut joined = Vec::new();
            let mut of_one = Vec::new();
            for (nth, frame) in sent.iter().enumerate() {
                let (offset, more, id, bytes) = load(frame, mtu);
                assert_eq!(
                    (offset, more),
                    (joined.len(), nth + 1 < sent.len()),
                    "{name}"
                );
                joined.extend(bytes);
                of_one.push(id);
            }
            assert_eq!(joined, packet.bytes(), "{name}");
            of_one.dedup();
            assert_eq!(of_one.len(), 1, "{name}");
            if !whole {
                ids.extend(of_one);
            }
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "each its own identification");
        let big = Packet6::tcp((CLIENT6, 1), (VIP6, port), ACK, &[7; 1281 - 60]);
        let verdict = rig.raw(&big.frame(ROUTER, ATM));
        assert_eq!(verdict, Verdict::FragmentationNeeded, "{port} {mtu}");
        assert_eq!(rig.sent()[0][58..62], [0, 0, 5, 0], "1280 bytes fit");
    }
}
