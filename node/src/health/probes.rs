//! The checks of this ATM: a task for each subject, and what they have found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::Instant;
use model::health::judge::{Report, Streak};
use model::health::{Subject, Target};
use model::ids::ServerId;
use model::server::GONE;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::transaction::{Checks, phase};
use crate::clock;

/// Results that wait to be noted; a full channel makes checks wait.
const RESULTS_MAX: usize = 256;

/// What one check found.
pub(super) struct Result {
    subject: Subject,
    /// Of which this is a result: a subject that is checked another way now has another target.
    target: Target,
    outcome: std::result::Result<(), String>,
}

/// The tasks, and what they have found.
pub(super) struct Probes {
    checks: Checks,
    /// Part of the seed of when checks come: those of several ATMs do not come together.
    me: u64,
    tasks: JoinSet<()>,
    running: BTreeMap<Subject, (Target, AbortHandle)>,
    found: BTreeMap<Subject, Found>,
    sender: mpsc::Sender<Result>,
    results: mpsc::Receiver<Result>,
}

struct Found {
    streak: Streak,
    at: Instant,
    reason: String,
}

impl Probes {
    pub(super) fn new(me: u64) -> Self {
        let (sender, results) = mpsc::channel(RESULTS_MAX);
        Self {
            checks: Checks::new(),
            me,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            found: BTreeMap::new(),
            sender,
            results,
        }
    }

    /// Checks these from now on. What is checked as before goes on as before.
    pub(super) fn follow(&mut self, targets: &BTreeMap<Subject, Target>) {
        let found = &mut self.found;
        self.running.retain(|subject, (target, task)| {
            let stays = targets.get(subject) == Some(target);
            if !stays {
                task.abort();
                found.remove(subject);
            }
            stays
        });
        for (subject, target) in targets {
            if self.running.contains_key(subject) {
                continue;
            }
            let first = phase(target.frequency, &(self.me, subject));
            let task = self.tasks.spawn(check_for_ever(
                self.checks.clone(),
                subject.clone(),
                target.clone(),
                first,
                self.sender.clone(),
            ));
            self.running.insert(subject.clone(), (target.clone(), task));
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// The next result.
    pub(super) async fn next(&mut self) -> Result {
        match self.results.recv().await {
            Some(result) => result,
            // Never: a sender is kept here.
            None => std::future::pending().await,
        }
    }

    /// Notes a result. Says whether this ATM's word about the subject is another one now.
    pub(super) fn note(&mut self, result: Result) -> bool {
        let Result {
            subject,
            target,
            outcome,
        } = result;
        if self.running.get(&subject).map(|(now, _)| now) != Some(&target) {
            return false;
        }
        let found = self.found.entry(subject).or_insert_with(|| Found {
            streak: Streak::default(),
            at: Instant::BOOT,
            reason: String::new(),
        });
        let before = found.streak.up();
        found.at = clock::now();
        found.streak.note(outcome.is_ok(), target.rise, target.fall);
        found.reason = outcome.err().unwrap_or_default();
        found.streak.up() != before
    }

    /// What this ATM says of everything that it has a word about. Of servers that are `gone` it knows without a check.
    pub(super) fn reports(&self, gone: &BTreeSet<ServerId>) -> Vec<Report> {
        let now = clock::now();
        let word = |subject: &Subject| {
            let found = self.found.get(subject);
            let passes = found.and_then(|found| found.streak.up());
            let (up, age, reason) = match (found, passes) {
                (Some(found), Some(false)) => {
                    (false, now.saturating_since(found.at), found.reason.clone())
                }
                _ if gone.contains(&subject.0) => (false, Duration::ZERO, GONE.to_owned()),
                (Some(found), Some(true)) => {
                    (true, now.saturating_since(found.at), found.reason.clone())
                }
                _ => return None,
            };
            Some(Report {
                subject: subject.clone(),
                up,
                age,
                reason,
            })
        };
        self.running.keys().filter_map(word).collect()
    }
}

/// Checks one subject until the task is aborted.
async fn check_for_ever(
    checks: Checks,
    subject: Subject,
    target: Target,
    first: Duration,
    results: mpsc::Sender<Result>,
) {
    tokio::time::sleep(first).await;
    let mut tick = tokio::time::interval(target.frequency);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(outcome) = checks.check(&target).await else {
            continue;
        };
        let result = Result {
            subject: subject.clone(),
            target: target.clone(),
            outcome,
        };
        if results.send(result).await.is_err() {
            return;
        }
    }
}
