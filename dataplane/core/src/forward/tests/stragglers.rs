//! What a backup does with frames of clients that have not heard of a takeover, and what every ATM does with claims of a VIP.

use super::*;
use crate::testing::Recorder;
use crate::testing::{Packet6, ethernet, neighbour, sum};
use crate::{Checksum, Claimant, Event, FRAME_AGE_MAX, Gso, OtherAtms};

const ACTIVE: MacAddr = OTHER_ATM;
const THIRD: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xd]);
const FOREIGN: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
const ACTIVE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const THIRD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);
const VIP6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const CLIENT6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);

fn others(active: Option<Ipv4Addr>) -> OtherAtms {
    OtherAtms {
        here: vec![ACTIVE_ADDRESS.into(), THIRD_ADDRESS.into()],
        elsewhere: false,
        active: active.map(IpAddr::from),
    }
}

fn answers(rig: &mut Rig, mac: MacAddr, address: Ipv4Addr) {
    let answer = arp((mac, ATM), 2, (mac, address), (ATM, ATM_ADDRESS));
    assert_eq!(rig.raw(&answer), Verdict::Host);
}

/// The rig knows the other ATMs and has heard both.
fn introduced(mut rig: Rig, active: Option<Ipv4Addr>) -> Rig {
    let mut table = table();
    table.applied_index = 2;
    table.vips.push(VIP6.into());
    rig.forwarder.install(table, rig.now);
    rig.forwarder.set_other_atms(others(active), rig.now);
    rig.tick();
    answers(&mut rig, ACTIVE, ACTIVE_ADDRESS);
    answers(&mut rig, THIRD, THIRD_ADDRESS);
    rig.out.frames.clear();
    rig
}

fn backup() -> Rig {
    introduced(Rig::backup(), Some(ACTIVE_ADDRESS))
}

/// The same frame between two other Ethernet addresses.
fn between(source: MacAddr, destination: MacAddr, frame: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &frame[12..]].concat()
}

fn claim(mac: MacAddr) -> Vec<u8> {
    arp(
        (mac, MacAddr::BROADCAST),
        1,
        (mac, VIP),
        (MacAddr::ZERO, VIP),
    )
}

#[test]
fn stragglers_as_a_table() {
    let syn = tcp(40000, QUORUM, SYN, b"");
    let ack = tcp(40000, QUORUM, ACK, b"some data");
    let ping = Packet::icmp(CLIENT, VIP, 8, 0, [0; 4], b"ping");
    let six = Packet6::icmp(CLIENT6, VIP6, 128, 0, [0; 4], b"ping");
    let fragment = tcp(40000, QUORUM, ACK, &[7; 64]).with(|packet| packet.fragment = 0x2000);
    let silent = drop(DropReason::NotActive);
    let ask = arp(
        (ROUTER, ATM),
        1,
        (ROUTER, Ipv4Addr::new(10, 1, 0, 254)),
        (MacAddr::ZERO, VIP),
    );
    let for_us = |packet: &Packet| packet.frame(ROUTER, ATM);
    let cases = [
        ("a first packet", for_us(&syn), Verdict::Relayed),
        ("a later one", for_us(&ack), Verdict::Relayed),
        ("a ping", for_us(&ping), Verdict::Relayed),
        ("over IPv6", six.frame(ROUTER, ATM), Verdict::Relayed),
        ("a fragment", for_us(&fragment), Verdict::Relayed),
        (
            "its last hop but one",
            tcp(1, QUORUM, ACK, b"")
                .with(|packet| packet.ttl = 1)
                .frame(ROUTER, ATM),
            Verdict::Relayed,
        ),
        (
            "passed on by the active ATM",
            ack.frame(ACTIVE, ATM),
            silent,
        ),
        ("passed on by a third ATM", ack.frame(THIRD, ATM), silent),
        (
            "to everybody",
            ack.frame(ROUTER, MacAddr::BROADCAST),
            silent,
        ),
        (
            "to the active ATM",
            ack.frame(ROUTER, ACTIVE),
            Verdict::Host,
        ),
        (
            "to no VIP",
            Packet::tcp((CLIENT, 1), (ATM_ADDRESS, 22), SYN, b"").frame(ROUTER, ATM),
            Verdict::Host,
        ),
        ("a question for the VIP", ask, silent),
        (
            "cut off",
            ethernet(
                ROUTER,
                ATM,
                0x0800,
                &[&[0x65; 16][..], &VIP.octets()].concat(),
            ),
            drop(DropReason::Malformed(crate::Malformed::Truncated)),
        ),
    ];
    for (name, frame, verdict) in cases {
        let mut rig = backup();
        assert_eq!(rig.raw(&frame), verdict, "{name}");
        let expected = (verdict == Verdict::Relayed).then(|| between(ATM, ACTIVE, &frame));
        assert_eq!(
            rig.out.relayed,
            expected.into_iter().collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(rig.sent(), Vec::<Vec<u8>>::new(), "{name}");
        assert!(rig.out.opened.is_empty(), "{name}");
    }
}

#[test]
fn nothing_is_passed_on_without_an_active_atm_that_is_known() {
    let frame = tcp(1, QUORUM, ACK, b"").frame(ROUTER, ATM);
    let nobody = introduced(Rig::backup(), None);
    let mut unheard = Rig::backup();
    unheard
        .forwarder
        .set_other_atms(others(Some(ACTIVE_ADDRESS)), unheard.now);
    let mut third_unheard = Rig::backup();
    third_unheard
        .forwarder
        .set_other_atms(others(Some(ACTIVE_ADDRESS)), third_unheard.now);
    answers(&mut third_unheard, ACTIVE, ACTIVE_ADDRESS);
    let mut ended = backup();
    ended.forwarder.set_other_atms(others(None), ended.now);
    // Its host answers no question for its address any more.
    let mut lost = backup();
    lost.sleep(Duration::from_secs(40));
    for (name, mut rig) in [
        ("told of nobody", Rig::backup()),
        ("nobody is active", nobody),
        ("no ATM was heard", unheard),
        ("one was never heard: the frame may be its", third_unheard),
        ("its tenure ended", ended),
        ("its host is lost", lost),
    ] {
        assert_eq!(rig.raw(&frame), drop(DropReason::NotActive), "{name}");
        assert!(rig.out.relayed.is_empty(), "{name}");
    }
}

#[test]
fn who_holds_the_lease_passes_nothing_on_and_who_lost_it_does() {
    let mut rig = introduced(Rig::active(), Some(ACTIVE_ADDRESS));
    rig.established(40000);
    let frame = tcp(40000, QUORUM, ACK, b"").frame(ROUTER, ATM);
    assert_eq!(rig.raw(&frame), Verdict::Transmit);
    assert!(rig.out.relayed.is_empty());
    rig.lease(1, rig.now);
    assert_eq!(rig.raw(&frame), Verdict::Relayed);
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    assert_eq!(rig.raw(&frame), Verdict::Relayed);
    assert_eq!(rig.out.relayed.len(), 2);
}

#[test]
fn what_waited_too_long_is_not_passed_on() {
    let mut rig = backup();
    let frame = tcp(1, QUORUM, ACK, b"").frame(ROUTER, ATM);
    let late = FRAME_AGE_MAX + Duration::from_nanos(1);
    let verdict = rig.frame(&frame, Offload::default(), late);
    assert_eq!(verdict, drop(DropReason::Stale));
    assert!(rig.out.relayed.is_empty());
    let verdict = rig.frame(&frame, Offload::default(), FRAME_AGE_MAX);
    assert_eq!(verdict, Verdict::Relayed);
}

#[test]
fn stragglers_are_bounded() {
    let mut rig = backup();
    let frame = tcp(1, QUORUM, ACK, b"").frame(ROUTER, ATM);
    for _ in 0..1000 {
        assert_eq!(rig.raw(&frame), Verdict::Relayed);
    }
    assert_eq!(rig.raw(&frame), drop(DropReason::RelayLimited));
    rig.now = rig.now + Duration::from_millis(1);
    for _ in 0..100 {
        assert_eq!(rig.raw(&frame), Verdict::Relayed);
    }
    assert_eq!(rig.raw(&frame), drop(DropReason::RelayLimited));
}

/// What a local stack left to the device is finished: the active ATM gets whole segments with right checksums.
#[test]
fn what_the_senders_stack_left_undone_is_done() {
    let mut rig = backup();
    let offload = Offload {
        checksum: Checksum::Complete,
        gso: Gso::Tcp { segment: 1000 },
    };
    let frame = tcp(1, QUORUM, ACK, &[7; 2500]).frame(ROUTER, ATM);
    assert_eq!(rig.frame(&frame, offload, Duration::ZERO), Verdict::Relayed);
    let lengths: Vec<_> = rig.out.relayed.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1054, 1054, 554]);
    for frame in &rig.out.relayed {
        assert_eq!(frame[..12], [ACTIVE.0, ATM.0].concat());
        assert_eq!(frame[22], 61, "TTL as it came");
        let (ip, segment) = frame[14..].split_at(20);
        assert_eq!(sum(ip), 0xffff);
        let len = u16::try_from(segment.len()).unwrap().to_be_bytes();
        let pseudo = [&ip[12..20], &[0, 6], &len, segment].concat();
        assert_eq!(sum(&pseudo), 0xffff);
    }
}

/// Three ATMs of which each takes another for the active one: a frame makes one hop, whatever they believe.
#[test]
fn no_belief_makes_a_loop() {
    const MACS: [MacAddr; 3] = [ATM, ACTIVE, THIRD];
    const ADDRESSES: [Ipv4Addr; 3] = [ATM_ADDRESS, ACTIVE_ADDRESS, THIRD_ADDRESS];
    for beliefs in 0..8 {
        let mut rigs: Vec<Forwarder> = Vec::new();
        for me in 0..3 {
            let interface = Interface {
                mac: MACS[me],
                address: ADDRESSES[me],
                ..interface()
            };
            let limits = Limits {
                pending_max: 1,
                connections_max: 1,
            };
            let mut forwarder = Forwarder::new(interface, limits);
            forwarder.install(table(), at(0));
            let others = [(me + 1) % 3, (me + 2) % 3];
            let active = others[beliefs >> me & 1];
            let told = OtherAtms {
                here: others.map(|other| ADDRESSES[other].into()).to_vec(),
                elsewhere: false,
                active: Some(ADDRESSES[active].into()),
            };
            forwarder.set_other_atms(told, at(0));
            for other in others {
                let mut frame = arp(
                    (MACS[other], MacAddr::BROADCAST),
                    1,
                    (MACS[other], ADDRESSES[other]),
                    (MacAddr::ZERO, ADDRESSES[me]),
                );
                let mut out = Recorder::default();
                let frame = Frame {
                    bytes: &mut frame,
                    offload: Offload::default(),
                };
                let _host = forwarder.receive(frame, Duration::ZERO, at(0), &mut out);
            }
            rigs.push(forwarder);
        }
        for first in MACS {
            let mut frame = tcp(1, QUORUM, ACK, b"").frame(ROUTER, first);
            let mut hops = 0;
            loop {
                let to = MACS
                    .iter()
                    .position(|mac| mac.0 == frame[..6])
                    .unwrap_or_default();
                let mut out = Recorder::default();
                let received = Frame {
                    bytes: &mut frame,
                    offload: Offload::default(),
                };
                let verdict = rigs[to].receive(received, Duration::ZERO, at(0), &mut out);
                let Some(relayed) = out.relayed.pop() else {
                    assert_eq!(verdict, drop(DropReason::NotActive));
                    break;
                };
                hops += 1;
                assert!(hops < 2, "beliefs {beliefs:03b}");
                frame = relayed;
            }
            assert_eq!(hops, 1, "beliefs {beliefs:03b}");
        }
    }
}

#[test]
fn claims_as_a_table() {
    let six = |kind, flags, source, target, link| {
        neighbour(
            (FOREIGN, MacAddr([0x33, 0x33, 0, 0, 0, 1])),
            kind,
            flags,
            (source, crate::wire::nd::ALL_NODES),
            target,
            link,
        )
    };
    let claims = [
        ("an announcement", claim(FOREIGN), IpAddr::from(VIP), true),
        (
            "an answer",
            arp((FOREIGN, ATM), 2, (FOREIGN, VIP), (ATM, ATM_ADDRESS)),
            VIP.into(),
            true,
        ),
        (
            "a question in its name",
            arp(
                (FOREIGN, MacAddr::BROADCAST),
                1,
                (FOREIGN, VIP),
                (MacAddr::ZERO, CLIENT),
            ),
            VIP.into(),
            true,
        ),
        (
            "a probe",
            arp(
                (FOREIGN, MacAddr::BROADCAST),
                1,
                (FOREIGN, Ipv4Addr::UNSPECIFIED),
                (MacAddr::ZERO, VIP),
            ),
            VIP.into(),
            false,
        ),
        (
            "an advertisement",
            six(136, 0x20, CLIENT6, VIP6, Some(FOREIGN)),
            VIP6.into(),
            true,
        ),
        (
            "one without an option",
            six(136, 0x20, CLIENT6, VIP6, None),
            VIP6.into(),
            true,
        ),
        (
            "duplicate address detection",
            six(135, 0, std::net::Ipv6Addr::UNSPECIFIED, VIP6, None),
            VIP6.into(),
            false,
        ),
    ];
    for (name, frame, vip, in_use) in claims {
        for active in [false, true] {
            let mut rig = if active {
                introduced(Rig::active(), None)
            } else {
                backup()
            };
            let verdict = rig.raw(&frame);
            match (active, in_use) {
                (true, true) => assert_eq!(verdict, drop(DropReason::ForeignClaim), "{name}"),
                (true, false) => assert_eq!(verdict, Verdict::Answered, "{name}"),
                (false, true) => assert_eq!(verdict, Verdict::Host, "{name}"),
                (false, false) => assert_eq!(verdict, drop(DropReason::NotActive), "{name}"),
            }
            let conflicts: Vec<_> = rig
                .forwarder
                .conflicts()
                .iter()
                .map(|conflict| (conflict.vip, conflict.mac, conflict.claimant))
                .collect();
            assert_eq!(conflicts, [(vip, FOREIGN, Claimant::Foreign)], "{name}");
            assert_eq!(rig.counters().event(Event::ForeignClaim), 1, "{name}");
            if !active {
                assert!(rig.sent().is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn what_atms_announce_is_a_conflict_to_the_active_one_alone() {
    let mut rig = backup();
    assert_eq!(rig.raw(&claim(ACTIVE)), Verdict::Host);
    assert_eq!(rig.raw(&claim(THIRD)), Verdict::Host);
    assert_eq!(rig.forwarder.conflicts(), []);
    let mut rig = introduced(Rig::active(), None);
    assert_eq!(rig.raw(&claim(THIRD)), drop(DropReason::ForeignClaim));
    assert_eq!(
        rig.forwarder.conflicts()[0].claimant,
        Claimant::Atm(THIRD_ADDRESS.into())
    );
}

#[test]
fn a_claim_of_who_turns_out_to_be_an_atm_is_forgotten() {
    let mut rig = Rig::backup();
    rig.forwarder
        .set_other_atms(others(Some(ACTIVE_ADDRESS)), rig.now);
    assert_eq!(rig.raw(&claim(ACTIVE)), Verdict::Host);
    assert_eq!(rig.raw(&claim(FOREIGN)), Verdict::Host);
    let who = |rig: &Rig| -> Vec<_> {
        let all = rig.forwarder.conflicts().iter();
        all.map(|conflict| (conflict.mac, conflict.claimant))
            .collect()
    };
    assert_eq!(
        who(&rig),
        [(ACTIVE, Claimant::Unknown), (FOREIGN, Claimant::Unknown)]
    );
    answers(&mut rig, ACTIVE, ACTIVE_ADDRESS);
    assert_eq!(who(&rig), [(FOREIGN, Claimant::Unknown)]);
}

#[test]
fn a_backup_of_atms_elsewhere_does_not_take_the_active_one_for_a_stranger() {
    let mut rig = Rig::backup();
    let told = OtherAtms {
        elsewhere: true,
        ..OtherAtms::default()
    };
    rig.forwarder.set_other_atms(told, rig.now);
    assert_eq!(rig.raw(&claim(ACTIVE)), Verdict::Host);
    assert_eq!(rig.forwarder.conflicts(), []);
}

#[test]
fn a_conflict_is_over_when_it_is_quiet() {
    let mut rig = backup();
    assert_eq!(rig.raw(&claim(FOREIGN)), Verdict::Host);
    rig.sleep(Duration::from_secs(30));
    assert_eq!(rig.raw(&claim(FOREIGN)), Verdict::Host);
    rig.sleep(Duration::from_secs(59));
    let [conflict] = rig.forwarder.conflicts() else {
        panic!("{:?}", rig.forwarder.conflicts());
    };
    assert_eq!((conflict.first, conflict.claims), (at(0), 2));
    rig.sleep(Duration::from_secs(2));
    assert_eq!(rig.forwarder.conflicts(), []);
}

/// A backup that knows of a connection to server 2, which is behind NAT.
fn backup_of_nat() -> Rig {
    let mut rig = backup();
    rig.commit(&[ConnectionChange::Open(key(9, 5), ServerId(2).into())]);
    rig
}

fn answer(data: &[u8]) -> Packet {
    Packet::tcp((SERVERS[2], NAT), (CLIENT, 9), ACK, data)
}

#[test]
fn answers_of_nat_servers_as_a_table() {
    let silent = drop(DropReason::NotActive);
    let quoted = Packet::tcp((CLIENT, 9), (SERVERS[2], NAT), ACK, b"").bytes();
    let error = |quote: &[u8]| Packet::icmp(SERVERS[2], CLIENT, 3, 3, [0; 4], quote);
    let stranger = Packet::tcp((CLIENT, 10), (SERVERS[2], NAT), ACK, b"").bytes();
    let of = |packet: &Packet| packet.frame(SERVER_MACS[2], ATM);
    let cases = [
        ("an answer", of(&answer(b"data")), Verdict::Relayed),
        (
            "its last hop but one",
            of(&answer(b"").with(|p| p.ttl = 1)),
            Verdict::Relayed,
        ),
        ("an error about one", of(&error(&quoted)), Verdict::Relayed),
        (
            "of no connection",
            of(&Packet::tcp((SERVERS[2], NAT), (CLIENT, 10), ACK, b"")),
            Verdict::Host,
        ),
        ("an error about none", of(&error(&stranger)), Verdict::Host),
        (
            "passed on by the active ATM",
            answer(b"").frame(ACTIVE, ATM),
            silent,
        ),
        (
            "passed on by a third ATM",
            answer(b"").frame(THIRD, ATM),
            silent,
        ),
        (
            "to another",
            answer(b"").frame(SERVER_MACS[2], ACTIVE),
            Verdict::Host,
        ),
    ];
    for (name, frame, verdict) in cases {
        let mut rig = backup_of_nat();
        assert_eq!(rig.raw(&frame), verdict, "{name}");
        assert!(rig.sent().is_empty(), "{name}");
        let relayed = std::mem::take(&mut rig.out.relayed);
        if verdict == Verdict::Relayed {
            assert_eq!(relayed, [between(ATM, ACTIVE, &frame)], "{name}");
        } else {
            assert!(relayed.is_empty(), "{name}");
        }
    }
    let waited = FRAME_AGE_MAX + Duration::from_millis(1);
    let late = backup_of_nat().frame(&of(&answer(b"")), Offload::default(), waited);
    assert_eq!(late, drop(DropReason::Stale));
    // Nobody is active, or who is was not heard.
    let mut rig = backup_of_nat();
    rig.forwarder.set_other_atms(others(None), rig.now);
    assert_eq!(rig.raw(&of(&answer(b""))), silent);
    let mut rig = Rig::backup();
    rig.forwarder
        .set_other_atms(others(Some(ACTIVE_ADDRESS)), rig.now);
    rig.commit(&[ConnectionChange::Open(key(9, 5), ServerId(2).into())]);
    assert_eq!(rig.raw(&of(&answer(b""))), silent);
}

#[test]
fn later_fragments_of_an_answer_follow_their_first_to_the_active_atm() {
    let mut rig = backup_of_nat();
    let whole = answer(&[7; 60]);
    let first = whole.clone().with(|p| p.fragment = 0x2000);
    let later = Packet::new(SERVERS[2], CLIENT, 6, vec![7; 40])
        .with(|p| (p.id, p.fragment) = (whole.id, 80 / 8));
    for packet in [first, later] {
        let frame = packet.frame(SERVER_MACS[2], ATM);
        assert_eq!(rig.raw(&frame), Verdict::Relayed);
        let relayed = std::mem::take(&mut rig.out.relayed);
        assert_eq!(relayed, [between(ATM, ACTIVE, &frame)]);
    }
}

#[test]
fn the_active_atm_takes_an_answer_that_another_passed_on() {
    let mut rig = introduced(Rig::active(), None);
    rig.neighbours_answer();
    rig.out.frames.clear();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    assert_eq!(
        rig.raw(&answer(b"data").frame(THIRD, ATM)),
        Verdict::Transmit
    );
    let to_client = Packet::tcp((VIP, NAT), (CLIENT, 9), ACK, b"data").with(|p| p.ttl -= 1);
    assert_eq!(rig.sent(), [to_client.frame(ATM, ROUTER)]);
}
