//! Connections as committed records say: on a backup, after a takeover, from a snapshot.

use super::connections::{close, open};
use super::*;
use crate::Event;

#[test]
fn a_backup_follows_the_records_and_closes_nothing() {
    let mut rig = Rig::backup();
    rig.commit(&[open(1), open(2)]);
    rig.sleep(Duration::from_secs(1000));
    assert_eq!((rig.forwarder.connections(), rig.out.closed.len()), (2, 0));
    rig.commit(&[close(2)]);
    assert_eq!(rig.forwarder.connections(), 1);
    rig.neighbours_answer();
    let until = rig.now + Duration::from_secs(3600);
    rig.lease(1, until);
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
    assert_eq!(
        rig.packet(&tcp(2, QUORUM, ACK, b"")),
        drop(DropReason::NoConnection)
    );
}

#[test]
fn a_backup_looks_at_an_idle_entry_seldom() {
    let mut rig = Rig::without_servers(10);
    rig.commit(&[open(1)]);
    let mut looks = 0;
    let end = at(300_000);
    while let Some(due) = rig.forwarder.poll_timeout().filter(|&due| due <= end) {
        rig.now = rig.now.max(due);
        rig.tick();
        looks += 1;
    }
    // Ten, and up to two until the wheel has caught up with the clock.
    assert!(
        (10..=12).contains(&looks),
        "{looks} in ten times the timeout"
    );
}

#[test]
fn a_record_that_was_asked_for_in_a_lost_tenure_and_never_came_is_not_kept_for_ever() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, ASYNC, SYN, b"")), Verdict::Transmit);
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    rig.sleep(Duration::from_secs(120));
    assert_eq!((rig.forwarder.connections(), rig.out.closed.len()), (0, 0));
}

#[test]
fn after_a_takeover_every_entry_has_a_full_timeout() {
    let mut rig = Rig::backup();
    rig.commit(&[open(1)]);
    rig.sleep(Duration::from_secs(29));
    let until = rig.now + Duration::from_secs(3600);
    rig.lease(1, until);
    rig.sleep(Duration::from_millis(29_900));
    assert_eq!(rig.out.closed, []);
    rig.sleep(Duration::from_millis(200));
    assert_eq!(rig.out.closed, [key(1, 1)]);
}

#[test]
fn handshakes_seen_in_an_earlier_tenure_do_not_count_as_half_open() {
    let mut rig = Rig::active();
    for port in 1..=25 {
        assert_eq!(rig.packet(&tcp(port, ASYNC, SYN, b"")), Verdict::Transmit);
    }
    assert_eq!(
        rig.packet(&tcp(26, ASYNC, SYN, b"")),
        drop(DropReason::HalfOpenFull)
    );
    rig.lease(2, at(3_600_000));
    assert_eq!(rig.packet(&tcp(26, ASYNC, SYN, b"")), Verdict::Transmit);
    rig.sleep(Duration::from_millis(16_200));
    assert_eq!(
        rig.out.closed,
        [key(26, 2)],
        "the others may long be established, and have a full timeout"
    );
    rig.sleep(Duration::from_secs(20));
    rig.out.closed.sort_unstable();
    rig.out.closed.dedup();
    assert_eq!(rig.out.closed.len(), 26);
}

#[test]
fn a_record_of_a_server_that_no_table_lists_is_a_named_drop() {
    let mut rig = Rig::active();
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(77).into())]);
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, ACK, b"")),
        drop(DropReason::UnknownServer)
    );
}

#[test]
fn a_snapshot_replaces_what_came_from_records_and_nothing_else() {
    let mut rig = Rig::active();
    rig.commit(&[open(1), open(2)]);
    assert_eq!(
        rig.packet(&tcp(3, UNREPLICATED, SYN, b"")),
        Verdict::Transmit
    );
    assert_eq!(rig.packet(&tcp(4, QUORUM, SYN, b"")), Verdict::Held);
    rig.forwarder.replace_connections(
        [
            (key(2, 1), ServerId(0).into()),
            (key(5, 1), ServerId(0).into()),
        ]
        .into_iter(),
        rig.now,
    );
    assert_eq!(
        (rig.forwarder.connections(), rig.forwarder.pending()),
        (4, 1)
    );
    for (port, service, verdict) in [
        (1, QUORUM, drop(DropReason::NoConnection)),
        (2, QUORUM, Verdict::Transmit),
        (3, UNREPLICATED, Verdict::Transmit),
        (4, QUORUM, drop(DropReason::AlreadyHeld)),
        (5, QUORUM, Verdict::Transmit),
    ] {
        assert_eq!(
            rig.packet(&tcp(port, service, ACK, b"")),
            verdict,
            "port {port}"
        );
    }
}

#[test]
fn a_snapshot_is_right_about_what_it_lists() {
    let mut rig = Rig::active();
    let mut table = table();
    table.servers[1].method = ForwardingMethod::Tunnel;
    rig.forwarder.install(table, rig.now);
    rig.commit(&[open(1)]);
    assert_eq!(rig.packet(&tcp(2, QUORUM, SYN, b"")), Verdict::Held);
    let all = [
        (key(1, 1), ServerId(1).into()),
        (key(2, 1), ServerId(1).into()),
    ];
    rig.forwarder.replace_connections(all.into_iter(), rig.now);
    assert_eq!(rig.forwarder.pending(), 0);
    assert_eq!(rig.counters().held_dropped(DropReason::NotActive), 1);
    for port in [1, 2] {
        assert_eq!(rig.packet(&tcp(port, QUORUM, ACK, b"")), Verdict::Transmit);
    }
    let to: Vec<_> = rig
        .sent()
        .iter()
        .map(|frame| frame[30..34].to_vec())
        .collect();
    assert_eq!(to, [SERVERS[1].octets(), SERVERS[1].octets()]);
}

#[test]
fn committed_records_are_bounded_too_and_what_finds_no_room_is_counted() {
    let mut rig = Rig::backup();
    let records: Vec<_> = (1..=250).map(open).collect();
    rig.commit(&records);
    assert_eq!(rig.forwarder.connections(), 200);
    assert_eq!(rig.counters().event(Event::RecordIgnored), 50);
    let v6 = ConnectionKey {
        client: std::net::Ipv6Addr::LOCALHOST.into(),
        ..key(1, 1)
    };
    rig.commit(&[ConnectionChange::Open(v6, ServerId(0).into())]);
    assert_eq!(rig.counters().event(Event::RecordIgnored), 51);
}
