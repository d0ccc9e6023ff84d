//! The forwarder seen from outside: frames in, verdicts and frames out.

mod arp;
mod capture;
mod checker;
mod connections;
mod fragments;
mod fuzz;
mod icmp;
mod ipv6;
mod lease;
mod nat;
mod own_stack;
mod packets;
mod path_mtu;
mod properties;
mod records;
mod resets;
mod rewriting;
mod sticky;
mod stragglers;
mod tally;
mod translation;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use model::Instant;
use model::conf::{ForwardingMethod, Protocol, Replication, Scheduler};
use model::connections::{ConnectionChange, ConnectionKey};
use model::ids::{Epoch, ServerId, VirtualServiceId};
use model::sticky::StickyRules;

use crate::testing::{ACK, Packet, SYN, arp};
use crate::{
    Counters, DropReason, Forwarder, ForwardingTable, Frame, Interface, Lease, Limits, MacAddr,
    NextHop, Offload, Real, Verdict, VirtualService,
};
use capture::Capture;

const ATM: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
const OTHER_ATM: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const SERVER_MACS: [MacAddr; 3] = [
    MacAddr([2, 0, 0, 0, 1, 1]),
    MacAddr([2, 0, 0, 0, 1, 2]),
    MacAddr([2, 0, 0, 0, 1, 3]),
];

const ATM_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const SERVERS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 1, 0, 1),
    Ipv4Addr::new(10, 1, 0, 2),
    Ipv4Addr::new(10, 1, 0, 3),
];

/// Ports of the virtual services: each its own way.
const QUORUM: u16 = 25;
const ASYNC: u16 = 80;
const UNREPLICATED: u16 = 143;
const DIRECT: u16 = 110;
const NAT: u16 = 22;
const EMPTY: u16 = 23;

const MTU: u16 = 1500;
const TIMEOUT: Duration = Duration::from_secs(30);

fn at(ms: u64) -> Instant {
    Instant::BOOT + Duration::from_secs(1000) + Duration::from_millis(ms)
}

fn interface() -> Interface {
    Interface {
        mac: ATM,
        address: ATM_ADDRESS,
        prefix_len: 24,
        address6: None,
        link_local: None,
        mtu: MTU,
    }
}

/// Server 0 by tunnel alone for most services, so that a test knows where its packets go.
fn table() -> ForwardingTable {
    let service = |id, port, replication, share: &[(u16, u16)]| VirtualService {
        id: VirtualServiceId(id),
        vip: VIP.into(),
        protocol: Protocol::Tcp,
        port,
        scheduler: Scheduler::Wrr,
        replication,
        share: share
            .iter()
            .map(|&(server, weight)| (ServerId(server), weight))
            .collect(),
        reset: vec![],
    };
    let real = |id: u16, method| Real {
        id: ServerId(id),
        address: SERVERS[usize::from(id)].into(),
        next_hop: Some(SERVERS[usize::from(id)].into()),
        here: false,
        method,
        source: None,
    };
    ForwardingTable {
        applied_index: 1,
        next_hop: NextHop::default(),
        sticky: StickyRules::default(),
        vips: vec![VIP.into()],
        gateways: vec![],
        services: vec![
            service(1, QUORUM, Replication::Quorum, &[(0, 1)]),
            service(2, ASYNC, Replication::Async, &[(0, 1)]),
            service(3, UNREPLICATED, Replication::None, &[(0, 1)]),
            service(4, DIRECT, Replication::None, &[(1, 1)]),
            service(5, NAT, Replication::None, &[(2, 1)]),
            service(6, EMPTY, Replication::Quorum, &[(0, 0)]),
        ],
        servers: vec![
            real(0, ForwardingMethod::Tunnel),
            real(1, ForwardingMethod::Direct),
            real(2, ForwardingMethod::Nat),
        ],
        connections_max: 100,
        connection_timeout: TIMEOUT,
        send_arp_delay: Duration::from_secs(20),
    }
}

fn key(port: u16, service: u16) -> ConnectionKey {
    ConnectionKey {
        client: CLIENT.into(),
        port,
        service: VirtualServiceId(service),
    }
}

/// A packet of the client to a port of the VIP.
fn tcp(from: u16, to: u16, flags: u8, data: &[u8]) -> Packet {
    Packet::tcp((CLIENT, from), (VIP, to), flags, data)
}

/// A forwarder, its output, and the time.
struct Rig {
    forwarder: Forwarder,
    out: Capture,
    now: Instant,
}

impl Rig {
    /// With this table, and no lease; no neighbour was asked for.
    fn with(table: ForwardingTable, pending_max: usize, connections_max: usize) -> Self {
        let limits = Limits {
            pending_max,
            connections_max,
        };
        let mut rig = Self {
            forwarder: Forwarder::new(interface(), limits),
            out: Capture::default(),
            now: at(0),
        };
        rig.forwarder.install(table, rig.now);
        rig
    }

    /// The same without servers: no neighbour is ever asked for, and what is due is due to connections.
    fn without_servers(connections_max: usize) -> Self {
        let table = ForwardingTable {
            servers: vec![],
            ..table()
        };
        Self::with(table, 1, connections_max)
    }

    /// With the table, all neighbours known, and no lease.
    fn backup() -> Self {
        let mut rig = Self::with(table(), 10, 100);
        rig.tick();
        rig.neighbours_answer();
        rig.out.frames.clear();
        rig
    }

    /// The same with a lease of epoch 1 for an hour, its burst of announcements over.
    fn active() -> Self {
        let mut rig = Self::backup();
        rig.lease(1, at(3_600_000));
        for ms in [20, 100, 500] {
            rig.now = at(ms);
            rig.tick();
        }
        rig.out.frames.clear();
        rig
    }

    fn lease(&mut self, epoch: u64, until: Instant) {
        self.forwarder.set_lease(
            Some(Lease {
                epoch: Epoch(epoch),
                until,
            }),
            self.now,
            &mut self.out,
        );
    }

    fn tick(&mut self) {
        self.forwarder.handle_timeout(self.now, &mut self.out);
    }

    /// Lets time go by, waking the forwarder whenever it asks for it.
    fn sleep(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut calls = 0;
        while let Some(due) = self.forwarder.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.tick();
            calls += 1;
            assert!(
                calls < 10_000,
                "poll_timeout asks without end for {due:?} at {:?}",
                self.now
            );
        }
        self.now = end;
    }

    /// Every server answers our ARP request.
    fn neighbours_answer(&mut self) {
        for (mac, address) in SERVER_MACS.into_iter().zip(SERVERS) {
            assert_eq!(
                self.raw(&arp((mac, ATM), 2, (mac, address), (ATM, ATM_ADDRESS))),
                Verdict::Host
            );
        }
    }

    fn frame(&mut self, bytes: &[u8], offload: Offload, waited: Duration) -> Verdict {
        let mut bytes = bytes.to_vec();
        self.forwarder.receive(
            Frame {
                bytes: &mut bytes,
                offload,
            },
            waited,
            self.now,
            &mut self.out,
        )
    }

    fn raw(&mut self, bytes: &[u8]) -> Verdict {
        self.frame(bytes, Offload::default(), Duration::ZERO)
    }

    /// A packet from the client's router.
    fn packet(&mut self, packet: &Packet) -> Verdict {
        self.raw(&packet.frame(ROUTER, ATM))
    }

    fn commit(&mut self, changes: &[ConnectionChange]) {
        self.forwarder.commit(changes, self.now, &mut self.out);
    }

    /// A connection of the quorum service that completed its handshake.
    fn established(&mut self, port: u16) {
        assert_eq!(self.packet(&tcp(port, QUORUM, SYN, b"")), Verdict::Held);
        self.commit(&[ConnectionChange::Open(key(port, 1), ServerId(0).into())]);
        assert_eq!(self.packet(&tcp(port, QUORUM, ACK, b"")), Verdict::Transmit);
        self.out.frames.clear();
        self.out.opened.clear();
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out.frames)
    }

    fn counters(&self) -> &Counters {
        self.forwarder.counters()
    }
}

/// The packet as it goes to the first server's tunnel. The outer identification is ours to choose: taken from `like`.
fn tunnelled(packet: &Packet, like: &[u8]) -> Vec<u8> {
    let id = u16::from_be_bytes([like[18], like[19]]);
    packet
        .in_tunnel(ATM_ADDRESS, SERVERS[0], id)
        .frame(ATM, SERVER_MACS[0])
}

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}
