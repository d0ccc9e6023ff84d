//! The lease rules with a clock and the cell that the packet path reads.
//!
//! Invariant: the cell is written only here, under the lock of the rules, so a granted vote's age always covers every
//! extension that the packet path has seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::LeaseCell;
use model::Instant;
use model::ids::{Epoch, NodeId};
use model::lease::{Lease, LeaseRules, Term, Voters};
use tracing::trace;

use crate::clock;

/// The lease of this process. Clones share it.
#[derive(Clone)]
pub(crate) struct LeaseKeeper {
    rules: Arc<Mutex<LeaseRules>>,
    cell: Arc<LeaseCell>,
    /// Longest time between two appends of the present leader, in nanoseconds.
    longest_silence: Arc<AtomicU64>,
}

impl LeaseKeeper {
    /// Rules of a process that starts now.
    pub(crate) fn new(me: NodeId, cell: Arc<LeaseCell>) -> Self {
        Self {
            rules: Arc::new(Mutex::new(LeaseRules::new(me, Voters::new(), clock::now()))),
            cell,
            longest_silence: Arc::default(),
        }
    }

    /// The group's voters changed.
    pub(crate) fn set_voters(&self, voters: Voters) {
        self.rules().set_voters(voters);
    }

    /// An append arrived; before Raft sees it.
    pub(crate) fn append_received(&self) {
        let now = clock::now();
        let mut rules = self.rules();
        if let Some(last) = rules.last_append() {
            let silence = u64::try_from(now.saturating_since(last).as_nanos()).unwrap_or(u64::MAX);
            self.longest_silence.fetch_max(silence, Ordering::Relaxed);
        }
        rules.append_received(now);
    }

    /// Another leader is followed: what the former one kept silent for is none of its silence.
    pub(crate) fn follows_another(&self) {
        self.longest_silence.store(0, Ordering::Relaxed);
    }

    /// The longest time between two appends of the present leader, as they arrived here.
    pub(crate) fn longest_silence(&self) -> Duration {
        Duration::from_nanos(self.longest_silence.load(Ordering::Relaxed))
    }

    /// Raft granted a vote; before the reply leaves. Returns the age to send with it.
    pub(crate) fn vote_granted(&self, term: Term) -> Duration {
        let mut rules = self.rules();
        rules.vote_granted(term, clock::now())
    }

    /// This process asks for votes.
    pub(crate) fn campaign_started(&self, term: Term) {
        self.rules().campaign_started(term);
    }

    /// A vote was granted to this process and has just arrived.
    pub(crate) fn grant_received(&self, term: Term, from: NodeId, age: Duration) {
        self.rules().grant_received(term, from, age, clock::now());
    }

    /// When the last append of any leader arrived.
    pub(crate) fn last_append(&self) -> Option<Instant> {
        self.rules().last_append()
    }

    /// A follower acknowledged a round that was sent at `sent`.
    pub(crate) fn round_acknowledged(&self, term: Term, from: NodeId, sent: Instant) {
        let mut rules = self.rules();
        rules.round_acknowledged(term, from, sent);
        self.publish(&mut rules);
    }

    /// Raft says that this process leads `term`.
    pub(crate) fn elected(&self, term: Term) {
        self.rules().elected(term, clock::now());
    }

    /// When nobody's older lease can be left; see [`LeaseRules::wait_until`].
    pub(crate) fn wait_until(&self, term: Term, longest: Duration) -> Option<Instant> {
        self.rules().wait_until(term, longest)
    }

    /// From now on acknowledged rounds extend this epoch's lease.
    pub(crate) fn tenure_begun(&self, term: Term, epoch: Epoch, length: Duration) {
        let mut rules = self.rules();
        rules.tenure_begun(term, epoch, length);
        self.publish(&mut rules);
    }

    /// Falls silent at once: nothing extends the lease any more, and the packet path sees none.
    pub(crate) fn tenure_ended(&self) {
        let mut rules = self.rules();
        rules.tenure_ended();
        self.cell.revoke();
        trace!(target: "lease", now_ns = clock::now().as_nanos(), "ended");
    }

    /// Raft says that this process does not lead. What is left of its lease may be used up: the winner waits for it.
    pub(crate) fn deposed(&self) {
        self.rules().deposed();
    }

    /// Extends the lease of a group of one, which has no rounds to acknowledge. For others it changes nothing.
    pub(crate) fn refresh(&self) {
        let mut rules = self.rules();
        self.publish(&mut rules);
    }

    /// The lease as the packet path sees it.
    pub(crate) fn current(&self) -> Option<Lease> {
        self.cell.read()
    }

    /// What is left of the lease.
    pub(crate) fn left(&self) -> Duration {
        self.current().map_or(Duration::ZERO, |lease| {
            lease.until.saturating_since(clock::now())
        })
    }

    fn publish(&self, rules: &mut LeaseRules) {
        let Some(lease) = rules.lease(clock::now()) else {
            return;
        };
        // Another epoch is in the cell, or the deadline is not later: a grant refuses the second by itself.
        let later =
            self.cell.extend(lease.epoch, lease.until) || self.cell.grant(lease.epoch, lease.until);
        if later {
            let (now_ns, until_ns) = (clock::now().as_nanos(), lease.until.as_nanos());
            trace!(target: "lease", epoch = lease.epoch.0, now_ns, until_ns, "held");
        }
    }

    fn rules(&self) -> MutexGuard<'_, LeaseRules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
