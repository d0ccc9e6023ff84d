//! A few seconds of every kind of trouble, mixed, from seeds that stay the same. `chaos run` makes longer ones.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::time::Duration;

use chaos_tests::checkers::{Checker, Outcome};
use chaos_tests::lab::ready;
use chaos_tests::run::{Faults, Interrupt, Options, SERVERS, run};

/// How long there are faults.
const TIME: Duration = Duration::from_secs(10);

/// Runs `faults` drawn from `seed` against three ATMs; every checker must have had something to check, and hold.
fn survives(seed: u64, faults: &str) {
    if !ready() {
        return;
    }
    let faults: Faults = faults.parse().unwrap();
    let schedule = faults.schedule(seed, 3, SERVERS, TIME).unwrap();
    let report = tempfile::tempdir().unwrap();
    let options = Options {
        atms: 3,
        report: report.path().to_owned(),
        daemon: None,
    };
    let judgement = run(&options, &schedule, &Interrupt::default()).unwrap();
    if !judgement.passed() {
        let kept = report.keep();
        panic!("{schedule}\n{judgement}\nreport: {}", kept.display());
    }
    for verdict in &judgement.verdicts.0 {
        // Whether there is a takeover within ten seconds is up to the seed; that there is a tenure is not.
        assert_eq!(verdict.outcome, Outcome::Holds, "{verdict}");
    }
    let checked = |checker| judgement.verdicts.of(checker).is_some();
    assert!(checked(Checker::Linearizability) && checked(Checker::Connections));
}

#[test]
fn ten_seconds_of_mixed_faults() {
    survives(1, "mixed");
}

#[test]
fn ten_seconds_of_kills_and_stops() {
    survives(2, "process");
}
