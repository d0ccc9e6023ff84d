//! Faults of the network between hosts: cuts of every shape, losses, copies, delays.

use serde::{Deserialize, Serialize};

use crate::lab::{DUPLICATE_PPM_MAX, Effect, Frames, Impairment, PPM};

use super::chance::Chance;
use super::error::NemesisError;
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// What happens to frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NetworkFault {
    /// No frame passes from the one to the other.
    Cut {
        /// Who is not heard any more.
        from: Target,
        /// By whom.
        to: Target,
        /// Whether the other direction is cut as well.
        both_ways: bool,
    },
    /// The ATMs fall into two halves that do not hear one another; one ATM hears, and is heard by, both of them.
    Bridge {
        /// That one.
        over: Target,
    },
    /// Between the ATMs no frame passes at all; servers and clients see every one of them.
    Shatter,
    /// Frames between the two are lost, copied, late and overtaken by chance, in both directions.
    Disturb {
        /// One side.
        from: Target,
        /// The other one.
        to: Target,
        /// How.
        #[serde(flatten)]
        how: Disturbance,
    },
    /// Nobody hears the gratuitous ARP of the ATMs; requests are answered.
    LostAnnouncements {
        /// Who does not hear it.
        to: Target,
    },
}

/// How frames suffer. What is left out is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disturbance {
    /// Lost, in parts per million.
    pub drop_ppm: u32,
    /// Delivered twice, in parts per million.
    pub duplicate_ppm: u32,
    /// Late by so much, in us.
    pub delay_us: u32,
    /// And by up to so much more, in us.
    pub jitter_us: u32,
    /// Overtaken, in parts per million.
    pub reorder_ppm: u32,
    /// How long an overtaken one is held back, in us.
    pub reorder_us: u32,
}

impl NetworkFault {
    /// Whether only the userspace switch can do it.
    #[must_use]
    pub fn needs_switch(&self) -> bool {
        match self {
            Self::Disturb { how, .. } => Effect::from(*how).needs_switch(),
            Self::Cut { .. }
            | Self::Bridge { .. }
            | Self::Shatter
            | Self::LostAnnouncements { .. } => false,
        }
    }
}

impl From<Disturbance> for Effect {
    fn from(how: Disturbance) -> Self {
        Self {
            drop_ppm: how.drop_ppm.min(PPM),
            duplicate_ppm: how.duplicate_ppm.min(DUPLICATE_PPM_MAX),
            delay_us: how.delay_us,
            jitter_us: how.jitter_us,
            reorder_ppm: how.reorder_ppm.min(PPM),
            reorder_us: how.reorder_us,
        }
    }
}

impl Strike for NetworkFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Cut {
                both_ways: true, ..
            } => "cut",
            Self::Cut {
                both_ways: false, ..
            } => "one-way-cut",
            Self::Bridge { .. } => "bridge",
            Self::Shatter => "shatter",
            Self::Disturb { how, .. } => how.name(),
            Self::LostAnnouncements { .. } => "lost-announcements",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Cut { from, to, .. } | Self::Disturb { from, to, .. } => {
                vec![from.clone(), to.clone()]
            }
            Self::Bridge { over } => vec![over.clone(), Target::OtherAtms],
            Self::Shatter => vec![Target::AllAtms],
            Self::LostAnnouncements { to } => vec![to.clone(), Target::AllAtms],
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
        let (first, second) = (place.hosts(0), place.hosts(1));
        let impairments = match self {
            Self::Cut { both_ways, .. } => {
                let cut = Impairment::cut(first, second);
                let back = both_ways.then(|| cut.reversed());
                [Some(cut), back].into_iter().flatten().collect()
            }
            Self::Bridge { .. } => {
                let (one, other) = second.split_at(second.len() / 2);
                let cut = Impairment::cut(one, other);
                vec![cut.reversed(), cut]
            }
            Self::Shatter => {
                let own = |host: &String| vec![host.clone()];
                let others = |host: &String| -> Vec<String> {
                    first.iter().filter(|o| *o != host).cloned().collect()
                };
                let cuts = first.iter();
                cuts.map(|host| Impairment::cut(&own(host), &others(host)))
                    .collect()
            }
            Self::Disturb { how, .. } => {
                let there = Impairment {
                    effect: (*how).into(),
                    ..Impairment::cut(first, second)
                };
                vec![there.reversed(), there]
            }
            Self::LostAnnouncements { .. } => vec![Impairment {
                frames: Frames::Announcements,
                ..Impairment::cut(second, first)
            }],
        };
        impair(scene, place, impairments, undo)
    }
}

/// Puts `impairments` in place under the fault's own name.
pub(super) fn impair(
    scene: &Scene<'_>,
    place: &Place<'_>,
    impairments: Vec<Impairment>,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let name = place.id.to_string();
    let ended = name.clone();
    undo.push(move |scene| Ok(scene.lab().unimpair(&ended)?));
    Ok(scene.lab().impair(&name, &impairments)?)
}

impl Disturbance {
    fn name(&self) -> &'static str {
        let parts = [
            (self.drop_ppm, "loss"),
            (self.duplicate_ppm, "duplication"),
            (self.reorder_ppm, "reorder"),
            (self.jitter_us, "jitter"),
            (self.delay_us, "delay"),
        ];
        let mut present = parts.iter().filter(|(value, _)| *value > 0);
        match (present.next(), present.next()) {
            (Some((_, name)), None) => name,
            // A delay that varies.
            (Some((_, "jitter")), Some((_, "delay"))) => "jitter",
            (None, _) => "nothing",
            (Some(_), Some(_)) => "disturbance",
        }
    }

    fn draw(chance: &mut Chance, bounds: &Bounds) -> Self {
        let percent = |n: u64| u32::try_from(n * 10_000).unwrap_or(PPM);
        let ms = |n: u64| u32::try_from(n * 1_000).unwrap_or(u32::MAX);
        let mut how = Self::default();
        let kinds = if bounds.switch { 6 } else { 2 };
        match chance.below(kinds) {
            0 => how.drop_ppm = percent(chance.between(1, 60)),
            1 => how.duplicate_ppm = percent(chance.between(1, 40)),
            2 => how.delay_us = ms(chance.between(1, bounds.lease_ms * 3 / 2)),
            3 => {
                how.delay_us = ms(chance.between(1, bounds.lease_ms / 2));
                how.jitter_us = ms(chance.between(1, bounds.lease_ms));
            }
            4 => {
                how.reorder_ppm = percent(chance.between(1, 50));
                how.reorder_us = ms(chance.between(1, 50));
            }
            5.. => {
                how.drop_ppm = percent(chance.between(0, 20));
                how.duplicate_ppm = percent(chance.between(0, 20));
                how.jitter_us = ms(chance.between(0, 30));
                how.reorder_ppm = percent(chance.between(1, 20));
                how.reorder_us = ms(chance.between(1, 20));
            }
        }
        how
    }
}

impl Draw for NetworkFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        use Target::{
            Active, ActiveMinority, AllAtms, BackupMajority, Majority, Minority, NonAtms, OtherAtms,
        };
        let cut = |from, to, both_ways| Self::Cut {
            from,
            to,
            both_ways,
        };
        let fault = match chance.below(14) {
            0 => cut(Minority, Majority, true),
            1 | 2 => cut(ActiveMinority, BackupMajority, true),
            3 => cut(Active, OtherAtms, false),
            4 => cut(OtherAtms, Active, false),
            5 => cut(Active, OtherAtms, true),
            6 => cut(Active, NonAtms, true),
            7 => cut(bounds.some_atm(chance), bounds.some_server(chance), true),
            8 => Self::Bridge {
                over: bounds.some_atm(chance),
            },
            9 => Self::Shatter,
            10 | 11 => Self::Disturb {
                from: AllAtms,
                to: if chance.percent(50) { AllAtms } else { NonAtms },
                how: Disturbance::draw(chance, bounds),
            },
            12 => Self::Disturb {
                from: bounds.some_atm(chance),
                to: OtherAtms,
                how: Disturbance::draw(chance, bounds),
            },
            13.. => Self::LostAnnouncements { to: NonAtms },
        };
        Lasting {
            fault,
            lasts_ms: chance.between(bounds.lease_ms, 8_000),
        }
    }
}
