//! The steps from elected to speaking.

use std::time::Duration;

use super::{Done, Timeline};
use crate::Instant;
use crate::command::Response;
use crate::ids::Epoch;
use crate::lease::Term;

/// Pause before a refused step is tried again. Short: a new leader refuses proposals for the moment it takes to store
/// its own vote, and every takeover waits for that.
pub(super) const RETRY: Duration = Duration::from_millis(2);

/// Pause after a refusal, which trying at once would only repeat.
const REFUSED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Claim {
    pub(super) term: Term,
    pub(super) step: ClaimStep,
    /// A refused step is not tried again before.
    pub(super) pause: Instant,
    /// The planted bug: the claim that comes before the true one.
    pub(super) guessed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClaimStep {
    Config,
    ConfigUnderWay,
    Begin,
    BeginUnderWay,
    Barrier(Begun),
    BarrierUnderWay(Begun),
    Ask(Begun),
    AskUnderWay(Begun),
    WaitOut(Begun, Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) epoch: Epoch,
    pub(super) longest: Duration,
}

impl Claim {
    pub(super) fn of(term: Term) -> Self {
        Self {
            term,
            step: ClaimStep::Config,
            pause: Instant::BOOT,
            guessed: false,
        }
    }

    /// The planted bug: a tenure with a guessed epoch, as soon as older leases have run out.
    pub(super) fn guess(&mut self, epoch: Epoch, longest: Duration) {
        self.step = ClaimStep::Ask(Begun { epoch, longest });
        self.guessed = true;
    }

    pub(super) fn is_under_way(&self) -> bool {
        match self.step {
            ClaimStep::ConfigUnderWay
            | ClaimStep::BeginUnderWay
            | ClaimStep::BarrierUnderWay(_)
            | ClaimStep::AskUnderWay(_) => true,
            ClaimStep::Config
            | ClaimStep::Begin
            | ClaimStep::Barrier(_)
            | ClaimStep::Ask(_)
            | ClaimStep::WaitOut(..) => false,
        }
    }

    /// `false`: the claim is given up.
    pub(super) fn done(&mut self, done: Done, now: Instant, timeline: &mut Timeline) -> bool {
        match (&self.step, done) {
            (ClaimStep::ConfigUnderWay, Done::Answered(answer)) => {
                self.step = ClaimStep::Config;
                self.pause = match answer {
                    Ok(Response::Refused(_)) => now + REFUSED,
                    Ok(_) | Err(_) => now + RETRY,
                };
                true
            }
            (
                ClaimStep::BeginUnderWay,
                Done::Answered(Ok(Response::EpochBegun {
                    epoch,
                    longest_older_lease: longest,
                })),
            ) => {
                timeline.epoch = epoch;
                timeline.begun = now;
                self.step = ClaimStep::Barrier(Begun { epoch, longest });
                true
            }
            (ClaimStep::BeginUnderWay, Done::Answered(answer)) => {
                self.step = ClaimStep::Begin;
                self.pause = now + if answer.is_ok() { REFUSED } else { RETRY };
                true
            }
            (ClaimStep::BarrierUnderWay(begun), Done::Reached(true)) => {
                timeline.table = now;
                self.step = ClaimStep::Ask(*begun);
                true
            }
            (ClaimStep::AskUnderWay(begun), Done::WaitOut(Some(until))) => {
                timeline.wait_until = until;
                self.step = ClaimStep::WaitOut(*begun, until);
                true
            }
            _ => false,
        }
    }
}
