//! An epoch is the number of one tenure: it has one holder and one place in the log, and it grows with the log and with time.

use std::collections::BTreeMap;

use super::leases::leases;
use super::verdict::{Checker, Findings, Verdict, seconds};
use crate::history::{Event, Op};

/// What is known of an epoch.
#[derive(Clone, Copy)]
struct Known<'a> {
    atm: &'a str,
    index: u64,
    t_ns: u64,
    source: &'a str,
}

/// Judges every epoch among `events`.
pub(super) fn check(events: &[Event]) -> Verdict {
    let mut findings = Findings::default();
    let mut known: BTreeMap<u64, Known<'_>> = BTreeMap::new();
    for event in events {
        let (epoch, atm, index, source) = if let Op::Epoch {
            epoch,
            atm,
            index,
            seen_by,
        } = &event.op
        {
            (*epoch, atm, *index, seen_by)
        } else if let Op::Tenure(tenure) = &event.op {
            (tenure.epoch, &tenure.atm, tenure.index, &tenure.atm)
        } else {
            continue;
        };
        let this = Known {
            atm,
            index,
            t_ns: event.t_ns,
            source,
        };
        let first = *known.entry(epoch).or_insert(this);
        if (first.atm, first.index) != (this.atm, this.index) {
            findings.add(
                format!(
                    "epoch {epoch} is two tenures: of {} at index {} and of {} at index {}",
                    first.atm, first.index, this.atm, this.index
                ),
                [says(epoch, &first), says(epoch, &this)],
            );
        }
    }
    let held = held_from(events);
    if known.is_empty() && held.is_empty() {
        return Verdict::nothing(Checker::Epochs);
    }
    for ((epoch, this), (later, that)) in known.iter().zip(known.iter().skip(1)) {
        if this.index >= that.index {
            findings.add(
                format!(
                    "epoch {later} begins at index {}, not behind epoch {epoch} at index {}",
                    that.index, this.index
                ),
                [says(*epoch, this), says(*later, that)],
            );
        }
    }
    let holder = |epoch: u64| known.get(&epoch).map(|known| known.atm);
    for (&(epoch, atm), &from) in &held {
        if let Some(rightful) = holder(epoch).filter(|rightful| *rightful != atm) {
            findings.add(
                format!("{atm} was active in epoch {epoch}, which is {rightful}'s"),
                [(from, format!("{atm} active in epoch {epoch}"))],
            );
        }
    }
    for ((&(epoch, atm), &from), (&(later, other), &after)) in held.iter().zip(held.iter().skip(1))
    {
        if epoch == later {
            findings.add(
                format!("epoch {epoch} was held by {atm} and by {other}"),
                [
                    (from, format!("{atm} active in epoch {epoch}")),
                    (after, format!("{other} active in epoch {epoch}")),
                ],
            );
        } else if from >= after {
            findings.add(
                format!(
                    "epoch {later} was active at {}, before the earlier epoch {epoch} at {}",
                    seconds(after),
                    seconds(from)
                ),
                [
                    (from, format!("{atm} active in epoch {epoch}")),
                    (after, format!("{other} active in epoch {later}")),
                ],
            );
        }
    }
    let summary = format!(
        "{} epochs, {} of them held",
        known.len().max(held.len()),
        held.len()
    );
    findings.verdict(Checker::Epochs, summary)
}

/// From when on each ATM was active in each epoch, by its own word.
fn held_from(events: &[Event]) -> BTreeMap<(u64, &str), u64> {
    let mut held: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    let leases = leases(events)
        .filter(|lease| lease.from_ns < lease.end_ns())
        .map(|lease| (lease.epoch, lease.atm.as_str(), lease.from_ns));
    let claims = events.iter().filter_map(|event| {
        if let Op::Tenure(tenure) = &event.op {
            Some((tenure.epoch, tenure.atm.as_str(), tenure.claimed_ns?))
        } else {
            None
        }
    });
    for (epoch, atm, from) in leases.chain(claims) {
        let first = held.entry((epoch, atm)).or_insert(from);
        *first = from.min(*first);
    }
    held
}

fn says(epoch: u64, known: &Known<'_>) -> (u64, String) {
    let Known {
        atm,
        index,
        t_ns,
        source,
    } = known;
    (
        *t_ns,
        format!("{source} says: epoch {epoch} is {atm}'s, index {index}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::checkers::testing::{History, judged};
    use crate::history::{Lease, Tenure};

    fn epoch(epoch: u64, atm: &str, index: u64, seen_by: &str) -> Op {
        Op::Epoch {
            epoch,
            atm: atm.to_owned(),
            index,
            seen_by: seen_by.to_owned(),
        }
    }

    fn lease(epoch: u64, atm: &str, from_ns: u64) -> Op {
        Op::Lease(Lease {
            atm: atm.to_owned(),
            epoch,
            from_ns,
            until_ns: from_ns + 1,
            revoked_ns: None,
        })
    }

    fn tenure(epoch: u64, atm: &str, index: u64, claimed_ns: Option<u64>) -> Op {
        Op::Tenure(Box::new(Tenure {
            atm: atm.to_owned(),
            epoch,
            index,
            applied_ns: 0,
            table_index: index,
            table_ns: 0,
            claimed_ns,
            spoke_ns: None,
        }))
    }

    fn judge(ops: Vec<Op>) -> (Outcome, Vec<String>) {
        judged(Checker::Epochs, &History::default().facts((1..).zip(ops)))
    }

    #[test]
    fn growing_epochs_are_accepted() {
        let ops = vec![
            epoch(1, "a", 10, "a"),
            epoch(2, "b", 20, "b"),
            // A lagging ATM learns of it later.
            epoch(1, "a", 10, "c"),
            tenure(3, "a", 30, Some(500)),
            // Begun, and lost before it was held.
            tenure(4, "b", 40, None),
            tenure(5, "a", 50, Some(700)),
            lease(3, "a", 500),
            lease(3, "a", 550),
            lease(5, "a", 710),
        ];
        assert_eq!(judge(ops), (Outcome::Holds, vec![]));
        assert_eq!(judge(vec![]).0, Outcome::NothingToCheck);
    }

    #[test]
    fn every_kind_of_wrong_epoch_is_found() {
        for (ops, word) in [
            (
                vec![epoch(1, "a", 10, "a"), epoch(1, "b", 10, "b")],
                "two tenures",
            ),
            (
                vec![epoch(1, "a", 10, "a"), tenure(1, "a", 11, None)],
                "two tenures",
            ),
            (
                vec![epoch(1, "a", 10, "a"), epoch(2, "b", 10, "a")],
                "not behind epoch 1",
            ),
            (
                vec![epoch(2, "a", 10, "a"), epoch(1, "b", 20, "a")],
                "not behind epoch 1",
            ),
            (
                vec![lease(1, "a", 500), lease(1, "b", 600)],
                "held by a and by b",
            ),
            (
                vec![lease(2, "b", 500), lease(1, "a", 600)],
                "before the earlier epoch 1",
            ),
            (
                vec![epoch(1, "a", 10, "a"), lease(1, "b", 600)],
                "which is a's",
            ),
        ] {
            let (outcome, found) = judge(ops);
            assert_eq!((outcome, found.len()), (Outcome::Violated, 1), "{found:?}");
            assert!(found[0].contains(word), "{found:?}");
        }
    }
}
