//! Both ports in one run, interleaved: processor time per forwarded frame, frames per second, and what the way through
//! the engine adds to a round trip and to a connect. Needs network namespaces; about 20 s.
//!
//! `cargo bench -p dataplane` prints a table, then the same as one line of JSON. Only ratios of one run mean anything.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot measure has nothing else to do than to say so and end"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::{Count, Guard, Guarded, PortKind, boottime};
use lab::{Lab, PORT, Router, SERVER, VIP, block_on};
use model::conf::ForwardingMethod;
use model::ids::Epoch;
use stream::Stream;

#[expect(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/namespaces/lab.rs"]
mod lab;
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/namespaces/stream.rs"]
mod stream;

/// Odd, so that the median is one of them.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(800);
const ROUND_TRIPS: usize = 500;
const CONNECTS: usize = 60;
const PORTS: [PortKind; 2] = [PortKind::Pnet, PortKind::Ring];

fn main() {
    // Only cargo bench says this: a test run over all targets starts benches as well.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if Lab::new("the bench").is_none() {
        return;
    }
    let mut load = PORTS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (samples, kind) in load.iter_mut().zip(PORTS) {
            samples.push(under_load(kind));
        }
    }
    let straight = latency(None);
    let latencies = PORTS.map(|kind| latency(Some(kind)));
    report(&load, &straight, &latencies);
}

/// One round under the load that two client threads can make: one alone is no faster than the ring.
struct Load {
    nanos_per_frame: f64,
    frames_per_second: f64,
    /// Near 1 with the ring: the engine was faster than the clients and paid a wake-up for each frame.
    frames_per_batch: f64,
}

fn under_load(kind: PortKind) -> Load {
    let lab = Lab::new("the bench").unwrap();
    // The server's kernel is not part of it: what arrives ends at its interface.
    let all = Guarded {
        vips: vec![SERVER.into()],
        ..Guarded::default()
    };
    lab.on("server", move || Guard::install("e0", &all).unwrap());
    let router = lab.on("atm", move || Router::start(kind, ForwardingMethod::Tunnel));
    block_on(router.handle.commit(vec![stream::record()])).unwrap();
    assert!(
        router
            .lease
            .grant(Epoch(1), boottime() + Duration::from_secs(60))
    );
    let _streams = [
        Stream::start(&lab, Duration::ZERO),
        Stream::start(&lab, Duration::ZERO),
    ];
    thread::sleep(ROUND / 4);
    let sent = || router.handle.stats().count(Count::Sent);
    let turns = || router.handle.stats().count(Count::Batches);
    let (start, frames, batches, cpu) = (Instant::now(), sent(), turns(), engine_cpu_nanos());
    thread::sleep(ROUND);
    let (elapsed, frames, batches) = (start.elapsed(), sent() - frames, turns() - batches);
    let cpu = engine_cpu_nanos() - cpu;
    block_on(router.handle.shutdown());
    Load {
        nanos_per_frame: ratio(cpu, frames),
        frames_per_second: ratio(frames, 1) / elapsed.as_secs_f64(),
        frames_per_batch: ratio(frames, batches),
    }
}

/// Nanoseconds the engine's thread has run (the first number of schedstat).
fn engine_cpu_nanos() -> u64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "dp-e0") {
            let stat = std::fs::read_to_string(path.join("schedstat")).unwrap();
            return stat.split(' ').next().unwrap().parse().unwrap();
        }
    }
    panic!("no engine thread");
}

/// Microseconds, sorted.
struct Latency {
    round_trips: Vec<f64>,
    connects: Vec<f64>,
}

/// Through the engine, or straight to the server.
fn latency(kind: Option<PortKind>) -> Latency {
    let lab = Lab::new("the bench").unwrap();
    let listener = lab.on("server", || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap()
    });
    thread::spawn(move || {
        for stream in listener.incoming().take(CONNECTS + 1) {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        }
    });
    let router =
        kind.map(|kind| lab.on("atm", move || Router::start(kind, ForwardingMethod::Direct)));
    if let Some(router) = &router {
        assert!(
            router
                .lease
                .grant(Epoch(1), boottime() + Duration::from_secs(60))
        );
        thread::sleep(Duration::from_millis(600));
    }
    let target = SocketAddr::from((if router.is_some() { VIP } else { SERVER }, PORT));
    let measured = lab.on("client", move || {
        let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
        let connects = (0..CONNECTS).map(|_| {
            let start = Instant::now();
            let stream = connect();
            let elapsed = micros(start);
            drop(stream);
            elapsed
        });
        let connects = sorted(connects.collect());
        let mut stream = connect();
        stream.set_nodelay(true).unwrap();
        let round_trips = (0..ROUND_TRIPS).map(|_| {
            // Unlike a flood, each packet finds the engine asleep.
            thread::sleep(Duration::from_millis(1));
            let start = Instant::now();
            stream.write_all(&[1]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            micros(start)
        });
        Latency {
            round_trips: sorted(round_trips.collect()),
            connects,
        }
    });
    if let Some(router) = router {
        block_on(router.handle.shutdown());
    }
    measured
}

fn report(load: &[Vec<Load>; 2], straight: &Latency, latencies: &[Latency; 2]) {
    let mut json = serde_json::Map::new();
    let mut row = |name: &str, values: [Vec<f64>; 2], unit: &str| {
        let [pnet, ring] = values.map(sorted);
        let ratio = at(&ring, 0.5) / at(&pnet, 0.5);
        println!(
            "{name:<34} {:>26} {:>26} {ratio:>6.2} {unit}",
            show(&pnet),
            show(&ring)
        );
        json.insert(
            name.to_owned(),
            serde_json::json!({ "unit": unit, "pnet": pnet, "ring": ring, "ratio": ratio }),
        );
    };
    println!(
        "{:<34} {:>26} {:>26} {:>6}",
        "median (least..most)", "pnet", "ring", "ratio"
    );
    let of = |value: fn(&Load) -> f64| {
        [0, 1].map(|port: usize| load[port].iter().map(value).collect::<Vec<_>>())
    };
    row(
        "engine thread per frame, tunnel",
        of(|load| load.nanos_per_frame),
        "ns",
    );
    row(
        "frames forwarded, tunnel",
        of(|load| load.frames_per_second),
        "/s",
    );
    row(
        "frames per batch, tunnel",
        of(|load| load.frames_per_batch),
        "",
    );
    row(
        "round trip added",
        added(latencies, straight, |of| &of.round_trips),
        "us",
    );
    row(
        "connect added (record at once)",
        added(latencies, straight, |of| &of.connects),
        "us",
    );
    println!("{}", serde_json::Value::Object(json));
}

/// What each quartile and the 95th percentile lie above the straight way's median.
fn added(
    latencies: &[Latency; 2],
    straight: &Latency,
    of: fn(&Latency) -> &Vec<f64>,
) -> [Vec<f64>; 2] {
    let base = at(of(straight), 0.5);
    [0, 1].map(|port: usize| {
        [0.25, 0.5, 0.95]
            .map(|part| at(of(&latencies[port]), part) - base)
            .to_vec()
    })
}

fn show(sorted: &[f64]) -> String {
    format!(
        "{:.1} ({:.1}..{:.1})",
        at(sorted, 0.5),
        at(sorted, 0.0),
        at(sorted, 1.0)
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a length lies below it"
)]
fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

fn ratio(above: u64, below: u64) -> f64 {
    above as f64 / below as f64
}
