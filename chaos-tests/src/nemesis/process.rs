//! Faults of the daemons: killed, stopped, started again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::wait_until;
use crate::lab::{ATMD, Condition, LabError, Signal};

use super::chance::Chance;
use super::error::NemesisError;
use super::scene::Scene;
use super::schedule::FaultId;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// How long a rolling restart waits for an ATM to be back among the others before it goes on to the next.
const BACK_MAX: Duration = Duration::from_secs(20);

/// How long a daemon may take to end by itself after SIGTERM: it hands over first.
const END_MAX: Duration = Duration::from_secs(15);

/// What happens to `atmd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ProcessFault {
    /// `kill -9`; started again at the end.
    Kill {
        /// Whose.
        target: Target,
    },
    /// SIGTERM: it may hand over first. Started again at the end.
    Terminate {
        /// Whose.
        target: Target,
    },
    /// SIGSTOP; SIGCONT at the end.
    Stop {
        /// Whose.
        target: Target,
    },
    /// `kill -9` of all of them together, and all started again at once.
    Restart {
        /// Whose.
        target: Target,
    },
    /// Every ATM in turn by SIGTERM and a new start, the next one when the last is back among the others.
    RollingRestart,
}

impl Strike for ProcessFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Terminate { .. } => "terminate",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::RollingRestart => "rolling-restart",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Kill { target }
            | Self::Terminate { target }
            | Self::Stop { target }
            | Self::Restart { target } => vec![target.clone()],
            Self::RollingRestart => vec![Target::AllAtms],
        }
    }

    fn harm(&self) -> Harm {
        match self {
            Self::Stop { .. } => Harm::Bearable,
            Self::Kill { .. }
            | Self::Terminate { .. }
            | Self::Restart { .. }
            | Self::RollingRestart => Harm::Down,
        }
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        let (hosts, id) = (place.hosts(0), place.id);
        match self {
            Self::Kill { .. } => hosts
                .iter()
                .try_for_each(|host| take_down(scene, host, ATMD, id, Signal::KILL, undo)),
            Self::Terminate { .. } => hosts
                .iter()
                .try_for_each(|host| take_down(scene, host, ATMD, id, Signal::TERM, undo)),
            Self::Stop { .. } => hosts
                .iter()
                .try_for_each(|host| stop(scene, host, id, undo)),
            Self::Restart { .. } => {
                for host in hosts {
                    take_down(scene, host, ATMD, id, Signal::KILL, undo)?;
                }
                undo.run(scene)
            }
            Self::RollingRestart => {
                for host in hosts {
                    take_down(scene, host, ATMD, id, Signal::TERM, undo)?;
                    undo.run(scene)?;
                    wait_until_back(scene, host)?;
                }
                Ok(())
            }
        }
    }
}

impl Draw for ProcessFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let target = bounds.some_atm(chance);
        let lasting = |fault, lasts_ms| Lasting { fault, lasts_ms };
        match chance.below(10) {
            0..3 => lasting(Self::Kill { target }, chance.between(500, 5_000)),
            3 => lasting(Self::Terminate { target }, chance.between(500, 5_000)),
            // Shorter than the lease: nothing must happen.
            4..6 => {
                let short = chance.between(1, bounds.lease_ms * 8 / 10);
                lasting(Self::Stop { target }, short)
            }
            6..8 => {
                let long = chance.between(bounds.lease_ms, bounds.lease_ms * 20);
                lasting(Self::Stop { target }, long)
            }
            8 if chance.percent(50) => {
                let target = Target::AllAtms;
                lasting(Self::Restart { target }, 0)
            }
            9 if chance.percent(30) => lasting(Self::RollingRestart, 0),
            8.. => lasting(Self::Restart { target }, 0),
        }
    }
}

/// What a fault that keeps `process` of `host` down holds.
fn down(host: &str, process: &str) -> String {
    format!("down {host} {process}")
}

/// Ends `process` of `host` and hands `undo` its next start. One that is down already is only kept down.
pub(super) fn take_down(
    scene: &Scene<'_>,
    host: &str,
    process: &str,
    id: FaultId,
    signal: Signal,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let (on, name) = (host.to_owned(), process.to_owned());
    undo.push(move |scene| bring_up(scene, &on, &name, id));
    let lab = scene.lab();
    {
        let mut holds = scene.holds();
        holds.hold(&down(host, process), id);
        let sent = match signal {
            Signal::KILL => lab.kill(host, process),
            gentle => lab.signal(host, process, gentle),
        };
        match sent {
            Ok(()) | Err(LabError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let gone = || {
        let condition = lab.condition(host, process).map_err(|e| e.to_string())?;
        let gone = condition == Condition::Dead;
        gone.then_some(()).ok_or_else(|| format!("{condition:?}"))
    };
    // A stopped process gets the signal when it goes on, and hands nothing over before: it counts as down all the same.
    if lab.condition(host, process)? == Condition::Running {
        wait_until(&format!("the end of {process} on {host}"), END_MAX, gone)?;
    }
    Ok(())
}

/// Has nobody but the fault `id` start the daemon on `host` if it ends: [`bring_up`] does.
pub(super) fn keep_down(scene: &Scene<'_>, host: &str, id: FaultId) {
    scene.holds().hold(&down(host, ATMD), id);
}

/// Starts `process` of `host` as it was started before, unless another fault keeps it down or it runs.
pub(super) fn bring_up(
    scene: &Scene<'_>,
    host: &str,
    process: &str,
    id: FaultId,
) -> Result<(), NemesisError> {
    let mut holds = scene.holds();
    if !holds.release(&down(host, process), id) {
        return Ok(());
    }
    let lab = scene.lab();
    match lab.condition(host, process)? {
        Condition::Running => {}
        // SIGTERM of a stopped process is still to come: it ends when it goes on, and would not be started then.
        Condition::Dead | Condition::Stopped => lab.restart(host, process).map(drop)?,
    }
    Ok(())
}

fn stop(scene: &Scene<'_>, host: &str, id: FaultId, undo: &mut Undo) -> Result<(), NemesisError> {
    let what = format!("stopped {host}");
    let name = host.to_owned();
    let held = what.clone();
    undo.push(move |scene| {
        let mut holds = scene.holds();
        if !holds.release(&held, id) {
            return Ok(());
        }
        match scene.lab().signal(&name, ATMD, Signal::CONT) {
            // Another fault has killed it meanwhile, and starts it.
            Ok(()) | Err(LabError::NotRunning { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    });
    let mut holds = scene.holds();
    holds.hold(&what, id);
    match scene.lab().signal(host, ATMD, Signal::STOP) {
        Ok(()) | Err(LabError::NotRunning { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until some ATM says that the one on `host` has caught up.
pub(super) fn wait_until_back(scene: &Scene<'_>, host: &str) -> Result<(), NemesisError> {
    let cluster = scene.cluster("rolling-restart")?;
    let name = cluster.name_of(host)?;
    let others = cluster.others(host);
    let asked: Vec<&str> = if others.is_empty() {
        vec![host]
    } else {
        others.iter().map(String::as_str).collect()
    };
    let what = format!("{name} back among the others after its restart");
    cluster.wait_for(&what, &asked, BACK_MAX, |status| {
        let back = status
            .atm(&name)
            .is_some_and(|atm| atm.reachable && atm.lag == 0);
        status.active.is_some() && back
    })?;
    Ok(())
}
