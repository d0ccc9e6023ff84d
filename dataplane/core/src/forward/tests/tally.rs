//! The verdicts of each virtual service and server.

use super::*;
use crate::Tallied;

/// What became of frames at once.
fn tallied(rig: &Rig) -> Vec<(Option<u16>, Option<u16>, Verdict, u64)> {
    let row = |row: &Tallied| {
        let service = row.about.service.map(|service| service.0);
        let server = row.about.server.map(|server| server.0);
        (service, server, row.verdict, row.frames)
    };
    let all = rig.counters().tallied();
    all.iter().filter(|row| !row.held).map(row).collect()
}

#[test]
fn every_verdict_is_counted_with_its_service_and_server() {
    let mut rig = Rig::active();
    rig.established(4000);
    let first = tcp(4001, DIRECT, SYN, b"");
    assert_eq!(rig.packet(&first), Verdict::Transmit);
    assert_eq!(rig.packet(&first), Verdict::Transmit);
    let nat = tcp(4002, NAT, SYN, b"");
    let nat = rig.packet(&nat);
    let empty = tcp(4003, EMPTY, SYN, b"");
    assert_eq!(rig.packet(&empty), drop(DropReason::NoServer));
    let nowhere = tcp(4004, 9999, SYN, b"");
    assert_eq!(rig.packet(&nowhere), drop(DropReason::NoService));
    let stray = tcp(4005, QUORUM, ACK, b"");
    assert_eq!(rig.packet(&stray), drop(DropReason::NoConnection));

    let rows = tallied(&rig);
    for expected in [
        (Some(1), Some(0), Verdict::Transmit, 1),
        (Some(1), Some(0), Verdict::Held, 1),
        (Some(1), None, drop(DropReason::NoConnection), 1),
        (Some(4), Some(1), Verdict::Transmit, 2),
        (Some(5), Some(2), nat, 1),
        (Some(6), None, drop(DropReason::NoServer), 1),
    ] {
        assert!(rows.contains(&expected), "{expected:?}: {rows:?}");
    }
    assert_eq!(rows.len(), 6, "{rows:?}");
}

#[test]
fn the_rows_of_a_verdict_sum_to_its_counter() {
    let mut rig = Rig::active();
    for port in 4000..4020 {
        rig.established(port);
        for to in [ASYNC, UNREPLICATED, DIRECT, NAT, EMPTY] {
            let _counted = rig.packet(&tcp(port, to, SYN, b""));
            let _counted = rig.packet(&tcp(port, to, ACK, b"more"));
        }
    }
    let rows = rig.counters().tallied();
    for verdict in Verdict::ALL {
        // Only ARP and what came before the lease was about no service.
        if matches!(verdict, Verdict::Host | Verdict::Answered) {
            continue;
        }
        let sum: u64 = rows
            .iter()
            .filter(|row| row.verdict == verdict && !row.held)
            .map(|row| row.frames)
            .sum();
        assert_eq!(sum, rig.counters().verdict(verdict), "{verdict:?}");
    }
    assert!(rig.counters().verdict(Verdict::Transmit) > 100);
}

#[test]
fn what_the_table_drops_is_not_told_apart_any_more() {
    let mut rig = Rig::active();
    rig.established(4000);
    for (port, to) in [(4001, DIRECT), (4002, UNREPLICATED)] {
        assert_eq!(rig.packet(&tcp(port, to, SYN, b"")), Verdict::Transmit);
    }
    let transmitted = rig.counters().verdict(Verdict::Transmit);
    let mut table = table();
    table.applied_index = 2;
    table.services.retain(|service| service.id.0 != 3);
    table.servers.retain(|server| server.id.0 != 1);
    rig.forwarder.install(table, rig.now);
    assert_eq!(
        tallied(&rig),
        [
            (Some(1), Some(0), Verdict::Transmit, 1),
            (Some(1), Some(0), Verdict::Held, 1),
        ]
    );
    assert_eq!(rig.counters().verdict(Verdict::Transmit), transmitted);
}

#[test]
fn what_became_of_held_frames_is_told_by_service_and_server() {
    let mut rig = Rig::active();
    for port in 1..=4 {
        assert_eq!(rig.packet(&tcp(port, QUORUM, SYN, b"")), Verdict::Held);
    }
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(0).into())]);
    // Another record came first: the frame goes to its server.
    rig.commit(&[ConnectionChange::Open(key(2, 1), ServerId(1).into())]);
    rig.forwarder.refuse(key(3, 1), rig.now);
    rig.sleep(Duration::from_millis(1_100));
    assert_eq!(rig.packet(&tcp(5, QUORUM, SYN, b"")), Verdict::Held);
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    let tallied = rig.counters().tallied();
    let rows: Vec<_> = tallied
        .iter()
        .filter(|row| row.held)
        .map(|row| {
            let server = row.about.server.unwrap();
            (
                row.about.service.unwrap().0,
                server.0,
                row.name(),
                row.frames,
            )
        })
        .collect();
    let expected = [
        (1, 0, "held-released", 1),
        (1, 0, "held-not-active", 1),
        (1, 0, "held-hold-expired", 1),
        (1, 0, "held-record-refused", 1),
        (1, 1, "held-released", 1),
    ];
    let expected = expected.map(|(service, server, end, n)| (service, server, end.into(), n));
    assert_eq!(rows, expected);
}

#[test]
fn what_a_frame_was_about_is_known_as_far_as_its_decision_went() {
    let mut rig = Rig::active();
    let about = |rig: &Rig| {
        let about = rig.forwarder.about();
        (about.service.map(|id| id.0), about.server.map(|id| id.0))
    };
    assert_eq!(rig.packet(&tcp(1, DIRECT, SYN, b"")), Verdict::Transmit);
    assert_eq!(about(&rig), (Some(4), Some(1)));
    assert_eq!(
        rig.packet(&tcp(1, EMPTY, SYN, b"")),
        drop(DropReason::NoServer)
    );
    assert_eq!(about(&rig), (Some(6), None));
    assert_eq!(
        rig.packet(&tcp(1, 9, SYN, b"")),
        drop(DropReason::NoService)
    );
    assert_eq!(about(&rig), (None, None));
}
