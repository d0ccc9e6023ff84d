//! Looks for a planted bug: the simulator is worth something only if it finds what is wrong.

use std::ops::RangeInclusive;
use std::time::Instant;

use model::planted::{self, Bug};

use super::run::{Story, run};
use super::schedule::Schedule;
use super::violation::Violation;

/// Events of each run.
const STEPS: u64 = 5000;

/// The bugs whose code runs in the simulator: those of the model and of the packet path's core. The others are in the
/// daemon's transport, store and API, which this rung does not run.
pub const BUGS: [Bug; 8] = [
    Bug::LeaseOff,
    Bug::ClaimBeforeApply,
    Bug::NoWaitOut,
    Bug::LateStamp,
    Bug::ConnectionNotReplicated,
    Bug::ExpiryByLocalClock,
    Bug::SnapshotMissingAnEntry,
    Bug::StaleFramesAfterPause,
];

/// A planted bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// By this seed.
    pub seed: u64,
    /// Seeds that were run, this one included.
    pub seeds: u64,
    /// How long it took.
    pub seconds: f64,
    /// What was seen.
    pub violation: Violation,
}

/// Plants the bug on this thread and runs one seed after the other. `None`: none of them found it.
pub fn hunt(bug: Bug, seeds: RangeInclusive<u64>) -> Option<Found> {
    let _planted = planted::on_this_thread(bug);
    let began = Instant::now();
    let first = *seeds.start();
    seeds.into_iter().find_map(|seed| {
        let violation = run(&Schedule::of(seed, STEPS), Story::Untold).violation?;
        Some(Found {
            seed,
            seeds: seed - first + 1,
            seconds: began.elapsed().as_secs_f64(),
            violation,
        })
    })
}
