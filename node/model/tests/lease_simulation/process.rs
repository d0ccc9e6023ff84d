//! One ATM: Raft, state, lease, and the task that claims: begin an epoch, apply it, wait out, speak.

use std::time::Duration;

use model::Instant;
use model::command::Response;
use model::ids::Epoch;
use model::lease::Term;
use model::state::State;

use crate::chance::Chance;
use crate::clock::{Clock, True};
use crate::fault::Planted;
use crate::keeper::Keeper;
use crate::raft::{Members, Raft, node_id};

/// Where the claim of a leader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    None,
    /// `BeginEpoch` is in the log.
    Proposed {
        term: Term,
        index: usize,
    },
    /// It is applied; older leases run out.
    Waiting {
        term: Term,
        epoch: Epoch,
        length: Duration,
        until: Instant,
    },
    /// The process speaks while its lease lasts.
    Active {
        epoch: Epoch,
    },
    /// It fell silent; `EndEpoch` is in the log.
    Ending {
        index: usize,
    },
}

pub(crate) struct Process {
    pub(crate) me: usize,
    pub(crate) clock: Clock,
    pub(crate) raft: Raft,
    pub(crate) state: State,
    pub(crate) applied: usize,
    pub(crate) keeper: Keeper,
    pub(crate) claim: Claim,
    /// The term that this process leads as far as its tasks have been told.
    pub(crate) told: Option<Term>,
    /// The membership the lease rules have been told.
    voters: Members,
    /// How long its lease shall last: files may differ for a while.
    pub(crate) lease: Duration,
    /// The last sign of a leader, and how long to do without.
    heard: Instant,
    patience: Duration,
    /// When this leader won, in true time.
    pub(crate) won: Option<(Term, True)>,
    pub(crate) paused_until: True,
    /// Replies and timers of an earlier incarnation are nobody's.
    pub(crate) incarnation: u32,
    pub(crate) is_up: bool,
    planted: Planted,
}

impl Process {
    pub(crate) fn new(me: usize, members: Members, planted: Planted, chance: &mut Chance) -> Self {
        let just_booted = chance.percent(30);
        let clock = Clock::boot(chance, 0, just_booted);
        let started = clock.read(0);
        Self {
            me,
            raft: Raft::new(me, members),
            state: State::default(),
            applied: 0,
            keeper: Keeper::new(node_id(me), members.voters(), started, planted),
            claim: Claim::None,
            told: None,
            voters: members,
            lease: Duration::from_millis(chance.pick(&[50, 100, 100, 140])),
            heard: started,
            patience: patience(chance),
            won: None,
            paused_until: 0,
            incarnation: 0,
            is_up: true,
            planted,
            clock,
        }
    }

    /// Dies: what is not on disk is gone, and the packet path with it.
    pub(crate) fn kill(&mut self) {
        self.is_up = false;
        self.incarnation += 1;
        self.raft.restart();
    }

    /// Starts again; after a reboot the clock begins anew.
    pub(crate) fn start(&mut self, chance: &mut Chance, now: True) {
        if chance.percent(30) {
            self.clock = Clock::boot(chance, now, true);
        }
        let started = self.clock.read(now);
        self.state = State::default();
        self.applied = 0;
        self.voters = self.raft.members;
        self.keeper = Keeper::new(
            node_id(self.me),
            self.voters.voters(),
            started,
            self.planted,
        );
        self.claim = Claim::None;
        self.told = None;
        self.heard = started;
        self.won = None;
        self.paused_until = 0;
        self.is_up = true;
    }

    pub(crate) fn now(&self, now: True) -> Instant {
        self.clock.read(now)
    }

    pub(crate) fn hears(&mut self, chance: &mut Chance, now: True) {
        self.heard = self.clock.read(now);
        self.patience = patience(chance);
    }

    pub(crate) fn has_lost_patience(&self, now: True) -> bool {
        self.clock.read(now) >= self.heard + self.patience
    }

    /// The lease must never be extended by voters that cannot outvote what Raft may elect next.
    pub(crate) fn follow_members(&mut self) {
        if self.voters != self.raft.members {
            self.voters = self.raft.members;
            self.keeper.set_voters(self.voters.voters());
        }
    }

    /// Applies one entry; the response is `None` for a membership.
    pub(crate) fn apply_next(&mut self) -> Response {
        let entry = self.raft.entry(self.applied);
        self.applied += 1;
        entry
            .command()
            .map_or(Response::None, |command| self.state.apply(command))
    }

    /// The epoch this process asked for has begun: when it may speak.
    pub(crate) fn begin_waiting(
        &mut self,
        term: Term,
        epoch: Epoch,
        longest: Duration,
        now: Instant,
    ) {
        let lease = self.lease;
        self.claim = match self.keeper.wait_until(term, longest, now) {
            Some(until) => Claim::Waiting {
                term,
                epoch,
                length: lease,
                until,
            },
            None => Claim::None,
        };
    }
}

/// Longer than any lease here, as DESIGN has it; much longer now and then, so that somebody wins alone.
fn patience(chance: &mut Chance) -> Duration {
    Duration::from_millis(150 + chance.below(200))
}
