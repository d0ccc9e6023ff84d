//! The steps from speaking to a successor that speaks.

use std::time::Duration;

use super::{Action, Done, Why};
use crate::Instant;
use crate::command::{Control, Response};
use crate::ids::{Epoch, NodeId};

/// A hand-over that takes longer is given up, and this ATM goes on.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a hand-over did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// Only the active ATM can.
    #[error("this ATM is not active")]
    NotActive,
    /// No such member.
    #[error("no ATM named {0} in the group (there are: {1})")]
    Unknown(String, String),
    /// It already is.
    #[error("{0} is already active")]
    AlreadyActive(String),
    /// Nobody to hand over to.
    #[error("no other ATM is reachable and caught up")]
    NoSuccessor,
    /// It took too long; this ATM goes on.
    #[error("{0} did not take over within {1:?}; this ATM stays active")]
    TimedOut(String, Duration),
    /// The cluster did not commit it.
    #[error("the end of the tenure was not committed: {0}")]
    NotCommitted(String),
}

/// A hand-over that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// Who was active.
    pub from: String,
    /// Who is.
    pub to: String,
    /// Its tenure.
    pub epoch: Epoch,
    /// From the request to the successor's tenure.
    pub elapsed: Duration,
}

/// A member of the group, as a hand-over sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// It acknowledged a heartbeat within the election timeout.
    pub heard: bool,
    /// The last entry it is known to have; `None`: nothing is known.
    pub matched: Option<u64>,
}

/// Whether the action of a stage was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    Due,
    Way,
    Done,
}

#[derive(Debug)]
pub(super) struct HandOver {
    pub(super) epoch: Epoch,
    pub(super) to: NodeId,
    pub(super) name: String,
    pub(super) asked: Instant,
    pub(super) step: HandOverStep,
    pub(super) under: Under,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOverStep {
    CatchUp,
    Silence,
    End,
    CatchUpAgain,
    Transfer,
    Await,
}

impl HandOver {
    pub(super) fn next(&mut self) -> Action {
        if self.under != Under::Due {
            return Action::Rest;
        }
        self.under = Under::Way;
        let deadline = self.asked + HAND_OVER_TIMEOUT;
        match self.step {
            HandOverStep::CatchUp | HandOverStep::CatchUpAgain => {
                Action::CatchUp(self.to, deadline)
            }
            HandOverStep::Silence => Action::FallSilent(Why::Asked),
            HandOverStep::End => Action::Propose(Control::EndEpoch { epoch: self.epoch }),
            HandOverStep::Transfer => Action::Transfer(self.to),
            HandOverStep::Await => Action::AwaitSuccessor(self.epoch, deadline),
        }
    }

    /// `Some`: it is over.
    pub(super) fn done(
        &mut self,
        done: Done,
        now: Instant,
        from: &str,
    ) -> Option<Result<HandedOver, HandOverError>> {
        self.under = Under::Due;
        let not_committed = |what: String| Some(Err(HandOverError::NotCommitted(what)));
        self.step = match (self.step, done) {
            (HandOverStep::CatchUp, Done::CaughtUp) => HandOverStep::Silence,
            (HandOverStep::Silence, Done::Silent) => HandOverStep::End,
            (HandOverStep::End, Done::Answered(Ok(Response::EpochEnded))) => {
                HandOverStep::CatchUpAgain
            }
            (HandOverStep::End, Done::Answered(Ok(other))) => {
                return not_committed(format!("{other:?}"));
            }
            (HandOverStep::End, Done::Answered(Err(error))) => return not_committed(error),
            (HandOverStep::CatchUpAgain, Done::CaughtUp) => HandOverStep::Transfer,
            (HandOverStep::Transfer, Done::Transferred(Ok(()))) => HandOverStep::Await,
            (HandOverStep::Transfer, Done::Transferred(Err(error))) => return not_committed(error),
            (HandOverStep::Await, Done::Successor(Some((epoch, to)))) => {
                return Some(Ok(HandedOver {
                    from: from.to_owned(),
                    to,
                    epoch,
                    elapsed: now.saturating_since(self.asked),
                }));
            }
            (HandOverStep::Await, Done::Successor(None)) => {
                let name = std::mem::take(&mut self.name);
                return Some(Err(HandOverError::TimedOut(name, HAND_OVER_TIMEOUT)));
            }
            (step, _) => {
                // An answer to something else: what is under way stays so.
                self.under = Under::Way;
                step
            }
        };
        None
    }
}
