//! Which fault begins and ends when. Pure data.
//!
//! Invariant of a checked schedule: steps are in order of time, each fault begins once and ends once, later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// Steps of one schedule: a fault every second begins and ends for 8 hours.
pub const STEPS_MAX: usize = 57_600;

/// The name of one occurrence of a fault in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u32);

impl std::fmt::Display for FaultId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "f{}", self.0)
    }
}

/// Faults in their order of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What it was drawn from, and what decides where a fault leaves something to chance (which packet is lost).
    pub seed: u64,
    /// When everything is healed, in ms from its start: no step is later.
    pub length_ms: u64,
    /// In order of time.
    pub steps: Vec<Step>,
}

/// A moment of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// From the start of the schedule, in ms.
    pub at_ms: u64,
    /// What happens.
    pub action: Action,
}

/// What happens in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A fault begins.
    Begin(FaultId, Fault),
    /// It ends.
    End(FaultId),
}

/// Why a schedule makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a schedule at all.
    #[error("not a schedule: {0}")]
    Syntax(String),
    /// Too long.
    #[error("{0} steps are more than {STEPS_MAX}")]
    TooManySteps(usize),
    /// A step that comes before its predecessor.
    #[error("step {step} at {at_ms} ms is earlier than the one before it")]
    OutOfOrder {
        /// Its index.
        step: usize,
        /// Its time.
        at_ms: u64,
    },
    /// A step after the end.
    #[error("step {step} is later than the schedule's length of {length_ms} ms")]
    PastTheEnd {
        /// Its index.
        step: usize,
        /// The length.
        length_ms: u64,
    },
    /// A fault begins twice.
    #[error("{0} begins twice")]
    BeginsTwice(FaultId),
    /// A fault ends that has not begun, or has ended.
    #[error("{0} ends and is not under way")]
    EndsWithoutBegin(FaultId),
    /// A fault has no end.
    #[error("{0} never ends")]
    NeverEnds(FaultId),
}

impl Schedule {
    /// An empty schedule.
    #[must_use]
    pub fn new(seed: u64, length_ms: u64) -> Self {
        Self {
            seed,
            length_ms,
            steps: Vec::new(),
        }
    }

    /// Adds `fault` from `from_ms` until `until_ms`, cut to the schedule's length, under the next free number.
    pub fn add(&mut self, from_ms: u64, until_ms: u64, fault: Fault) -> FaultId {
        let numbers = self.steps.iter().map(|step| match &step.action {
            Action::Begin(id, _) | Action::End(id) => id.0 + 1,
        });
        let id = FaultId(numbers.max().unwrap_or(0));
        let from = from_ms.min(self.length_ms);
        self.insert(from, Action::Begin(id, fault));
        self.insert(until_ms.clamp(from, self.length_ms), Action::End(id));
        id
    }

    /// Behind every step of the same time.
    fn insert(&mut self, at_ms: u64, action: Action) {
        let at = self.steps.partition_point(|step| step.at_ms <= at_ms);
        self.steps.insert(at, Step { at_ms, action });
    }

    /// The schedule without the faults in `leave_out`: what a shrinker tries.
    #[must_use]
    pub fn without(&self, leave_out: &[FaultId]) -> Self {
        let stays = |step: &&Step| match &step.action {
            Action::Begin(id, _) | Action::End(id) => !leave_out.contains(id),
        };
        Self {
            steps: self.steps.iter().filter(stays).cloned().collect(),
            ..*self
        }
    }

    /// Whether a fault of it needs a lab with the userspace switch.
    #[must_use]
    pub fn needs_switch(&self) -> bool {
        self.faults()
            .iter()
            .any(|(_, fault, ..)| matches!(fault, Fault::Network(fault) if fault.needs_switch()))
    }

    /// Every fault with its number, begin and end in ms, in order of begin. Only of a checked schedule is it complete.
    #[must_use]
    pub fn faults(&self) -> Vec<(FaultId, &Fault, u64, u64)> {
        let ends: BTreeMap<FaultId, u64> = self
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::End(id) => Some((*id, step.at_ms)),
                Action::Begin(..) => None,
            })
            .collect();
        self.steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Begin(id, fault) => {
                    let end = ends.get(id).copied().unwrap_or(self.length_ms);
                    Some((*id, fault, step.at_ms, end))
                }
                Action::End(_) => None,
            })
            .collect()
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`ScheduleError`], the first that is found.
    pub fn check(&self) -> Result<(), ScheduleError> {
        if self.steps.len() > STEPS_MAX {
            return Err(ScheduleError::TooManySteps(self.steps.len()));
        }
        let mut before = 0;
        let mut under_way = BTreeMap::new();
        for (step, Step { at_ms, action }) in self.steps.iter().enumerate() {
            if *at_ms < before {
                return Err(ScheduleError::OutOfOrder {
                    step,
                    at_ms: *at_ms,
                });
            }
            if *at_ms > self.length_ms {
                return Err(ScheduleError::PastTheEnd {
                    step,
                    length_ms: self.length_ms,
                });
            }
            before = *at_ms;
            match action {
                Action::Begin(id, _) if under_way.insert(*id, true).is_some() => {
                    return Err(ScheduleError::BeginsTwice(*id));
                }
                Action::Begin(..) => {}
                Action::End(id) if under_way.insert(*id, false) == Some(true) => {}
                Action::End(id) => return Err(ScheduleError::EndsWithoutBegin(*id)),
            }
        }
        match under_way.iter().find(|(_, under_way)| **under_way) {
            Some((id, _)) => Err(ScheduleError::NeverEnds(*id)),
            None => Ok(()),
        }
    }

    /// Reads and checks what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        let schedule: Self =
            serde_json::from_str(text).map_err(|error| ScheduleError::Syntax(error.to_string()))?;
        schedule.check()?;
        Ok(schedule)
    }

    /// As JSON, one step a line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let steps: Vec<String> = self
            .steps
            .iter()
            // Maps with string keys and whole numbers always have a JSON form.
            .map(|step| format!("  {}", serde_json::to_string(step).unwrap_or_default()))
            .collect();
        format!(
            "{{\"seed\":{},\"length_ms\":{},\"steps\":[\n{}\n]}}\n",
            self.seed,
            self.length_ms,
            steps.join(",\n")
        )
    }
}

impl std::fmt::Display for Schedule {
    /// A table for people: one fault a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}, {} ms", self.seed, self.length_ms)?;
        for (id, fault, from, until) in self.faults() {
            writeln!(f, "{from:>8} .. {until:<8} {id:<5} {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::{ProcessFault, Target};

    fn kill() -> Fault {
        Fault::Process(ProcessFault::Kill {
            target: Target::Active,
        })
    }

    fn steps(actions: &[(u64, Action)]) -> Schedule {
        let steps = actions.iter().cloned();
        Schedule {
            seed: 1,
            length_ms: 100,
            steps: steps
                .map(|(at_ms, action)| Step { at_ms, action })
                .collect(),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let (one, begin, end) = (FaultId(1), Action::Begin, Action::End);
        let begin = || begin(one, kill());
        let cases = [
            (vec![(5, begin())], ScheduleError::NeverEnds(one)),
            (vec![(5, end(one))], ScheduleError::EndsWithoutBegin(one)),
            (
                vec![(5, begin()), (6, end(one)), (7, end(one))],
                ScheduleError::EndsWithoutBegin(one),
            ),
            (
                vec![(5, begin()), (6, begin())],
                ScheduleError::BeginsTwice(one),
            ),
            (
                vec![(5, begin()), (4, end(one))],
                ScheduleError::OutOfOrder { step: 1, at_ms: 4 },
            ),
            (
                vec![(5, begin()), (101, end(one))],
                ScheduleError::PastTheEnd {
                    step: 1,
                    length_ms: 100,
                },
            ),
        ];
        for (actions, error) in cases {
            assert_eq!(steps(&actions).check(), Err(error));
        }
        assert!(matches!(
            Schedule::from_json("{}"),
            Err(ScheduleError::Syntax(_))
        ));
    }

    #[test]
    fn an_added_fault_ends_within_the_schedule() {
        let mut schedule = Schedule::new(1, 100);
        let late = schedule.add(90, 900, kill());
        let early = schedule.add(10, 20, kill());
        schedule.check().unwrap();
        let spans: Vec<_> = schedule
            .faults()
            .into_iter()
            .map(|(id, _, from, until)| (id, from, until))
            .collect();
        assert_eq!(spans, [(early, 10, 20), (late, 90, 100)]);
        assert_eq!(schedule.without(&[late]).faults().len(), 1);
        assert_eq!(Schedule::from_json(&schedule.to_json()), Ok(schedule));
    }
}
