//! NAT: servers that see their own address, and clients that see the VIP; full NAT, where servers see an address of the ATMs'.

use std::num::NonZeroU16;

use model::connections::Pin;

use super::*;
use crate::testing::{Packet6, RST};
use crate::{Event, Gso};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
const FULL: u16 = 2200;
const NAT_UDP: u16 = 53;
const SERVER: Ipv4Addr = SERVERS[2];
const SERVER_MAC: MacAddr = SERVER_MACS[2];

/// Server 2 by NAT, and once more as server 3 by full NAT.
fn nat_table() -> ForwardingTable {
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

fn rig() -> Rig {
    let mut rig = Rig::active();
    rig.forwarder.install(nat_table(), rig.now);
    for ms in [600, 700, 1100, 1700] {
        rig.now = at(ms);
        rig.tick();
    }
    rig.sent();
    rig
}

fn from_server(to: (Ipv4Addr, u16), port: u16, flags: u8, data: &[u8]) -> Packet {
    Packet::tcp((SERVER, port), to, flags, data)
}

/// As it leaves: one router on.
fn onward(packet: Packet, mac: MacAddr) -> Vec<u8> {
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
fn udp_and_a_datagram_without_checksum() {
    let mut rig = rig();
    let query = Packet::udp((CLIENT, 9), (VIP, NAT_UDP), b"query");
    assert_eq!(rig.packet(&query), Verdict::Transmit);
    let to_server = Packet::udp((CLIENT, 9), (SERVER, NAT_UDP), b"query");
    assert_eq!(rig.sent(), [onward(to_server.clone(), SERVER_MAC)]);
    let unsummed = |packet: Packet| packet.with(|p| p.payload[6..8].fill(0));
    assert_eq!(rig.packet(&unsummed(query)), Verdict::Transmit);
    assert_eq!(rig.sent(), [onward(unsummed(to_server), SERVER_MAC)]);
    let answer = Packet::udp((SERVER, NAT_UDP), (CLIENT, 9), b"answer");
    assert_eq!(rig.raw(&answer.frame(SERVER_MAC, ATM)), Verdict::Transmit);
    let to_client = Packet::udp((VIP, NAT_UDP), (CLIENT, 9), b"answer");
    assert_eq!(rig.sent(), [onward(to_client, ROUTER)]);
}

#[test]
fn fragments_in_both_directions() {
    let mut rig = rig();
    let data: Vec<u8> = (0..=255).cycle().take(1500).collect();
    let cut = |whole: Packet| {
        let rest = whole.payload[800..].to_vec();
        let first = whole.clone().with(|p| {
            p.fragment = 0x2000;
            p.payload.truncate(800);
        });
        let last = whole.with(|p| (p.fragment, p.payload) = (100, rest));
        [first, last]
    };
    let query = cut(Packet::udp((CLIENT, 9), (VIP, NAT_UDP), &data));
    let forwarded = cut(Packet::udp((CLIENT, 9), (SERVER, NAT_UDP), &data));
    for (received, sent) in query.iter().zip(forwarded) {
        assert_eq!(rig.packet(received), Verdict::Transmit);
        assert_eq!(rig.sent(), [onward(sent, SERVER_MAC)]);
    }
    let answer = cut(Packet::udp((SERVER, NAT_UDP), (CLIENT, 9), &data));
    let answered = cut(Packet::udp((VIP, NAT_UDP), (CLIENT, 9), &data));
    for (received, sent) in answer.iter().zip(answered) {
        assert_eq!(rig.raw(&received.frame(SERVER_MAC, ATM)), Verdict::Transmit);
        assert_eq!(rig.sent(), [onward(sent, ROUTER)]);
    }
}

#[test]
fn errors_are_translated_with_what_they_quote() {
    for keep in [28, 60] {
        let mut rig = rig();
        assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
        rig.sent();
        let quote = |packet: Packet| {
            let mut bytes = packet.bytes();
            bytes.truncate(keep);
            bytes
        };
        let error = |from, to, quote: &[u8]| Packet::icmp(from, to, 3, 4, [0, 0, 5, 0], quote);
        let router = Ipv4Addr::new(198, 51, 100, 9);
        // About what the server sent, from the net.
        let sent = Packet::tcp((VIP, NAT), (CLIENT, 9), ACK, b"some data of the server");
        let known = Packet::tcp((SERVER, NAT), (CLIENT, 9), ACK, b"some data of the server");
        assert_eq!(
            rig.packet(&error(router, VIP, &quote(sent))),
            Verdict::Transmit
        );
        assert_eq!(
            rig.sent(),
            [onward(error(router, SERVER, &quote(known)), SERVER_MAC)]
        );
        // About what the client sent, from the server.
        let sent = Packet::tcp((CLIENT, 9), (SERVER, NAT), ACK, b"some data of the client");
        let known = Packet::tcp((CLIENT, 9), (VIP, NAT), ACK, b"some data of the client");
        let about = error(SERVER, CLIENT, &quote(sent)).frame(SERVER_MAC, ATM);
        assert_eq!(rig.raw(&about), Verdict::Transmit);
        assert_eq!(
            rig.sent(),
            [onward(error(VIP, CLIENT, &quote(known)), ROUTER)]
        );
    }
}

#[test]
fn a_router_on_the_way_to_a_server_is_heard() {
    let router = Ipv4Addr::new(10, 1, 0, 77);
    let mut rig = rig();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    assert_eq!(rig.packet(&tcp(9, FULL, SYN, b"")), Verdict::Held);
    let (_, pin) = *rig.out.opened.last().unwrap();
    rig.commit(&[ConnectionChange::Open(key(9, 70), pin)]);
    rig.sent();
    let port = pin.source_port.unwrap().get();
    let error =
        |to, quote: Packet| Packet::icmp(router, to, 3, 4, [0, 0, 5, 0], &quote.bytes()[..28]);
    for (sent, to, known) in [
        (
            Packet::tcp((CLIENT, 9), (SERVER, NAT), ACK, b"data"),
            CLIENT,
            tcp(9, NAT, ACK, b"data"),
        ),
        (
            Packet::tcp((SOURCE, port), (SERVER, FULL), ACK, b"data"),
            SOURCE,
            tcp(9, FULL, ACK, b"data"),
        ),
    ] {
        let told = error(to, sent).frame(SERVER_MAC, ATM);
        assert_eq!(rig.raw(&told), Verdict::Transmit);
        assert_eq!(rig.sent(), [onward(error(CLIENT, known), ROUTER)]);
    }
    let unknown = Packet::tcp((SOURCE, 1), (SERVER, FULL), ACK, b"data");
    let told = error(SOURCE, unknown).frame(SERVER_MAC, ATM);
    assert_eq!(rig.raw(&told), drop(DropReason::NoService));
    let other = Packet::tcp((CLIENT, 9), (SERVERS[0], NAT), ACK, b"data");
    let told = error(CLIENT, other).frame(SERVER_MAC, ATM);
    assert_eq!(rig.raw(&told), Verdict::Host);
}

#[test]
fn the_ttl_ends_here() {
    let mut rig = rig();
    let last_hop = |flags| tcp(9, NAT, flags, b"data").with(|p| p.ttl = 1);
    let told = |rig: &mut Rig, packet: &Packet| {
        assert_eq!(rig.packet(packet), Verdict::TimeExceeded);
        let sent = rig.sent();
        let id = u16::from_be_bytes([sent[0][18], sent[0][19]]);
        let error = Packet::icmp(VIP, CLIENT, 11, 0, [0; 4], &packet.bytes())
            .with(|p| (p.tos, p.id, p.fragment, p.ttl) = (0xc0, id, 0, 64));
        assert_eq!(sent, [error.frame(ATM, ROUTER)]);
    };
    told(&mut rig, &last_hop(SYN));
    assert_eq!(rig.forwarder.connections(), 0);
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    told(&mut rig, &last_hop(ACK));
    assert_eq!(rig.packet(&tcp(9, FULL, SYN, b"")), Verdict::Held);
    let (key, pin) = rig.out.opened.pop().unwrap();
    rig.commit(&[ConnectionChange::Open(key, pin)]);
    rig.sent();
    let port = pin.source_port.unwrap().get();
    // The server is told by its gateway, or by the address that it answers to.
    for (to, from, service) in [((CLIENT, 9), GATEWAY, NAT), ((SOURCE, port), SOURCE, FULL)] {
        let answer = from_server(to, service, ACK, b"data").with(|p| p.ttl = 1);
        let frame = answer.frame(SERVER_MAC, ATM);
        assert_eq!(rig.raw(&frame), Verdict::TimeExceeded);
        let sent = rig.sent();
        let id = u16::from_be_bytes([sent[0][18], sent[0][19]]);
        let error = Packet::icmp(from, SERVER, 11, 0, [0; 4], &answer.bytes())
            .with(|p| (p.tos, p.id, p.fragment, p.ttl) = (0xc0, id, 0, 64));
        assert_eq!(sent, [error.frame(ATM, SERVER_MAC)]);
    }
    // About a later fragment nobody is told.
    let answer = from_server((CLIENT, 9), NAT, ACK, &[7; 60]);
    let first = answer.clone().with(|p| p.fragment = 0x2000);
    assert_eq!(rig.raw(&first.frame(SERVER_MAC, ATM)), Verdict::Transmit);
    rig.sent();
    let later = Packet::new(SERVER, CLIENT, 6, vec![7; 40])
        .with(|p| (p.id, p.fragment, p.ttl) = (answer.id, 80 / 8, 1));
    assert_eq!(
        rig.raw(&later.frame(SERVER_MAC, ATM)),
        drop(DropReason::TtlExpired)
    );
    // Nor more than 100 a second of all.
    let last = from_server((CLIENT, 9), NAT, ACK, b"").with(|p| p.ttl = 1);
    let last = last.frame(SERVER_MAC, ATM);
    let told = (0..200).filter(|_| rig.raw(&last) == Verdict::TimeExceeded);
    assert!(told.count() < 100);
    assert_eq!(rig.raw(&last), drop(DropReason::IcmpLimited));
}

/// What is too large for the way to the client the server hears from its gateway, too.
#[test]
fn an_answer_that_is_too_large_is_told_by_the_gateway() {
    let mut rig = rig();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    let big = from_server((CLIENT, 9), NAT, ACK, &[7; 1461]);
    let frame = big.frame(SERVER_MAC, ATM);
    assert_eq!(rig.raw(&frame), Verdict::FragmentationNeeded);
    let sent = rig.sent();
    let id = u16::from_be_bytes([sent[0][18], sent[0][19]]);
    let quote = &big.bytes()[..548];
    let error = Packet::icmp(GATEWAY, SERVER, 3, 4, [0, 0, 0x05, 0xdc], quote)
        .with(|p| (p.tos, p.id, p.fragment, p.ttl) = (0xc0, id, 0, 64));
    assert_eq!(sent, [error.frame(ATM, SERVER_MAC)]);
}

/// A SYN with options: those before the MSS put it at an even or an odd place.
#[test]
fn nobody_speaks_in_a_clients_name_where_a_server_has_no_gateway() {
    let mut rig = rig();
    let mut table = nat_table();
    (table.applied_index, table.gateways) = (3, vec![]);
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    let answer = from_server((CLIENT, 9), NAT, ACK, b"data").with(|p| p.ttl = 1);
    let frame = answer.frame(SERVER_MAC, ATM);
    assert_eq!(rig.raw(&frame), drop(DropReason::TtlExpired));
    assert!(rig.sent().is_empty());
}

fn with_mss(mut packet: Packet, before: &[u8], mss: u16) -> Packet {
    let [high, low] = mss.to_be_bytes();
    let mut options = [before, &[2, 4, high, low]].concat();
    options.resize(options.len().next_multiple_of(4), 0);
    packet.payload[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
    packet.payload.extend(options);
    packet.set_tcp_checksum();
    packet
}

#[test]
fn the_mss_is_clamped_to_what_passes_here() {
    for before in [&[][..], &[1], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1]] {
        for (told, passed) in [(8960, 1460), (1460, 1460), (536, 536)] {
            let mut rig = rig();
            let syn = with_mss(tcp(9, NAT, SYN, b""), before, told);
            assert_eq!(rig.packet(&syn), Verdict::Transmit);
            let to_server = Packet::tcp((CLIENT, 9), (SERVER, NAT), SYN, b"");
            assert_eq!(
                rig.sent(),
                [onward(with_mss(to_server, before, passed), SERVER_MAC)]
            );
            let answer = with_mss(from_server((CLIENT, 9), NAT, SYN | ACK, b""), before, told);
            assert_eq!(rig.raw(&answer.frame(SERVER_MAC, ATM)), Verdict::Transmit);
            let to_client = Packet::tcp((VIP, NAT), (CLIENT, 9), SYN | ACK, b"");
            assert_eq!(
                rig.sent(),
                [onward(with_mss(to_client, before, passed), ROUTER)]
            );
        }
    }
}

#[test]
fn a_local_stacks_work_is_finished_after_the_translation() {
    let mut rig = rig();
    assert_eq!(rig.packet(&tcp(9, NAT, SYN, b"")), Verdict::Transmit);
    rig.sent();
    let mut part = tcp(9, NAT, ACK, b"an odd line");
    let offload = part.set_partial_checksum();
    assert_eq!(
        rig.frame(&part.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    let whole = Packet::tcp((CLIENT, 9), (SERVER, NAT), ACK, b"an odd line");
    assert_eq!(rig.sent(), [onward(whole, SERVER_MAC)]);

    let data: Vec<u8> = (0..=255).cycle().take(2500).collect();
    let mut large = from_server((CLIENT, 9), NAT, ACK, &data);
    let offload = Offload {
        gso: Gso::Tcp { segment: 1000 },
        ..large.set_partial_checksum()
    };
    assert_eq!(
        rig.frame(&large.frame(SERVER_MAC, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    let expected: Vec<_> = data
        .chunks(1000)
        .zip(0_u16..)
        .map(|(piece, at)| {
            let mut packet = Packet::tcp((VIP, NAT), (CLIENT, 9), ACK, piece);
            let sequence = 0x0102_0304 + u32::from(at) * 1000;
            packet.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
            packet.id = packet.id.wrapping_add(at);
            packet.set_tcp_checksum();
            onward(packet, ROUTER)
        })
        .collect();
    assert_eq!(rig.sent(), expected);
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

#[test]
fn ipv6_by_nat() {
    let server: std::net::Ipv6Addr = "2001:db8::11".parse().unwrap();
    let vip: std::net::Ipv6Addr = "2001:db8::100".parse().unwrap();
    let client: std::net::Ipv6Addr = "2001:db8:c::7".parse().unwrap();
    let mac = MacAddr([2, 0, 0, 0, 6, 9]);
    let mut rig = Rig::active();
    let mut table = table();
    table.applied_index = 2;
    table.vips.push(vip.into());
    table.services.push(VirtualService {
        id: VirtualServiceId(90),
        vip: vip.into(),
        protocol: Protocol::Tcp,
        port: 80,
        scheduler: Scheduler::Wrr,
        replication: Replication::None,
        share: vec![(ServerId(9), 1)],
        reset: vec![],
    });
    table.servers.push(Real {
        id: ServerId(9),
        address: server.into(),
        next_hop: Some(server.into()),
        here: false,
        method: ForwardingMethod::Nat,
        source: None,
    });
    rig.forwarder.install(table, rig.now);
    let told = crate::testing::neighbour((mac, ATM), 136, 0x60, (server, vip), server, Some(mac));
    assert_eq!(rig.raw(&told), Verdict::Host);
    rig.sent();
    let onward = |packet: Packet6, mac| packet.with(|p| p.hops -= 1).frame(ATM, mac);
    let syn = Packet6::tcp((client, 9), (vip, 80), SYN, b"an odd line");
    assert_eq!(rig.raw(&syn.frame(ROUTER, ATM)), Verdict::Transmit);
    let to_server = Packet6::tcp((client, 9), (server, 80), SYN, b"an odd line");
    assert_eq!(rig.sent(), [onward(to_server, mac)]);
    let last_hop = Packet6::tcp((client, 9), (vip, 80), ACK, b"").with(|p| p.hops = 1);
    assert_eq!(rig.raw(&last_hop.frame(ROUTER, ATM)), Verdict::TimeExceeded);
    let told = Packet6::icmp(vip, client, 3, 0, [0; 4], &last_hop.bytes())
        .with(|p| (p.class, p.hops) = (0xc0, 64));
    assert_eq!(rig.sent(), [told.frame(ATM, ROUTER)]);
    let answer = Packet6::tcp((server, 80), (client, 9), SYN | ACK, b"");
    assert_eq!(rig.raw(&answer.frame(mac, ATM)), Verdict::Transmit);
    let to_client = Packet6::tcp((vip, 80), (client, 9), SYN | ACK, b"");
    assert_eq!(rig.sent(), [onward(to_client, ROUTER)]);
    let sent = Packet6::tcp((client, 9), (server, 80), ACK, b"").bytes();
    let known = Packet6::tcp((client, 9), (vip, 80), ACK, b"").bytes();
    let error = |from, quote: &[u8]| Packet6::icmp(from, client, 1, 4, [0; 4], quote);
    assert_eq!(
        rig.raw(&error(server, &sent).frame(mac, ATM)),
        Verdict::Transmit
    );
    assert_eq!(rig.sent(), [onward(error(vip, &known), ROUTER)]);
}
