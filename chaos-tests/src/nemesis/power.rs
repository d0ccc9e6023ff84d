//! Power cuts: the daemon is gone at once, and its disk forgets what was not synced.
//!
//! The daemons need [`crate::equipment::Equipment::for_disk_faults`]; without it each fault says so by name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::equipment::{Class, Disk, Effect, EquipmentError, Mode, Tail, disk_page};
use crate::lab::{ATMD, Condition, LabError, Signal};

use super::chance::Chance;
use super::error::NemesisError;
use super::process::take_down;
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// How long a torn power cut waits for the daemon to write something; then it comes between two writes.
const WRITE_MAX: Duration = Duration::from_secs(3);

/// What a power cut does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PowerFault {
    /// All of them at the same moment; what was not synced is lost. They are started again at the end.
    Cut {
        /// Whose.
        target: Target,
    },
    /// In the middle of a write, of which a part reaches the disk.
    Torn {
        /// Whose.
        target: Target,
        /// So many thousandths of it.
        keep: u16,
    },
}

impl Strike for PowerFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "power-cut",
            Self::Torn { .. } => "torn-power-cut",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Cut { target } | Self::Torn { target, .. } => vec![target.clone()],
        }
    }

    fn harm(&self) -> Harm {
        // Nothing that was promised is lost with an honest disk.
        Harm::Down
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        let hosts = place.hosts(0);
        let tail = match self {
            Self::Cut { .. } => {
                for host in hosts {
                    match scene.lab().signal(host, ATMD, Signal::KILL) {
                        Ok(()) | Err(LabError::NotRunning { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Tail::Lost
            }
            Self::Torn { keep, .. } => {
                tear(scene, hosts, u64::from(*keep))?;
                // The library has torn the write already; without a disk image the records know only whole ones.
                Tail::Torn(1000)
            }
        };
        for host in hosts {
            take_down(scene, host, ATMD, place.id, Signal::KILL, undo)?;
        }
        for host in hosts {
            let disk = Disk::at(scene.lab(), host)?;
            disk.cut_power(tail)?;
            match disk_page(scene.lab(), host) {
                // Nothing hangs any more.
                Ok(page) => page.forget_hanging()?,
                Err(EquipmentError::NotEquipped { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Has each daemon die in the middle of its next write to the log.
fn tear(scene: &Scene<'_>, hosts: &[String], keep: u64) -> Result<(), NemesisError> {
    for host in hosts {
        disk_page(scene.lab(), host)?.set(&Effect {
            keep,
            times: 1,
            name: ".jnl".to_owned(),
            ..Effect::new(Class::Write, Mode::Kill)
        })?;
    }
    for host in hosts {
        let died = crate::cluster::wait_until("a torn write", WRITE_MAX, || {
            match scene.lab().condition(host, ATMD) {
                Ok(Condition::Dead) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        disk_page(scene.lab(), host)?.clear(Class::Write)?;
        // One that writes nothing loses nothing.
        drop(died);
    }
    Ok(())
}

impl Draw for PowerFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let target = match chance.below(10) {
            0..2 => Target::AllAtms,
            2..4 => Target::ActiveMinority,
            _ => bounds.some_atm(chance),
        };
        let lasts_ms = chance.between(100, 4_000);
        let fault = if chance.percent(30) {
            Self::Torn {
                target,
                keep: u16::try_from(chance.between(0, 1000)).unwrap_or(500),
            }
        } else {
            Self::Cut { target }
        };
        Lasting { fault, lasts_ms }
    }
}
