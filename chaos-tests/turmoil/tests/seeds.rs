//! A fixed set of seeds, and seeds that once broke something. Empty without `--cfg atm_sim`.
#![cfg(atm_sim)]

use std::process::Command;

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

/// What the program says of a seed, in a process of its own, as whoever repeats a seed has it.
fn said(seed: u64) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sim-node"));
    program.args(["run", "--ms", "6000", "--seed", &seed.to_string()]);
    let output = program.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = said(3);
    assert!(first.contains("\"fingerprint\":"), "{first}");
    assert_eq!(first, said(3));
    assert_ne!(first, said(4));
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
