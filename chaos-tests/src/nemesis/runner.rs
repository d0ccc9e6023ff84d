//! Makes a schedule happen, in real time.
//!
//! Each fault has a thread of its own, so that one that takes long to begin delays no other one. Whatever happens, a fault
//! that began is undone: at its end, when the run is stopped, and when something panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::NemesisError;
use super::fault::Fault;
use super::heal::{Healed, heal_all};
use super::scene::Scene;
use super::schedule::{FaultId, Schedule};
use super::strike::{Place, Undo, monotonic_ns};
use super::target::Resolved;

/// How often the end of a fault is tried: what another fault still breaks may stand in its way.
const UNDO_TRIES: usize = 5;

/// Between two tries.
const UNDO_PAUSE: Duration = Duration::from_millis(500);

/// What a fault did at its begin or its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which fault of the schedule.
    pub id: FaultId,
    /// Begin or end.
    pub edge: Edge,
    /// The fault.
    pub fault: Fault,
    /// When the schedule wanted it, in ms from its start.
    pub planned_ms: u64,
    /// CLOCK_MONOTONIC in ns when the first thing was touched.
    pub t_ns: u64,
    /// CLOCK_MONOTONIC in ns when it was done.
    pub done_ns: u64,
    /// Whom it struck. Empty where nobody could be found.
    pub resolved: Vec<Resolved>,
    /// Why it was not, or not wholly, done.
    pub error: Option<String>,
}

/// One of the two moments of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// It strikes.
    Begin,
    /// It is undone.
    End,
}

/// What became of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Faults that struck.
    pub struck: usize,
    /// Faults that did not, and why: nobody was active, the system refused.
    pub missed: Vec<(FaultId, String)>,
    /// Ends that failed to the last. What they left was healed by force, if it is not in `healed.failed`.
    pub unmended: Vec<(FaultId, String)>,
    /// What the last healing found.
    pub healed: Healed,
}

/// Ends a run early. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Not stopped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops: no further fault begins, those under way end.
    pub fn stop(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until`. Returns whether it was stopped before.
    pub fn sleep_until(&self, until: Instant) -> bool {
        let mut stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.0.1.wait_timeout(stopped, left);
            stopped = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Runs `schedule` in `scene` from now on, until its length has passed or `stop` says so, and heals everything.
///
/// Blocks; the caller gives it a thread (`std::thread::scope`). `on_report` is called from the faults' threads, at each
/// begin and each end, in the order in which they were done.
///
/// # Panics
/// Goes on with a panic of `on_report`, after everything is healed.
pub fn run(
    schedule: &Schedule,
    scene: &Scene<'_>,
    stop: &Stop,
    on_report: &(dyn Fn(Report) + Sync),
) -> Outcome {
    let started = Instant::now();
    let outcome = Mutex::new(Outcome::default());
    let run = Run {
        seed: schedule.seed,
        started,
        scene,
        stop,
        on_report,
        outcome: &outcome,
        telling: Mutex::new(()),
    };
    let ran = catch_unwind(AssertUnwindSafe(|| {
        thread::scope(|threads| {
            for (id, fault, from_ms, until_ms) in schedule.faults() {
                if stop.sleep_until(started + Duration::from_millis(from_ms)) {
                    break;
                }
                let run = &run;
                threads.spawn(move || run.one(id, fault, from_ms, until_ms));
            }
            stop.sleep_until(started + Duration::from_millis(schedule.length_ms));
        });
    }));
    let mut outcome = std::mem::take(&mut *lock(&outcome));
    outcome.healed = heal_all(scene);
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
    outcome
}

/// What the threads of one run share.
struct Run<'a> {
    seed: u64,
    started: Instant,
    scene: &'a Scene<'a>,
    stop: &'a Stop,
    on_report: &'a (dyn Fn(Report) + Sync),
    outcome: &'a Mutex<Outcome>,
    /// Held while a report is told: reports have an order.
    telling: Mutex<()>,
}

impl Run<'_> {
    fn one(&self, id: FaultId, fault: &Fault, from_ms: u64, until_ms: u64) {
        let mut under_way = UnderWay {
            run: self,
            undo: Undo::default(),
        };
        let t_ns = monotonic_ns();
        let (resolved, begun) = self.begin(id, fault, &mut under_way.undo);
        let error = begun.err();
        match &error {
            None => lock(self.outcome).struck += 1,
            Some(why) => lock(self.outcome).missed.push((id, why.clone())),
        }
        let report = |edge, planned_ms, t_ns, error| Report {
            id,
            edge,
            fault: fault.clone(),
            planned_ms,
            t_ns,
            done_ns: monotonic_ns(),
            resolved: resolved.clone(),
            error,
        };
        let missed = error.is_some();
        self.tell(report(Edge::Begin, from_ms, t_ns, error));

        // What could be applied of a fault that failed is undone at once.
        if !missed {
            self.stop
                .sleep_until(self.started + Duration::from_millis(until_ms));
        }
        let t_ns = monotonic_ns();
        let error = self.end(&mut under_way.undo);
        if let Some(why) = &error {
            lock(self.outcome).unmended.push((id, why.clone()));
        }
        self.tell(report(Edge::End, until_ms, t_ns, error));
    }

    /// Resolves and begins; a panic of the fault is an error of it.
    fn begin(
        &self,
        id: FaultId,
        fault: &Fault,
        undo: &mut Undo,
    ) -> (Vec<Resolved>, Result<(), String>) {
        let strike = fault.strike();
        let resolved = match self.scene.resolve(&strike.targets()) {
            Ok(resolved) => resolved,
            Err(error) => return (Vec::new(), Err(error.to_string())),
        };
        let place = Place {
            id,
            seed: self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            resolved: &resolved,
        };
        let begun = said(catch_unwind(AssertUnwindSafe(|| {
            strike.begin(self.scene, &place, undo)
        })));
        (resolved, begun)
    }

    /// Undoes, several times if need be.
    fn end(&self, undo: &mut Undo) -> Option<String> {
        let mut last = None;
        for attempt in 0..UNDO_TRIES {
            if attempt > 0 {
                thread::sleep(UNDO_PAUSE);
            }
            last = said(catch_unwind(AssertUnwindSafe(|| undo.run(self.scene)))).err();
            if last.is_none() {
                break;
            }
        }
        last
    }

    fn tell(&self, report: Report) {
        let _order = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        (self.on_report)(report);
    }
}

/// A fault that may have to be undone while its thread unwinds.
struct UnderWay<'a> {
    run: &'a Run<'a>,
    undo: Undo,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // The others must not wait for the end of their schedule.
            self.run.stop.stop();
        }
        if !self.undo.is_empty() {
            // What fails here is left to `heal_all`.
            let _ = self.run.end(&mut self.undo);
        }
    }
}

fn said(outcome: Result<Result<(), NemesisError>, Box<dyn Any + Send>>) -> Result<(), String> {
    match outcome {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("(no text)")))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
