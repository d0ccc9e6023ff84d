//! P3: a new active ATM speaks for the VIP only after it has applied everything committed before its term, and its
//! forwarding table holds it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, Trouble, unix_of_boottime};
use chaos_tests::lab::ready;
use chaos_tests::observer::{Kind, Observer, Prober, voices};

const CONNECTIONS: usize = 80;

const PROBE_INTERVAL: Duration = Duration::from_millis(2);

/// What converting an instant between two clocks may cost: the clocks are read one after the other, and one of them is slewed.
const CLOCKS_AGREE_NS: u64 = 200_000;

fn the_gate_holds_under(trouble: Trouble) {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let observer = Observer::start(cluster.lab()).unwrap();
    let prober = Prober::start(cluster.lab(), cluster.vip(), PROBE_INTERVAL).unwrap();
    let lines = cluster.lines(CONNECTIONS).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let unknown = |host: &str| cluster.counter(host, "no-connection").unwrap();
    let atms = cluster.atms();
    let unknown_before: BTreeMap<_, _> = atms.iter().map(|h| (h.clone(), unknown(h))).collect();

    let blow = cluster.strike(trouble).unwrap();
    let tenure = blow.status.tenure.unwrap();
    let unix = [
        tenure.begun_at_ns,
        tenure.table_at_ns,
        tenure.wait_until_ns,
        tenure.claimed_at_ns,
    ];
    let [begun, table, waited, claimed] = unix.map(unix_of_boottime);
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let unknown_after = unknown(&blow.after);
    assert!(lines.snapshot().is_unbroken(), "{:#?}", lines.snapshot());
    drop(prober);
    let observation = observer.stop();

    // The order of the gate, as the new active ATM tells it.
    assert_eq!(tenure.epoch, blow.status.epoch);
    assert!(
        tenure.leader_at_ns > 0 && tenure.leader_at_ns <= tenure.begun_at_ns,
        "{tenure:?}"
    );
    assert!(
        begun <= table && table <= claimed && waited <= claimed,
        "{tenure:?}"
    );
    assert!(tenure.first_arp_at_ns >= tenure.claimed_at_ns, "{tenure:?}");

    // The same as the wire tells it: not one frame, of whatever kind, before the lease began.
    let mac = cluster.lab().host(&blow.after).unwrap().mac();
    let heard = voices(&observation.events);
    let voice = heard.iter().rfind(|voice| voice.mac == mac).unwrap();
    assert!(
        voice.first + CLOCKS_AGREE_NS >= claimed,
        "{} before {claimed}: {heard:#?}",
        voice.first
    );
    assert_eq!(
        voice.first_claim,
        Some(voice.first),
        "its first frame announces it: {heard:#?}"
    );

    // And every old connection was known there from its first packet on.
    let flows = |source| -> BTreeSet<_> {
        let events = observation.events.iter();
        let forwarded = events.filter(|e| e.source == source && e.kind == Kind::Tunnelled);
        forwarded.filter_map(|e| e.flow).collect()
    };
    let old = flows(cluster.lab().host(&blow.before).unwrap().mac());
    assert_eq!(old.len(), CONNECTIONS);
    assert_eq!(flows(mac), old, "all of them, and no other");
    assert_eq!(
        unknown_before.get(&blow.after),
        Some(&unknown_after),
        "packets of unknown connections"
    );
}

#[test]
fn the_claim_gate_holds_when_the_active_atm_is_killed() {
    the_gate_holds_under(Trouble::Kill);
}

#[test]
fn the_claim_gate_holds_when_the_active_atm_is_stopped() {
    the_gate_holds_under(Trouble::Stop);
}

#[test]
fn the_claim_gate_holds_when_the_active_atm_is_cut_off_from_the_others() {
    the_gate_holds_under(Trouble::CutPeers);
}

#[test]
fn the_claim_gate_holds_when_the_active_atm_is_cut_off_from_everybody() {
    the_gate_holds_under(Trouble::Cut);
}

#[test]
fn the_claim_gate_holds_at_a_planned_hand_over() {
    the_gate_holds_under(Trouble::Failover);
}
