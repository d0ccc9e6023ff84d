//! What arrives at a server: whole, finished, segmented and fragmented packets. `pnet_packet` is the second opinion.

use pnet_packet::{Packet as _, ipv4, tcp as pnet_tcp};
use proptest::prelude::*;

use super::*;
use crate::testing::{CWR, FIN, PSH};
use crate::{Checksum, Gso, Malformed};

/// Takes a tunnel frame apart, having checked the outer header and every checksum; returns the inner packet.
fn inner(frame: &[u8]) -> Vec<u8> {
    assert_eq!(
        frame[..14],
        [&SERVER_MACS[0].0[..], &ATM.0, &[8, 0]].concat()
    );
    let outer = ipv4::Ipv4Packet::new(&frame[14..]).unwrap();
    assert_eq!(ipv4::checksum(&outer), outer.get_checksum());
    assert_eq!(usize::from(outer.get_total_length()), frame.len() - 14);
    assert_eq!(
        (
            outer.get_header_length(),
            outer.get_next_level_protocol().0,
            outer.get_ttl()
        ),
        (5, 4, 64)
    );
    assert_eq!(
        (outer.get_source(), outer.get_destination()),
        (ATM_ADDRESS, SERVERS[0])
    );
    let inner = ipv4::Ipv4Packet::new(outer.payload()).unwrap();
    assert_eq!(ipv4::checksum(&inner), inner.get_checksum());
    assert_eq!(usize::from(inner.get_total_length()), outer.payload().len());
    assert_eq!(outer.get_dscp(), inner.get_dscp());
    assert_eq!(outer.get_ecn(), inner.get_ecn());
    assert_eq!(outer.get_flags(), inner.get_flags() & 2);
    outer.payload().to_vec()
}

/// The same for a packet that is a whole TCP segment.
fn inner_tcp(frame: &[u8]) -> Vec<u8> {
    let inner = inner(frame);
    let ip = ipv4::Ipv4Packet::new(&inner).unwrap();
    let segment = pnet_tcp::TcpPacket::new(ip.payload()).unwrap();
    let checksum = pnet_tcp::ipv4_checksum(&segment, &ip.get_source(), &ip.get_destination());
    assert_eq!(segment.get_checksum(), checksum);
    inner
}

fn offload(gso: Gso, checksum: Checksum) -> Offload {
    Offload { checksum, gso }
}

/// A packet of an established connection, as a local stack hands it over: the device still has to cut and sum.
fn large(flags: u8, len: usize, change: impl FnOnce(&mut Packet)) -> (Packet, Checksum) {
    let data: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut packet = tcp(1, QUORUM, flags, &data);
    // TCP option: timestamps, twelve bytes.
    packet.payload[12] = 8 << 4;
    packet
        .payload
        .splice(20..20, [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0]);
    change(&mut packet);
    let checksum = packet.set_partial_checksum().checksum;
    (packet, checksum)
}

#[test]
fn the_inner_packet_is_left_alone() {
    for change in [
        |_: &mut Packet| {},
        |p: &mut Packet| p.tos = 0xb9,
        |p: &mut Packet| p.fragment = 0,
        |p: &mut Packet| p.ttl = 1,
        |p: &mut Packet| p.options = vec![7, 7, 4, 0, 0, 0, 0, 0],
        |p: &mut Packet| p.payload[17] ^= 1,
    ] {
        let mut rig = Rig::active();
        rig.established(1);
        let packet = tcp(1, QUORUM, ACK, b"odd").with(change);
        rig.out.damaged = checker::check(&packet.frame(ROUTER, ATM)).is_err();
        assert_eq!(rig.packet(&packet), Verdict::Transmit);
        let sent = rig.sent();
        assert_eq!(sent, [tunnelled(&packet, &sent[0])]);
        inner(&sent[0]);
    }
}

#[test]
fn the_padding_of_the_frame_stays_behind() {
    let mut rig = Rig::active();
    rig.established(1);
    let packet = tcp(1, QUORUM, ACK, b"");
    let mut frame = packet.frame(ROUTER, ATM);
    frame.resize(60, 0xee);
    assert_eq!(rig.raw(&frame), Verdict::Transmit);
    let sent = rig.sent();
    assert_eq!(sent, [tunnelled(&packet, &sent[0])]);
}

#[test]
fn outer_identifications_differ() {
    let mut rig = Rig::active();
    rig.established(1);
    for _ in 0..3 {
        assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
    }
    let ids: std::collections::BTreeSet<_> = rig
        .sent()
        .iter()
        .map(|frame| frame[18..20].to_vec())
        .collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn direct_routing_changes_the_ethernet_addresses_alone() {
    let mut rig = Rig::active();
    let packet = tcp(1, DIRECT, SYN, b"");
    let mut frame = packet.frame(ROUTER, ATM);
    frame.resize(60, 0);
    assert_eq!(rig.raw(&frame), Verdict::Transmit);
    assert_eq!(rig.sent(), [packet.frame(ATM, SERVER_MACS[1])]);
}

#[test]
fn a_partial_checksum_is_finished_also_of_a_held_packet() {
    let mut rig = Rig::active();
    let finished = tcp(1, QUORUM, SYN, b"");
    let mut packet = finished.clone();
    let offload = packet.set_partial_checksum();
    assert_ne!(packet.bytes(), finished.bytes());
    assert_eq!(
        rig.frame(&packet.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Held
    );
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(0).into())]);
    assert_eq!(inner_tcp(&rig.sent()[0]), finished.bytes());
    let finished = tcp(1, QUORUM, ACK, b"odd")
        .with(|p| p.options = vec![1, 1, 1, 0])
        .with(Packet::set_tcp_checksum);
    let mut packet = finished.clone();
    let offload = packet.set_partial_checksum();
    assert_eq!(
        rig.frame(&packet.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    assert_eq!(inner_tcp(&rig.sent()[0]), finished.bytes());
}

#[test]
fn an_offload_that_points_outside_is_malformed() {
    for (start, offset) in [
        (34, 19),
        (34, u16::MAX),
        (u16::MAX, u16::MAX),
        (33, 16),
        (0, 0),
        (54, 0),
    ] {
        for gso in [Gso::None, Gso::Tcp { segment: 100 }] {
            let mut rig = Rig::active();
            rig.established(1);
            let frame = tcp(1, QUORUM, ACK, b"").frame(ROUTER, ATM);
            let verdict = rig.frame(
                &frame,
                offload(gso, Checksum::Partial { start, offset }),
                Duration::ZERO,
            );
            assert_eq!(
                verdict,
                drop(DropReason::Malformed(Malformed::Offload)),
                "{start} {offset}"
            );
            assert!(rig.sent().is_empty());
        }
    }
}

#[test]
fn offloads_that_cannot_be_done_are_refused() {
    let icmp_error = Packet::icmp(
        CLIENT,
        VIP,
        3,
        1,
        [0; 4],
        &Packet::tcp((VIP, QUORUM), (CLIENT, 1), ACK, b"").bytes(),
    );
    let big = tcp(1, QUORUM, ACK, &[0; 3000]);
    for (packet, gso) in [
        (&big, Gso::Other(3)),
        (&big, Gso::Tcp { segment: 0 }),
        (&big, Gso::Tcp { segment: 47 }),
        (&icmp_error, Gso::Tcp { segment: 1400 }),
    ] {
        let mut rig = Rig::active();
        rig.established(1);
        let verdict = rig.frame(
            &packet.frame(ROUTER, ATM),
            offload(gso, Checksum::Complete),
            Duration::ZERO,
        );
        assert_eq!(verdict, drop(DropReason::UnsupportedOffload), "{gso:?}");
        assert!(rig.sent().is_empty());
    }
}

#[test]
fn segments_carry_the_flags_where_they_belong() {
    let mut rig = Rig::active();
    rig.established(1);
    let (packet, checksum) = large(ACK | PSH | FIN | CWR, 4000, |_| {});
    let gso = Gso::Tcp { segment: 1428 };
    assert_eq!(
        rig.frame(
            &packet.frame(ROUTER, ATM),
            offload(gso, checksum),
            Duration::ZERO
        ),
        Verdict::Transmit
    );
    let flags: Vec<u8> = rig
        .sent()
        .iter()
        .map(|frame| inner_tcp(frame)[33])
        .collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | PSH | FIN]);
}

#[test]
fn the_segment_is_measured_and_not_the_frame() {
    let (packet, checksum) = large(ACK, 4000, |_| {});
    for (segment, verdict) in [
        (1428, Verdict::Transmit),
        (1429, Verdict::FragmentationNeeded),
    ] {
        let mut rig = Rig::active();
        rig.established(1);
        let gso = Gso::Tcp { segment };
        assert_eq!(
            rig.frame(
                &packet.frame(ROUTER, ATM),
                offload(gso, checksum),
                Duration::ZERO
            ),
            verdict
        );
    }
    // Without DF the segments are made to fit.
    let mut rig = Rig::active();
    rig.established(1);
    let (packet, checksum) = large(ACK, 4000, |p| p.fragment = 0);
    let gso = Gso::Tcp { segment: 1448 };
    assert_eq!(
        rig.frame(
            &packet.frame(ROUTER, ATM),
            offload(gso, checksum),
            Duration::ZERO
        ),
        Verdict::Transmit
    );
    let sizes: Vec<_> = rig
        .sent()
        .iter()
        .map(|frame| inner_tcp(frame).len())
        .collect();
    assert_eq!(sizes, [1480, 1480, 52 + 4000 - 2 * 1428]);
}

#[test]
fn fragments_of_a_packet_that_may_be_cut() {
    let mut rig = Rig::active();
    rig.established(1);
    // Record route (not copied), then loose source route's class of options: copied (RFC 791 §3.1).
    let options = vec![7, 7, 4, 0, 0, 0, 0, 0x88, 4, 1, 2, 0];
    let packet =
        tcp(1, QUORUM, ACK, &[9; 1448]).with(|p| (p.fragment, p.options) = (0, options.clone()));
    assert_eq!(rig.packet(&packet), Verdict::Transmit);
    let sent = rig.sent();
    let pieces: Vec<_> = sent.iter().map(|frame| inner(frame)).collect();
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0][20..32], options[..]);
    assert_eq!(pieces[1][..1], [0x46]);
    assert_eq!(pieces[1][20..24], [0x88, 4, 1, 2]);
    assert_eq!(reassemble(&pieces), packet.payload);
}

/// RFC 791 §3.2, for fragments in order.
fn reassemble(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![];
    for (at, piece) in pieces.iter().enumerate() {
        let ip = ipv4::Ipv4Packet::new(piece).unwrap();
        assert_eq!(usize::from(ip.get_fragment_offset()) * 8, payload.len());
        assert_eq!(ip.get_flags() & 1 != 0, at + 1 < pieces.len());
        assert_eq!(ip.get_identification(), 0x1234);
        payload.extend(&piece[usize::from(ip.get_header_length()) * 4..]);
    }
    payload
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn segments_are_the_stream_that_was_sent(len in 1usize..20_000, segment in 48u16..1428, start: u32, id: u16) {
        let mut rig = Rig::active();
        rig.established(1);
        let (packet, checksum) = large(ACK | PSH, len, |p| {
            p.id = id;
            p.payload[4..8].copy_from_slice(&start.to_be_bytes());
        });
        let gso = Gso::Tcp { segment };
        prop_assert_eq!(rig.frame(&packet.frame(ROUTER, ATM), offload(gso, checksum), Duration::ZERO), Verdict::Transmit);
        let mut stream: Vec<u8> = vec![];
        for (at, frame) in rig.sent().iter().enumerate() {
            let inner = inner_tcp(frame);
            let ip = ipv4::Ipv4Packet::new(&inner).unwrap();
            let tcp = pnet_tcp::TcpPacket::new(ip.payload()).unwrap();
            prop_assert_eq!(ip.get_identification(), id.wrapping_add(u16::try_from(at).unwrap()));
            prop_assert_eq!(tcp.get_sequence(), start.wrapping_add(u32::try_from(stream.len()).unwrap()));
            prop_assert_eq!(&inner[40..52], &packet.payload[20..32]);
            prop_assert!(inner.len() - 52 <= usize::from(segment));
            stream.extend(&inner[52..]);
        }
        prop_assert_eq!(&stream, &packet.payload[32..]);
    }

    #[test]
    fn fragments_are_the_packet_that_was_sent(len in 1441usize..30_000) {
        let mut rig = Rig::active();
        rig.established(1);
        let data: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let packet = tcp(1, QUORUM, ACK, &data).with(|p| p.fragment = 0);
        prop_assert_eq!(rig.packet(&packet), Verdict::Transmit);
        let pieces: Vec<_> = rig.sent().iter().map(|frame| inner(frame)).collect();
        prop_assert!(pieces.iter().all(|piece| piece.len() <= 1480));
        prop_assert_eq!(reassemble(&pieces), packet.payload);
    }
}
