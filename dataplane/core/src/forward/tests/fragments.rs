//! Fragments follow the first of their datagram.

use super::*;
use crate::Event;
use crate::testing::Packet6;

const QUORUM_UDP: u16 = 5300;
const LOCAL_UDP: u16 = 5301;
const VIP6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const CLIENT6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);

fn rig() -> Rig {
    let mut rig = Rig::active();
    let mut table = table();
    table.applied_index = 2;
    table.vips.push(VIP6.into());
    for (id, vip, port, replication) in [
        (50, IpAddr::from(VIP), QUORUM_UDP, Replication::Quorum),
        (51, VIP.into(), LOCAL_UDP, Replication::None),
        (52, VIP6.into(), LOCAL_UDP, Replication::None),
    ] {
        table.services.push(VirtualService {
            id: VirtualServiceId(id),
            vip,
            protocol: Protocol::Udp,
            port,
            scheduler: Scheduler::Wrr,
            replication,
            share: vec![(ServerId(0), 1)],
            reset: vec![],
        });
    }
    rig.forwarder.install(table, rig.now);
    for ms in [600, 700, 1100, 1700] {
        rig.now = at(ms);
        rig.tick();
    }
    rig.sent();
    rig
}

/// A datagram in three pieces.
fn pieces(port: u16, id: u16) -> Vec<Packet> {
    let data: Vec<u8> = (0..=255).cycle().take(2000).collect();
    let whole = Packet::udp((CLIENT, 9), (VIP, port), &data).with(|p| p.id = id);
    let chunks = whole.payload.chunks(800);
    chunks
        .zip(0_u16..)
        .map(|(chunk, at)| {
            whole.clone().with(|p| {
                p.payload = chunk.to_vec();
                p.fragment = (if at == 2 { 0 } else { 0x2000 }) | (at * 100);
            })
        })
        .collect()
}

fn arrived(sent: &[Vec<u8>], pieces: &[&Packet]) {
    let expected: Vec<_> = pieces
        .iter()
        .zip(sent)
        .map(|(piece, like)| tunnelled(piece, like))
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn the_others_follow_the_first() {
    let mut rig = rig();
    let pieces = pieces(LOCAL_UDP, 7);
    for piece in &pieces {
        assert_eq!(rig.packet(piece), Verdict::Transmit);
    }
    arrived(&rig.sent(), &pieces.iter().collect::<Vec<_>>());
    assert_eq!(rig.forwarder.about().service, Some(VirtualServiceId(51)));
}

#[test]
fn those_that_come_early_wait_for_the_first() {
    let mut rig = rig();
    let pieces = pieces(LOCAL_UDP, 7);
    assert_eq!(rig.packet(&pieces[2]), Verdict::Held);
    assert_eq!(rig.packet(&pieces[1]), Verdict::Held);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.packet(&pieces[0]), Verdict::Transmit);
    arrived(&rig.sent(), &[&pieces[0], &pieces[2], &pieces[1]]);
    assert_eq!(rig.counters().event(Event::HeldReleased), 2);
}

#[test]
fn all_wait_for_the_record_of_the_connection() {
    let mut rig = rig();
    let pieces = pieces(QUORUM_UDP, 7);
    for at in [1, 0, 2] {
        assert_eq!(rig.packet(&pieces[at]), Verdict::Held);
    }
    assert!(rig.sent().is_empty());
    rig.commit(&[ConnectionChange::Open(key(9, 50), ServerId(0).into())]);
    arrived(&rig.sent(), &[&pieces[0], &pieces[1], &pieces[2]]);
}

#[test]
fn what_waits_in_vain_is_dropped_by_name() {
    let mut rig = rig();
    let of_none = pieces(LOCAL_UDP, 7);
    assert_eq!(rig.packet(&of_none[1]), Verdict::Held);
    rig.sleep(Duration::from_millis(1100));
    let dropped = |rig: &Rig, reason| rig.counters().held_dropped(reason);
    assert_eq!(dropped(&rig, DropReason::FragmentExpired), 1);

    let refused = pieces(QUORUM_UDP, 8);
    assert_eq!(rig.packet(&refused[0]), Verdict::Held);
    assert_eq!(rig.packet(&refused[1]), Verdict::Held);
    rig.forwarder.refuse(key(9, 50), rig.now);
    assert_eq!(dropped(&rig, DropReason::RecordRefused), 2);

    let unheard = pieces(LOCAL_UDP, 9);
    assert_eq!(rig.packet(&unheard[1]), Verdict::Held);
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    assert_eq!(dropped(&rig, DropReason::NotActive), 1);
    assert!(rig.sent().is_empty());
}

#[test]
fn ipv6_fragments_follow_too() {
    let mut rig = rig();
    let data = [5; 1000];
    let whole = Packet6::udp((CLIENT6, 9), (VIP6, LOCAL_UDP), &data);
    let piece = |offset: usize, len: usize, more: u8| {
        let [high, low] = u16::try_from(offset).unwrap().to_be_bytes();
        whole.clone().with(|p| {
            p.next = 44;
            p.extensions = vec![17, 0, high, low | more, 1, 2, 3, 4];
            p.payload = whole.payload[offset..offset + len].to_vec();
        })
    };
    let (first, last) = (piece(0, 800, 1), piece(800, 208, 0));
    assert_eq!(rig.raw(&last.frame(ROUTER, ATM)), Verdict::Held);
    assert_eq!(rig.raw(&first.frame(ROUTER, ATM)), Verdict::Transmit);
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0][34..], first.bytes());
    assert_eq!(sent[1][34..], last.bytes());
}
