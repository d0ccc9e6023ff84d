//! The rules of the lease under attack: seeded runs of the pure code with clocks off by 5 %, pauses, restarts, transfers,
//! lost and late messages, one-way partitions and membership changes (P1, P3; docs/adr/0001-lease.md).
//!
//! `LEASE_SEED=n` replays one run and tells its story (with `--nocapture`), `LEASE_RUNS=n` asks for another number of runs.

mod chance;
mod chaos;
mod clock;
mod event;
mod fault;
mod judge;
mod keeper;
mod process;
mod raft;
mod tenure;
mod transport;
mod world;

use clock::MS;
use fault::Planted;
use judge::Violation;
use world::{Group, Tally, World};

const FIXED: &[Group] = &[Group::Three, Group::Three, Group::Five];
const CHANGING: &[Group] = &[Group::Changing, Group::Changing, Group::One];
const MEMBERS: &[Group] = &[Group::Changing];
const ALL: &[Group] = &[Group::Three, Group::Changing, Group::Five];

#[test]
fn one_voice_in_fixed_groups() {
    let tally = hold("one_voice_in_fixed_groups", FIXED, 15_000);
    assert!(tally.handovers > 0 && tally.restarts > 0);
}

#[test]
fn one_voice_in_changing_groups_and_alone() {
    let tally = hold("one_voice_in_changing_groups_and_alone", CHANGING, 7_500);
    assert!(tally.changes > 0);
}

/// Runs that must all hold; says what they came to.
fn hold(test: &str, groups: &[Group], runs: u64) -> Tally {
    let replayed = number("LEASE_SEED");
    let runs = number("LEASE_RUNS").unwrap_or(runs);
    let seeds = replayed.map_or(1..=runs, |seed| seed..=seed);
    let mut sum = Tally::default();
    let mut slowest = 0;
    for seed in seeds {
        match World::new(
            seed,
            group_of(seed, groups),
            Planted::Nothing,
            replayed.is_some(),
        )
        .run()
        {
            Ok(tally) => {
                slowest = slowest.max(tally.healed_in);
                sum.add(tally);
            }
            Err(violation) => {
                panic!("LEASE_SEED={seed} cargo test -p model {test} -- --nocapture: {violation}")
            }
        }
    }
    let mean = sum.waited as f64 / sum.claims.max(1) as f64 / MS as f64;
    println!(
        "{test}: {runs} runs, {} tenures, {} hand-overs, {} restarts, {} membership changes; \
         mean time from winning to speaking {mean:.1} ms, slowest recovery after the last fault {} ms",
        sum.claims,
        sum.handovers,
        sum.restarts,
        sum.changes,
        slowest / MS
    );
    sum
}

/// The simulation is worth something only if it finds rules that are wrong, and for the right reason.
fn must_find(planted: Planted, groups: &[Group], runs: u64) {
    for seed in 1..=runs {
        let Err(violation) = World::new(seed, group_of(seed, groups), planted, false).run() else {
            continue;
        };
        println!("{planted:?}: seed {seed}: {violation}");
        let expected = match violation {
            Violation::TwoVoices { .. } | Violation::OldEpoch { .. } => {
                planted != Planted::NoClaimGate
            }
            Violation::ClaimGate { .. } => planted == Planted::NoClaimGate,
            Violation::OtherResponse { .. }
            | Violation::OtherEntry { .. }
            | Violation::Silence(_) => false,
        };
        assert!(expected, "{planted:?}, seed {seed}: {violation}");
        return;
    }
    panic!("{planted:?} goes unnoticed in {runs} runs");
}

macro_rules! found {
    ($($name:ident: $planted:ident, $groups:ident, $runs:expr;)*) => {
        $(#[test]
        fn $name() {
            must_find(Planted::$planted, $groups, $runs);
        })*
    };
}

// Bounds: some ten times the runs that each takes.
found! {
    appends_left_out_of_the_age_are_found: NoAppendStamp, ALL, 20_000;
    own_lease_left_out_of_the_age_is_found: NoOwnLease, ALL, 20_000;
    start_left_out_of_the_age_is_found: NoStart, ALL, 20_000;
    a_vote_that_does_not_fence_is_found: NoFence, ALL, 20_000;
    a_late_stamp_is_found: LateStamp, ALL, 20_000;
    no_wait_out_is_found: NoWaitOut, ALL, 20_000;
    a_wait_without_the_clock_factor_is_found: NoClockFactor, ALL, 20_000;
    one_deadline_for_all_epochs_is_found: OneDeadline, ALL, 20_000;
    a_lease_from_receipt_is_found: CountsFromReceipt, ALL, 20_000;
    a_forgotten_older_lease_is_found: ForgetsOlderLease, ALL, 20_000;
    the_end_of_an_unbegun_tenure_is_found: EndsUnbegunTenure, ALL, 20_000;
    voters_of_an_older_membership_are_found: OldVoters, MEMBERS, 20_000;
    a_missing_claim_gate_is_found: NoClaimGate, ALL, 20_000;
    an_end_without_silence_is_found: EndsWithoutSilence, ALL, 20_000;
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.claims += other.claims;
        self.waited += other.waited;
        self.handovers += other.handovers;
        self.restarts += other.restarts;
        self.changes += other.changes;
    }
}

fn group_of(seed: u64, groups: &[Group]) -> Group {
    groups[usize::try_from(seed % groups.len() as u64).expect("less than a length")]
}

fn number(variable: &str) -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test may be told which seed to replay"
    )]
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}
