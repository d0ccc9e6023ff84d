//! Clients that keep their server.

use std::collections::BTreeMap;

use model::command::{Command, Control, Response};
use model::state::State;
use model::sticky::StickyKey;

use super::*;
use crate::testing::FIN;

const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const FAR_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

const CONFIG: &str = "\
Services
  Service web tcp:25 none sticky persist=60 mask=24
EndServices
Servers
  Server one 10.1.0.1 tunnel
  Server two 10.1.0.2 tunnel
EndServers
ServerPool P
  AddServer one web/1
  AddServer two web/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.10
EndAtmPool
VirtualHost 10.1.0.100
  AddAtmPool ATMs
  AddServerPool P
EndVirtualHost
";

/// A state with this configuration, and its table.
fn compiled(config: &str, index: u64) -> (State, ForwardingTable) {
    let mut state = State::default();
    let applied = state.apply(Command::Control(Control::ApplyConfig {
        source: config.to_owned(),
        hosts: BTreeMap::new(),
        expected: None,
        by: "atm".to_owned(),
    }));
    assert!(matches!(applied, Response::Applied(_)), "{applied:?}");
    let table = ForwardingTable::compile(&state, index, NextHop::default(), |_| false);
    (state, table)
}

fn rig() -> Rig {
    let mut rig = Rig::active();
    rig.forwarder.install(compiled(CONFIG, 2).1, rig.now);
    rig
}

/// Opens a connection of this client, committed at once, and returns its server.
fn open(rig: &mut Rig, client: Ipv4Addr, port: u16) -> ServerId {
    let syn = Packet::tcp((client, port), (VIP, QUORUM), SYN, b"");
    assert_eq!(rig.packet(&syn), Verdict::Held);
    let (key, pin) = *rig.out.opened.last().unwrap();
    rig.commit(&[ConnectionChange::Open(key, pin)]);
    let ack = Packet::tcp((client, port), (VIP, QUORUM), ACK, b"");
    assert_eq!(rig.packet(&ack), Verdict::Transmit);
    pin.server
}

fn close(rig: &mut Rig, client: Ipv4Addr, port: u16) {
    rig.commit(&[ConnectionChange::Close(ConnectionKey {
        client: client.into(),
        port,
        service: VirtualServiceId(1),
    })]);
}

/// Lets time go by, while the servers are there.
fn pass(rig: &mut Rig, seconds: u64) {
    for _ in 0..seconds {
        rig.sleep(Duration::from_secs(1));
        rig.neighbours_answer();
    }
}

/// The client's FIN, and silence until its end is recorded.
fn end(rig: &mut Rig, port: u16) {
    let fin = Packet::tcp((CLIENT, port), (VIP, QUORUM), FIN | ACK, b"");
    assert_eq!(rig.packet(&fin), Verdict::Transmit);
    pass(rig, 11);
    assert_eq!(rig.out.closed.last(), Some(&key(port, 1)));
    close(rig, CLIENT, port);
    assert_eq!(rig.forwarder.connections(), 0);
}

fn network() -> StickyKey {
    StickyKey {
        service: VirtualServiceId(1),
        client: Ipv4Addr::new(192, 0, 2, 0).into(),
    }
}

#[test]
fn a_client_keeps_its_server_and_its_network_counts_as_one() {
    let mut rig = rig();
    let server = open(&mut rig, CLIENT, 1);
    let other = open(&mut rig, FAR_CLIENT, 1);
    assert_ne!(server, other, "by turns");
    for port in 2..8 {
        assert_eq!(open(&mut rig, CLIENT, port), server);
        assert_eq!(open(&mut rig, OTHER_CLIENT, port), server);
    }
}

#[test]
fn a_second_connection_before_the_first_is_recorded_goes_the_same_way() {
    let mut rig = rig();
    for port in 1..4 {
        assert_eq!(
            rig.packet(&Packet::tcp((CLIENT, port), (VIP, QUORUM), SYN, b"")),
            Verdict::Held
        );
    }
    let servers: Vec<_> = rig.out.opened.iter().map(|(_, pin)| pin.server).collect();
    assert_eq!(servers, [servers[0]; 3]);
}

#[test]
fn a_client_is_forgotten_when_its_time_is_over_since_its_last_connection() {
    let mut rig = rig();
    let server = open(&mut rig, CLIENT, 1);
    pass(&mut rig, 20);
    end(&mut rig, 1);
    pass(&mut rig, 50);
    assert!(rig.out.unstuck.is_empty(), "50 s of 60");
    assert_eq!(open(&mut rig, CLIENT, 2), server);
    end(&mut rig, 2);
    pass(&mut rig, 61);
    assert_eq!(rig.out.unstuck, [network()]);
    assert_eq!(rig.forwarder.sticky_clients(), 1, "until that is recorded");
    rig.commit(&[ConnectionChange::Unstick(network())]);
    assert_eq!(rig.forwarder.sticky_clients(), 0);
}

#[test]
fn one_with_a_connection_is_never_forgotten() {
    let mut rig = rig();
    open(&mut rig, CLIENT, 1);
    for _ in 0..20 {
        pass(&mut rig, 10);
        let ack = Packet::tcp((CLIENT, 1), (VIP, QUORUM), ACK, b"");
        assert_eq!(rig.packet(&ack), Verdict::Transmit);
    }
    assert!(rig.out.unstuck.is_empty());
    rig.commit(&[ConnectionChange::Unstick(network())]);
    assert_eq!(rig.forwarder.sticky_clients(), 1, "its record is under way");
}

#[test]
fn a_backup_learns_from_records_and_a_takeover_gives_the_full_time() {
    let mut rig = Rig::backup();
    rig.forwarder.install(compiled(CONFIG, 2).1, rig.now);
    let server = ServerId(2);
    rig.commit(&[ConnectionChange::Open(key(1, 1), server.into())]);
    close(&mut rig, CLIENT, 1);
    pass(&mut rig, 300);
    assert_eq!(
        rig.forwarder.sticky_clients(),
        1,
        "a backup forgets nothing"
    );
    rig.lease(1, rig.now + Duration::from_secs(3600));
    pass(&mut rig, 50);
    assert!(rig.out.unstuck.is_empty());
    rig.neighbours_answer();
    for port in 10..14 {
        assert_eq!(open(&mut rig, OTHER_CLIENT, port), server);
    }
}

#[test]
fn only_a_server_that_is_down_loses_its_clients() {
    let mut rig = rig();
    let server = open(&mut rig, CLIENT, 1);
    let other = ServerId(3 - server.0);
    let weights = |mine: Option<u16>| {
        let (_, mut table) = compiled(CONFIG, 3);
        table.services[0].share = vec![(other, 1)];
        table.services[0]
            .share
            .extend(mine.map(|weight| (server, weight)));
        table
    };
    rig.forwarder.install(weights(Some(0)), rig.now);
    assert_eq!(open(&mut rig, CLIENT, 2), server, "weight 0");
    rig.forwarder.install(weights(None), rig.now);
    assert_eq!(open(&mut rig, CLIENT, 3), other, "down");
    rig.forwarder.install(weights(Some(1)), rig.now);
    assert_eq!(
        open(&mut rig, CLIENT, 4),
        other,
        "it belongs there from then on"
    );
}

#[test]
fn another_mask_forgets_the_clients_of_the_service() {
    let mut rig = rig();
    open(&mut rig, CLIENT, 1);
    let same = compiled(CONFIG, 3).1;
    rig.forwarder.install(same, rig.now);
    assert_eq!(rig.forwarder.sticky_clients(), 1);
    let other = CONFIG.replace("mask=24", "mask=32");
    rig.forwarder.install(compiled(&other, 4).1, rig.now);
    assert_eq!(rig.forwarder.sticky_clients(), 0);
}

#[test]
fn a_snapshot_brings_them_all() {
    let mut rig = rig();
    let far = StickyKey {
        service: VirtualServiceId(1),
        client: Ipv4Addr::new(198, 51, 100, 0).into(),
    };
    open(&mut rig, CLIENT, 1);
    let all = [(far, ServerId(2))];
    rig.forwarder.replace_sticky(all.into_iter(), rig.now);
    assert_eq!(rig.forwarder.sticky_clients(), 1);
    for port in 1..4 {
        assert_eq!(open(&mut rig, FAR_CLIENT, port), ServerId(2));
    }
}

#[test]
fn the_replicated_state_agrees() {
    let (mut state, table) = compiled(CONFIG, 2);
    let mut rig = Rig::active();
    rig.forwarder.install(table, rig.now);
    state.apply(Command::Control(Control::BeginEpoch {
        node: model::ids::NodeId(1),
        name: "atm".to_owned(),
        term: 1,
        lease: Duration::from_secs(1),
    }));
    for port in 1..20 {
        let client = if port % 3 == 0 { FAR_CLIENT } else { CLIENT };
        let syn = Packet::tcp((client, port), (VIP, QUORUM), SYN, b"");
        let _held_or_full = rig.packet(&syn);
        let changes = rig
            .out
            .opened
            .drain(..)
            .map(|(key, pin)| ConnectionChange::Open(key, pin))
            .collect();
        let epoch = Epoch(1);
        let Response::Connections { accepted, .. } =
            state.apply(Command::Connections { epoch, changes })
        else {
            panic!("refused");
        };
        rig.commit(&accepted);
    }
    let known: Vec<_> = state.sticky().iter().collect();
    assert_eq!(known.len(), 2);
    assert_eq!(rig.forwarder.sticky_clients(), 2);
    for (key, server) in known {
        let flow = crate::connections::Flow::new(key.client, 1, key.service);
        assert_eq!(rig.forwarder.connections.sticky.server(flow), Some(server));
    }
}
