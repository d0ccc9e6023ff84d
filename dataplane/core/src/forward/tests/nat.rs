//! NAT: servers that see their own address, and clients that see the VIP; full NAT, where servers see an address of the ATMs'.

use std::num::NonZeroU16;

use model::connections::Pin;

use super::*;
use crate::Event;
use crate::testing::RST;

pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
pub(super) const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
pub(super) const FULL: u16 = 2200;
pub(super) const NAT_UDP: u16 = 53;
pub(super) const SERVER: Ipv4Addr = SERVERS[2];
pub(super) const SERVER_MAC: MacAddr = SERVER_MACS[2];

/// Server 2 by NAT, and once more as server 3 by full NAT.
pub(super) fn nat_table() -> ForwardingTable {
    let mut table = table();
    table.applied_index = 2;
    table.vips.extend([IpAddr::from(GATEWAY), SOURCE.into()]);
    table.gateways.push(GATEWAY.into());
    for (id, protocol, port, server) in [
        (70, Protocol::Tcp, FULL, 3),
        (71, Protocol::Udp, NAT_UDP, 2),
    ] {
        table.services.push(VirtualService {
            id: VirtualServiceId(id),
            vip: VIP.into(),
            protocol,
            port,
            scheduler: Scheduler::Wrr,
            replication: Replication::None,
            share: vec![(ServerId(server), 1)],
            reset: vec![],
        });
    }
    table.servers.push(Real {
        id: ServerId(3),
        address: SERVER.into(),
        next_hop: Some(SERVER.into()),
        here: false,
        method: ForwardingMethod::Nat,
        source: Some(SOURCE.into()),
    });
    table
}

pub(super) fn rig() -> Rig {
    let mut rig = Rig::active();
    rig.forwarder.install(nat_table(), rig.now);
    for ms in [600, 700, 1100, 1700] {
        rig.now = at(ms);
        rig.tick();
    }
    rig.sent();
    rig
}

pub(super) fn from_server(to: (Ipv4Addr, u16), port: u16, flags: u8, data: &[u8]) -> Packet {
    Packet::tcp((SERVER, port), to, flags, data)
}

/// As it leaves: one router on.
pub(super) fn onward(packet: Packet, mac: MacAddr) -> Vec<u8> {
    packet.with(|p| p.ttl -= 1).frame(ATM, mac)
}

#[test]
fn a_connection_by_nat_in_both_directions() {
    let mut rig = rig();
    let to_server = |flags, data: &[u8]| Packet::tcp((CLIENT, 9), (SERVER, NAT), flags, data);
    let to_client = |flags, data: &[u8]| Packet::tcp((VIP, NAT), (CLIENT, 9), flags, data);
    for (flags, data) in [(SYN, &b""[..]), (ACK, b""), (ACK, b"an odd line")] {
        assert_eq!(rig.packet(&tcp(9, NAT, flags, data)), Verdict::Transmit);
        assert_eq!(rig.sent(), [onward(to_server(flags, data), SERVER_MAC)]);
    }
    for (flags, data) in [(SYN | ACK, &b""[..]), (ACK, b"an odd answer"), (RST, b"")] {
        let answer = from_server((CLIENT, 9), NAT, flags, data);
        assert_eq!(rig.raw(&answer.frame(SERVER_MAC, ATM)), Verdict::Transmit);
        // The way the client's packets came.
        assert_eq!(rig.sent(), [onward(to_client(flags, data), ROUTER)]);
        let about = rig.forwarder.about();
        assert_eq!(about.service, Some(VirtualServiceId(5)));
        assert_eq!(about.server, Some(ServerId(2)));
    }
    rig.sleep(Duration::from_millis(1100));
    assert_eq!(rig.forwarder.connections(), 0, "the server's RST ended it");
}

#[test]
fn a_new_table_says_anew_how_servers_know_open_connections() {
    let mut rig = rig();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    let answer = from_server((CLIENT, 9), NAT, SYN | ACK, b"").frame(SERVER_MAC, ATM);
    let method = |method| {
        let mut table = nat_table();
        let server = table
            .servers
            .iter_mut()
            .find(|server| server.id == ServerId(2));
        server.unwrap().method = method;
        table
    };
    let mut other_weights = nat_table();
    for service in &mut other_weights.services {
        service.share.clear();
    }
    let tables = [
        (other_weights, Verdict::Transmit),
        (method(ForwardingMethod::Direct), Verdict::Host),
        (method(ForwardingMethod::Nat), Verdict::Transmit),
    ];
    for (index, (mut table, verdict)) in (3..).zip(tables) {
        table.applied_index = index;
        rig.forwarder.install(table, rig.now);
        assert_eq!(rig.packet(&tcp(9, NAT, ACK, b"")), Verdict::Transmit);
        assert_eq!(rig.raw(&answer), verdict, "table {index}");
    }
}

#[test]
fn other_packets_of_such_a_server_are_the_hosts() {
    let mut rig = rig();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    let cases = [
        from_server((CLIENT, 10), NAT, ACK, b""),
        from_server((CLIENT, 9), NAT + 1, ACK, b""),
        from_server((ATM_ADDRESS, 9), NAT, ACK, b""),
        Packet::udp((SERVER, NAT), (CLIENT, 9), b""),
        Packet::icmp(SERVER, CLIENT, 8, 0, [0; 4], b"ping"),
        from_server((CLIENT, 9), NAT, ACK, b"").with(|p| p.fragment = 100),
    ];
    for packet in cases {
        assert_eq!(
            rig.raw(&packet.frame(SERVER_MAC, ATM)),
            Verdict::Host,
            "{packet:?}"
        );
    }
    let elsewhere = from_server((CLIENT, 9), NAT, ACK, b"").frame(SERVER_MAC, OTHER_ATM);
    assert_eq!(rig.raw(&elsewhere), Verdict::Host);
    assert!(rig.sent().is_empty());
}

#[test]
fn answers_need_the_lease_and_must_be_fresh() {
    let mut rig = rig();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    let answer = from_server((CLIENT, 9), NAT, SYN | ACK, b"").frame(SERVER_MAC, ATM);
    assert_eq!(
        rig.frame(&answer, Offload::default(), Duration::from_millis(101)),
        drop(DropReason::Stale)
    );
    rig.now = at(3_600_000);
    assert_eq!(rig.raw(&answer), drop(DropReason::LeaseExpired));
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    assert_eq!(rig.raw(&answer), drop(DropReason::NotActive));
    assert!(rig.sent().is_empty());
}

#[test]
fn after_a_takeover_the_client_is_found_by_the_routes() {
    let mut rig = Rig::backup();
    let mut nat = table();
    nat.applied_index = 2;
    nat.next_hop = NextHop::new(|_| Some(GATEWAY.into()));
    rig.forwarder.install(nat, rig.now);
    rig.commit(&[ConnectionChange::Open(key(9, 5), ServerId(2).into())]);
    rig.lease(1, at(3_600_000));
    rig.sent();
    let answer = from_server((CLIENT, 9), NAT, ACK, b"first word").frame(SERVER_MAC, ATM);
    assert_eq!(rig.raw(&answer), drop(DropReason::NoNeighbour));
    rig.tick();
    let asked = rig.sent();
    assert!(
        asked.iter().any(|frame| frame[12..14] == [8, 6]
            && frame[20..22] == [0, 1]
            && frame[38..42] == GATEWAY.octets()),
        "the router is asked for"
    );
    let told = arp((ROUTER, ATM), 2, (ROUTER, GATEWAY), (ATM, ATM_ADDRESS));
    assert_eq!(rig.raw(&told), Verdict::Host);
    assert_eq!(rig.raw(&answer), Verdict::Transmit);
    let to_client = Packet::tcp((VIP, NAT), (CLIENT, 9), ACK, b"first word");
    assert_eq!(rig.sent(), [onward(to_client, ROUTER)]);
}

#[test]
fn full_nat_gives_every_connection_a_port_of_its_own() {
    let mut rig = rig();
    let mut ports = Vec::new();
    for client in [9, 10, 11] {
        let syn = tcp(client, FULL, SYN, b"");
        assert_eq!(rig.packet(&syn), Verdict::Held, "its record comes first");
        let (_, pin) = *rig.out.opened.last().unwrap();
        assert_eq!(pin.server, ServerId(3));
        let port = pin.source_port.unwrap().get();
        rig.commit(&[ConnectionChange::Open(key(client, 70), pin)]);
        let to_server = Packet::tcp((SOURCE, port), (SERVER, FULL), SYN, b"");
        assert_eq!(rig.sent(), [onward(to_server, SERVER_MAC)]);
        ports.push(port);
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3);
    for client in [9, 10, 11] {
        let port = rig.out.opened[usize::from(client - 9)]
            .1
            .source_port
            .unwrap();
        let answer = from_server((SOURCE, port.get()), FULL, SYN | ACK, b"");
        assert_eq!(rig.raw(&answer.frame(SERVER_MAC, ATM)), Verdict::Transmit);
        let to_client = Packet::tcp((VIP, FULL), (CLIENT, client), SYN | ACK, b"");
        assert_eq!(rig.sent(), [onward(to_client, ROUTER)]);
    }
    let stray = from_server((SOURCE, 1), FULL, ACK, b"").frame(SERVER_MAC, ATM);
    assert_eq!(rig.raw(&stray), drop(DropReason::NoService));
}

#[test]
fn a_successor_gives_out_no_port_twice() {
    let mut rig = Rig::backup();
    let mut nat = table();
    nat.applied_index = 2;
    nat.services.push(VirtualService {
        id: VirtualServiceId(70),
        vip: VIP.into(),
        protocol: Protocol::Tcp,
        port: FULL,
        scheduler: Scheduler::Wrr,
        replication: Replication::Quorum,
        share: vec![(ServerId(3), 1)],
        reset: vec![],
    });
    nat.servers.push(Real {
        id: ServerId(3),
        address: SERVER.into(),
        next_hop: Some(SERVER.into()),
        here: false,
        method: ForwardingMethod::Nat,
        source: Some(SOURCE.into()),
    });
    rig.forwarder.install(nat, rig.now);
    // Every port but one is taken by what the predecessor recorded, around the place where this one begins.
    rig.forwarder.begin_ports(1);
    let begin = rig.forwarder.next_port;
    let taken =
        |offset: u16| NonZeroU16::new(begin.wrapping_add(offset)).filter(|p| p.get() >= 1024);
    let changes: Vec<_> = (1..=20_u16)
        .filter(|offset| *offset != 13)
        .filter_map(|offset| {
            let pin = Pin {
                server: ServerId(3),
                source_port: Some(taken(offset)?),
            };
            Some(ConnectionChange::Open(key(5000 + offset, 70), pin))
        })
        .collect();
    rig.commit(&changes);
    rig.lease(1, at(3_600_000));
    assert_eq!(rig.packet(&tcp(9, FULL, SYN, b"")), Verdict::Held);
    assert_eq!(rig.out.opened[0].1.source_port, taken(13));
}

#[test]
fn the_same_client_and_port_through_another_vip_is_refused_by_name() {
    let mut rig = rig();
    let other: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 101);
    let mut table = table();
    table.applied_index = 3;
    table.vips.push(other.into());
    table.services.push(VirtualService {
        id: VirtualServiceId(80),
        vip: other.into(),
        protocol: Protocol::Tcp,
        port: NAT,
        scheduler: Scheduler::Wrr,
        replication: Replication::None,
        share: vec![(ServerId(2), 1)],
        reset: vec![],
    });
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    let twin = Packet::tcp((CLIENT, 9), (other, NAT), SYN, b"");
    assert_eq!(rig.packet(&twin), drop(DropReason::NatCollision));
    let sibling = Packet::tcp((CLIENT, 10), (other, NAT), SYN, b"");
    assert_eq!(rig.packet(&sibling), Verdict::Transmit);
}

#[test]
fn the_gateway_and_the_source_are_spoken_for() {
    let mut rig = rig();
    for address in [GATEWAY, SOURCE] {
        let asker = (SERVER_MAC, SERVER);
        let question = arp(
            (SERVER_MAC, MacAddr::BROADCAST),
            1,
            asker,
            (MacAddr::ZERO, address),
        );
        assert_eq!(rig.raw(&question), Verdict::Answered);
        let answer = arp((ATM, SERVER_MAC), 2, (ATM, address), asker);
        assert_eq!(rig.sent(), [answer]);
    }
}

#[test]
fn two_recorded_connections_that_a_server_cannot_tell_apart_are_counted() {
    let mut rig = rig();
    let pin = Pin {
        server: ServerId(3),
        source_port: NonZeroU16::new(5000),
    };
    rig.commit(&[
        ConnectionChange::Open(key(9, 70), pin),
        ConnectionChange::Open(key(10, 70), pin),
    ]);
    assert_eq!(rig.counters().event(Event::NatCollision), 1);
}
