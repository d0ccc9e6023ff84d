//! Hand-written histories.

use super::{Checker, Outcome, check_all};
use crate::history::{Event, HARNESS, Kind, Op};

/// A history in the making.
#[derive(Clone, Default)]
pub(super) struct History {
    events: Vec<Event>,
}

impl History {
    pub(super) fn event(mut self, t_ns: u64, process: u64, kind: Kind, op: Op) -> Self {
        self.events.push(Event {
            t_ns,
            process,
            kind,
            op,
        });
        self
    }

    pub(super) fn fact(self, t_ns: u64, op: Op) -> Self {
        self.event(t_ns, HARNESS, Kind::Info, op)
    }

    pub(super) fn facts(self, ops: impl IntoIterator<Item = (u64, Op)>) -> Self {
        ops.into_iter()
            .fold(self, |history, (t_ns, op)| history.fact(t_ns, op))
    }

    pub(super) fn build(&self) -> crate::history::History {
        crate::history::History {
            events: self.events.clone(),
        }
    }
}

/// What `checker` says of `history`, and what each finding says.
pub(super) fn judged(checker: Checker, history: &History) -> (Outcome, Vec<String>) {
    let verdicts = check_all(&history.build());
    let verdict = verdicts.of(checker).unwrap().clone();
    let findings = verdict.findings.into_iter().map(|finding| finding.what);
    (verdict.outcome, findings.collect())
}
