//! Faults of a host's processor and memory, by control groups of either version or what stands in for them.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};

use crate::equipment::{Busy, Controller, EquipmentError, Group, set_idle};
use crate::lab::{ATMD, Condition};

use super::chance::Chance;
use super::error::NemesisError;
use super::process::{bring_up, keep_down};
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// What a daemon has too little of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ResourceFault {
    /// It gets so much processor time and stands still when that is used up, for up to 100 ms at a time. Where there is no
    /// control group it is as [`Self::Starve`].
    Cpu {
        /// Whose.
        target: Target,
        /// Thousandths of one processor, at least 10.
        thousandths: u16,
    },
    /// Others keep every processor of the machine busy, and it runs when they leave something.
    Starve {
        /// Whose.
        target: Target,
    },
    /// It gets so much more memory than it has, then the kernel kills it; where there is no control group its allocations
    /// fail. It is started again at the end.
    Memory {
        /// Whose.
        target: Target,
        /// KiB beyond what it uses.
        more_kib: u32,
    },
    /// It stands still as with SIGSTOP, but cannot know.
    Freeze {
        /// Whose.
        target: Target,
    },
}

impl Strike for ResourceFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu-limit",
            Self::Starve { .. } => "cpu-starvation",
            Self::Memory { .. } => "memory-limit",
            Self::Freeze { .. } => "freeze",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Cpu { target, .. }
            | Self::Starve { target }
            | Self::Memory { target, .. }
            | Self::Freeze { target } => vec![target.clone()],
        }
    }

    fn harm(&self) -> Harm {
        match self {
            Self::Cpu { .. } | Self::Starve { .. } | Self::Freeze { .. } => Harm::Bearable,
            Self::Memory { .. } => Harm::Down,
        }
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        for host in place.hosts(0) {
            if scene.lab().condition(host, ATMD)? == Condition::Dead {
                // Another fault keeps it down: it has nothing that could be taken away.
                continue;
            }
            let pid = scene.lab().record().process(host, ATMD)?.identity.pid;
            let group = format!("{}-{host}-{}", scene.lab().prefix(), place.id);
            match self {
                Self::Cpu { thousandths, .. } => {
                    match limit_cpu(&group, pid, u32::from(*thousandths), undo) {
                        Err(EquipmentError::Unavailable { .. }) => starve(pid, undo)?,
                        done => done?,
                    }
                }
                Self::Starve { .. } => starve(pid, undo)?,
                Self::Memory { more_kib, .. } => {
                    let (name, id) = (host.clone(), place.id);
                    undo.push(move |scene| bring_up(scene, &name, ATMD, id));
                    keep_down(scene, host, id);
                    limit_memory(&group, pid, u64::from(*more_kib) << 10, undo)?;
                }
                Self::Freeze { .. } => freeze(&group, pid, undo)?,
            }
        }
        Ok(())
    }
}

fn limit_cpu(
    name: &str,
    pid: u32,
    thousandths: u32,
    undo: &mut Undo,
) -> Result<(), EquipmentError> {
    let group = Group::of(Controller::Cpu, name, pid)?;
    group.limit_cpu(thousandths)?;
    release(group, undo);
    Ok(())
}

fn freeze(name: &str, pid: u32, undo: &mut Undo) -> Result<(), NemesisError> {
    let group = Group::of(Controller::Freezer, name, pid)?;
    // Dropped after an error it thaws.
    group.freeze()?;
    release(group, undo);
    Ok(())
}

/// The group goes when the fault ends, and with it every limit.
fn release(group: Group, undo: &mut Undo) {
    let mut group = Some(group);
    undo.push(move |_| {
        group.take();
        Ok(())
    });
}

fn starve(pid: u32, undo: &mut Undo) -> Result<(), NemesisError> {
    let busy = Busy::start()?;
    let mut busy = Some(busy);
    undo.push(move |_| {
        busy.take();
        // One that was killed meanwhile needs no time.
        match set_idle(pid, false) {
            Ok(()) | Err(EquipmentError::Command { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    });
    Ok(set_idle(pid, true)?)
}

fn limit_memory(name: &str, pid: u32, more: u64, undo: &mut Undo) -> Result<(), NemesisError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(
        NemesisError::io(format!("ask for the memory of process {pid}")),
    )?;
    let kib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    match Group::of(Controller::Memory, name, pid) {
        Ok(group) => {
            // What the process had before it came into the group is not counted there: only what it gets from now on.
            group.limit_memory(more)?;
            release(group, undo);
            Ok(())
        }
        Err(EquipmentError::Unavailable { .. }) => {
            let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let limit = |bytes| Rlimit {
                current: bytes,
                maximum: None,
            };
            undo.push(move |_| {
                // One that has ended has no limit any more.
                let _ = prlimit(process, Resource::As, limit(None));
                Ok(())
            });
            let bytes = (kib("VmSize:") << 10).saturating_add(more);
            prlimit(process, Resource::As, limit(Some(bytes)))
                .map(drop)
                .map_err(|errno| NemesisError::io("limit the address space")(errno.into()))
        }
        Err(other) => Err(other.into()),
    }
}

impl Draw for ResourceFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let target = bounds.some_atm(chance);
        let lasts_ms = chance.between(500, 5_000);
        match chance.below(10) {
            0..4 => Lasting {
                fault: Self::Cpu {
                    target,
                    thousandths: u16::try_from(chance.between(10, 300)).unwrap_or(100),
                },
                lasts_ms,
            },
            4..6 => Lasting {
                fault: Self::Starve { target },
                lasts_ms,
            },
            6..9 => Lasting {
                fault: Self::Freeze { target },
                lasts_ms: chance.between(1, bounds.lease_ms * 10),
            },
            9.. => Lasting {
                fault: Self::Memory {
                    target,
                    more_kib: u32::try_from(chance.between(0, 4096)).unwrap_or(1024),
                },
                lasts_ms,
            },
        }
    }
}
