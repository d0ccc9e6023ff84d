//! P1 and the age limit, by example; `properties` has it at random.

use super::*;
use crate::FRAME_AGE_MAX;

fn ask(target: Ipv4Addr) -> Vec<u8> {
    arp(
        (ROUTER, MacAddr::BROADCAST),
        1,
        (ROUTER, Ipv4Addr::new(10, 1, 0, 254)),
        (MacAddr::ZERO, target),
    )
}

/// What speaks for the VIP: an ARP request, an echo request, a first packet and a later one.
fn for_the_vip() -> [Vec<u8>; 4] {
    [
        ask(VIP),
        Packet::icmp(CLIENT, VIP, 8, 0, [0; 4], b"x").frame(ROUTER, ATM),
        tcp(1, UNREPLICATED, SYN, b"").frame(ROUTER, ATM),
        tcp(40000, QUORUM, ACK, b"").frame(ROUTER, ATM),
    ]
}

#[test]
fn a_backup_is_silent() {
    let mut rig = Rig::backup();
    for frame in for_the_vip() {
        assert_eq!(rig.raw(&frame), drop(DropReason::NotActive));
    }
    rig.sleep(Duration::from_secs(100));
    let own_requests = rig.sent();
    assert!(
        !own_requests.is_empty()
            && own_requests
                .iter()
                .all(|frame| frame[28..32] == ATM_ADDRESS.octets())
    );
}

#[test]
fn the_deadline_is_the_first_instant_of_silence() {
    for frame in for_the_vip() {
        let mut rig = Rig::active();
        rig.established(40000);
        let now = rig.now;
        rig.lease(1, now + Duration::from_nanos(1));
        assert!(matches!(
            rig.raw(&frame),
            Verdict::Transmit | Verdict::Answered
        ));
        assert_eq!(rig.sent().len(), 1);
        rig.lease(1, now);
        assert_eq!(rig.raw(&frame), drop(DropReason::LeaseExpired));
        assert_eq!(rig.sent(), Vec::<Vec<u8>>::new());
    }
}

#[cfg(feature = "planted")]
#[test]
fn the_planted_fault_speaks_after_the_deadline() {
    let _planted = model::planted::on_this_thread(model::planted::Bug::LeaseOff);
    for frame in for_the_vip() {
        let mut rig = Rig::active();
        rig.established(40000);
        let now = rig.now;
        rig.lease(1, now);
        rig.forwarder.set_lease(None, now, &mut rig.out);
        assert!(matches!(
            rig.raw(&frame),
            Verdict::Transmit | Verdict::Answered
        ));
        assert_eq!(rig.sent().len(), 1);
    }
}

#[test]
fn what_waited_too_long_is_thrown_away() {
    for frame in for_the_vip() {
        let mut rig = Rig::active();
        rig.established(40000);
        let verdict = rig.frame(
            &frame,
            Offload::default(),
            FRAME_AGE_MAX + Duration::from_nanos(1),
        );
        assert_eq!(verdict, drop(DropReason::Stale));
        assert!(rig.sent().is_empty());
        assert!(matches!(
            rig.frame(&frame, Offload::default(), FRAME_AGE_MAX),
            Verdict::Transmit | Verdict::Answered
        ));
    }
}

#[test]
fn a_held_frame_is_not_released_after_the_deadline() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    rig.lease(1, rig.now);
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(0).into())]);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.counters().held_dropped(DropReason::LeaseExpired), 1);
    assert_eq!(
        (rig.forwarder.connections(), rig.forwarder.pending()),
        (1, 0)
    );
}

#[test]
fn a_new_epoch_throws_away_what_an_older_one_held() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    assert_eq!(rig.forwarder.pending(), 1);
    rig.lease(2, at(3_600_000));
    assert_eq!(
        (rig.forwarder.connections(), rig.forwarder.pending()),
        (0, 0)
    );
    assert_eq!(rig.counters().held_dropped(DropReason::LeaseExpired), 1);
    rig.out.frames.clear();
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(0).into())]);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
}

#[test]
fn a_lease_of_an_older_epoch_counts_as_none() {
    let mut rig = Rig::active();
    rig.lease(3, at(3_600_000));
    rig.lease(2, at(7_200_000));
    assert_eq!(rig.raw(&ask(VIP)), drop(DropReason::NotActive));
}

#[test]
fn without_a_lease_nothing_is_held() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    assert_eq!(rig.forwarder.pending(), 0);
    assert_eq!(rig.counters().held_dropped(DropReason::NotActive), 1);
}
