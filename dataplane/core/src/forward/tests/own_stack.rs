//! Servers that are this very host: their packets go to its own stack, as the tunnel packets that another ATM would send (ADR-0012).

use super::ipv6::{ATM6, CLIENT6, DIRECT6, FOUR_IN_SIX, SIX_IN_FOUR, SIX_IN_SIX, VIP6, table6};
use super::*;
use crate::testing::{FIN, Packet6};
use crate::{Event, Gso, Tallied};

/// The table of both IP versions, with the tunnel's servers on this host and the others elsewhere.
pub(super) fn table_here() -> ForwardingTable {
    let mut table = table6();
    table.applied_index = 3;
    for server in &mut table.servers {
        server.address = match server.id {
            ServerId(0) => ATM_ADDRESS.into(),
            ServerId(10) => ATM6.into(),
            _ => continue,
        };
        (server.here, server.next_hop) = (true, None);
    }
    table
}

/// A packet of the host's own stack as a frame, for who judges frames.
pub(super) fn as_frame(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 {
        [0x08, 0]
    } else {
        [0x86, 0xdd]
    };
    [&[0; 12][..], &kind, packet].concat()
}

impl Rig {
    /// Active, with [`table_here`] and with nothing said.
    fn here() -> Self {
        let mut rig = Self::active6();
        rig.forwarder.install(table_here(), rig.now);
        rig.tick();
        rig.out.frames.clear();
        rig
    }

    /// What was given to the host's own stack since the last call.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out.delivered)
    }
}

/// The packet in the tunnel from this host to itself. The outer identification is ours to choose: taken from `like`.
fn to_oneself(packet: &Packet, like: &[u8]) -> Vec<u8> {
    let id = u16::from_be_bytes([like[4], like[5]]);
    packet.in_tunnel(ATM_ADDRESS, ATM_ADDRESS, id).bytes()
}

fn outer6(inner: &[u8], next: u8) -> Vec<u8> {
    Packet6::new(ATM6, ATM6, next, inner.to_vec())
        .with(|p| p.hops = 64)
        .bytes()
}

#[test]
fn every_tunnel_goes_to_the_own_stack_and_nothing_to_the_wire() {
    let six = |port| Packet6::tcp((CLIENT6, 1), (VIP6, port), SYN, b"");
    let four = |port| tcp(1, port, SYN, b"");
    let in_four = Packet::new(ATM_ADDRESS, ATM_ADDRESS, 41, six(SIX_IN_FOUR).bytes())
        .with(|p| (p.fragment, p.ttl) = (0, 64));
    let cases = [
        (
            "4in4",
            four(UNREPLICATED).frame(ROUTER, ATM),
            four(UNREPLICATED)
                .in_tunnel(ATM_ADDRESS, ATM_ADDRESS, 0)
                .bytes(),
        ),
        (
            "4in6",
            four(FOUR_IN_SIX).frame(ROUTER, ATM),
            outer6(&four(FOUR_IN_SIX).bytes(), 4),
        ),
        ("6in4", six(SIX_IN_FOUR).frame(ROUTER, ATM), in_four.bytes()),
        (
            "6in6",
            six(SIX_IN_SIX).frame(ROUTER, ATM),
            outer6(&six(SIX_IN_SIX).bytes(), 41),
        ),
    ];
    for (name, frame, expected) in cases {
        let mut rig = Rig::here();
        assert_eq!(rig.raw(&frame), Verdict::Deliver, "{name}");
        let delivered = rig.delivered();
        assert_eq!(checker::check(&as_frame(&delivered[0])), Ok(()), "{name}");
        // The identification is ours to choose, and the checksum is over it.
        let but_for_identification = |mut packet: Vec<u8>| {
            if packet[0] >> 4 == 4 {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            packet
        };
        let delivered: Vec<_> = delivered.into_iter().map(but_for_identification).collect();
        assert_eq!(delivered, [but_for_identification(expected)], "{name}");
        assert!(rig.sent().is_empty(), "{name}");
    }
}

#[test]
fn a_first_packet_waits_for_its_record_and_the_rest_of_the_connection_follows() {
    let mut rig = Rig::here();
    let first = tcp(7, QUORUM, SYN, b"");
    assert_eq!(rig.packet(&first), Verdict::Held);
    assert!(rig.delivered().is_empty(), "not before its record");
    rig.commit(&[ConnectionChange::Open(key(7, 1), ServerId(0).into())]);
    let delivered = rig.delivered();
    assert_eq!(delivered, [to_oneself(&first, &delivered[0])]);
    assert_eq!(rig.counters().event(Event::HeldReleased), 1);
    for flags in [ACK, FIN | ACK] {
        let packet = tcp(7, QUORUM, flags, b"data");
        assert_eq!(rig.packet(&packet), Verdict::Deliver);
        let delivered = rig.delivered();
        assert_eq!(delivered, [to_oneself(&packet, &delivered[0])]);
    }
    let about: Vec<_> = rig.counters().tallied();
    let row = |verdict, held, frames| Tallied {
        about: crate::About {
            service: Some(VirtualServiceId(1)),
            server: Some(ServerId(0)),
        },
        verdict,
        held,
        frames,
    };
    let expected = [
        row(Verdict::Transmit, true, 1),
        row(Verdict::Deliver, false, 2),
        row(Verdict::Held, false, 1),
    ];
    assert_eq!(about.len(), expected.len(), "{about:?}");
    assert!(expected.iter().all(|row| about.contains(row)), "{about:?}");
    assert!(rig.sent().is_empty());
}

#[test]
fn a_connection_keeps_its_server_when_the_active_atm_becomes_another() {
    let opened = [ConnectionChange::Open(key(7, 1), ServerId(0).into())];
    let packet = tcp(7, QUORUM, ACK, b"data");
    // This host was a backup when the connection began, and it is its server.
    let mut rig = Rig::here();
    rig.commit(&opened);
    assert_eq!(rig.packet(&packet), Verdict::Deliver);
    let here = rig.delivered();
    // Another host is active, and sends the same packet inside over the wire.
    let mut rig = Rig::active6();
    rig.commit(&opened);
    assert_eq!(rig.packet(&packet), Verdict::Transmit);
    let there = rig.sent();
    assert_eq!(here[0][20..], there[0][34..]);
}

#[test]
fn fragments_follow_their_first() {
    let mut rig = Rig::here();
    let whole = Packet::udp((CLIENT, 9), (VIP, ipv6::DNS), &[7; 2000]);
    let pieces: Vec<_> = whole
        .payload
        .chunks(800)
        .zip(0_u16..)
        .map(|(chunk, at)| {
            whole.clone().with(|p| {
                p.payload = chunk.to_vec();
                p.fragment = (if at == 2 { 0 } else { 0x2000 }) | (at * 100);
            })
        })
        .collect();
    assert_eq!(rig.packet(&pieces[1]), Verdict::Held);
    assert_eq!(rig.packet(&pieces[0]), Verdict::Deliver);
    assert_eq!(rig.packet(&pieces[2]), Verdict::Deliver);
    let delivered = rig.delivered();
    let order = [&pieces[0], &pieces[1], &pieces[2]];
    let expected: Vec<_> = order
        .iter()
        .zip(&delivered)
        .map(|(piece, like)| to_oneself(piece, like))
        .collect();
    assert_eq!(delivered, expected);
}

#[test]
fn errors_about_what_the_server_sent_come_to_it() {
    let mut rig = Rig::here();
    rig.commit(&[ConnectionChange::Open(key(7, 1), ServerId(0).into())]);
    let said = Packet::tcp((VIP, QUORUM), (CLIENT, 7), ACK, b"data of the server");
    let router = Ipv4Addr::new(198, 51, 100, 9);
    let error = Packet::icmp(router, VIP, 3, 4, [0, 0, 5, 0], &said.bytes()[..28]);
    assert_eq!(rig.packet(&error), Verdict::Deliver);
    let delivered = rig.delivered();
    assert_eq!(delivered, [to_oneself(&error, &delivered[0])]);
}

/// The loopback interface carries a whole packet of the wire, and the outer header around it.
#[test]
fn what_the_wire_brings_fits_and_what_is_larger_is_told() {
    for (port, open) in [
        (
            UNREPLICATED,
            tcp(1, UNREPLICATED, SYN, b"").frame(ROUTER, ATM),
        ),
        (
            FOUR_IN_SIX,
            tcp(1, FOUR_IN_SIX, SYN, b"").frame(ROUTER, ATM),
        ),
    ] {
        let mut rig = Rig::here();
        assert_eq!(rig.raw(&open), Verdict::Deliver);
        let of = |len: u16| tcp(1, port, ACK, &vec![7; usize::from(len) - 40]);
        assert_eq!(rig.packet(&of(MTU)), Verdict::Deliver);
        let larger = of(MTU + 1);
        assert_eq!(rig.packet(&larger), Verdict::FragmentationNeeded);
        let told = rig.sent();
        assert_eq!(told[0][40..42], MTU.to_be_bytes(), "RFC 1191 §4");
        let may_be_cut = larger.with(|p| p.fragment = 0);
        rig.delivered();
        assert_eq!(rig.packet(&may_be_cut), Verdict::Deliver);
        assert_eq!(rig.delivered().len(), 2);
    }
}

#[test]
fn what_a_local_stack_left_to_its_device_is_done() {
    let mut rig = Rig::here();
    assert_eq!(
        rig.packet(&tcp(1, UNREPLICATED, SYN, b"")),
        Verdict::Deliver
    );
    rig.delivered();
    let mut large = tcp(1, UNREPLICATED, ACK, &[7; 5000]);
    let offload = Offload {
        gso: Gso::Tcp { segment: 1448 },
        ..large.set_partial_checksum()
    };
    let verdict = rig.frame(&large.frame(ROUTER, ATM), offload, Duration::ZERO);
    assert_eq!(verdict, Verdict::Deliver);
    let delivered = rig.delivered();
    let lengths: Vec<_> = delivered.iter().map(Vec::len).collect();
    let segment = 20 + 40;
    assert_eq!(
        lengths,
        [
            segment + 1448,
            segment + 1448,
            segment + 1448,
            segment + 656
        ]
    );
    for packet in &delivered {
        assert_eq!(checker::check(&as_frame(packet)), Ok(()));
    }
}

#[test]
fn without_the_lease_nothing_is_delivered() {
    let data = tcp(7, QUORUM, ACK, b"data");
    let opened = [ConnectionChange::Open(key(7, 1), ServerId(0).into())];
    let mut rig = Rig::backup();
    rig.forwarder.install(table_here(), rig.now);
    rig.commit(&opened);
    assert_eq!(rig.packet(&data), drop(DropReason::NotActive));

    let mut rig = Rig::here();
    rig.commit(&opened);
    assert_eq!(rig.packet(&tcp(8, QUORUM, SYN, b"")), Verdict::Held);
    rig.lease(1, rig.now);
    assert_eq!(rig.packet(&data), drop(DropReason::LeaseExpired));
    // The record of what was held comes too late.
    rig.commit(&[ConnectionChange::Open(key(8, 1), ServerId(0).into())]);
    assert_eq!(rig.counters().held_dropped(DropReason::LeaseExpired), 1);
    assert_eq!(rig.delivered(), Vec::<Vec<u8>>::new());
}

#[test]
fn there_is_no_other_way_to_oneself_than_the_tunnel() {
    let mut rig = Rig::here();
    let mut table = table_here();
    for server in &mut table.servers {
        server.here = true;
        server.next_hop = None;
    }
    rig.forwarder.install(table, rig.now);
    for (name, frame) in [
        ("direct", tcp(1, DIRECT, SYN, b"").frame(ROUTER, ATM)),
        ("nat", tcp(1, NAT, SYN, b"").frame(ROUTER, ATM)),
        (
            "direct, IPv6",
            Packet6::tcp((CLIENT6, 1), (VIP6, DIRECT6), SYN, b"").frame(ROUTER, ATM),
        ),
    ] {
        assert_eq!(rig.raw(&frame), drop(DropReason::NotByTunnel), "{name}");
    }
    rig.forwarder.interface.address6 = None;
    let six = Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_SIX), SYN, b"").frame(ROUTER, ATM);
    assert_eq!(rig.raw(&six), drop(DropReason::NoOwnAddress));
    assert!(rig.delivered().is_empty() && rig.sent().is_empty());
}

/// A question for one's own address is an announcement of it (RFC 5227 §1.1).
#[test]
fn nobody_asks_the_wire_for_his_own_address() {
    let mut rig = Rig::here();
    rig.sleep(Duration::from_secs(40));
    let asks = |frame: &&Vec<u8>| frame[12..14] == [8, 6] && frame[38..42] == ATM_ADDRESS.octets();
    let sent = rig.sent();
    assert!(!sent.is_empty(), "the others are asked for");
    assert_eq!(sent.iter().filter(asks).count(), 0);
}
