//! NAT: what is written over packets and over the quotes of errors, in both directions.

use super::nat::{
    FULL, GATEWAY, NAT_UDP, SERVER, SERVER_MAC, SOURCE, from_server, nat_table, onward, rig,
};
use super::*;
use crate::Gso;
use crate::testing::Packet6;

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
