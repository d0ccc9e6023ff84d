//! Restores a lab whatever was done to it.

use crate::equipment;
use crate::lab::{ATMD, Condition, Lab, LabError, Signal};

use super::scene::Scene;

/// What a healing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// Hosts whose daemon had ended though no fault kept it down, and was started again: an end that nobody planned.
    pub restarted: Vec<String>,
    /// What could not be restored.
    pub failed: Vec<String>,
}

/// Ends every impairment of the network and of disks and clocks, revives every link, continues and starts every daemon.
///
/// Needs no memory of the faults, so it also heals what an interrupted run left. Idempotent.
#[must_use]
pub fn heal_all(scene: &Scene<'_>) -> Healed {
    let lab = scene.lab();
    let mut healed = Healed::default();
    if let Err(error) = lab.heal_network() {
        healed.failed.push(error.to_string());
    }
    for host in lab.hosts() {
        // Before the daemon is started, which would only end once more on a bad disk.
        if let Err(error) = equipment::mend(lab, host.name()) {
            healed.failed.push(error.to_string());
        }
        match revive(lab, host.name()) {
            Ok(true) => healed.restarted.push(host.name().to_owned()),
            Ok(false) => {}
            Err(error) => healed.failed.push(error.to_string()),
        }
    }
    healed
}

/// Returns whether the daemon had to be started.
fn revive(lab: &Lab, host: &str) -> Result<bool, LabError> {
    match lab.condition(host, ATMD) {
        Ok(Condition::Running) => Ok(false),
        Ok(Condition::Stopped) => lab.signal(host, ATMD, Signal::CONT).map(|()| false),
        Ok(Condition::Dead) => lab.restart(host, ATMD).map(|_| true),
        // Nothing was ever started there.
        Err(LabError::NoProcess { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
