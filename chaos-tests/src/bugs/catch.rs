//! What a hunt came to.

use std::fmt;

use clap::ValueEnum;
use model::planted::Bug;
use serde::{Deserialize, Serialize};

/// Where a bug is hunted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Rung {
    /// Model, lease rules and forwarding core in the simulator.
    #[value(name = "1")]
    Simulator,
    /// The real node library, on simulated network, disk and clock.
    #[value(name = "2")]
    Node,
    /// Real processes in a lab.
    #[value(name = "3")]
    Lab,
}

impl Rung {
    /// From cheap to dear.
    pub const ALL: [Self; 3] = [Self::Simulator, Self::Node, Self::Lab];

    /// Whether the code that the bug is planted in runs on this rung.
    #[must_use]
    pub fn runs_the_code_of(self, bug: Bug) -> bool {
        match self {
            Self::Simulator => SIMULATED.contains(&bug),
            // The engine's thread and its socket are simulated there: frames do not wait.
            Self::Node => bug != Bug::StaleFramesAfterPause,
            Self::Lab => true,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Simulator => "rung 1, simulator",
            Self::Node => "rung 2, node library",
            Self::Lab => "rung 3, lab",
        })
    }
}

/// The bugs whose code the simulator runs: those of the model and of the packet path's core.
const SIMULATED: [Bug; 8] = [
    Bug::LeaseOff,
    Bug::ClaimBeforeApply,
    Bug::NoWaitOut,
    Bug::LateStamp,
    Bug::ConnectionNotReplicated,
    Bug::ExpiryByLocalClock,
    Bug::SnapshotMissingAnEntry,
    Bug::StaleFramesAfterPause,
];

/// What a hunt on one rung came to: the line of JSON that a hunter prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catch {
    /// Name of the bug.
    pub bug: String,
    /// 1, 2 or 3.
    pub rung: u8,
    /// Whether a checker found it.
    pub found: bool,
    /// The seed that did.
    pub seed: Option<u64>,
    /// Seeds that were tried, that one included.
    pub seeds: u64,
    /// How long it took.
    pub seconds: f64,
    /// Which checker.
    pub checker: Option<String>,
    /// What it said.
    pub what: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_rung_that_runs_its_code() {
        for bug in Bug::ALL {
            let simulated = [Rung::Simulator, Rung::Node]
                .iter()
                .any(|rung| rung.runs_the_code_of(bug));
            assert!(simulated && Rung::Lab.runs_the_code_of(bug), "{bug}");
        }
    }

    #[cfg(feature = "planted")]
    #[test]
    fn the_simulator_says_the_same_of_itself() {
        assert_eq!(SIMULATED, crate::sim::BUGS);
    }

    #[test]
    fn a_hunters_line_is_understood() {
        let line = r#"{"bug":"lease-off","rung":1,"found":true,"seed":3,"seeds":3,"seconds":0.1,"checker":"two-voices","what":"x"}"#;
        let catch: Catch = serde_json::from_str(line).unwrap();
        assert_eq!((catch.found, catch.seeds), (true, 3));
        assert_eq!(serde_json::to_string(&catch).unwrap(), line);
    }
}
