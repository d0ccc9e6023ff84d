//! Whoever follows the decisions of a busy engine.

use std::time::Duration;

use dataplane::{Count, PortKind, TRACES_MAX, Trace, TraceError, TraceFilter, Traced, boottime};
use dataplane_core::Verdict;
use model::conf::ForwardingMethod;
use model::ids::{Epoch, ServerId, VirtualServiceId};

use super::lab::{CLIENT, Lab, Router, VIP, block_on, eventually};
use super::stream::{Stream, record};

/// Longer than any machine needs.
const LIMIT: Duration = Duration::from_secs(20);
/// More than wait for a reader.
const FRAMES: u64 = 3000;

/// A reader that does not read loses decisions and is told how many; the packets are forwarded all the same.
#[test]
fn a_slow_reader_costs_no_packet() {
    let Some(lab) = Lab::new("a_slow_reader_costs_no_packet") else {
        return;
    };
    let router = lab.on("atm", || {
        Router::start(PortKind::Ring, ForwardingMethod::Direct)
    });
    block_on(router.handle.commit(vec![record()])).unwrap();
    assert!(
        router
            .lease
            .grant(Epoch(1), boottime() + Duration::from_secs(60))
    );
    // The server's Ethernet address has to be known.
    let warm = Stream::start(&lab, Duration::from_millis(1));
    let stats = router.handle.stats();
    assert!(eventually(LIMIT, || stats.last_transmit_at().is_some()));
    drop(warm);
    std::thread::sleep(Duration::from_millis(100));

    let mut trace = block_on(router.handle.trace(filter())).unwrap();
    let transmitted = || {
        let snapshot = block_on(router.handle.snapshot()).unwrap();
        snapshot.verdicts.verdict(Verdict::Transmit)
    };
    let (before, sent_before) = (transmitted(), stats.count(Count::Sent));
    let stream = Stream::start(&lab, Duration::ZERO);
    assert!(
        eventually(LIMIT, || transmitted() - before > FRAMES),
        "{}",
        router.account()
    );
    drop(stream);
    std::thread::sleep(Duration::from_millis(100));
    let (frames, sent) = (
        transmitted() - before,
        stats.count(Count::Sent) - sent_before,
    );
    assert!(
        sent >= frames,
        "{sent} of {frames} left: {}",
        router.account()
    );

    let (mut told, mut missed) = (0, 0);
    while let Some(traced) = next(&mut trace) {
        match traced {
            Traced::Missed(more) => missed += more,
            Traced::Decision(decision) => {
                let about = (decision.about.service, decision.about.server);
                if decision.verdict == Verdict::Transmit {
                    assert_eq!(about, (Some(VirtualServiceId(1)), Some(ServerId(1))));
                    assert_eq!(decision.summary().source, Some(CLIENT.into()));
                    assert_eq!(decision.length(), 58);
                    told += 1;
                }
            }
        }
    }
    assert!(missed > 0, "{told} told");
    // ARP for the VIP may be among the missed.
    let all = told + missed;
    assert!(
        (frames..frames + 100).contains(&all),
        "{told} + {missed} of {frames}"
    );
}

#[test]
fn a_trace_ends_when_it_is_dropped_also_in_an_idle_engine() {
    let Some(lab) = Lab::new("a_trace_ends_when_it_is_dropped_also_in_an_idle_engine") else {
        return;
    };
    let router = lab.on("atm", || {
        Router::start(PortKind::Ring, ForwardingMethod::Direct)
    });
    let begin = || block_on(router.handle.trace(filter()));
    let traces: Vec<Trace> = (0..TRACES_MAX).map(|_| begin().unwrap()).collect();
    assert_eq!(begin().err(), Some(TraceError::TooMany));
    drop(traces);
    let mut last = begin().unwrap();
    block_on(router.handle.shutdown());
    assert!(block_on(last.next()).is_none());
    assert_eq!(begin().err(), Some(TraceError::Gone));
}

fn filter() -> TraceFilter {
    TraceFilter {
        vip: VIP.into(),
        client: Some("10.9.0.0/24".parse().unwrap()),
        services: vec![VirtualServiceId(1)],
        only_services: false,
    }
}

/// `None`: nothing comes any more.
fn next(trace: &mut Trace) -> Option<Traced> {
    let pause = Duration::from_millis(300);
    block_on(async { tokio::time::timeout(pause, trace.next()).await }).ok()?
}
