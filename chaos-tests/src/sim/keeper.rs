//! The lease of one process as the daemon keeps it: the rules, the clock, and the cell that the packet path reads.

use std::sync::Arc;
use std::time::Duration;

use dataplane::LeaseCell;
use model::Instant;
use model::ids::{Epoch, NodeId};
use model::lease::{Lease, LeaseRules, Term, Voters};

#[derive(Debug)]
pub(crate) struct Keeper {
    rules: LeaseRules,
    pub(crate) cell: Arc<LeaseCell>,
}

impl Keeper {
    pub(crate) fn new(me: NodeId, voters: Voters, now: Instant) -> Self {
        Self {
            rules: LeaseRules::new(me, voters, now),
            cell: Arc::new(LeaseCell::new()),
        }
    }

    pub(crate) fn append_received(&mut self, now: Instant) {
        self.rules.append_received(now);
    }

    pub(crate) fn vote_granted(&mut self, term: Term, now: Instant) -> Duration {
        self.rules.vote_granted(term, now)
    }

    pub(crate) fn campaign_started(&mut self, term: Term) {
        self.rules.campaign_started(term);
    }

    pub(crate) fn grant_received(&mut self, term: Term, from: NodeId, age: Duration, now: Instant) {
        self.rules.grant_received(term, from, age, now);
    }

    pub(crate) fn round_acknowledged(
        &mut self,
        term: Term,
        from: NodeId,
        sent: Instant,
        now: Instant,
    ) {
        self.rules.round_acknowledged(term, from, sent);
        self.publish(now);
    }

    pub(crate) fn elected(&mut self, term: Term, now: Instant) {
        self.rules.elected(term, now);
    }

    pub(crate) fn wait_until(&self, term: Term, longest: Duration) -> Option<Instant> {
        self.rules.wait_until(term, longest)
    }

    pub(crate) fn tenure_begun(
        &mut self,
        term: Term,
        epoch: Epoch,
        length: Duration,
        now: Instant,
    ) {
        self.rules.tenure_begun(term, epoch, length);
        self.publish(now);
    }

    pub(crate) fn tenure_ended(&mut self) {
        self.rules.tenure_ended();
        self.cell.revoke();
    }

    pub(crate) fn deposed(&mut self) {
        self.rules.deposed();
    }

    pub(crate) fn publish(&mut self, now: Instant) {
        let Some(lease) = self.rules.lease(now) else {
            return;
        };
        if !self.cell.extend(lease.epoch, lease.until) {
            self.cell.grant(lease.epoch, lease.until);
        }
    }

    /// The lease, if it is held.
    pub(crate) fn held(&self, now: Instant) -> Option<Lease> {
        self.cell.read().filter(|lease| now < lease.until)
    }
}
