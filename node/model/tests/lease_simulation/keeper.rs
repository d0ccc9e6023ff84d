//! The rules of one process with the cell that its packet path reads, as `atmd` puts them together.

use std::time::Duration;

use model::Instant;
use model::ids::{Epoch, NodeId};
use model::lease::{Lease, LeaseRules, Term, Voters};

use crate::fault::Planted;

pub(crate) struct Keeper {
    rules: LeaseRules,
    cell: Option<Lease>,
    /// The tenure in the cell was ended: nothing extends it.
    revoked: bool,
    planted: Planted,
    started: Instant,
    /// What the wrong rules need to know apart.
    last_append: Instant,
    length: Duration,
}

impl Keeper {
    pub(crate) fn new(me: NodeId, voters: Voters, started: Instant, planted: Planted) -> Self {
        let known = if planted == Planted::NoStart {
            Instant::BOOT
        } else {
            started
        };
        Self {
            rules: LeaseRules::new(me, voters, known),
            cell: None,
            revoked: true,
            planted,
            started,
            last_append: Instant::BOOT,
            length: Duration::ZERO,
        }
    }

    pub(crate) fn set_voters(&mut self, voters: Voters) {
        if self.planted != Planted::OldVoters {
            self.rules.set_voters(voters);
        }
    }

    pub(crate) fn append_received(&mut self, now: Instant) {
        if self.planted != Planted::NoAppendStamp {
            self.rules.append_received(now);
        }
        self.last_append = self.last_append.max(now);
    }

    pub(crate) fn vote_granted(&mut self, term: Term, now: Instant) -> Duration {
        if self.planted == Planted::NoFence {
            return self.rules.clone().vote_granted(term, now);
        }
        let age = self.rules.vote_granted(term, now);
        if self.planted == Planted::NoOwnLease {
            return now.saturating_since(self.started.max(self.last_append));
        }
        age
    }

    pub(crate) fn campaign_started(&mut self, term: Term) {
        self.rules.campaign_started(term);
    }

    pub(crate) fn grant_received(&mut self, term: Term, from: NodeId, age: Duration, now: Instant) {
        self.rules.grant_received(term, from, age, now);
    }

    pub(crate) fn elected(&mut self, term: Term, now: Instant) {
        self.rules.elected(term, now);
        if let (Planted::OneDeadline, Some(held), false) = (self.planted, self.cell, self.revoked) {
            self.rules.tenure_begun(term, held.epoch, self.length);
        }
    }

    pub(crate) fn round_acknowledged(
        &mut self,
        term: Term,
        from: NodeId,
        sent: Instant,
        now: Instant,
    ) {
        let sent = if self.planted == Planted::CountsFromReceipt {
            now
        } else {
            sent
        };
        self.rules.round_acknowledged(term, from, sent);
        self.publish(now);
    }

    pub(crate) fn wait_until(
        &self,
        term: Term,
        longest: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let until = self.rules.wait_until(term, longest)?;
        if self.planted == Planted::NoWaitOut {
            return Some(now);
        }
        if self.planted == Planted::NoClockFactor {
            // The factor of the rules makes this the bare lease again.
            return self.rules.wait_until(term, longest * 95 / 105);
        }
        Some(until)
    }

    pub(crate) fn tenure_begun(
        &mut self,
        term: Term,
        epoch: Epoch,
        length: Duration,
        now: Instant,
    ) {
        self.rules.tenure_begun(term, epoch, length);
        self.length = length;
        self.publish(now);
    }

    pub(crate) fn tenure_ended(&mut self) {
        self.rules.tenure_ended();
        if self.planted != Planted::EndsWithoutSilence {
            self.revoked = true;
        }
    }

    pub(crate) fn deposed(&mut self) {
        self.rules.deposed();
    }

    /// Extends the lease of a group of one.
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.publish(now);
    }

    /// What the packet path goes by.
    pub(crate) fn speaks(&self, now: Instant) -> Option<Lease> {
        self.cell.filter(|lease| !self.revoked && now < lease.until)
    }

    /// The cell takes a newer epoch, or a later deadline of an epoch that was not ended.
    fn publish(&mut self, now: Instant) {
        let Some(lease) = self.rules.lease(now) else {
            return;
        };
        match &mut self.cell {
            Some(held) if held.epoch == lease.epoch => {
                if !self.revoked {
                    held.until = held.until.max(lease.until);
                }
            }
            Some(held) if held.epoch > lease.epoch => {}
            _ => {
                self.cell = Some(lease);
                self.revoked = false;
            }
        }
    }
}
