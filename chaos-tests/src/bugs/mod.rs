//! The tests are tested: each known bug is planted and hunted, on the cheapest rung first, until a checker finds it.
//!
//! The hunters are programs of their own, since a planted bug is compiled in: the simulator and the daemon with the feature
//! `planted`, and the real node library in its simulation. `make bugs` builds them and hunts with them.

mod catch;
mod hunters;

pub use catch::{Catch, Rung};
pub use hunters::{HuntError, Hunters};

use model::planted::Bug;

/// How much is tried before a rung gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which rungs are tried, from cheap to dear.
    pub rungs: Vec<Rung>,
    /// Seeds of the simulator; each is 5,000 steps.
    pub simulator_seeds: u64,
    /// Seeds of the real node library; each is 20 simulated seconds of faults.
    pub node_seeds: u64,
    /// Runs in the lab; each is half a minute of faults.
    pub lab_runs: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            rungs: Rung::ALL.to_vec(),
            simulator_seeds: 3_000,
            node_seeds: 100,
            lab_runs: 6,
        }
    }
}

/// Hunts one bug, rung by rung, until it is found. `tell` hears what is tried. The last catch says what became of it.
///
/// # Errors
/// A hunter is missing, or ends otherwise than a hunter ends.
pub fn hunt(
    bug: Bug,
    bounds: &Bounds,
    hunters: &Hunters,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Catch>, HuntError> {
    let mut tried = Vec::new();
    for rung in &bounds.rungs {
        if !rung.runs_the_code_of(bug) {
            continue;
        }
        tell(&format!("{bug}: {rung}"));
        let catch = match rung {
            Rung::Simulator => hunters.simulate(bug, bounds.simulator_seeds)?,
            Rung::Node => hunters.simulate_node(bug, bounds.node_seeds)?,
            Rung::Lab => hunters.run_lab(bug, bounds.lab_runs)?,
        };
        let found = catch.found;
        tried.push(catch);
        if found {
            break;
        }
    }
    Ok(tried)
}
