//! Makes a failing schedule smaller while the same violation remains.

use super::run::{Outcome, Story, run};
use super::schedule::{Schedule, Weather};
use super::violation::Violation;

/// Runs spent on shrinking: a few seconds.
const RUNS_MAX: u32 = 400;

struct Shrinker {
    best: Schedule,
    outcome: Outcome,
    name: &'static str,
    left: u32,
}

/// The smallest schedule found that breaks the same promise, and what it came to. The schedule itself, if it breaks none.
pub fn shrink(schedule: &Schedule) -> (Schedule, Outcome) {
    let outcome = run(schedule, Story::Untold);
    let Some(name) = outcome.violation.as_ref().map(Violation::name) else {
        return (schedule.clone(), outcome);
    };
    let mut shrinker = Shrinker {
        best: schedule.clone(),
        outcome,
        name,
        left: RUNS_MAX,
    };
    shrinker.cut_steps();
    shrinker.drop_faults();
    shrinker.calm();
    shrinker.drop_faults();
    (shrinker.best, shrinker.outcome)
}

impl Shrinker {
    fn keeps(&mut self, candidate: Schedule) -> bool {
        if self.left == 0 || candidate == self.best {
            return false;
        }
        self.left -= 1;
        let outcome = run(&candidate, Story::Untold);
        let same = outcome.violation.as_ref().map(Violation::name) == Some(self.name);
        if same {
            self.best = candidate;
            self.outcome = outcome;
            self.forget_what_never_came();
        }
        same
    }

    /// Nothing happens after the violation: neither steps nor faults.
    fn forget_what_never_came(&mut self) {
        let last_us = self.outcome.time_ms.saturating_add(1) * 1000;
        self.best.faults.retain(|planned| planned.at_us <= last_us);
        self.best.steps = self.best.steps.min(self.outcome.steps);
    }

    fn cut_steps(&mut self) {
        self.forget_what_never_came();
        // What is not healed at the end may not be healed earlier on.
        let mut steps = self.best.steps;
        while steps > 50 {
            steps /= 2;
            let mut candidate = self.best.clone();
            candidate.steps = steps;
            if !self.keeps(candidate) {
                return;
            }
        }
    }

    /// Leaves out faults in halves, quarters, and so on down to single ones (Zeller's ddmin).
    fn drop_faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.faults.len() {
                let mut candidate = self.best.clone();
                let end = (at + size).min(candidate.faults.len());
                candidate.faults.drain(at..end);
                if !self.keeps(candidate) {
                    at += size;
                }
            }
            if size == 1 || self.left == 0 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// Fair weather, fewer clients and servers.
    fn calm(&mut self) {
        let mut candidate = self.best.clone();
        candidate.weather = Weather::default();
        self.keeps(candidate);
        for clients in 0..self.best.clients {
            let mut candidate = self.best.clone();
            candidate.clients = clients;
            if self.keeps(candidate) {
                break;
            }
        }
        let mut candidate = self.best.clone();
        candidate.servers = 1;
        self.keeps(candidate);
    }
}
