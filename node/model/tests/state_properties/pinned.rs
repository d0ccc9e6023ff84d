//! Source ports and sticky clients, case by case, and what older versions stored.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use model::command::{Command, Control, Refusal, Response};
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::{Epoch, ServerId, VirtualServiceId};
use model::invariants::Violation;
use model::snapshot::BadSnapshot;
use model::state::State;
use model::sticky::StickyKey;

use crate::stored::{begin, config};

/// serv1 and serv2 share a source address, serv3 is reached through a tunnel; one service, TCP port 25, of each VIP.
fn text(service: &str, servers: &[&str], vips: &[&str], connections: u32) -> String {
    let lines = [
        ("serv1", "10.1.0.11 nat source=10.1.0.50"),
        ("serv2", "10.1.0.12 nat source=10.1.0.50"),
        ("serv3", "10.1.0.13 tunnel"),
    ];
    let offered = |name: &str| servers.iter().find(|offer| offer.starts_with(name));
    let mut text =
        format!("Services\n  Service smtp tcp:25 connect{service}\nEndServices\nServers\n");
    for (name, line) in lines.iter().filter(|(name, _)| offered(name).is_some()) {
        text += &format!("  Server {name} {line}\n");
    }
    text += "EndServers\nServerPool Pool\n";
    for offer in servers {
        let (name, weight) = offer.split_once('/').expect("<server>/<weight>");
        text += &format!("  AddServer {name} smtp/{weight}\n");
    }
    text += &format!(
        "EndServerPool\nAtmPool ATMs\n  AddAtm 10.1.0.1\n  NumConnections {connections}\nEndAtmPool\n\
         VirtualHost mail.my.org\n"
    );
    for vip in vips {
        text += &format!("  Address {vip}\n");
    }
    text + "  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n"
}

const ALL: [&str; 3] = ["serv1/1", "serv2/1", "serv3/1"];
const SERV3: ServerId = ServerId(3);

/// The state that a configuration and a tenure come to.
fn state(text: &str) -> State {
    let mut state = State::default();
    configure(&mut state, text);
    state.apply(begin());
    state
}

fn configure(state: &mut State, text: &str) {
    let response = state.apply(config(text));
    assert!(matches!(response, Response::Applied(_)), "{response:?}");
}

fn key(client: &str, port: u16) -> ConnectionKey {
    ConnectionKey {
        client: client.parse().expect("an address"),
        port,
        service: VirtualServiceId(1),
    }
}

fn pin(server: u16, source_port: u16) -> Pin {
    Pin {
        server: ServerId(server),
        source_port: NonZeroU16::new(source_port),
    }
}

fn client(address: &str) -> StickyKey {
    StickyKey {
        service: VirtualServiceId(1),
        client: address.parse().expect("an address"),
    }
}

fn apply(
    state: &mut State,
    changes: &[ConnectionChange],
) -> (Vec<ConnectionChange>, Vec<Refusal>, u32) {
    let response = state.apply(Command::Connections {
        epoch: Epoch(1),
        changes: changes.to_vec(),
    });
    let Response::Connections {
        accepted,
        refused,
        not_stuck,
    } = response
    else {
        panic!("{response:?}")
    };
    let refused = refused.into_iter().map(|(_, refusal)| refusal).collect();
    (accepted, refused, not_stuck)
}

fn open(state: &mut State, key: ConnectionKey, pin: Pin) -> Result<(), Refusal> {
    let (_, refused, _) = apply(state, &[ConnectionChange::Open(key, pin)]);
    refused.into_iter().next().map_or(Ok(()), Err)
}

fn close(state: &mut State, key: ConnectionKey) {
    apply(state, &[ConnectionChange::Close(key)]);
}

#[test]
fn a_source_port_belongs_to_one_connection_of_a_server() {
    let vips = ["10.1.0.100", "10.1.0.101"];
    let mut state = state(&text("", &ALL, &vips, 100));
    let other_vip = ConnectionKey {
        service: VirtualServiceId(2),
        ..key("192.0.2.9", 1)
    };
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(1, 7)), Ok(()));
    for (key, pin, expected) in [
        // The same record again.
        (key("192.0.2.1", 1), pin(1, 7), Ok(())),
        (
            key("192.0.2.1", 1),
            pin(1, 8),
            Err(Refusal::OtherSourcePort),
        ),
        (key("192.0.2.1", 1), pin(2, 7), Err(Refusal::OtherServer)),
        (
            key("192.0.2.2", 1),
            pin(1, 7),
            Err(Refusal::SourcePortTaken),
        ),
        // Whatever VIP it came by, the server sees the same.
        (other_vip, pin(1, 7), Err(Refusal::SourcePortTaken)),
        (key("192.0.2.2", 1), pin(1, 0), Err(Refusal::NoSourcePort)),
        (
            key("192.0.2.2", 1),
            pin(3, 7),
            Err(Refusal::NeedlessSourcePort),
        ),
        (key("192.0.2.2", 1), pin(9, 7), Err(Refusal::Unknown)),
        // The address is shared, and what the servers see is not.
        (key("192.0.2.2", 1), pin(2, 7), Ok(())),
        (key("192.0.2.3", 1), pin(1, 8), Ok(())),
        (key("192.0.2.4", 1), pin(3, 0), Ok(())),
    ] {
        assert_eq!(open(&mut state, key, pin), expected, "{key:?} {pin:?}");
    }
    assert_eq!(
        (state.connections().len(), state.source_ports().len()),
        (4, 3)
    );
    close(&mut state, key("192.0.2.1", 1));
    assert_eq!(open(&mut state, other_vip, pin(1, 7)), Ok(()));
}

/// P8: the ports of connections that outlive their server's line are still theirs.
#[test]
fn a_port_is_taken_for_as_long_as_its_connection_lives() {
    let vip = ["10.1.0.100"];
    let mut state = state(&text("", &ALL, &vip, 100));
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(1, 7)), Ok(()));
    configure(&mut state, &text("", &["serv2/1"], &["10.1.0.101"], 100));
    assert!(!state.servers()[&ServerId(1)].configured);
    configure(&mut state, &text("", &ALL, &["10.1.0.101"], 100));
    let (moved, _) = state
        .services()
        .iter()
        .find(|(_, entry)| entry.configured)
        .unwrap();
    let newer = ConnectionKey {
        service: *moved,
        ..key("192.0.2.2", 1)
    };
    assert_eq!(
        open(&mut state, newer, pin(1, 7)),
        Err(Refusal::SourcePortTaken)
    );
    let mut restored = State::decode(&state.encode()).unwrap();
    assert_eq!(
        open(&mut restored, newer, pin(1, 7)),
        Err(Refusal::SourcePortTaken)
    );
    close(&mut restored, key("192.0.2.1", 1));
    assert_eq!(open(&mut restored, newer, pin(1, 7)), Ok(()));
}

#[test]
fn another_source_address_is_another_server() {
    let all = text("", &ALL, &["10.1.0.100"], 100);
    let mut state = state(&all);
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(1, 7)), Ok(()));
    configure(
        &mut state,
        &all.replace(
            "10.1.0.11 nat source=10.1.0.50",
            "10.1.0.11 nat source=10.1.0.51",
        ),
    );
    let sources = |name: &str| {
        let servers = state.servers().values().filter(|entry| entry.name == name);
        servers
            .map(|entry| (entry.source, entry.configured))
            .collect::<Vec<_>>()
    };
    let address = |last| Some(IpAddr::from([10, 1, 0, last]));
    assert_eq!(
        sources("serv1"),
        [(address(50), false), (address(51), true)]
    );
    assert_eq!(sources("serv2"), [(address(50), true)]);
    assert_eq!(sources("serv3"), [(None, true)]);
}

#[test]
fn a_snapshot_that_gives_a_port_out_twice_is_refused() {
    let mut state = state(&text("", &ALL, &["10.1.0.100"], 100));
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(1, 7)), Ok(()));
    let with = |pin| {
        let record = ConnectionChange::Open(key("192.0.2.2", 1), pin).encode();
        State::decode(&[state.encode(), record.to_vec()].concat())
    };
    assert_eq!(with(pin(1, 8)).unwrap().source_ports().len(), 2);
    for (pin, violation) in [
        (pin(1, 7), Violation::SourcePortTwice),
        (pin(1, 0), Violation::SourcePorts(ServerId(1))),
    ] {
        match with(pin) {
            Err(BadSnapshot::Inconsistent(found)) => assert_eq!(found, [violation]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_belongs_to_the_server_of_its_latest_connection() {
    let mut state = state(&text(" sticky mask=24", &ALL, &["10.1.0.100"], 100));
    let of = |state: &State, address| state.sticky().get(&client(address));
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(3, 0)), Ok(()));
    assert_eq!(of(&state, "192.0.2.0"), Some(SERV3));
    assert_eq!(open(&mut state, key("192.0.2.77", 2), pin(1, 7)), Ok(()));
    assert_eq!(of(&state, "192.0.2.0"), Some(ServerId(1)));
    // Refused connections say nothing, ends neither.
    assert_eq!(
        open(&mut state, key("192.0.2.78", 2), pin(1, 7)),
        Err(Refusal::SourcePortTaken)
    );
    close(&mut state, key("192.0.2.77", 2));
    assert_eq!(
        (of(&state, "192.0.2.0"), state.sticky().len()),
        (Some(ServerId(1)), 1)
    );
    let unstick = ConnectionChange::Unstick(client("192.0.2.0"));
    // An end that comes twice is an end.
    for _ in 0..2 {
        assert_eq!(apply(&mut state, &[unstick]), (vec![unstick], vec![], 0));
        assert!(state.sticky().is_empty());
    }
}

#[test]
fn a_client_without_room_is_served_and_not_remembered() {
    let mut state = state(&text(" sticky", &ALL, &["10.1.0.100"], 2));
    let opened =
        |last: u8| ConnectionChange::Open(key(&format!("192.0.2.{last}"), 1), SERV3.into());
    let closed = |last: u8| ConnectionChange::Close(key(&format!("192.0.2.{last}"), 1));
    apply(&mut state, &[opened(1), opened(2), closed(1), closed(2)]);
    let unstuck = ConnectionChange::Unstick(client("192.0.2.3"));
    assert_eq!(
        apply(&mut state, &[opened(3), opened(1)]),
        (vec![opened(3), unstuck, opened(1)], vec![], 1)
    );
    assert_eq!((state.connections().len(), state.sticky().len()), (2, 2));
    // A smaller table forgets nobody.
    configure(&mut state, &text(" sticky", &ALL, &["10.1.0.100"], 1));
    assert_eq!(state.sticky().len(), 2);
}

#[test]
fn clients_are_forgotten_with_what_they_belong_to() {
    let vip = ["10.1.0.100"];
    let before = text(" sticky mask=24", &ALL, &vip, 100);
    for (name, after, left) in [
        ("nothing", before.clone(), 2),
        (
            "persist",
            text(" sticky mask=24 persist=9", &ALL, &vip, 100),
            2,
        ),
        // Weight 0 takes no new clients and keeps those it has.
        (
            "weight",
            text(
                " sticky mask=24",
                &["serv1/0", "serv2/1", "serv3/0"],
                &vip,
                100,
            ),
            2,
        ),
        (
            "server",
            text(" sticky mask=24", &["serv2/1", "serv3/1"], &vip, 100),
            1,
        ),
        ("mask", text(" sticky mask=25", &ALL, &vip, 100), 0),
        ("sticky", text("", &ALL, &vip, 100), 0),
        (
            "vip",
            text(" sticky mask=24", &ALL, &["10.1.0.101"], 100),
            0,
        ),
    ] {
        let mut state = state(&before);
        assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(1, 7)), Ok(()));
        assert_eq!(open(&mut state, key("192.0.3.1", 1), pin(3, 0)), Ok(()));
        close(&mut state, key("192.0.2.1", 1));
        configure(&mut state, &after);
        assert_eq!(state.sticky().len(), left, "{name}");
        assert_eq!(State::decode(&state.encode()).unwrap(), state, "{name}");
        // Nobody but connections keeps a server that has left.
        assert_eq!(state.servers().contains_key(&ServerId(1)), name != "server");
    }
}

/// A connection that was on its way when its server left makes nobody belong to it.
#[test]
fn nobody_sticks_to_a_server_that_has_left() {
    let vip = ["10.1.0.100"];
    let mut state = state(&text(" sticky", &ALL, &vip, 100));
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(1, 7)), Ok(()));
    configure(&mut state, &text(" sticky", &["serv3/1"], &vip, 100));
    assert_eq!(open(&mut state, key("192.0.2.1", 2), pin(3, 0)), Ok(()));
    let late = ConnectionChange::Open(key("192.0.2.1", 3), pin(1, 8));
    let unstuck = ConnectionChange::Unstick(client("192.0.2.1"));
    assert_eq!(apply(&mut state, &[late]), (vec![late, unstuck], vec![], 1));
    assert!(state.sticky().is_empty());
}

#[test]
fn a_snapshot_with_a_client_that_cannot_be_is_refused() {
    let mut state = state(&text(" sticky mask=24", &ALL, &["10.1.0.100"], 100));
    assert_eq!(open(&mut state, key("192.0.2.1", 1), pin(3, 0)), Ok(()));
    let bytes = state.encode();
    let (rest, record) = bytes.split_at(bytes.len() - 26);
    assert_eq!(record[..8], [4, 0, 0, 3, 0, 1, 0, 0]);
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut record = record.to_vec();
        change(&mut record);
        State::decode(&[rest, &record].concat())
    };
    assert_eq!(with(&|_| {}).unwrap(), state);
    let misplaced = |outcome| matches!(outcome, Err(BadSnapshot::Misplaced(1)));
    assert!(misplaced(with(&|record| record[23] = 1)), "not masked");
    assert!(misplaced(with(&|record| record[5] = 2)), "no such service");
    assert!(matches!(
        with(&|record| record[3] = 9),
        Err(BadSnapshot::Inconsistent(found)) if found == [Violation::Sticky(VirtualServiceId(1), ServerId(9))]
    ));
    let twice = State::decode(&[&bytes[..], record].concat());
    assert!(matches!(twice, Err(BadSnapshot::Misplaced(2))));
}

/// Written by a version before source ports and sticky clients. Its service was sticky, without effect.
const OLD: &[u8] = include_bytes!("../data/snapshot-format-1.bin");

#[test]
fn snapshots_of_the_older_format_are_read() {
    let state = State::decode(OLD).unwrap();
    let connections: BTreeMap<_, _> = state.connections().iter().collect();
    let expected = [
        (key("192.0.2.7", 40000), pin(1, 0)),
        (key("2001:db8::7", 40001), pin(2, 0)),
    ];
    assert_eq!(connections, BTreeMap::from(expected));
    assert!(state.servers().values().all(|entry| entry.source.is_none()));
    assert!(!state.is_healthy(ServerId(2), "smtp"));
    assert!(
        state.sticky().is_empty()
            && !state
                .sticky_rules()
                .get(VirtualServiceId(1))
                .unwrap()
                .servers
                .is_empty()
    );
    assert_eq!(State::decode(&state.encode()).unwrap(), state);
    for end in 0..OLD.len() {
        let whole_records = (OLD.len() - end).is_multiple_of(24) && OLD.len() - end <= 48;
        assert_eq!(State::decode(&OLD[..end]).is_ok(), whole_records, "{end}");
    }
}

/// Where an ATM's log begins does not matter: what an older version stored makes no client sticky.
#[test]
fn batches_of_the_older_format_stick_nobody() {
    let mut state = State::decode(OLD).unwrap();
    let opened = ConnectionChange::Open(key("192.0.2.8", 1), ServerId(1).into());
    let batch = |old| {
        let (epoch, changes) = (Epoch(1), vec![opened]);
        match old {
            true => Command::ConnectionsBeforeSticky { epoch, changes },
            false => Command::Connections { epoch, changes },
        }
    };
    let unstuck = ConnectionChange::Unstick(client("192.0.2.0"));
    assert_eq!(
        state.apply(batch(true)),
        Response::Connections {
            accepted: vec![opened, unstuck],
            refused: vec![],
            not_stuck: 1,
        }
    );
    assert!(state.connections().get(&key("192.0.2.8", 1)).is_some() && state.sticky().is_empty());
    state.apply(batch(false));
    assert_eq!(state.sticky().get(&client("192.0.2.0")), Some(ServerId(1)));
    let tenure_over = Command::Control(Control::EndEpoch { epoch: Epoch(1) });
    state.apply(tenure_over);
    assert!(matches!(
        state.apply(batch(true)),
        Response::Refused(Refusal::StaleEpoch { .. })
    ));
}
