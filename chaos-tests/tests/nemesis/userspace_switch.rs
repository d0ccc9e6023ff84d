//! The userspace switch between real hosts: it passes everything that a bridge passes, and does what it is told to do.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::probing::{Arrival, introduce, is_cut, passes, send};
use chaos_tests::lab::{Effect, Fault, Impairment, Lab, LabError, Link, ready};
use chaos_tests::switch::Lost;

const MS: Duration = Duration::from_millis(1);

/// More than a window of TCP: the sender has to hear the receiver.
const BULK_BYTES: usize = 64 << 20;

fn lab() -> Lab {
    Lab::builder()
        .atms(2)
        .servers(1)
        .client()
        .without_daemons()
        .switch(11)
        .start()
        .unwrap()
}

/// From `atm1` to `client` and back.
fn impair(lab: &Lab, effect: Effect) {
    let there = Impairment {
        effect,
        ..Impairment::cut(&["atm1".to_owned()], &["client".to_owned()])
    };
    lab.impair("test", &[there]).unwrap();
}

fn median(arrivals: &[Arrival]) -> Duration {
    let mut times: Vec<Duration> = arrivals.iter().map(|arrival| arrival.after).collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn hosts_reach_one_another_and_cuts_hold_as_with_a_bridge() {
    if !ready() {
        return;
    }
    let lab = lab();
    for (from, to) in [("client", "atm1"), ("atm1", "atm2"), ("serv1", "client")] {
        assert!(passes(&lab, from, to), "{from} to {to}");
    }
    introduce(&lab);
    for (fault, link, cut, open) in [
        (Fault::Cut, Link::Cut, ["atm2", "client"], "serv1"),
        (Fault::CutPeers, Link::CutPeers, ["atm2", "atm2"], "client"),
    ] {
        lab.fault(fault, "atm1").unwrap();
        assert_eq!(lab.status().unwrap().hosts[0].link, link);
        for to in cut {
            assert!(is_cut(&lab, "atm1", to), "{fault:?}: atm1 to {to}");
            assert!(is_cut(&lab, to, "atm1"), "{fault:?}: {to} to atm1");
        }
        assert!(passes(&lab, open, "atm2"), "{fault:?}: {open} to atm2");
        lab.fault(Fault::Heal, "atm1").unwrap();
        assert_eq!(lab.status().unwrap().hosts[0].link, Link::Up);
        assert!(passes(&lab, "atm1", "atm2"));
    }
    lab.fault(Fault::LinkDown, "atm1").unwrap();
    assert_eq!(lab.status().unwrap().hosts[0].link, Link::Down);
    assert!(is_cut(&lab, "client", "atm1"));
    lab.fault(Fault::Heal, "atm1").unwrap();
    introduce(&lab);
    assert!(passes(&lab, "client", "atm1"));
    let counters = lab.switch().unwrap().unwrap().counters();
    assert!(counters.lost(Lost::Impaired) > 0, "{counters}");
    assert!(counters.lost(Lost::PortDown) > 0, "{counters}");
}

#[test]
fn bulk_tcp_passes_with_its_large_frames() {
    if !ready() {
        return;
    }
    let lab = lab();
    let address = lab.host("serv1").unwrap().address();
    let listener = lab
        .in_netns("serv1", || TcpListener::bind((address, 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    let mut sender = lab
        .in_netns("client", || TcpStream::connect(target))
        .unwrap()
        .unwrap();
    let receiving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let sent: Vec<u8> = (0..=250_u8).cycle().take(BULK_BYTES).collect();
    sender.write_all(&sent).unwrap();
    drop(sender);
    let received = receiving.join().unwrap();
    assert!(received == sent, "{} of {BULK_BYTES} bytes", received.len());
    let counters = lab.switch().unwrap().unwrap().counters();
    // In frames of the MTU it would be 46,000 and as many acknowledgements: offloads are at work.
    assert!(counters.sent < 30_000, "{counters}");
}

#[test]
fn delay_is_what_it_was_told_to_be_and_jitter_varies_it() {
    if !ready() {
        return;
    }
    let lab = lab();
    introduce(&lab);
    let plain = median(&send(&lab, "atm1", "client", 50, MS));
    impair(
        &lab,
        Effect {
            delay_us: 40_000,
            ..Effect::default()
        },
    );
    let delayed = send(&lab, "atm1", "client", 50, MS);
    assert_eq!(delayed.len(), 50);
    assert!(delayed.iter().all(|arrival| arrival.after >= 40 * MS));
    // What a loaded machine adds is bounded by the median of many.
    let late = median(&delayed);
    assert!(late < 40 * MS + plain + 20 * MS, "{late:?} after {plain:?}");
    // The other direction is not touched.
    assert!(median(&send(&lab, "client", "atm1", 50, MS)) < 20 * MS + plain);

    impair(
        &lab,
        Effect {
            jitter_us: 40_000,
            ..Effect::default()
        },
    );
    // Far apart, so that one does not wait for another one to keep the order.
    let varied = send(&lab, "atm1", "client", 20, 50 * MS);
    let times = || varied.iter().map(|arrival| arrival.after);
    let spread = times().max().unwrap() - times().min().unwrap();
    assert!(spread > 10 * MS, "{spread:?}");

    lab.unimpair("test").unwrap();
    assert!(median(&send(&lab, "atm1", "client", 50, MS)) < 20 * MS + plain);
}

#[test]
fn losses_copies_and_overtaking_are_seen() {
    if !ready() {
        return;
    }
    let lab = lab();
    introduce(&lab);
    let sent = || send(&lab, "atm1", "client", 2000, MS / 20);
    impair(
        &lab,
        Effect {
            drop_ppm: 300_000,
            ..Effect::default()
        },
    );
    let arrived = sent().len();
    // 1400 of 2000; six standard deviations are 123.
    assert!((1277..=1523).contains(&arrived), "{arrived}");

    impair(
        &lab,
        Effect {
            duplicate_ppm: 200_000,
            ..Effect::default()
        },
    );
    let arrived = sent().len();
    // 2400; six standard deviations are 107.
    assert!((2293..=2507).contains(&arrived), "{arrived}");

    impair(
        &lab,
        Effect {
            reorder_ppm: 100_000,
            reorder_us: 5_000,
            ..Effect::default()
        },
    );
    let arrivals = sent();
    assert_eq!(arrivals.len(), 2000);
    let mut newest = 0;
    let overtaken = arrivals.iter().filter(|arrival| {
        let late = arrival.number < newest;
        newest = newest.max(arrival.number);
        late
    });
    // 200; six standard deviations are 80.
    let overtaken = overtaken.count();
    assert!((120..=280).contains(&overtaken), "{overtaken}");

    lab.unimpair("test").unwrap();
    let arrivals = sent();
    assert!(arrivals.len() == 2000 && arrivals.is_sorted_by_key(|arrival| arrival.number));
}

#[test]
fn it_ends_with_its_lab_and_cannot_outlive_it() {
    if !ready() {
        return;
    }
    let lab = lab();
    let (namespace, dir) = (lab.record().switch(), lab.dir());
    let elsewhere = Lab::open(&dir).unwrap();
    assert!(matches!(
        elsewhere.impaired(),
        Err(LabError::SwitchElsewhere)
    ));
    drop(elsewhere);
    let begun = Instant::now();
    drop(lab);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(!std::path::Path::new("/run/netns").join(namespace).exists());
    let refused = Lab::builder().switch(1).persistent().start().err().unwrap();
    assert!(matches!(refused, LabError::SwitchElsewhere), "{refused}");
}
