//! The comparison of takeovers measures what it says: one trial of this product, and one of a peer that must show two voices.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use chaos_tests::lab::ready;
use chaos_tests::peers::{BenchArgs, Contender, Entry, Strike, TRIALS_FILE, Trial, run};

/// The trials that a campaign of one contender and one fault leaves in its file.
fn trials(contender: Contender, strike: Strike) -> Vec<Trial> {
    let dir = tempfile::tempdir().unwrap();
    let args = BenchArgs {
        trials: 1,
        contenders: vec![contender],
        faults: vec![strike],
        seed: Some(3),
        time_limit: None,
        dir: dir.path().to_owned(),
        fresh: false,
        report_only: false,
        write_docs: Some(dir.path().to_owned()),
    };
    run(&args).unwrap();
    let page = std::fs::read_to_string(dir.path().join("FAILOVER.md")).unwrap();
    assert!(page.contains("seed 3"), "{page}");
    let text = std::fs::read_to_string(dir.path().join(TRIALS_FILE)).unwrap();
    let (mut trials, mut failures) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match serde_json::from_str(line).unwrap() {
            Entry::Trial(trial) => trials.push(*trial),
            Entry::Failure(failure) => failures.push(failure),
            Entry::Campaign(_) => {}
        }
    }
    // No trial and no failed attempt: it was skipped, and the campaign has said why.
    assert!(!trials.is_empty() || failures.is_empty(), "{failures:?}");
    trials
}

#[test]
fn a_crash_of_the_active_atm_is_an_outage_and_nothing_else() {
    if !ready() {
        return;
    }
    let trials = trials(Contender::Ours100Ms, Strike::Crash);
    let [trial] = trials.as_slice() else {
        panic!("{trials:?}");
    };
    assert!(trial.restored && trial.outage_ms > 20.0, "{trial:?}");
    assert!(!trial.has_two_voices(), "{trial:?}");
    let connections = trial.connections.as_ref().unwrap();
    for share in [&connections.client_talks, &connections.server_talks] {
        assert_eq!((share.open, share.alive), (50, 50), "{trial:?}");
    }
}

#[test]
fn a_router_whose_kernel_has_the_vip_is_heard_twice_after_kill() {
    if !ready() {
        return;
    }
    let trials = trials(Contender::Keepalived100Ms, Strike::Kill);
    let [trial] = trials.as_slice() else {
        assert_eq!(trials, [], "skipped, or one trial");
        return;
    };
    assert!(trial.has_two_voices(), "{trial:?}");
    assert!(trial.two_voices_to_the_end, "{trial:?}");
}
