//! Faults of one host's clocks: a rate that is wrong, a jump as after a suspend, a wall clock that steps. The machine's own
//! clocks are never touched.
//!
//! The daemons need `faulty_clock` of [`crate::equipment::Equipment`]; without it each fault says so by name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::equipment::clock_page;

use super::chance::Chance;
use super::error::NemesisError;
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// What happens to the clocks that a daemon sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClockFault {
    /// CLOCK_MONOTONIC and CLOCK_BOOTTIME run too fast or too slow; at the end they run as the machine's, without a jump back.
    Rate {
        /// Whose.
        target: Target,
        /// Millionths faster; below 0 slower. The cluster promises to bear 50,000 either way.
        millionths: i32,
    },
    /// CLOCK_BOOTTIME and the wall clock jump ahead as after a suspend, and stay ahead.
    Suspend {
        /// Whose.
        target: Target,
        /// By so many ms.
        ms: u32,
    },
    /// The wall clock steps, and steps back at the end. Nothing at all must come of it.
    Wall {
        /// Whose.
        target: Target,
        /// By so many ms, either way.
        ms: i64,
    },
}

impl Strike for ClockFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Rate { .. } => "clock-rate",
            Self::Suspend { .. } => "clock-jump",
            Self::Wall { .. } => "wall-clock-step",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Rate { target, .. }
            | Self::Suspend { target, .. }
            | Self::Wall { target, .. } => vec![target.clone()],
        }
    }

    fn harm(&self) -> Harm {
        Harm::Bearable
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        for host in place.hosts(0) {
            let page = clock_page(scene.lab(), host)?;
            let name = host.clone();
            match *self {
                Self::Rate { millionths, .. } => {
                    let (what, id) = (format!("clock rate {host}"), place.id);
                    let held = what.clone();
                    undo.push(move |scene| {
                        let mut holds = scene.holds();
                        if holds.release(&held, id) {
                            clock_page(scene.lab(), &name)?.set_rate(0)?;
                        }
                        Ok(())
                    });
                    let mut holds = scene.holds();
                    holds.hold(&what, id);
                    page.set_rate(i64::from(millionths))?;
                }
                Self::Suspend { ms, .. } => {
                    page.suspend(Duration::from_millis(u64::from(ms)))?;
                }
                Self::Wall { ms, .. } => {
                    page.step_wall(ms)?;
                    undo.push(move |scene| {
                        Ok(clock_page(scene.lab(), &name)?.step_wall(ms.saturating_neg())?)
                    });
                }
            }
        }
        Ok(())
    }
}

impl Draw for ClockFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let target = bounds.some_atm(chance);
        match chance.below(10) {
            0..5 => {
                let size = i32::try_from(chance.between(1_000, 50_000)).unwrap_or(50_000);
                let millionths = if chance.percent(50) { size } else { -size };
                Lasting {
                    fault: Self::Rate { target, millionths },
                    lasts_ms: chance.between(1_000, 10_000),
                }
            }
            5..7 => Lasting {
                fault: Self::Suspend {
                    target,
                    ms: u32::try_from(chance.between(1, bounds.lease_ms * 20)).unwrap_or(1_000),
                },
                lasts_ms: 0,
            },
            7.. => {
                let size = i64::try_from(chance.between(1, 7_200_000)).unwrap_or(1_000);
                let ms = if chance.percent(50) { size } else { -size };
                Lasting {
                    fault: Self::Wall { target, ms },
                    lasts_ms: chance.between(500, 5_000),
                }
            }
        }
    }
}
