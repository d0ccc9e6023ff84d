//! The life of a connection.

use super::*;
use crate::Event;
use crate::testing::{FIN, RST};

pub(super) fn open(port: u16) -> ConnectionChange {
    ConnectionChange::Open(key(port, 1), ServerId(0).into())
}

pub(super) fn close(port: u16) -> ConnectionChange {
    ConnectionChange::Close(key(port, 1))
}

#[test]
fn a_first_packet_is_held_until_its_record_is_committed() {
    let mut rig = Rig::active();
    let syn = tcp(1, QUORUM, SYN, b"");
    assert_eq!(rig.packet(&syn), Verdict::Held);
    assert_eq!(rig.out.opened, [(key(1, 1), ServerId(0).into())]);
    assert_eq!(rig.packet(&syn), drop(DropReason::AlreadyHeld));
    assert_eq!(
        (rig.forwarder.connections(), rig.forwarder.pending()),
        (1, 1)
    );
    assert!(rig.sent().is_empty());
    rig.commit(&[open(1)]);
    let sent = rig.sent();
    assert_eq!(sent, [tunnelled(&syn, &sent[0])]);
    assert_eq!(
        (rig.forwarder.connections(), rig.forwarder.pending()),
        (1, 0)
    );
    assert_eq!(rig.counters().event(Event::HeldReleased), 1);
    let data = tcp(1, QUORUM, ACK, b"hello");
    assert_eq!(rig.packet(&data), Verdict::Transmit);
    let sent = rig.sent();
    assert_eq!(sent, [tunnelled(&data, &sent[0])]);
    assert_eq!(rig.out.opened.len(), 1);
}

#[test]
fn async_goes_at_once_and_is_recorded_and_none_is_not() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, ASYNC, SYN, b"")), Verdict::Transmit);
    assert_eq!(
        rig.packet(&tcp(1, UNREPLICATED, SYN, b"")),
        Verdict::Transmit
    );
    assert_eq!(rig.out.opened, [(key(1, 2), ServerId(0).into())]);
    assert_eq!(rig.sent().len(), 2);
}

#[test]
fn a_full_replicator_is_a_named_refusal_and_leaves_nothing_behind() {
    let mut rig = Rig::active();
    rig.out.full = true;
    for service in [QUORUM, ASYNC] {
        assert_eq!(
            rig.packet(&tcp(1, service, SYN, b"")),
            drop(DropReason::ReplicatorFull)
        );
    }
    assert_eq!((rig.forwarder.connections(), rig.sent().len()), (0, 0));
}

#[test]
fn each_limit_has_its_name_and_spares_what_is_established() {
    let mut rig = Rig::active();
    rig.established(1000);
    for port in 1..=10 {
        assert_eq!(rig.packet(&tcp(port, QUORUM, SYN, b"")), Verdict::Held);
    }
    assert_eq!(
        rig.packet(&tcp(11, QUORUM, SYN, b"")),
        drop(DropReason::PendingFull)
    );
    // A quarter of 100 may be half-open, the ten that wait among them.
    for port in 11..=25 {
        assert_eq!(
            rig.packet(&tcp(port, UNREPLICATED, SYN, b"")),
            Verdict::Transmit
        );
    }
    assert_eq!(
        rig.packet(&tcp(26, UNREPLICATED, SYN, b"")),
        drop(DropReason::HalfOpenFull)
    );
    for port in 11..=25 {
        assert_eq!(
            rig.packet(&tcp(port, UNREPLICATED, ACK, b"")),
            Verdict::Transmit
        );
    }
    assert_eq!(
        rig.packet(&tcp(26, UNREPLICATED, SYN, b"")),
        Verdict::Transmit,
        "handshakes make room"
    );
    let mut table = table();
    table.connections_max = 27;
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.forwarder.connections(), 27);
    assert_eq!(
        rig.packet(&tcp(27, UNREPLICATED, SYN, b"")),
        drop(DropReason::TableFull)
    );
    assert_eq!(rig.packet(&tcp(1000, QUORUM, ACK, b"")), Verdict::Transmit);
}

#[test]
fn a_hold_ends_after_a_second_and_a_late_record_makes_a_normal_connection() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    rig.sleep(Duration::from_millis(990));
    assert_eq!(rig.forwarder.pending(), 1);
    rig.sleep(Duration::from_millis(120));
    assert_eq!(
        (rig.forwarder.pending(), rig.forwarder.connections()),
        (0, 0)
    );
    assert_eq!(rig.counters().held_dropped(DropReason::HoldExpired), 1);
    rig.commit(&[open(1)]);
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Transmit);
}

#[test]
fn the_record_that_is_committed_first_decides_the_server() {
    let mut rig = Rig::active();
    let mut table = table();
    table.servers[1].method = ForwardingMethod::Tunnel;
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(1).into())]);
    rig.forwarder.refuse(key(1, 1), rig.now);
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
    let to: Vec<_> = rig
        .sent()
        .iter()
        .map(|frame| frame[30..34].to_vec())
        .collect();
    assert_eq!(to, [SERVERS[1].octets(), SERVERS[1].octets()]);
}

#[test]
fn a_refused_record_drops_what_waited_and_leaves_what_did_not() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    assert_eq!(rig.packet(&tcp(1, ASYNC, SYN, b"")), Verdict::Transmit);
    rig.forwarder.refuse(key(1, 1), rig.now);
    rig.forwarder.refuse(key(1, 2), rig.now);
    assert_eq!(rig.counters().held_dropped(DropReason::RecordRefused), 1);
    assert_eq!(
        (rig.forwarder.pending(), rig.forwarder.connections()),
        (0, 1)
    );
    rig.sleep(Duration::from_secs(60));
    assert_eq!(rig.forwarder.connections(), 0);
    assert_eq!(
        rig.out.closed,
        [],
        "a record that does not exist is not closed"
    );
}

#[test]
fn the_active_one_closes_and_the_entry_goes_with_the_record() {
    // Name, what the client sends after its handshake, silence it may keep, silence after which it is closed.
    let cases = [
        ("idle", None, 29_900, 30_100, Event::ConnectionExpired),
        (
            "FIN",
            Some(FIN | ACK),
            9_900,
            10_100,
            Event::ConnectionClosed,
        ),
        ("RST", Some(RST), 900, 1_100, Event::ConnectionClosed),
    ];
    for (name, flags, kept, gone, event) in cases {
        let mut rig = Rig::active();
        rig.established(1);
        // Long enough that the end of the handshake's timeouts is not taken for the end of this one.
        rig.sleep(Duration::from_secs(12));
        assert_eq!(
            rig.packet(&tcp(1, QUORUM, ACK, b"")),
            Verdict::Transmit,
            "{name}"
        );
        if let Some(flags) = flags {
            assert_eq!(
                rig.packet(&tcp(1, QUORUM, flags, b"")),
                Verdict::Transmit,
                "{name}"
            );
        }
        rig.sleep(Duration::from_millis(kept));
        assert_eq!(rig.out.closed, [], "{name}");
        rig.sleep(Duration::from_millis(gone - kept));
        assert_eq!(rig.out.closed, [key(1, 1)], "{name}");
        assert_eq!(rig.counters().event(event), 1, "{name}");
        assert_eq!(
            rig.forwarder.connections(),
            1,
            "{name}: still there until the record is committed"
        );
        rig.sleep(Duration::from_millis(5_100));
        assert_eq!(
            rig.out.closed.len(),
            2,
            "{name}: asked again, it may have been lost"
        );
        assert_eq!(rig.counters().event(event), 1, "{name}: but counted once");
        rig.commit(&[close(1)]);
        assert_eq!(rig.forwarder.connections(), 0, "{name}");
        assert_eq!(
            rig.packet(&tcp(1, QUORUM, ACK, b"")),
            drop(DropReason::NoConnection),
            "{name}"
        );
    }
}

#[test]
fn a_half_open_connection_is_given_up_sooner() {
    let mut rig = Rig::active();
    assert_eq!(rig.packet(&tcp(1, ASYNC, SYN, b"")), Verdict::Transmit);
    rig.sleep(Duration::from_millis(15_900));
    assert_eq!(
        rig.packet(&tcp(1, ASYNC, SYN, b"")),
        Verdict::Transmit,
        "the client is still trying"
    );
    rig.sleep(Duration::from_millis(15_900));
    assert_eq!(rig.out.closed, []);
    rig.sleep(Duration::from_millis(300));
    assert_eq!(rig.out.closed, [key(1, 2)]);
}

/// A resolver asks again after 5 s from the same port; a question that was answered needs no place for longer.
#[test]
fn a_connection_of_one_datagram_is_given_up_soon_and_a_second_one_makes_it_last() {
    const UDP: u16 = 5300;
    let mut table = table();
    table.applied_index = 2;
    table.services.push(VirtualService {
        id: VirtualServiceId(53),
        vip: VIP.into(),
        protocol: Protocol::Udp,
        port: UDP,
        scheduler: Scheduler::Wrr,
        replication: Replication::Async,
        share: vec![(ServerId(0), 1)],
        reset: vec![],
    });
    let mut rig = Rig::active();
    rig.forwarder.install(table, rig.now);
    let question = |port| Packet::udp((CLIENT, port), (VIP, UDP), b"?");
    // As many as a quarter of the table.
    for port in 1..=25 {
        assert_eq!(rig.packet(&question(port)), Verdict::Transmit);
    }
    assert_eq!(rig.packet(&question(26)), drop(DropReason::HalfOpenFull));
    rig.sleep(Duration::from_millis(5_500));
    assert_eq!(rig.packet(&question(1)), Verdict::Transmit);
    assert_eq!(rig.out.closed, []);
    rig.sleep(Duration::from_millis(700));
    let closed: Vec<_> = rig.out.closed.drain(..).collect();
    let ended: Vec<_> = closed
        .iter()
        .map(|key| ConnectionChange::Close(*key))
        .collect();
    assert_eq!(ended.len(), 24, "{closed:?}");
    assert!(!closed.contains(&key(1, 53)));
    rig.commit(&ended);
    for port in 40_001..=40_024 {
        assert_eq!(rig.packet(&question(port)), Verdict::Transmit);
    }
    // The one that asked twice is established, with `ConnectionTimeout` (30 s) of its own.
    rig.sleep(Duration::from_secs(28));
    rig.out.closed.retain(|closed| *closed == key(1, 53));
    assert_eq!(rig.out.closed, []);
    rig.sleep(Duration::from_secs(2));
    assert!(rig.out.closed.contains(&key(1, 53)));
}

#[test]
fn who_speaks_is_not_idle() {
    let mut rig = Rig::active();
    rig.established(1);
    for _ in 0..20 {
        rig.sleep(Duration::from_secs(29));
        rig.neighbours_answer();
        assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
    }
    assert_eq!(rig.out.closed, []);
}

#[test]
fn a_client_that_speaks_while_its_server_is_unreachable_is_not_idle() {
    let mut rig = Rig::active();
    rig.established(1);
    for _ in 0..3 {
        rig.sleep(Duration::from_secs(29));
        let _ = rig.packet(&tcp(1, QUORUM, ACK, b""));
    }
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, ACK, b"")),
        drop(DropReason::NoNeighbour)
    );
    assert_eq!(rig.out.closed, []);
}

#[test]
fn a_forged_reset_ends_nothing_while_the_client_goes_on() {
    let mut rig = Rig::active();
    rig.established(1);
    assert_eq!(rig.packet(&tcp(1, QUORUM, RST, b"")), Verdict::Transmit);
    rig.sleep(Duration::from_millis(500));
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
    rig.sleep(Duration::from_secs(20));
    assert_eq!(rig.out.closed, []);
}

#[test]
fn a_port_used_again_after_fin_keeps_its_server_and_lives() {
    let mut rig = Rig::active();
    rig.established(1);
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, FIN | ACK, b"")),
        Verdict::Transmit
    );
    rig.sleep(Duration::from_millis(10_100));
    assert_eq!(rig.out.closed, [key(1, 1)]);
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Transmit);
    rig.commit(&[close(1)]);
    assert_eq!(
        rig.out.opened,
        [(key(1, 1), ServerId(0).into())],
        "the record is made anew"
    );
    assert_eq!(rig.counters().event(Event::ConnectionReopened), 1);
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"")), Verdict::Transmit);
}

#[test]
fn a_close_that_finds_the_replicator_full_is_asked_for_again() {
    let mut rig = Rig::active();
    rig.established(1);
    rig.out.full = true;
    rig.sleep(Duration::from_secs(32));
    rig.out.full = false;
    assert_eq!(rig.out.closed, []);
    rig.sleep(Duration::from_millis(1_100));
    assert_eq!(rig.out.closed, [key(1, 1)]);
    assert_eq!(rig.counters().event(Event::ConnectionExpired), 1);
}

#[test]
fn a_server_that_leaves_the_configuration_keeps_its_connections() {
    let mut rig = Rig::active();
    rig.established(1);
    let mut table = table();
    table.applied_index = 2;
    table.services[0].share = vec![];
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"x")), Verdict::Transmit);
    assert_eq!(
        rig.packet(&tcp(2, QUORUM, SYN, b"")),
        drop(DropReason::NoServer)
    );
}

#[test]
fn the_work_of_one_call_is_bounded_and_the_rest_is_not_forgotten() {
    let mut rig = Rig::without_servers(5000);
    rig.commit(&(1..=5000).map(open).collect::<Vec<_>>());
    rig.lease(1, at(3_600_000));
    rig.now = at(31_000);
    rig.tick();
    assert_eq!(rig.out.closed.len(), 512);
    assert!(
        rig.forwarder
            .poll_timeout()
            .is_some_and(|due| due <= rig.now)
    );
    rig.sleep(Duration::ZERO);
    assert_eq!(rig.out.closed.len(), 5000);
}
