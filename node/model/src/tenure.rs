//! From winning an election to speaking for the VIP, and from speaking to silence: every decision, and nothing that waits.
//!
//! One [`Tenures`] per process. Its shell asks [`step`](Tenures::step) what is to be done, does it, and says with
//! [`done`](Tenures::done) what came of it. One thing at a time: while something is under way there is nothing else to do.
//!
//! Invariant: the lease begins only after (1) BeginEpoch is committed in our term, (2) the packet path has everything up to
//! it, (3) every older lease has run out. Ending in order: silent first, acknowledged by the engine, then EndEpoch.

mod claim;
mod hand_over;

use std::cmp::Reverse;
use std::time::Duration;

use crate::Instant;
use crate::command::{Control, Response};
use crate::ids::{Epoch, NodeId};
use crate::lease::Term;
use crate::planted::{self, Bug};
use claim::{Begun, Claim, ClaimStep, RETRY};
pub use hand_over::{HAND_OVER_TIMEOUT, HandOverError, HandedOver, Member};
use hand_over::{HandOver, HandOverStep, Under};

/// When what happened in the latest tenure, by this host's boot-time clock; `BOOT`: not yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeline {
    /// The tenure.
    pub epoch: Epoch,
    /// Last message from the previous leader.
    pub last_heard: Instant,
    /// Elected.
    pub leader: Instant,
    /// BeginEpoch committed and applied.
    pub begun: Instant,
    /// Forwarding table and connections in the packet path.
    pub table: Instant,
    /// Every older lease has run out.
    pub wait_until: Instant,
    /// The lease began.
    pub claimed: Instant,
}

/// What the process sees of itself when it asks for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The term this process leads, with its vote committed; `None`: it follows.
    pub leading: Option<Term>,
    /// A sync of the log takes longer than is tolerable.
    pub disk_stalled: bool,
    /// The replicated state has a configuration.
    pub configured: bool,
    /// The latest tenure in the replicated state.
    pub latest: Epoch,
}

/// What is to be done next. Each but the first two is done once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something is seen that was not before, or a hand-over is asked for.
    Rest,
    /// Nothing before this instant; then ask again.
    Wait(Instant),
    /// Tell the lease that this process leads this term.
    Elected(Term),
    /// Tell the lease that this process does not lead any more; what is left of it may be used up.
    Deposed(Epoch),
    /// Propose the first configuration. Then [`Done::Answered`].
    ProposeConfig,
    /// Propose this. Then [`Done::Answered`].
    Propose(Control),
    /// Wait until everything that was applied is in the packet path. Then [`Done::Reached`].
    Barrier,
    /// Ask the lease when every older one has run out; see [`LeaseRules::wait_until`](crate::lease::LeaseRules::wait_until).
    /// Then [`Done::WaitOut`].
    AskWaitOut {
        /// The term this process won.
        term: Term,
        /// The longest lease that may be left.
        longest: Duration,
    },
    /// Tell the lease that this tenure has begun: from now on it speaks.
    Begin {
        /// Its term.
        term: Term,
        /// Its number.
        epoch: Epoch,
        /// How long its lease lasts after each acknowledged round.
        length: Duration,
    },
    /// End the lease at once, and wait until the packet path will send nothing of it. Then [`Done::Silent`].
    FallSilent(Why),
    /// Call [`hand_over`](Tenures::hand_over) with nobody in particular: the disk has stalled.
    FindSuccessor,
    /// Wait until this member has the whole log, or the deadline. Then [`Done::CaughtUp`].
    CatchUp(NodeId, Instant),
    /// Have this member elected. Then [`Done::Transferred`].
    Transfer(NodeId),
    /// Wait for a tenure later than this, or the deadline. Then [`Done::Successor`].
    AwaitSuccessor(Epoch, Instant),
    /// Answer the hand-over that was asked for.
    Answer(Result<HandedOver, HandOverError>),
}

/// Why a tenure ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A hand-over was asked for.
    Asked,
    /// The disk has stalled.
    DiskStalled,
}

/// What came of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The proposal was applied, or why it may not have been.
    Answered(Result<Response, String>),
    /// The packet path has everything; `false`: it has ended.
    Reached(bool),
    /// The lease's answer; `None`: the term is over.
    WaitOut(Option<Instant>),
    /// Nothing of the tenure will be sent any more.
    Silent,
    /// The member has the log, or the deadline is over.
    CaughtUp,
    /// The transfer was begun, or why not.
    Transferred(Result<(), String>),
    /// The successor's tenure and name; `None`: the deadline is over.
    Successor(Option<(Epoch, String)>),
}

/// Decides when this ATM is active.
#[derive(Debug)]
pub struct Tenures {
    me: NodeId,
    name: String,
    /// How long a lease of ours lasts after each acknowledged round.
    lease: Duration,
    stage: Stage,
    timeline: Timeline,
}

#[derive(Debug)]
enum Stage {
    Backup,
    /// A claim was given up: the next begins when something new is seen.
    GaveUp,
    Claiming(Claim),
    Active(Held),
    /// The disk stalled; silent, or about to be.
    Stalled(Held, Under),
    HandingOver(HandOver),
    /// The hand-over's outcome is to be told.
    Told(Result<HandedOver, HandOverError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    term: Term,
    epoch: Epoch,
}

impl Tenures {
    /// A process that follows, or does nothing yet. `lease`: how long its leases last after each acknowledged round.
    pub fn new(me: NodeId, name: String, lease: Duration) -> Self {
        Self {
            me,
            name,
            lease,
            stage: Stage::Backup,
            timeline: Timeline::default(),
        }
    }

    /// When what happened in the latest tenure.
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// When the previous leader was heard last: for the timeline, after [`Action::Elected`].
    pub fn note_last_heard(&mut self, at: Option<Instant>) {
        self.timeline.last_heard = at.unwrap_or_default();
    }

    /// The tenure in which this process speaks, as far as it knows.
    pub fn active(&self) -> Option<Epoch> {
        match &self.stage {
            Stage::Active(held) => Some(held.epoch),
            Stage::Backup
            | Stage::GaveUp
            | Stage::Claiming(_)
            | Stage::Stalled(..)
            | Stage::HandingOver(_)
            | Stage::Told(_) => None,
        }
    }

    /// What is to be done next.
    pub fn step(&mut self, seen: Seen, now: Instant) -> Action {
        if let Some(held) = self.held_now()
            && seen.leading != Some(held.term)
        {
            self.stage = Stage::Backup;
            return Action::Deposed(held.epoch);
        }
        if let Stage::Claiming(claim) = &self.stage
            && !claim.is_under_way()
            && seen.leading != Some(claim.term)
        {
            self.stage = Stage::Backup;
        }
        match &mut self.stage {
            Stage::GaveUp => {
                self.stage = Stage::Backup;
                Action::Rest
            }
            Stage::Backup => match seen.leading {
                None => Action::Rest,
                Some(term) => {
                    let mut claim = Claim::of(term);
                    if planted::is(Bug::ClaimBeforeApply) {
                        claim.guess(Epoch(seen.latest.0 + 1), self.lease);
                    }
                    self.stage = Stage::Claiming(claim);
                    self.timeline = Timeline {
                        leader: now,
                        ..Timeline::default()
                    };
                    Action::Elected(term)
                }
            },
            Stage::Claiming(_) => self.claim(seen, now),
            Stage::Active(held) if seen.disk_stalled => {
                self.stage = Stage::Stalled(*held, Under::Way);
                Action::FallSilent(Why::DiskStalled)
            }
            Stage::Active(_) => Action::Rest,
            Stage::Stalled(_, under) => match under {
                Under::Done => Action::FindSuccessor,
                Under::Due | Under::Way => Action::Rest,
            },
            Stage::HandingOver(hand_over) => hand_over.next(),
            Stage::Told(outcome) => {
                let outcome = outcome.clone();
                self.stage = Stage::Backup;
                Action::Answer(outcome)
            }
        }
    }

    /// What came of the action that is under way.
    pub fn done(&mut self, done: Done, now: Instant) {
        match &mut self.stage {
            Stage::Claiming(claim) => {
                let kept = claim.done(done, now, &mut self.timeline);
                if !kept {
                    self.stage = Stage::GaveUp;
                }
            }
            Stage::Stalled(_, under) => *under = Under::Done,
            Stage::HandingOver(hand_over) => {
                if let Some(outcome) = hand_over.done(done, now, &self.name) {
                    self.stage = Stage::Told(outcome);
                }
            }
            Stage::Backup | Stage::GaveUp | Stage::Active(_) | Stage::Told(_) => {}
        }
    }

    /// Begins a hand-over to the named ATM, or to the one that was heard and has most of the log (the first in the group's
    /// order of equals). [`Action::Answer`] comes when it is over. An error changes nothing, but where the disk has stalled.
    pub fn hand_over(
        &mut self,
        to: Option<String>,
        group: &[Member],
        now: Instant,
    ) -> Result<(), HandOverError> {
        let (held, stalled) = match &self.stage {
            Stage::Active(held) => (*held, false),
            Stage::Stalled(held, _) => (*held, true),
            Stage::Backup
            | Stage::GaveUp
            | Stage::Claiming(_)
            | Stage::HandingOver(_)
            | Stage::Told(_) => return Err(HandOverError::NotActive),
        };
        match self.successor(to, group) {
            Ok(successor) => {
                self.stage = Stage::HandingOver(HandOver {
                    epoch: held.epoch,
                    to: successor.id,
                    name: successor.name.clone(),
                    asked: now,
                    step: HandOverStep::CatchUp,
                    under: Under::Due,
                });
                Ok(())
            }
            Err(error) => {
                if stalled {
                    // Silent already: the next claim waits for the disk.
                    self.stage = Stage::GaveUp;
                }
                Err(error)
            }
        }
    }

    fn successor<'a>(
        &self,
        to: Option<String>,
        group: &'a [Member],
    ) -> Result<&'a Member, HandOverError> {
        let mut others = group.iter().filter(|member| member.id != self.me);
        if let Some(to) = to {
            if to == self.name {
                return Err(HandOverError::AlreadyActive(to));
            }
            let all: Vec<&str> = group.iter().map(|member| member.name.as_str()).collect();
            return others
                .find(|member| member.name == to)
                .ok_or_else(|| HandOverError::Unknown(to, all.join(", ")));
        }
        others
            .filter(|member| member.heard)
            .max_by_key(|member| (member.matched, Reverse(member.id)))
            .ok_or(HandOverError::NoSuccessor)
    }

    fn held_now(&self) -> Option<Held> {
        match &self.stage {
            Stage::Active(held) => Some(*held),
            Stage::Backup
            | Stage::GaveUp
            | Stage::Claiming(_)
            | Stage::Stalled(..)
            | Stage::HandingOver(_)
            | Stage::Told(_) => None,
        }
    }

    fn claim(&mut self, seen: Seen, now: Instant) -> Action {
        let Stage::Claiming(claim) = &mut self.stage else {
            return Action::Rest;
        };
        if claim.is_under_way() {
            return Action::Rest;
        }
        if now < claim.pause {
            return Action::Wait(claim.pause);
        }
        let term = claim.term;
        match claim.step {
            ClaimStep::Config if seen.disk_stalled => Action::Wait(now + RETRY),
            ClaimStep::Config if !seen.configured => {
                claim.step = ClaimStep::ConfigUnderWay;
                Action::ProposeConfig
            }
            ClaimStep::Config | ClaimStep::Begin => {
                claim.step = ClaimStep::BeginUnderWay;
                Action::Propose(Control::BeginEpoch {
                    node: self.me,
                    name: self.name.clone(),
                    term,
                    lease: self.lease,
                })
            }
            ClaimStep::Barrier(begun) => {
                claim.step = ClaimStep::BarrierUnderWay(begun);
                Action::Barrier
            }
            ClaimStep::Ask(begun) => {
                claim.step = ClaimStep::AskUnderWay(begun);
                let longest = begun.longest;
                Action::AskWaitOut { term, longest }
            }
            ClaimStep::WaitOut(_, until) if now < until => Action::Wait(until),
            ClaimStep::WaitOut(Begun { epoch, .. }, _) => {
                self.timeline.claimed = now;
                let length = self.lease;
                if claim.guessed {
                    *claim = Claim::of(term);
                } else {
                    self.stage = Stage::Active(Held { term, epoch });
                }
                Action::Begin {
                    term,
                    epoch,
                    length,
                }
            }
            ClaimStep::ConfigUnderWay
            | ClaimStep::BeginUnderWay
            | ClaimStep::BarrierUnderWay(_)
            | ClaimStep::AskUnderWay(_) => Action::Rest,
        }
    }
}
