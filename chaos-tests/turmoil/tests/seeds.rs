//! A fixed set of seeds, and seeds that once broke something. Empty without `--cfg atm_sim`.
#![cfg(atm_sim)]

use sim_node::{Plan, Summary, run};

fn play(seed: u64, faults_ms: u64) -> Summary {
    let plan = Plan {
        seed,
        faults_ms,
        schedule: None,
        verbose: false,
    };
    run(&plan).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = play(3, 6_000);
    assert_eq!(first, play(3, 6_000));
    assert_ne!(first.fingerprint, play(4, 6_000).fingerprint);
}

#[test]
fn every_promise_holds_in_the_first_seeds() {
    for seed in 1..=16 {
        let summary = play(seed, 12_000);
        assert_eq!(summary.violations, [], "seed {seed}");
        assert!(
            summary.tenures > 0 && summary.connections > 10,
            "{summary:?}"
        );
    }
}
