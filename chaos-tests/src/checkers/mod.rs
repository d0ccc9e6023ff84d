//! The judgement over a history: one checker per promise, each a pure function from the events to a [`Verdict`] with evidence.
//!
//! A checker says "holds" only of what it has seen: without events of its kind it says so, and a search it had to give up
//! or an observation with holes proves nothing and is no success.

mod availability;
mod claim_gate;
mod connections;
mod digests;
mod epochs;
mod leases;
mod linearizability;
mod one_voice;
mod rules;
mod set;
#[cfg(test)]
mod testing;
mod verdict;

pub use availability::{Distribution, FaultSpan, Outage, Outages, fault_spans, outages};
pub use linearizability::{Action, Call, Limits, Search, Stuck, linearize};
pub use rules::Rules;
pub use verdict::{Checker, FINDINGS_MAX, Finding, Moment, Outcome, Verdict, Verdicts};

use crate::history::{History, pairs};

/// Judges `history` by the usual rules.
#[must_use]
pub fn check_all(history: &History) -> Verdicts {
    check_with(history, &Rules::default())
}

/// Judges `history` by `rules`.
#[must_use]
pub fn check_with(history: &History, rules: &Rules) -> Verdicts {
    let events = &history.events;
    let (linearizability, set, connections) = match pairs(events) {
        Ok(operations) => (
            linearizability::check(&operations, rules),
            set::check(&operations),
            connections::check(events, &operations),
        ),
        Err(error) => {
            let impossible = |checker| Verdict::invalid(checker, error.to_string());
            (
                impossible(Checker::Linearizability),
                impossible(Checker::Set),
                impossible(Checker::Connections),
            )
        }
    };
    Verdicts(vec![
        one_voice::check(events, rules),
        leases::check(events),
        epochs::check(events),
        claim_gate::check(events, rules),
        digests::check(events),
        connections,
        linearizability,
        set,
        availability::check(history, rules),
    ])
}
