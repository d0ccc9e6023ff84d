//! P1 at the engine: without the lease not one frame for the VIP leaves, whatever happens to the process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use dataplane::{PortKind, boottime};
use model::Instant;
use model::conf::ForwardingMethod;
use model::ids::Epoch;
use rustix::process::{Pid, Signal, kill_process};

use super::lab::{Lab, Router, block_on, enter, eventually, ip};
use super::stream::{Stream, claims, forwarded, record};

/// How late an observer's thread may be on a busy machine.
const OBSERVER_LATE: Duration = Duration::from_millis(150);
const MILLISECOND: Duration = Duration::from_millis(1);
/// The fault that must be noticed: the observers are tested too.
const PLANTED: bool = cfg!(feature = "planted");

/// Plants it in this process, if the feature is there; the tests of this binary that run beside are then not to be believed.
fn plant() {
    #[cfg(feature = "planted")]
    model::planted::plant(Some(model::planted::Bug::LeaseOff));
}

#[test]
fn an_expired_lease_silences_the_ring() {
    expires("an_expired_lease_silences_the_ring", PortKind::Ring);
}

#[test]
fn an_expired_lease_silences_pnet() {
    expires("an_expired_lease_silences_pnet", PortKind::Pnet);
}

fn expires(test: &str, kind: PortKind) {
    plant();
    let Some(lab) = Lab::new(test) else { return };
    let (at_server, at_client) = (lab.observe("server"), lab.observe("client"));
    let router = lab.on("atm", move || Router::start(kind, ForwardingMethod::Direct));
    block_on(router.handle.commit(vec![record()])).unwrap();
    let stream = Stream::start(&lab, Duration::from_millis(1));
    // The client asks for the VIP all this time.
    thread::sleep(200 * MILLISECOND);
    let granted = boottime();
    let until = granted + 500 * MILLISECOND;
    assert!(router.lease.grant(Epoch(1), until));
    thread::sleep(700 * MILLISECOND);
    ip(&["-n", &lab.name("client"), "neigh", "flush", "all"]);
    thread::sleep(500 * MILLISECOND);
    drop(stream);

    let packets = forwarded(&at_server.try_iter().collect::<Vec<_>>());
    let claims = claims(&at_client.try_iter().collect::<Vec<_>>());
    assert!(
        packets.len() > 50,
        "{} packets came through while the lease was held",
        packets.len()
    );
    assert!(claims.len() > 2, "gratuitous ARP");
    assert!(
        packets.iter().chain(&claims).all(|at| *at >= granted),
        "it spoke before it was granted"
    );
    let late = |at: &&Instant| **at > until + OBSERVER_LATE;
    let (packets_late, claims_late) = (
        packets.iter().filter(late).count(),
        claims.iter().filter(late).count(),
    );
    if PLANTED {
        assert!(
            packets_late > 0 && claims_late > 0,
            "the observer must notice the planted fault"
        );
    } else {
        assert_eq!(
            (packets_late, claims_late),
            (0, 0),
            "it spoke after its lease"
        );
        let last = router.handle.stats().last_transmit_at();
        assert!(
            last.is_some() && last < Some(until),
            "sent after the deadline"
        );
    }
    block_on(router.handle.shutdown());
}

#[test]
fn relinquished_means_silent_even_if_the_cell_still_holds() {
    plant();
    let Some(lab) = Lab::new("relinquished_means_silent_even_if_the_cell_still_holds") else {
        return;
    };
    let at_server = lab.observe("server");
    let router = lab.on("atm", || {
        Router::start(PortKind::Ring, ForwardingMethod::Direct)
    });
    block_on(router.handle.commit(vec![record()])).unwrap();
    let _stream = Stream::start(&lab, Duration::from_millis(1));
    assert!(
        router
            .lease
            .grant(Epoch(7), boottime() + Duration::from_secs(60))
    );
    let stats = router.handle.stats();
    let spoke = eventually(5000 * MILLISECOND, || {
        stats.first_transmit_of_epoch_at().is_some()
    });
    assert!(spoke, "{}", router.account());
    block_on(router.handle.relinquish()).unwrap();
    let relinquished = boottime();
    if !PLANTED {
        assert!(stats.last_transmit_at() <= Some(relinquished));
    }
    thread::sleep(500 * MILLISECOND);
    let packets = forwarded(&at_server.try_iter().collect::<Vec<_>>());
    let late = packets
        .iter()
        .filter(|at| **at > relinquished + OBSERVER_LATE)
        .count();
    assert_eq!(
        late > 0,
        PLANTED,
        "{late} packets after the acknowledgement"
    );
    // A newer epoch speaks again.
    assert!(
        router
            .lease
            .grant(Epoch(8), boottime() + Duration::from_secs(60))
    );
    assert!(eventually(Duration::from_secs(5), || stats.epoch()
        == Some(Epoch(8))
        && PLANTED
        || stats.first_transmit_of_epoch_at() > Some(relinquished)));
    block_on(router.handle.shutdown());
}

#[test]
fn stopped_and_resumed_the_ring_sends_nothing_it_had_queued() {
    stopped(
        "stopped_and_resumed_the_ring_sends_nothing_it_had_queued",
        PortKind::Ring,
    );
}

#[test]
fn stopped_and_resumed_pnet_sends_nothing_it_had_queued() {
    stopped(
        "stopped_and_resumed_pnet_sends_nothing_it_had_queued",
        PortKind::Pnet,
    );
}

/// Much shorter than the stop, long enough for a busy machine to keep it alive.
const LEASE: Duration = Duration::from_millis(400);

fn stopped(test: &str, kind: PortKind) {
    let Some(lab) = Lab::new(test) else { return };
    let at_server = lab.observe("server");
    let engine = Engine::start(&lab.name("atm"), kind);
    let stream = Stream::start(&lab, Duration::from_millis(1));
    let mut before = Vec::new();
    assert!(eventually(Duration::from_secs(5), || {
        before.extend(at_server.try_iter());
        forwarded(&before).len() > 100
    }));
    engine.signal(Signal::STOP);
    // The stream goes on: more than a thousand packets wait in the socket.
    thread::sleep(3 * LEASE);
    let resumed = boottime();
    let _during: Vec<_> = at_server.try_iter().collect();
    engine.signal(Signal::CONT);
    thread::sleep(500 * MILLISECOND);
    drop(stream);
    let after = forwarded(&at_server.try_iter().collect::<Vec<_>>());
    let count = after.iter().filter(|at| **at >= resumed).count();
    assert_eq!(
        count > 0,
        PLANTED,
        "{count} packets for the VIP after it was resumed without a lease"
    );
}

/// An engine in a process of its own, killed when dropped.
struct Engine {
    child: Child,
}

impl Engine {
    fn start(namespace: &str, kind: PortKind) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "silence::child_engine",
                "--ignored",
                "--nocapture",
            ])
            .env("DATAPLANE_TEST_NAMESPACE", namespace)
            .env("DATAPLANE_TEST_PORT", kind.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut engine = Self { child };
        let ready = lines
            .map_while(Result::ok)
            .any(|line| line.contains("engine ready"));
        assert!(
            ready,
            "the engine's process ended: {:?}",
            engine.child.try_wait()
        );
        engine
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "the process that `stopped` starts; does nothing on its own"]
fn child_engine() {
    plant();
    let Ok(namespace) = std::env::var("DATAPLANE_TEST_NAMESPACE") else {
        return;
    };
    let kind = std::env::var("DATAPLANE_TEST_PORT")
        .unwrap()
        .parse()
        .unwrap();
    enter(&namespace);
    let router = Router::start(kind, ForwardingMethod::Direct);
    block_on(router.handle.commit(vec![record()])).unwrap();
    let mut until = boottime() + LEASE;
    assert!(router.lease.grant(Epoch(1), until));
    println!("\nengine ready");
    std::io::stdout().flush().unwrap();
    // As a quorum would: a round that was sent while the lease was held extends it, and after it none comes back.
    loop {
        let sent = boottime();
        if sent >= until {
            thread::sleep(Duration::from_secs(60));
            return;
        }
        until = sent + LEASE;
        router.lease.extend(Epoch(1), until);
        thread::sleep(20 * MILLISECOND);
    }
}
