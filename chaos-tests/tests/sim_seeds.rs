//! The simulator: thousands of seeds hold, a seed gives the same run each time, and a planted bug is found.

use std::ops::RangeInclusive;
use std::thread;

use chaos_tests::sim::{Schedule, Story, run, shrink};

const STEPS: u64 = 5000;

/// P1 to P5, in all of them; and at the end of each run everything works again.
#[test]
fn sim_seeds() {
    let halves = [1..=1000, 1001..=2000];
    let results = thread::scope(|scope| {
        let threads: Vec<_> = halves
            .into_iter()
            .map(|seeds| scope.spawn(|| hold(seeds)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let failed: Vec<&String> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert!(failed.is_empty(), "{}", failed[0]);
    let of = |what: fn(&(u64, u64)) -> u64| results.iter().flatten().map(what).sum::<u64>();
    let (tenures, relayed) = (of(|sums| sums.0), of(|sums| sums.1));
    assert!(
        tenures > 4000,
        "only {tenures} tenures: the faults do nothing"
    );
    assert!(
        relayed > 1000,
        "only {relayed} packets passed on by backups"
    );
}

/// Tenures that spoke and packets that backups passed on, or what was broken and how to see it again.
fn hold(seeds: RangeInclusive<u64>) -> Result<(u64, u64), String> {
    let (mut tenures, mut relayed) = (0, 0);
    for seed in seeds {
        let schedule = Schedule::of(seed, STEPS);
        let outcome = run(&schedule, Story::Untold);
        if let Some(violation) = outcome.violation {
            let (small, _) = shrink(&schedule);
            let faults: Vec<_> = small.faults.iter().map(|planned| &planned.fault).collect();
            return Err(format!(
                "chaos sim --seed {seed} --steps {STEPS}: {violation}\nat step {}, {} ms; these faults are enough: {faults:#?}",
                outcome.steps, outcome.time_ms
            ));
        }
        tenures += outcome.tally.tenures;
        relayed += outcome.tally.relayed;
    }
    Ok((tenures, relayed))
}

#[test]
fn a_seed_is_a_run_bit_for_bit() {
    for seed in [1, 7, 4711] {
        let schedule = Schedule::of(seed, STEPS);
        let first = run(&schedule, Story::Untold);
        // Telling the story changes nothing of it.
        let again = run(&schedule, Story::Kept);
        assert_eq!(first.digest, again.digest, "seed {seed}");
        assert_eq!(first.steps, again.steps, "seed {seed}");
        assert!(!again.story.is_empty());
        assert_eq!(first.tally, again.tally, "seed {seed}");
    }
    let digests = [1, 2].map(|seed| run(&Schedule::of(seed, STEPS), Story::Untold).digest);
    assert_ne!(digests[0], digests[1]);
}

#[test]
fn a_schedule_survives_its_file() {
    for seed in 1..20 {
        let schedule = Schedule::of(seed, STEPS);
        let json = serde_json::to_string(&schedule).unwrap();
        let read: Schedule = serde_json::from_str(&json).unwrap();
        assert_eq!(read, schedule);
    }
}

/// Each bug that this rung can see, by the promise it breaks.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found() {
    for bug in chaos_tests::sim::BUGS {
        let found = chaos_tests::sim::hunt(bug, 1..=2000);
        let found = found.unwrap_or_else(|| panic!("{bug} goes unnoticed in 2,000 seeds"));
        println!(
            "{bug}: seed {} after {} seeds, {:.1} s: {}: {}",
            found.seed,
            found.seeds,
            found.seconds,
            found.violation.name(),
            found.violation
        );
        assert_ne!(found.violation.name(), "consensus", "{bug}");
    }
}
