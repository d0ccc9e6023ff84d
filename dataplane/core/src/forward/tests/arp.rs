//! The speaker and the neighbours.

use super::*;
use crate::{Event, Malformed};

const ASKER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);

fn from_router(operation: u8, destination: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(
        (ROUTER, destination),
        operation,
        (ROUTER, sender),
        (MacAddr::ZERO, target),
    )
}

#[test]
fn arp_as_a_table() {
    let all = MacAddr::BROADCAST;
    let answer = arp((ATM, ROUTER), 2, (ATM, VIP), (ROUTER, ASKER));
    let probe_answer = arp(
        (ATM, ROUTER),
        2,
        (ATM, VIP),
        (ROUTER, Ipv4Addr::UNSPECIFIED),
    );
    let broken = |at: usize| {
        let mut frame = from_router(1, all, ASKER, VIP);
        frame[at] ^= 0x40;
        frame
    };
    let malformed = drop(DropReason::Malformed(Malformed::Arp));
    let cases = vec![
        (
            "who has the VIP",
            from_router(1, all, ASKER, VIP),
            Verdict::Answered,
            vec![answer.clone()],
        ),
        (
            "asked of us alone",
            from_router(1, ATM, ASKER, VIP),
            Verdict::Answered,
            vec![answer],
        ),
        (
            "a probe (RFC 5227)",
            from_router(1, all, Ipv4Addr::UNSPECIFIED, VIP),
            Verdict::Answered,
            vec![probe_answer],
        ),
        (
            "asked of another",
            from_router(1, OTHER_ATM, ASKER, VIP),
            Verdict::Host,
            vec![],
        ),
        (
            "who has the ATM: its kernel answers",
            from_router(1, all, ASKER, ATM_ADDRESS),
            Verdict::Host,
            vec![],
        ),
        (
            "who has a server",
            from_router(1, all, ASKER, SERVERS[0]),
            Verdict::Host,
            vec![],
        ),
        (
            "a claim of the VIP",
            from_router(1, all, VIP, VIP),
            drop(DropReason::ForeignClaim),
            vec![],
        ),
        (
            "a claim in reply form",
            from_router(2, all, VIP, VIP),
            drop(DropReason::ForeignClaim),
            vec![],
        ),
        (
            "an answer for the VIP",
            from_router(2, ATM, VIP, ATM_ADDRESS),
            drop(DropReason::ForeignClaim),
            vec![],
        ),
        (
            "our own claim, reflected",
            arp((ATM, all), 1, (ATM, VIP), (MacAddr::ZERO, VIP)),
            Verdict::Host,
            vec![],
        ),
        (
            "a group as sender",
            arp((ROUTER, all), 1, (all, ASKER), (MacAddr::ZERO, VIP)),
            malformed,
            vec![],
        ),
        ("hardware type", broken(15), malformed, vec![]),
        ("protocol type", broken(16), malformed, vec![]),
        ("address length", broken(18), malformed, vec![]),
        ("operation", broken(21), malformed, vec![]),
        (
            "cut off",
            from_router(1, all, ASKER, VIP)[..41].to_vec(),
            Verdict::Host,
            vec![],
        ),
    ];
    for (name, frame, verdict, sent) in cases {
        let mut rig = Rig::active();
        assert_eq!(rig.raw(&frame), verdict, "{name}");
        assert_eq!(rig.sent(), sent, "{name}");
    }
}

#[test]
fn a_takeover_is_announced_in_a_burst_and_then_regularly() {
    let mut rig = Rig::backup();
    let start = rig.now;
    rig.lease(1, at(3_600_000));
    let request = arp(
        (ATM, MacAddr::BROADCAST),
        1,
        (ATM, VIP),
        (MacAddr::ZERO, VIP),
    );
    let reply = arp(
        (ATM, MacAddr::BROADCAST),
        2,
        (ATM, VIP),
        (MacAddr::BROADCAST, VIP),
    );
    assert_eq!(
        rig.sent(),
        [request.clone(), reply.clone()],
        "at once, before any timeout is handled"
    );
    let mut times = vec![];
    for _ in 0..41_000 {
        rig.now = rig.now + Duration::from_millis(1);
        rig.tick();
        let claims: Vec<_> = rig
            .sent()
            .into_iter()
            .filter(|frame| frame[28..32] == VIP.octets())
            .collect();
        if !claims.is_empty() {
            assert_eq!(claims, [request.clone(), reply.clone()]);
            times.push(rig.now.saturating_since(start).as_millis());
        }
    }
    assert_eq!(times, [20, 100, 500, 20_500, 40_500]);
    assert_eq!(rig.counters().event(Event::GratuitousArp), 12);
}

#[test]
fn the_same_epoch_is_not_announced_again_but_a_new_one_is() {
    let mut rig = Rig::active();
    rig.lease(1, at(7_200_000));
    assert!(rig.sent().is_empty());
    rig.lease(2, at(7_200_000));
    assert_eq!(rig.sent().len(), 2);
}

#[test]
fn an_announcement_that_fell_due_without_the_lease_waits_for_it_and_not_in_a_loop() {
    let mut rig = Rig::active();
    rig.lease(1, at(1000));
    rig.sleep(Duration::from_secs(25));
    assert!(rig.sent().iter().all(|frame| frame[28..32] != VIP.octets()));
    rig.lease(1, at(60_000));
    rig.sleep(Duration::from_millis(1));
    let claims = rig
        .sent()
        .into_iter()
        .filter(|frame| frame[28..32] == VIP.octets())
        .count();
    assert_eq!(claims, 2);
}

#[test]
fn an_announcement_that_was_overslept_is_not_asked_for_until_the_lease_is_back() {
    let mut rig = Rig::active();
    rig.lease(1, at(21_000));
    rig.now = at(22_000);
    rig.neighbours_answer();
    rig.tick();
    assert!(rig.forwarder.poll_timeout().is_none_or(|due| due > rig.now));
}

#[test]
fn a_new_vip_is_announced_by_the_active_one() {
    let mut rig = Rig::active();
    let mut table = table();
    table.vips.push(Ipv4Addr::new(10, 1, 0, 101).into());
    rig.forwarder.install(table, rig.now);
    rig.sleep(Duration::ZERO);
    assert_eq!(rig.sent().len(), 4);
}

#[test]
fn a_foreign_claim_is_counted_and_answered_at_most_every_ten_seconds() {
    let mut rig = Rig::active();
    let claim = from_router(2, MacAddr::BROADCAST, VIP, VIP);
    for _ in 0..5 {
        assert_eq!(rig.raw(&claim), drop(DropReason::ForeignClaim));
        rig.sleep(Duration::from_millis(100));
    }
    assert_eq!(rig.counters().event(Event::ForeignClaim), 5);
    assert_eq!(rig.sent().len(), 2, "one announcement in its two forms");
    let mut backup = Rig::backup();
    assert_eq!(
        backup.raw(&claim),
        Verdict::Host,
        "the active one's announcement"
    );
    assert_eq!(backup.counters().event(Event::ForeignClaim), 0);
}

#[test]
fn next_hops_are_asked_for_at_once_also_on_a_backup() {
    let limits = Limits {
        pending_max: 1,
        connections_max: 1,
    };
    let mut rig = Rig {
        forwarder: Forwarder::new(interface(), limits),
        out: Capture::default(),
        now: at(0),
    };
    let mut table = table();
    let hops: Vec<Ipv4Addr> = (0..150).map(|n| Ipv4Addr::new(10, 1, 1, n)).collect();
    table.servers = (0..)
        .zip(&hops)
        .map(|(id, &address)| Real {
            id: ServerId(id),
            address: address.into(),
            next_hop: Some(address.into()),
            here: false,
            method: ForwardingMethod::Tunnel,
            source: None,
        })
        .collect();
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.forwarder.poll_timeout(), Some(rig.now));
    rig.tick();
    assert_eq!(rig.out.frames.len(), 64, "a bounded batch");
    rig.sleep(Duration::from_millis(20));
    let expected: Vec<_> = hops
        .iter()
        .map(|&hop| {
            arp(
                (ATM, MacAddr::BROADCAST),
                1,
                (ATM, ATM_ADDRESS),
                (MacAddr::ZERO, hop),
            )
        })
        .collect();
    assert_eq!(rig.sent(), expected);
}

#[test]
fn a_neighbour_is_refreshed_by_unicast_and_given_up_after_three_silent_tries() {
    let mut rig = Rig::active();
    let mut table = table();
    table.applied_index = 2;
    table.servers.truncate(1);
    rig.forwarder.install(table, rig.now);
    let ask = |to| {
        arp(
            (ATM, to),
            1,
            (ATM, ATM_ADDRESS),
            (MacAddr::ZERO, SERVERS[0]),
        )
    };
    rig.sleep(Duration::from_secs(30));
    let asked = |rig: &mut Rig| {
        rig.sent()
            .into_iter()
            .filter(|frame| frame[28..32] == ATM_ADDRESS.octets())
            .collect::<Vec<_>>()
    };
    assert_eq!(asked(&mut rig), [ask(SERVER_MACS[0])]);
    rig.sleep(Duration::from_millis(2000));
    assert_eq!(asked(&mut rig), [ask(SERVER_MACS[0]), ask(SERVER_MACS[0])]);
    assert_eq!(
        rig.packet(&tcp(1, UNREPLICATED, SYN, b"")),
        Verdict::Transmit,
        "kept while it is asked for"
    );
    rig.sleep(Duration::from_millis(1000));
    assert_eq!(rig.counters().event(Event::NeighbourLost), 1);
    assert_eq!(
        rig.packet(&tcp(2, UNREPLICATED, SYN, b"")),
        drop(DropReason::NoNeighbour)
    );
    rig.out.frames.clear();
    rig.sleep(Duration::from_millis(100));
    assert_eq!(
        asked(&mut rig),
        [ask(MacAddr::BROADCAST)],
        "a packet that wants it brings the next try forward"
    );
    let elsewhere = MacAddr([2, 9, 9, 9, 9, 9]);
    assert_eq!(
        rig.raw(&arp(
            (elsewhere, ATM),
            2,
            (elsewhere, SERVERS[0]),
            (ATM, ATM_ADDRESS)
        )),
        Verdict::Host
    );
    assert_eq!(
        rig.packet(&tcp(2, UNREPLICATED, SYN, b"")),
        Verdict::Transmit
    );
    assert_eq!(
        rig.sent().last().map(|frame| frame[..6].to_vec()),
        Some(elsewhere.0.to_vec())
    );
}

#[test]
fn an_own_address_that_is_a_vip_asks_nothing_and_waits_for_nothing() {
    let mut rig = Rig::backup();
    let mut table = table();
    table.vips.push(ATM_ADDRESS.into());
    rig.forwarder.install(table, rig.now);
    rig.sleep(Duration::from_secs(100));
    assert!(rig.sent().is_empty());
    assert_eq!(rig.forwarder.poll_timeout(), None);
}
