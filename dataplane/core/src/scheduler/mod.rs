//! Which server takes a new connection.
//!
//! Never imports: `wire`, the connections. A pick is remembered by the connection table, never here.

mod wrr;

use model::conf::Scheduler;
use model::ids::ServerId;

use crate::DropReason;
use wrr::Wrr;

/// The scheduler of one virtual service, with its state.
#[derive(Debug)]
pub(crate) enum Picker {
    Wrr(Wrr),
    Unsupported,
}

impl Picker {
    /// A scheduler over `share`; one of the same kind that it replaces hands on its state, so that a table swap does
    /// not start the turn again.
    pub(crate) fn new(kind: Scheduler, share: &[(ServerId, u16)], previous: Option<&Self>) -> Self {
        match kind {
            Scheduler::Wrr => Self::Wrr(Wrr::new(
                share,
                match previous {
                    Some(Self::Wrr(wrr)) => Some(wrr),
                    Some(Self::Unsupported) | None => None,
                },
            )),
            Scheduler::Wlc | Scheduler::Maglev | Scheduler::Sh => Self::Unsupported,
        }
    }

    /// The next server.
    pub(crate) fn pick(&mut self) -> Result<ServerId, DropReason> {
        match self {
            Self::Wrr(wrr) => wrr.pick().ok_or(DropReason::NoServer),
            Self::Unsupported => Err(DropReason::UnsupportedScheduler),
        }
    }
}
