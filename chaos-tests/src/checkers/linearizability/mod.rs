//! Registers with compare-and-set behave as if there were one copy of each, and each operation happened in one instant
//! between its invocation and its completion (Herlihy & Wing 1990). Each register is judged by itself, which is sound:
//! linearizability is local (theorem 1 there).

#[cfg(test)]
mod brute_force;
mod register;
#[cfg(test)]
mod tests;
mod wgl;

use std::collections::BTreeMap;

pub use register::{Action, Call};
pub use wgl::{Limits, Search, Stuck, linearize};

use super::rules::Rules;
use super::verdict::{Checker, Findings, Outcome, Verdict, seconds};
use crate::history::{Op, Operation, Outcome as Done};

/// Operations shown around the one that no order explains.
const SHOWN_MAX: usize = 12;

/// Judges every register among `operations`.
pub(super) fn check(operations: &[Operation<'_>], rules: &Rules) -> Verdict {
    let mut registers: BTreeMap<u64, (Vec<Call>, Vec<&Operation<'_>>)> = BTreeMap::new();
    for operation in operations {
        if let Some((key, call)) = call(operation) {
            let (calls, sources) = registers.entry(key).or_default();
            calls.push(call);
            sources.push(operation);
        }
    }
    if registers.is_empty() {
        return Verdict::nothing(Checker::Linearizability);
    }
    let count: usize = registers.values().map(|(calls, _)| calls.len()).sum();
    let mut findings = Findings::default();
    let mut given_up = Vec::new();
    for (key, (calls, sources)) in &registers {
        match linearize(calls, &rules.limits) {
            Search::Linear => {}
            Search::GaveUp => given_up.push(key.to_string()),
            Search::NotLinear(stuck) => accuse(*key, &stuck, calls, sources, &mut findings),
        }
    }
    let summary = format!("{count} operations on {} registers", registers.len());
    let broken = !findings.is_empty();
    let mut verdict = findings.verdict(Checker::Linearizability, summary);
    if !broken && !given_up.is_empty() {
        verdict.outcome = Outcome::GaveUp(format!(
            "the search grew beyond its bounds for register {}",
            given_up.join(", ")
        ));
    }
    verdict
}

/// What an operation on a register demands; `None` for all others and for what demands nothing.
fn call(operation: &Operation<'_>) -> Option<(u64, Call)> {
    let (returned, result) = match operation.outcome {
        Done::Ok { return_ns, result } => (Some(return_ns), result),
        Done::Unknown => (None, operation.invoked),
        Done::Fail => return None,
    };
    let (key, action) = if let Op::RegisterRead { key, value } = *result {
        // A read without a known result demands nothing.
        returned?;
        (key, Action::Read(value))
    } else if let Op::RegisterWrite { key, value } = *result {
        (key, Action::Write(value))
    } else if let Op::RegisterCas {
        key,
        expected,
        new,
        swapped,
    } = *result
    {
        let swapped = returned.and(Some(swapped.unwrap_or(true)));
        (
            key,
            Action::Cas {
                expected,
                new,
                swapped,
            },
        )
    } else {
        return None;
    };
    Some((
        key,
        Call {
            call_ns: operation.call_ns,
            return_ns: returned,
            action,
        },
    ))
}

/// Says which operation of register `key` no order explains, and what went on around it.
fn accuse(
    key: u64,
    stuck: &Stuck,
    calls: &[Call],
    sources: &[&Operation<'_>],
    findings: &mut Findings,
) {
    let (Some(call), Some(source)) = (calls.get(stuck.call), sources.get(stuck.call)) else {
        return;
    };
    let held: Vec<_> = stuck.held.iter().map(|value| text(*value)).collect();
    let what = format!(
        "register {key}: no order explains \"{}\" of process {}: after every order of what came before it the register holds {}",
        call.action,
        source.process,
        held.join(" or ")
    );
    let until = call.return_ns.unwrap_or(u64::MAX);
    let concurrent = |other: &Call| {
        other.call_ns <= until && other.return_ns.is_none_or(|at| at >= call.call_ns)
    };
    // The operations that it overlaps, and before them the last writes that ended.
    let mut shown: Vec<usize> = (0..calls.len())
        .filter(|at| calls.get(*at).is_some_and(concurrent))
        .collect();
    shown.sort_by_key(|at| {
        calls
            .get(*at)
            .map_or(0, |other| other.call_ns.abs_diff(call.call_ns))
    });
    shown.truncate(SHOWN_MAX);
    let ended = |at: &usize| {
        calls
            .get(*at)
            .filter(|other| !matches!(other.action, Action::Read(_)))
            .and_then(|other| other.return_ns)
            .filter(|returned| *returned < call.call_ns)
    };
    let mut before: Vec<usize> = (0..calls.len()).filter(|at| ended(at).is_some()).collect();
    before.sort_by_key(|at| std::cmp::Reverse(ended(at)));
    shown.extend(before.into_iter().take(SHOWN_MAX / 3));
    let moments = shown.into_iter().filter_map(|at| {
        let (call, source) = (calls.get(at)?, sources.get(at)?);
        let end = call.return_ns.map_or("its end unknown".to_owned(), |at| {
            format!("until {}", seconds(at))
        });
        Some((
            call.call_ns,
            format!("process {}: {}, {end}", source.process, call.action),
        ))
    });
    findings.add(what, moments);
}

fn text(value: Option<u64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}
