//! One frame each, as a table.

use super::*;
use crate::Malformed;
use crate::testing::ethernet;

#[test]
fn the_verdict_of_single_frames() {
    let syn = tcp(40000, QUORUM, SYN, b"");
    let udp = Packet::new(CLIENT, VIP, 17, vec![0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
    let bytes = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = syn.frame(ROUTER, ATM);
        change(&mut bytes);
        bytes
    };
    let header = |change: &dyn Fn(&mut Vec<u8>)| {
        bytes(&|bytes| {
            change(bytes);
            bytes[24..26].fill(0);
            let sum = !crate::testing::sum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        })
    };
    let from = |source: [u8; 4]| {
        syn.clone()
            .with(|p| p.source = source.into())
            .frame(ROUTER, ATM)
    };
    let malformed = |reason| drop(DropReason::Malformed(reason));
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("first packet", syn.frame(ROUTER, ATM), Verdict::Held),
        (
            "an address that is no VIP",
            tcp(1, 2, SYN, b"")
                .with(|p| p.destination = SERVERS[0])
                .frame(ROUTER, ATM),
            Verdict::Host,
        ),
        (
            "somebody else's frame",
            syn.frame(ROUTER, OTHER_ATM),
            Verdict::Host,
        ),
        (
            "IPv6",
            ethernet(ROUTER, ATM, 0x86dd, &[0x60; 40]),
            Verdict::Host,
        ),
        (
            "tagged",
            ethernet(ROUTER, ATM, 0x8100, &syn.frame(ROUTER, ATM)[10..]),
            Verdict::Host,
        ),
        ("no bytes", vec![], Verdict::Host),
        (
            "half an Ethernet header",
            bytes(&|b| b.truncate(13)),
            Verdict::Host,
        ),
        (
            "no destination address",
            bytes(&|b| b.truncate(33)),
            Verdict::Host,
        ),
        (
            "in a broadcast",
            syn.frame(ROUTER, MacAddr::BROADCAST),
            drop(DropReason::LinkBroadcast),
        ),
        (
            "no service",
            tcp(1, 9, SYN, b"").frame(ROUTER, ATM),
            drop(DropReason::NoService),
        ),
        (
            "no connection",
            tcp(1, QUORUM, ACK, b"").frame(ROUTER, ATM),
            drop(DropReason::NoConnection),
        ),
        (
            "SYN and ACK",
            tcp(1, QUORUM, SYN | ACK, b"").frame(ROUTER, ATM),
            drop(DropReason::NoConnection),
        ),
        (
            "RST",
            tcp(1, QUORUM, crate::testing::RST, b"").frame(ROUTER, ATM),
            drop(DropReason::NoConnection),
        ),
        (
            "nobody serves",
            tcp(1, EMPTY, SYN, b"").frame(ROUTER, ATM),
            drop(DropReason::NoServer),
        ),
        (
            "UDP that nobody serves",
            udp.frame(ROUTER, ATM),
            drop(DropReason::NoService),
        ),
        (
            "UDP without its header",
            udp.clone()
                .with(|p| p.payload.truncate(7))
                .frame(ROUTER, ATM),
            malformed(Malformed::Truncated),
        ),
        (
            "UDP that says it is longer than it is",
            udp.clone().with(|p| p.payload[5] = 9).frame(ROUTER, ATM),
            malformed(Malformed::TotalLength),
        ),
        (
            "SCTP",
            udp.clone().with(|p| p.protocol = 132).frame(ROUTER, ATM),
            drop(DropReason::UnsupportedProtocol),
        ),
        (
            "first fragment",
            syn.clone().with(|p| p.fragment = 0x2000).frame(ROUTER, ATM),
            drop(DropReason::Fragment),
        ),
        (
            "later fragment",
            syn.clone().with(|p| p.fragment = 3).frame(ROUTER, ATM),
            Verdict::Held,
        ),
        (
            "fragment over the flags",
            syn.clone().with(|p| p.fragment = 1).frame(ROUTER, ATM),
            drop(DropReason::Fragment),
        ),
        (
            "first fragment of a ping",
            Packet::icmp(CLIENT, VIP, 8, 0, [0; 4], &[0; 16])
                .with(|p| p.fragment = 0x2000)
                .frame(ROUTER, ATM),
            drop(DropReason::Fragment),
        ),
        ("from a VIP", from(VIP.octets()), drop(DropReason::Martian)),
        (
            "from loopback",
            from([127, 0, 0, 1]),
            drop(DropReason::Martian),
        ),
        (
            "from multicast",
            from([224, 0, 0, 1]),
            drop(DropReason::Martian),
        ),
        ("from broadcast", from([255; 4]), drop(DropReason::Martian)),
        ("from nobody", from([0, 1, 2, 3]), drop(DropReason::Martian)),
        (
            "IP checksum",
            bytes(&|b| b[24] ^= 1),
            malformed(Malformed::Checksum),
        ),
        (
            "IP version",
            header(&|b| b[14] = 0x55),
            malformed(Malformed::Version),
        ),
        (
            "IP header length",
            header(&|b| b[14] = 0x44),
            malformed(Malformed::HeaderLength),
        ),
        (
            "total length over the end",
            header(&|b| b[17] = 41),
            malformed(Malformed::TotalLength),
        ),
        (
            "total length under the header",
            header(&|b| b[17] = 19),
            malformed(Malformed::TotalLength),
        ),
        (
            "no TCP header",
            header(&|b| b[17] = 39),
            malformed(Malformed::Truncated),
        ),
        (
            "TCP header length under 20",
            bytes(&|b| b[46] = 0x40),
            malformed(Malformed::HeaderLength),
        ),
        (
            "TCP header length over the end",
            bytes(&|b| b[46] = 0x60),
            malformed(Malformed::HeaderLength),
        ),
    ];
    for (name, frame, verdict) in cases {
        let mut rig = Rig::active();
        let before = *rig.counters().verdicts();
        assert_eq!(rig.raw(&frame), verdict, "{name}");
        assert!(rig.sent().is_empty(), "{name}: nothing may be sent");
        let mut expected = before;
        expected[verdict.index()] += 1;
        assert_eq!(
            rig.counters().verdicts(),
            &expected,
            "{name}: one counter, by one"
        );
    }
}

#[test]
fn no_scheduler_moves_a_connection_when_servers_come_and_go() {
    let send = |rig: &mut Rig, port, flags| {
        assert_eq!(rig.packet(&tcp(port, ASYNC, flags, b"")), Verdict::Transmit);
        rig.forwarder.about().server
    };
    for scheduler in [
        Scheduler::Wrr,
        Scheduler::Wlc,
        Scheduler::Maglev,
        Scheduler::Sh,
    ] {
        let mut rig = Rig::active();
        let mut table = table();
        table.servers[2].method = ForwardingMethod::Tunnel;
        table.services[1].scheduler = scheduler;
        let shares = [[1, 1, 1], [0, 1, 1], [5, 0, 0], [1, 1, 1]];
        let mut homes = Vec::new();
        for (step, weights) in (0..).zip(shares) {
            let share = (0..).map(ServerId).zip(weights);
            table.services[1].share = share.filter(|&(_, weight)| weight > 0).collect();
            rig.forwarder.install(table.clone(), rig.now);
            for port in step * 10..step * 10 + 8 {
                homes.push((port, send(&mut rig, port, SYN)));
            }
            for &(port, home) in &homes {
                assert_eq!(
                    send(&mut rig, port, ACK),
                    home,
                    "{scheduler:?}, port {port}"
                );
            }
        }
        let on = |server| {
            homes
                .iter()
                .filter(|(_, home)| *home == Some(server))
                .count()
        };
        assert!(on(ServerId(0)) >= 8, "{scheduler:?}: {homes:?}");
    }
}

#[test]
fn the_fewest_connections_per_weight_win() {
    let mut rig = Rig::active();
    let mut table = table();
    table.services[1].scheduler = Scheduler::Wlc;
    table.services[1].share = vec![(ServerId(0), 2), (ServerId(1), 1)];
    rig.forwarder.install(table, rig.now);
    // The committed table has four on the second server, of this service and of another one.
    for (port, service) in [(1, 2), (2, 2), (3, 2), (4, 2), (5, 3), (6, 3)] {
        let server = ServerId(if service == 2 { 1 } else { 0 });
        let open = ConnectionChange::Open(key(port, service), server.into());
        rig.forwarder.commit(&[open], rig.now, &mut rig.out);
    }
    for port in 11..=21 {
        assert_eq!(rig.packet(&tcp(port, ASYNC, SYN, b"")), Verdict::Transmit);
    }
    let servers: Vec<u16> = rig.out.opened.iter().map(|(_, pin)| pin.server.0).collect();
    assert_eq!(servers, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn new_connections_are_shared_out_by_weight() {
    let mut rig = Rig::active();
    let mut table = table();
    table.servers[1].method = ForwardingMethod::Tunnel;
    table.services[1].share = vec![(ServerId(0), 2), (ServerId(1), 1)];
    rig.forwarder.install(table, rig.now);
    for port in 1..=6 {
        assert_eq!(rig.packet(&tcp(port, ASYNC, SYN, b"")), Verdict::Transmit);
    }
    let servers: Vec<u16> = rig.out.opened.iter().map(|(_, pin)| pin.server.0).collect();
    assert_eq!(servers, [0, 1, 0, 0, 1, 0]);
}

#[test]
fn an_older_table_is_ignored() {
    let mut rig = Rig::active();
    rig.forwarder.install(ForwardingTable::default(), rig.now);
    assert_eq!(rig.packet(&tcp(1, ASYNC, SYN, b"")), Verdict::Transmit);
}

#[test]
fn a_first_packet_that_cannot_go_opens_nothing() {
    let cut = |p: &mut Packet| p.fragment = 0;
    let big = tcp(1, QUORUM, SYN, &[0; 1461]).with(cut);
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&big), drop(DropReason::FirstPacketTooBig));
    let offload = Offload {
        gso: crate::Gso::Tcp { segment: 1000 },
        ..Offload::default()
    };
    assert_eq!(
        rig.frame(&big.frame(ROUTER, ATM), offload, Duration::ZERO),
        drop(DropReason::FirstPacketTooBig)
    );
    rig.sleep(Duration::from_secs(60));
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, SYN, b"")),
        drop(DropReason::NoNeighbour)
    );
    assert_eq!((rig.out.opened.len(), rig.forwarder.connections()), (0, 0));
}

#[test]
fn no_mtu_is_too_small_to_be_named() {
    for (mtu, fragment, verdict) in [
        (0, 0, drop(DropReason::PathTooNarrow)),
        (47, 0, drop(DropReason::PathTooNarrow)),
        (48, 0, Verdict::Transmit),
        (0, 0x4000, Verdict::FragmentationNeeded),
    ] {
        let mut rig = Rig::active();
        rig.forwarder.interface.mtu = mtu;
        let packet = tcp(1, UNREPLICATED, SYN, b"").with(|p| p.fragment = fragment);
        assert_eq!(rig.packet(&packet), verdict, "{mtu}");
    }
}
