//! A run while it goes on: what is observed is taken over, and somebody is told how things stand.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use super::progress::Screen;
use crate::workload::Workloads;

/// Between two looks at what was observed.
const FOLLOW: Duration = Duration::from_millis(500);

/// How soon an interrupt is noticed.
const NOTICE: Duration = Duration::from_millis(20);

/// The workloads, and what is known of how they fare.
pub(super) struct Live {
    pub(super) workloads: Workloads,
    /// What did not come true.
    pub(super) missing: Vec<String>,
    /// Faults under way, by number.
    pub(super) faults: UnderWay,
    interrupt: Interrupt,
    screen: Screen,
    followed: Instant,
}

/// Faults under way, by number.
pub(super) type UnderWay = std::sync::Arc<Mutex<BTreeMap<u64, String>>>;

impl Live {
    pub(super) fn new(workloads: Workloads, screen: Screen, interrupt: Interrupt) -> Self {
        Self {
            workloads,
            missing: Vec::new(),
            faults: UnderWay::default(),
            interrupt,
            screen,
            followed: Instant::now(),
        }
    }

    /// Lets `time` pass; an interrupt ends that.
    pub(super) fn watch(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.watch_until(until);
    }

    /// Lets the time until `until` pass; says whether an interrupt ended that.
    pub(super) fn watch_until(&mut self, until: Instant) -> bool {
        loop {
            self.look();
            if self.interrupt.is_wanted() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(NOTICE));
        }
    }

    fn look(&mut self) {
        if self.followed.elapsed() < FOLLOW {
            return;
        }
        self.followed = Instant::now();
        if let Err(error) = self.workloads.follow() {
            self.missing.push(format!("a log cannot be read: {error}"));
        }
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let faults: Vec<&str> = faults.values().map(String::as_str).collect();
        self.screen
            .show(&faults.join(", "), &self.workloads.progress());
    }

    /// Ends the workloads; returns what did not come true.
    pub(super) fn finish(self) -> Vec<String> {
        let Self {
            workloads,
            mut missing,
            screen,
            ..
        } = self;
        if let Err(error) = workloads.finish() {
            missing.push(format!("a log cannot be read: {error}"));
        }
        screen.end();
        missing
    }
}
