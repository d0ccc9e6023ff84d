//! P1: at every instant at most one ATM answers ARP for the VIP or forwards its packets, whatever happens to the active one.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, Trouble};
use chaos_tests::lab::ready;
use chaos_tests::observer::{Kind, Observer, Prober, Rules, Verdict, voices};

/// Every ATM that believes in itself is asked for the VIP this often.
const PROBE_INTERVAL: Duration = Duration::from_millis(2);

const CONNECTIONS: usize = 40;

/// Strikes the active ATM under traffic, mends it, and judges everything that any ATM said meanwhile.
fn one_voice_under(trouble: Trouble) {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let observer = Observer::start(cluster.lab()).unwrap();
    let prober = Prober::start(cluster.lab(), cluster.vip(), PROBE_INTERVAL).unwrap();
    let lines = cluster.lines(CONNECTIONS).unwrap();
    let churn = cluster.churn(100, 10).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();

    let blow = cluster.strike(trouble).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    cluster.mend(&blow).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();

    drop(churn);
    drop(prober);
    let observation = observer.stop();
    let verdict = observation.verdict(&Rules::default());
    let heard = voices(&observation.events);
    assert_eq!(verdict, Verdict::OneVoice, "{heard:#?}");

    // It proves something only if both ATMs spoke, in this order, and were asked and given packets. A takeover for want of
    // processor time in between breaks no promise.
    let mac = |host: &str| cluster.lab().host(host).unwrap().mac();
    let speakers = [mac(&blow.before), mac(&blow.after)];
    let first = |speaker| heard.iter().position(|voice| voice.mac == speaker);
    let last = |speaker| heard.iter().rposition(|voice| voice.mac == speaker);
    assert!(
        first(speakers[0]).is_some() && first(speakers[0]) < last(speakers[1]),
        "{heard:#?}"
    );
    for kind in [Kind::ArpAnswer, Kind::Tunnelled] {
        for speaker in &speakers {
            let said = observation
                .events
                .iter()
                .any(|e| e.source == *speaker && e.kind == kind);
            assert!(said, "{speaker:?} never said {kind:?}");
        }
    }
}

#[test]
fn one_voice_when_the_active_atm_is_killed_and_returns() {
    one_voice_under(Trouble::Kill);
}

#[test]
fn one_voice_when_the_active_atm_is_stopped_and_continued() {
    one_voice_under(Trouble::Stop);
}

#[test]
fn one_voice_when_the_active_atm_is_cut_off_from_the_others_and_sees_the_clients() {
    one_voice_under(Trouble::CutPeers);
}

#[test]
fn one_voice_when_the_active_atm_is_cut_off_from_everybody() {
    one_voice_under(Trouble::Cut);
}

#[test]
fn one_voice_at_a_planned_hand_over() {
    one_voice_under(Trouble::Failover);
}
