//! IPv6: VIPs, servers and clients; every pairing of tunnels; neighbour discovery.

use std::net::Ipv6Addr;

use super::*;
use crate::testing::{Packet6, neighbour};
use crate::{Checksum, Event, Gso, Malformed};

pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
pub(super) const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const ATM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
pub(super) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(super) const SERVER6_MAC: MacAddr = MacAddr([2, 0, 0, 0, 6, 1]);
/// The solicited-node group of the VIP, and its Ethernet address.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x100);
const GROUP_MAC: MacAddr = MacAddr([0x33, 0x33, 0xff, 0, 1, 0]);

/// Ports of the virtual services: what is outside and what is inside of the way to the server.
pub(super) const SIX_IN_SIX: u16 = 66;
pub(super) const FOUR_IN_SIX: u16 = 64;
pub(super) const SIX_IN_FOUR: u16 = 46;
pub(super) const DIRECT6: u16 = 6;
pub(super) const DNS: u16 = 53;

pub(super) fn table6() -> ForwardingTable {
    let mut table = table();
    let service = |id, vip: IpAddr, protocol, port, server| VirtualService {
        id: VirtualServiceId(id),
        vip,
        protocol,
        port,
        scheduler: Scheduler::Wrr,
        replication: Replication::None,
        share: vec![(ServerId(server), 1)],
        reset: vec![],
    };
    table.applied_index = 2;
    table.vips.push(VIP6.into());
    table.services.extend([
        service(61, VIP6.into(), Protocol::Tcp, SIX_IN_SIX, 10),
        service(62, VIP.into(), Protocol::Tcp, FOUR_IN_SIX, 10),
        service(63, VIP6.into(), Protocol::Tcp, SIX_IN_FOUR, 0),
        service(64, VIP6.into(), Protocol::Tcp, DIRECT6, 11),
        service(65, VIP6.into(), Protocol::Udp, DNS, 11),
        service(66, VIP.into(), Protocol::Udp, DNS, 0),
    ]);
    for (id, method) in [
        (10, ForwardingMethod::Tunnel),
        (11, ForwardingMethod::Direct),
    ] {
        table.servers.push(Real {
            id: ServerId(id),
            address: SERVER6.into(),
            next_hop: Some(SERVER6.into()),
            here: false,
            method,
            source: None,
        });
    }
    table
}

impl Rig {
    pub(super) fn active6() -> Self {
        let mut rig = Self::backup();
        rig.forwarder.interface.address6 = Some(ATM6);
        rig.forwarder.interface.link_local = Some(LINK_LOCAL);
        rig.forwarder.install(table6(), rig.now);
        rig.tick();
        let told = neighbour(
            (SERVER6_MAC, ATM),
            136,
            0x60,
            (SERVER6, LINK_LOCAL),
            SERVER6,
            Some(SERVER6_MAC),
        );
        assert_eq!(rig.raw(&told), Verdict::Host);
        rig.lease(1, at(3_600_000));
        for ms in [20, 100, 500] {
            rig.now = at(ms);
            rig.tick();
        }
        rig.out.frames.clear();
        rig
    }
}

fn tcp6(from: u16, to: u16, flags: u8, data: &[u8]) -> Packet6 {
    Packet6::tcp((CLIENT6, from), (VIP6, to), flags, data)
}

fn outer6(inner: &[u8], next: u8, class: u8) -> Vec<u8> {
    Packet6::new(ATM6, SERVER6, next, inner.to_vec())
        .with(|p| (p.class, p.hops) = (class, 64))
        .frame(ATM, SERVER6_MAC)
}

#[test]
fn every_pairing_of_tunnels_and_direct_routing() {
    let six = |port| tcp6(1, port, SYN, b"").with(|p| p.class = 0x28);
    let four = tcp(1, FOUR_IN_SIX, SYN, b"").with(|p| p.tos = 0x28);
    let in_four = Packet::new(ATM_ADDRESS, SERVERS[0], 41, six(SIX_IN_FOUR).bytes())
        .with(|p| (p.tos, p.id, p.fragment, p.ttl) = (0x28, 1, 0, 64));
    let cases = [
        (
            "6in6",
            six(SIX_IN_SIX).frame(ROUTER, ATM),
            outer6(&six(SIX_IN_SIX).bytes(), 41, 0x28),
        ),
        (
            "4in6",
            four.frame(ROUTER, ATM),
            outer6(&four.bytes(), 4, 0x28),
        ),
        (
            "6in4",
            six(SIX_IN_FOUR).frame(ROUTER, ATM),
            in_four.frame(ATM, SERVER_MACS[0]),
        ),
        (
            "direct",
            six(DIRECT6).frame(ROUTER, ATM),
            six(DIRECT6).frame(ATM, SERVER6_MAC),
        ),
    ];
    for (name, frame, expected) in cases {
        let mut rig = Rig::active6();
        assert_eq!(rig.raw(&frame), Verdict::Transmit, "{name}");
        assert_eq!(rig.sent(), [expected], "{name}");
    }
}

#[test]
fn what_is_too_big_is_told_with_the_right_mtu() {
    for (port, mtu) in [(SIX_IN_SIX, 1460_u16), (SIX_IN_FOUR, 1480), (DIRECT6, 1500)] {
        let mut rig = Rig::active6();
        assert_eq!(
            rig.raw(&tcp6(1, port, SYN, b"").frame(ROUTER, ATM)),
            Verdict::Transmit
        );
        rig.sent();
        let of = |len: u16| tcp6(1, port, ACK, &vec![7; usize::from(len) - 60]);
        assert_eq!(rig.raw(&of(mtu).frame(ROUTER, ATM)), Verdict::Transmit);
        rig.sent();
        let big = of(mtu + 1);
        assert_eq!(
            rig.raw(&big.frame(ROUTER, ATM)),
            Verdict::FragmentationNeeded
        );
        let [high, low] = mtu.to_be_bytes();
        let answer = Packet6::icmp(VIP6, CLIENT6, 2, 0, [0, 0, high, low], &big.bytes()[..1232])
            .with(|p| (p.class, p.hops) = (0xc0, 64));
        assert_eq!(rig.sent(), [answer.frame(ATM, ROUTER)]);
    }
    // No IPv6 host can be told of such a link.
    let mut rig = Rig::active6();
    rig.forwarder.interface.mtu = 1270;
    let big = tcp6(1, DIRECT6, SYN, &[7; 1271 - 60]).frame(ROUTER, ATM);
    assert_eq!(rig.raw(&big), drop(DropReason::PathTooNarrow));
}

#[test]
fn without_an_address_of_our_own_there_is_no_tunnel() {
    let mut rig = Rig::active6();
    rig.forwarder.interface.address6 = None;
    assert_eq!(
        rig.raw(&tcp6(1, SIX_IN_SIX, SYN, b"").frame(ROUTER, ATM)),
        drop(DropReason::NoOwnAddress)
    );
}

#[test]
fn udp_goes_to_one_server_until_it_is_idle() {
    let mut rig = Rig::active6();
    let four = Packet::udp((CLIENT, 9), (VIP, DNS), b"an odd query");
    assert_eq!(rig.packet(&four), Verdict::Transmit);
    let sent = rig.sent();
    assert_eq!(sent, [tunnelled(&four, &sent[0])]);
    let six = Packet6::udp((CLIENT6, 9), (VIP6, DNS), b"query").frame(ROUTER, ATM);
    for _ in 0..2 {
        assert_eq!(rig.raw(&six), Verdict::Transmit);
    }
    assert_eq!(rig.forwarder.connections(), 2);
    rig.sleep(Duration::from_secs(17));
    assert_eq!(
        rig.forwarder.connections(),
        1,
        "one datagram is forgotten soon"
    );
    rig.sleep(TIMEOUT);
    assert_eq!(rig.forwarder.connections(), 0);
}

#[test]
fn echo_and_errors() {
    let mut rig = Rig::active6();
    let ask = Packet6::icmp(CLIENT6, VIP6, 128, 0, [1, 2, 3, 4], b"an odd number");
    assert_eq!(rig.raw(&ask.frame(ROUTER, ATM)), Verdict::Answered);
    let answer =
        Packet6::icmp(VIP6, CLIENT6, 129, 0, [1, 2, 3, 4], b"an odd number").with(|p| p.hops = 64);
    assert_eq!(rig.sent(), [answer.frame(ATM, ROUTER)]);

    assert_eq!(
        rig.raw(&tcp6(40000, DIRECT6, SYN, b"").frame(ROUTER, ATM)),
        Verdict::Transmit
    );
    rig.sent();
    let reply = Packet6::tcp((VIP6, DIRECT6), (CLIENT6, 40000), ACK, b"data").bytes();
    let router: Ipv6Addr = "2001:db8:9::1".parse().unwrap();
    for (kind, keep) in [(1, 48), (2, reply.len()), (3, 48), (4, 48)] {
        let error = Packet6::icmp(router, VIP6, kind, 0, [0, 0, 5, 0], &reply[..keep]);
        assert_eq!(rig.raw(&error.frame(ROUTER, ATM)), Verdict::Transmit);
        assert_eq!(rig.sent(), [error.frame(ATM, SERVER6_MAC)]);
    }
    let cut = Packet6::icmp(router, VIP6, 1, 0, [0; 4], &reply[..47]);
    assert_eq!(
        rig.raw(&cut.frame(ROUTER, ATM)),
        drop(DropReason::Malformed(Malformed::Truncated))
    );
}

#[test]
fn extension_headers_do_not_hide_the_ports_and_source_routes_are_refused() {
    let mut rig = Rig::active6();
    let options = |next, kind: [u8; 2]| {
        tcp6(1, DIRECT6, SYN, b"").with(|p| {
            p.next = next;
            p.extensions = vec![6, 0, kind[0], kind[1], 0, 0, 0, 0];
        })
    };
    let padded = options(60, [1, 4]);
    assert_eq!(rig.raw(&padded.frame(ROUTER, ATM)), Verdict::Transmit);
    assert_eq!(rig.sent(), [padded.frame(ATM, SERVER6_MAC)]);
    assert_eq!(
        rig.raw(&options(43, [0, 1]).frame(ROUTER, ATM)),
        drop(DropReason::SourceRoute)
    );
}

#[test]
fn sources_that_no_host_has() {
    for source in ["::", "::1", "ff02::1", "::ffff:192.0.2.1", "2001:db8::100"] {
        let mut rig = Rig::active6();
        let packet = tcp6(1, DIRECT6, SYN, b"").with(|p| p.source = source.parse().unwrap());
        assert_eq!(
            rig.raw(&packet.frame(ROUTER, ATM)),
            drop(DropReason::Martian),
            "{source}"
        );
    }
}

#[test]
fn a_local_stacks_work_is_finished() {
    let mut rig = Rig::active6();
    let mut syn = tcp6(1, DIRECT6, SYN, b"");
    let whole = syn.frame(ATM, SERVER6_MAC);
    let offload = syn.set_partial_checksum(16);
    assert_eq!(
        rig.frame(&syn.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    assert_eq!(rig.sent(), [whole]);

    let data: Vec<u8> = (0..=255).cycle().take(3001).collect();
    let mut large = tcp6(1, DIRECT6, ACK, &data);
    let offload = Offload {
        gso: Gso::Tcp { segment: 1000 },
        ..large.set_partial_checksum(16)
    };
    assert_eq!(
        rig.frame(&large.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    let expected: Vec<_> = data
        .chunks(1000)
        .zip(0_u32..)
        .map(|(piece, at)| {
            tcp6(1, DIRECT6, ACK, piece)
                .with(|p| {
                    let sequence = 0x0102_0304 + at * 1000;
                    p.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
                })
                .sealed(16)
                .frame(ATM, SERVER6_MAC)
        })
        .collect();
    assert_eq!(rig.sent(), expected);

    let mut datagrams = Packet6::udp((CLIENT6, 9), (VIP6, DNS), &data);
    let offload = Offload {
        gso: Gso::Udp { segment: 1000 },
        ..datagrams.set_partial_checksum(6)
    };
    assert_eq!(
        rig.frame(&datagrams.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    let expected: Vec<_> = data
        .chunks(1000)
        .map(|piece| Packet6::udp((CLIENT6, 9), (VIP6, DNS), piece).frame(ATM, SERVER6_MAC))
        .collect();
    assert_eq!(rig.sent(), expected);
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_all_ones() {
    let mut rig = Rig::active6();
    // Data chosen so that everything else sums to -0.
    let mut datagram = Packet6::udp((CLIENT6, 9), (VIP6, DNS), &[0, 0]);
    let missing = [datagram.payload[6], datagram.payload[7]];
    datagram.payload[8..10].copy_from_slice(&missing);
    let offload = datagram.set_partial_checksum(6);
    assert!(matches!(offload.checksum, Checksum::Partial { .. }));
    assert_eq!(
        rig.frame(&datagram.frame(ROUTER, ATM), offload, Duration::ZERO),
        Verdict::Transmit
    );
    assert_eq!(rig.sent()[0][60..62], [0xff, 0xff]);
}

fn solicit(source: Ipv6Addr, to: (MacAddr, Ipv6Addr), link: Option<MacAddr>) -> Vec<u8> {
    neighbour((ROUTER, to.0), 135, 0, (source, to.1), VIP6, link)
}

#[test]
fn solicitations_for_the_vip_are_answered_by_who_holds_the_lease() {
    let asker: Ipv6Addr = "fe80::c".parse().unwrap();
    let solicited = neighbour((ATM, ROUTER), 136, 0x60, (VIP6, asker), VIP6, Some(ATM));
    let everybody = neighbour(
        (ATM, MacAddr([0x33, 0x33, 0, 0, 0, 1])),
        136,
        0x20,
        (VIP6, ALL_NODES),
        VIP6,
        Some(ATM),
    );
    let multicast = solicit(asker, (GROUP_MAC, GROUP), Some(ROUTER));
    let unicast = solicit(asker, (ATM, VIP6), Some(ROUTER));
    let without_option = solicit(asker, (GROUP_MAC, GROUP), None);
    let somebody_moves_in = solicit(Ipv6Addr::UNSPECIFIED, (GROUP_MAC, GROUP), None);
    for (name, frame, answer) in [
        ("multicast", &multicast, &solicited),
        ("unicast", &unicast, &solicited),
        ("without its address", &without_option, &solicited),
        (
            "duplicate address detection",
            &somebody_moves_in,
            &everybody,
        ),
    ] {
        let mut rig = Rig::active6();
        assert_eq!(rig.raw(frame), Verdict::Answered, "{name}");
        assert_eq!(rig.sent(), std::slice::from_ref(answer), "{name}");
        assert_eq!(
            rig.frame(frame, Offload::default(), Duration::from_millis(101)),
            drop(DropReason::Stale)
        );
        rig.now = at(3_600_000);
        assert_eq!(rig.raw(frame), drop(DropReason::LeaseExpired), "{name}");
        rig.forwarder.set_lease(None, rig.now, &mut rig.out);
        assert_eq!(rig.raw(frame), drop(DropReason::NotActive), "{name}");
        assert!(rig.sent().is_empty(), "{name}");
    }
}

#[test]
fn a_forged_solicitation_is_malformed_and_others_are_the_hosts() {
    let mut rig = Rig::active6();
    let asker: Ipv6Addr = "fe80::c".parse().unwrap();
    let mut forged = solicit(asker, (GROUP_MAC, GROUP), Some(ROUTER));
    forged[21] = 64;
    assert_eq!(
        rig.raw(&forged),
        drop(DropReason::Malformed(Malformed::NeighbourDiscovery))
    );
    let other = neighbour(
        (ROUTER, GROUP_MAC),
        135,
        0,
        (asker, GROUP),
        ATM6,
        Some(ROUTER),
    );
    assert_eq!(rig.raw(&other), Verdict::Host);
    assert!(rig.sent().is_empty());
}

#[test]
fn another_host_that_advertises_the_vip_is_contradicted() {
    let mut rig = Rig::active6();
    let claim = neighbour(
        (OTHER_ATM, MacAddr([0x33, 0x33, 0, 0, 0, 1])),
        136,
        0x20,
        (VIP6, ALL_NODES),
        VIP6,
        Some(OTHER_ATM),
    );
    assert_eq!(rig.raw(&claim), drop(DropReason::ForeignClaim));
    rig.tick();
    let said: Vec<_> = rig
        .sent()
        .into_iter()
        .filter(|frame| frame[12..14] == [0x86, 0xdd])
        .collect();
    assert_eq!(said.len(), 1);
    assert_eq!((&said[0][6..12], said[0][54]), (&ATM.0[..], 136));
    rig.forwarder.set_lease(None, rig.now, &mut rig.out);
    assert_eq!(
        rig.raw(&claim),
        Verdict::Host,
        "to a backup it is the active one"
    );
}

#[test]
fn a_takeover_is_announced_to_all_nodes_and_next_hops_are_asked_for() {
    let mut rig = Rig::backup();
    rig.forwarder.interface.link_local = Some(LINK_LOCAL);
    rig.forwarder.install(table6(), rig.now);
    rig.tick();
    let group: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
    let question = neighbour(
        (ATM, MacAddr([0x33, 0x33, 0xff, 0, 0, 1])),
        135,
        0,
        (LINK_LOCAL, group),
        SERVER6,
        Some(ATM),
    );
    assert_eq!(rig.sent(), [question]);
    assert_eq!(rig.counters().event(Event::NeighbourSolicitation), 1);
    rig.lease(1, at(10_000));
    let announcement = neighbour(
        (ATM, MacAddr([0x33, 0x33, 0, 0, 0, 1])),
        136,
        0x20,
        (VIP6, ALL_NODES),
        VIP6,
        Some(ATM),
    );
    assert_eq!(rig.sent().last(), Some(&announcement));
    assert_eq!(rig.counters().event(Event::UnsolicitedAdvertisement), 1);
}

/// A host that is told that its router is none gives it up (RFC 4861 §7.2.5).
#[test]
fn the_gateway_of_ipv6_is_advertised_as_a_router_by_who_holds_the_lease() {
    let gateway: Ipv6Addr = "2001:db8::fe".parse().unwrap();
    let group: Ipv6Addr = "ff02::1:ff00:fe".parse().unwrap();
    let group_mac = MacAddr([0x33, 0x33, 0xff, 0, 0, 0xfe]);
    let asker: Ipv6Addr = "fe80::c".parse().unwrap();
    let question = neighbour(
        (ROUTER, group_mac),
        135,
        0,
        (asker, group),
        gateway,
        Some(ROUTER),
    );
    let mut rig = Rig::backup();
    rig.forwarder.interface.link_local = Some(LINK_LOCAL);
    let mut table = table6();
    table.vips.push(gateway.into());
    table.gateways.push(gateway.into());
    rig.forwarder.install(table, rig.now);
    rig.tick();
    rig.sent();
    assert_eq!(rig.raw(&question), drop(DropReason::NotActive));
    assert!(rig.sent().is_empty());
    rig.lease(1, at(10_000));
    let everybody = (ATM, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    let said = rig.sent();
    for (address, flags) in [(VIP6, 0x20), (gateway, 0xa0)] {
        let to = (address, ALL_NODES);
        let announcement = neighbour(everybody, 136, flags, to, address, Some(ATM));
        assert!(said.contains(&announcement), "{address}");
    }
    assert_eq!(rig.raw(&question), Verdict::Answered);
    let answer = neighbour(
        (ATM, ROUTER),
        136,
        0xe0,
        (gateway, asker),
        gateway,
        Some(ATM),
    );
    assert_eq!(rig.sent(), [answer]);
}
