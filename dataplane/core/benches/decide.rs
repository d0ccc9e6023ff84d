//! What one decision costs: nanoseconds per frame of `Forwarder::receive`, without any port, for every way to a server and three
//! sizes of the connection table.
//!
//! - hit: a packet of a known connection, which leaves to its server. Each frame is of another connection than the ones before it, in no
//!   order, so that a large table is not in the cache.
//! - miss: the first packet of a connection, which is scheduled, written down and leaves.
//! - drop: a packet of no known connection that is not a first one.
//!
//! `cargo bench -p dataplane-core --features testing --bench decide [-- --json FILE] [--way NAME]` prints a table, of one way only if it is named (as the
//! memory that one row has freed is not the same to the next, the last digit of a row wants a run of its own). Half a minute.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench measures time, and one that cannot has nothing else to do than to say so and end"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane_core::testing::{ACK, Packet, Packet6, SYN, arp, neighbour};
use dataplane_core::{
    Forwarder, ForwardingTable, Frame, Interface, Lease, Limits, MacAddr, NextHop, Offload, Real,
    Sink, Verdict, VirtualService,
};
use model::Instant;
use model::conf::{ForwardingMethod, Protocol, Replication, Scheduler};
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::{Epoch, ServerId, VirtualServiceId};
use model::sticky::{StickyKey, StickyRules};

const ATM: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
const ATM4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const ATM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
const VIP4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const PORT: u16 = 80;
const SERVICE: VirtualServiceId = VirtualServiceId(1);
/// Servers of the service, all of one family and method.
const SERVERS: u8 = 8;

/// The rows of the table: how a packet comes, and how it goes to its server.
const WAYS: [Way; 8] = [
    way(
        "tunnel 4in4",
        Family::V4,
        Family::V4,
        ForwardingMethod::Tunnel,
    ),
    way(
        "tunnel 4in6",
        Family::V4,
        Family::V6,
        ForwardingMethod::Tunnel,
    ),
    way(
        "tunnel 6in6",
        Family::V6,
        Family::V6,
        ForwardingMethod::Tunnel,
    ),
    way(
        "tunnel 6in4",
        Family::V6,
        Family::V4,
        ForwardingMethod::Tunnel,
    ),
    way("direct 4", Family::V4, Family::V4, ForwardingMethod::Direct),
    way("direct 6", Family::V6, Family::V6, ForwardingMethod::Direct),
    way("nat 4", Family::V4, Family::V4, ForwardingMethod::Nat),
    way("nat 6", Family::V6, Family::V6, ForwardingMethod::Nat),
];
const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Frames between two looks at the clock. Half-open connections may be a quarter of a table, and the smallest has to hold these; in all
/// they stay in the second-level cache, where a port's would be.
const BATCH: u32 = 256;
/// Odd, so that the median is one of them.
const BATCHES: usize = 401;

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

struct Way {
    name: &'static str,
    /// Of client and VIP.
    client: Family,
    server: Family,
    method: ForwardingMethod,
}

const fn way(name: &'static str, client: Family, server: Family, method: ForwardingMethod) -> Way {
    Way {
        name,
        client,
        server,
        method,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // Only cargo bench says this: a test run over all targets starts benches as well.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let value_of = |option: &str| {
        let at = arguments.iter().position(|argument| argument == option)?;
        Some(
            arguments
                .get(at + 1)
                .expect("--json takes a file's name, --way a way's"),
        )
    };
    let (json, only) = (value_of("--json"), value_of("--way"));
    assert!(
        only.is_none_or(|only| WAYS.iter().any(|way| way.name == only)),
        "--way takes one of {:?}",
        WAYS.map(|way| way.name)
    );
    println!(
        "{:<6}{:<14}{:>12}{:>30}{:>8}",
        "", "", "connections", "ns per frame, median (10..90 %)", "ratio"
    );
    let mut rows = Vec::new();
    let mut first = None;
    for size in SIZES {
        for way in WAYS
            .iter()
            .filter(|way| only.is_none_or(|only| way.name == only))
        {
            for (what, samples) in ["hit", "miss", "drop"].into_iter().zip(measure(way, size)) {
                let [low, median, high] = [0.1, 0.5, 0.9].map(|part| at(&samples, part));
                let ratio = median / *first.get_or_insert(median);
                let shown = format!("{median:.1} ({low:.1}..{high:.1})");
                println!("{what:<6}{:<14}{size:>12}{shown:>30}{ratio:>8.2}", way.name);
                rows.push(serde_json::json!({
                    "frame": what, "way": way.name, "connections": size, "unit": "ns per frame",
                    "median": median, "p10": low, "p90": high, "ratio": ratio,
                }));
            }
        }
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::Value::Array(rows).to_string()).unwrap();
    }
}

/// Sorted nanoseconds per frame of hit, miss and drop, measured by turns.
fn measure(way: &Way, size: u32) -> [Vec<f64>; 3] {
    let mut bench = Bench::new(way, size);
    let mut samples = [const { Vec::new() }; 3];
    for batch in 0..u32::try_from(BATCHES).unwrap() {
        let at = |i| batch * BATCH + i;
        // A step that has no factor in common with a size visits all of it, far from the last.
        let known = |i| u32::try_from(u64::from(at(i)) * 7_368_787 % u64::from(size)).unwrap();
        let unknown = |i| size + at(i);
        samples[0].push(bench.batch(known, ACK, Verdict::Transmit));
        samples[1].push(bench.batch(unknown, SYN, Verdict::Transmit));
        bench.forget(unknown);
        let reason = dataplane_core::DropReason::NoConnection;
        // Nobody that was in the table before.
        let stranger = |i| unknown(i) + u32::try_from(BATCHES).unwrap() * BATCH;
        samples[2].push(bench.batch(stranger, ACK, Verdict::Drop(reason)));
    }
    for samples in &mut samples {
        samples.sort_by(f64::total_cmp);
    }
    samples
}

struct Bench<'a> {
    way: &'a Way,
    forwarder: Forwarder,
    now: Instant,
    /// Reused, as a port does.
    frames: Vec<Vec<u8>>,
}

impl<'a> Bench<'a> {
    /// An active ATM that knows `size` connections, all established.
    fn new(way: &'a Way, size: u32) -> Self {
        let connections_max = (size + 4 * BATCH) as usize;
        let interface = Interface {
            mac: ATM,
            address: ATM4,
            prefix_len: 24,
            address6: Some(ATM6),
            link_local: Some(ATM6),
            mtu: 1500,
        };
        let limits = Limits {
            pending_max: 1,
            connections_max,
        };
        let mut bench = Self {
            way,
            forwarder: Forwarder::new(interface, limits),
            now: Instant::BOOT + Duration::from_secs(1000),
            frames: Vec::new(),
        };
        let (now, out) = (bench.now, &mut Null);
        bench.forwarder.install(table(way, connections_max), now);
        bench.forwarder.handle_timeout(now, out);
        for server in 0..SERVERS {
            let _host = bench.receive(&mut server_speaks(way.server, server));
        }
        // To a backup a committed record is an established connection.
        let records: Vec<_> = (0..size)
            .map(|i| {
                let server = ServerId(u16::try_from(i % u32::from(SERVERS)).unwrap());
                ConnectionChange::Open(key(way.client, i), Pin::from(server))
            })
            .collect();
        bench.forwarder.commit(&records, now, out);
        assert_eq!(bench.forwarder.connections(), size as usize);
        bench.lead(true);
        bench
    }

    /// The lease is of one epoch always: what is known of connections stays as it is.
    fn lead(&mut self, lead: bool) {
        let lease = lead.then_some(Lease {
            epoch: Epoch(1),
            until: self.now + Duration::from_secs(3600),
        });
        self.forwarder.set_lease(lease, self.now, &mut Null);
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Verdict {
        let frame = Frame {
            bytes,
            offload: Offload::default(),
        };
        self.forwarder
            .receive(frame, Duration::ZERO, self.now, &mut Null)
    }

    /// Nanoseconds per frame of one batch: a frame of each of these connections.
    fn batch(&mut self, connection: impl Fn(u32) -> u32, flags: u8, expected: Verdict) -> f64 {
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        frames.extend((0..BATCH).map(|i| frame(self.way.client, connection(i), flags)));
        let start = std::time::Instant::now();
        let mut as_expected = 0;
        for frame in &mut frames {
            as_expected += u32::from(self.receive(frame) == expected);
        }
        let elapsed = start.elapsed();
        assert_eq!(as_expected, BATCH, "{} {expected:?}", self.way.name);
        self.frames = frames;
        elapsed.as_secs_f64() * 1e9 / f64::from(BATCH)
    }

    /// A backup forgets a connection as soon as the end of it is committed.
    fn forget(&mut self, connection: impl Fn(u32) -> u32) {
        self.lead(false);
        let ends: Vec<_> = (0..BATCH)
            .map(|i| ConnectionChange::Close(key(self.way.client, connection(i))))
            .collect();
        self.forwarder.commit(&ends, self.now, &mut Null);
        self.lead(true);
    }
}

/// Looks at what is sent, and no more: copying it is the port's work.
struct Null;

impl Sink for Null {
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        black_box((head, body));
    }

    fn relay(&mut self, head: &[u8], body: &[u8]) {
        black_box((head, body));
    }

    fn deliver(&mut self, head: &[u8], body: &[u8]) {
        black_box((head, body));
    }

    fn unstick(&mut self, _key: StickyKey) -> bool {
        true
    }

    fn open(&mut self, _key: ConnectionKey, _pin: Pin) -> bool {
        true
    }

    fn close(&mut self, _key: ConnectionKey) -> bool {
        true
    }
}

fn table(way: &Way, connections_max: usize) -> ForwardingTable {
    let vip = match way.client {
        Family::V4 => VIP4.into(),
        Family::V6 => VIP6.into(),
    };
    let servers = (0..SERVERS).map(|server| {
        let address = server_address(way.server, server);
        Real {
            id: ServerId(server.into()),
            address,
            next_hop: Some(address),
            here: false,
            method: way.method,
            source: None,
        }
    });
    ForwardingTable {
        applied_index: 1,
        next_hop: NextHop::default(),
        sticky: StickyRules::default(),
        vips: vec![vip],
        gateways: vec![],
        services: vec![VirtualService {
            id: SERVICE,
            vip,
            protocol: Protocol::Tcp,
            port: PORT,
            scheduler: Scheduler::Wrr,
            replication: Replication::Async,
            share: (0..SERVERS).map(|id| (ServerId(id.into()), 1)).collect(),
            reset: vec![],
        }],
        servers: servers.collect(),
        connections_max,
        connection_timeout: Duration::from_secs(3600),
        send_arp_delay: Duration::from_secs(20),
    }
}

fn server_address(family: Family, server: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 1, 0, 1 + server).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, server.into()).into(),
    }
}

/// What tells the ATM the Ethernet address of a server.
fn server_speaks(family: Family, server: u8) -> Vec<u8> {
    let mac = MacAddr([2, 0, 0, 0, 1, server]);
    match server_address(family, server) {
        IpAddr::V4(v4) => arp((mac, ATM), 2, (mac, v4), (ATM, ATM4)),
        IpAddr::V6(v6) => neighbour((mac, ATM), 136, 0x60, (v6, ATM6), v6, Some(mac)),
    }
}

/// Four connections of each client.
fn client(family: Family, connection: u32) -> (IpAddr, u16) {
    let (host, nth) = (connection / 4, u16::try_from(connection % 4).unwrap());
    let [_, a, b, c] = host.to_be_bytes();
    let address = match family {
        Family::V4 => Ipv4Addr::new(100, 64 + a, b, c).into(),
        Family::V6 => {
            let (net, host) = (u16::from(a) << 8 | u16::from(b), u16::from(c));
            Ipv6Addr::new(0x2001, 0xdb8, 0xc, net, 0, 0, 0, host).into()
        }
    };
    let [_, _, high, low] = host.wrapping_mul(0x9e37_79b1).to_be_bytes();
    let port = 0x8000 | (u16::from(high) << 8 | u16::from(low)) & 0x7ffc | nth;
    (address, port)
}

fn key(family: Family, connection: u32) -> ConnectionKey {
    let (client, port) = client(family, connection);
    ConnectionKey {
        client,
        port,
        service: SERVICE,
    }
}

fn frame(family: Family, connection: u32, flags: u8) -> Vec<u8> {
    match client(family, connection) {
        (IpAddr::V4(v4), port) => {
            Packet::tcp((v4, port), (VIP4, PORT), flags, b"").frame(ROUTER, ATM)
        }
        (IpAddr::V6(v6), port) => {
            Packet6::tcp((v6, port), (VIP6, PORT), flags, b"").frame(ROUTER, ATM)
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a length lies below it"
)]
fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}
