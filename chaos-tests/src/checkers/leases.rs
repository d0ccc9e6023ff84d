//! P1, by the ATMs' own word: the intervals in which they were allowed to speak never overlap.

use std::collections::BTreeMap;

use super::verdict::{Checker, Findings, Verdict, millis, seconds};
use crate::history::{Event, Lease, Op};

/// Whose interval it is.
type Owner<'a> = (&'a str, u64);

/// An interval seen, with its exclusive end.
#[derive(Clone, Copy)]
struct Held<'a> {
    owner: Owner<'a>,
    from: u64,
    end: u64,
}

/// Judges every lease among `events`. Those of one ATM and epoch may overlap: they are one lease, extended.
pub(super) fn check(events: &[Event]) -> Verdict {
    let mut intervals: Vec<_> = leases(events)
        .map(|lease| Held {
            owner: (&lease.atm, lease.epoch),
            from: lease.from_ns,
            end: lease.end_ns(),
        })
        .filter(|held| held.from < held.end)
        .collect();
    if intervals.is_empty() {
        return Verdict::nothing(Checker::Leases);
    }
    intervals.sort_by_key(|held| (held.from, held.end));
    let mut findings = Findings::default();
    // For each owner the interval that lasts longest so far. Only owners whose lease has not ended stay in it.
    let mut open: BTreeMap<Owner<'_>, Held<'_>> = BTreeMap::new();
    for held in &intervals {
        open.retain(|_, other| other.end > held.from);
        for other in open.values().filter(|other| other.owner != held.owner) {
            let overlap = other.end.min(held.end) - held.from;
            findings.add(
                format!(
                    "{} held the lease of epoch {} while {} held that of epoch {}: {} from {} on",
                    held.owner.0,
                    held.owner.1,
                    other.owner.0,
                    other.owner.1,
                    millis(overlap),
                    seconds(held.from)
                ),
                [describe(other), describe(held)],
            );
        }
        let longest = open.entry(held.owner).or_insert(*held);
        if longest.end < held.end {
            *longest = *held;
        }
    }
    let summary = format!("{} intervals", intervals.len());
    findings.verdict(Checker::Leases, summary)
}

/// Every lease among `events`.
pub(super) fn leases(events: &[Event]) -> impl Iterator<Item = &Lease> {
    events.iter().filter_map(|event| {
        if let Op::Lease(lease) = &event.op {
            Some(lease)
        } else {
            None
        }
    })
}

fn describe(held: &Held<'_>) -> (u64, String) {
    let (atm, epoch) = held.owner;
    (
        held.from,
        format!(
            "{atm} holds the lease of epoch {epoch} until {}",
            seconds(held.end)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::checkers::testing::{History, judged};

    /// Leases from words such as `atm1/3:10-20` or `atm1/3:10-20x15` (given up at 15).
    fn history(text: &str) -> History {
        let lease = |word: &str| {
            let (atm, rest) = word.split_once('/').unwrap();
            let (epoch, rest) = rest.split_once(':').unwrap();
            let (from, rest) = rest.split_once('-').unwrap();
            let (until, revoked) = rest.split_once('x').unwrap_or((rest, ""));
            let lease = Lease {
                atm: atm.to_owned(),
                epoch: epoch.parse().unwrap(),
                from_ns: from.parse().unwrap(),
                until_ns: until.parse().unwrap(),
                revoked_ns: revoked.parse().ok(),
            };
            (lease.from_ns, Op::Lease(lease))
        };
        History::default().facts(text.split_whitespace().map(lease))
    }

    #[test]
    fn leases_that_follow_each_other_are_accepted() {
        for text in [
            "a/1:0-10 b/2:10-20 a/3:25-30",
            "a/1:0-10 a/1:5-15 a/1:7-12 b/2:15-16",
            "a/1:0-100x50 b/2:50-60",
            // Given up before it began: never held.
            "a/1:0-10 b/2:5-20x5 c/3:10-20",
            // Given up after its deadline.
            "a/1:0-10x30 b/2:10-20",
        ] {
            assert_eq!(
                judged(Checker::Leases, &history(text)),
                (Outcome::Holds, vec![]),
                "{text}"
            );
        }
        assert_eq!(
            judged(Checker::Leases, &history("")).0,
            Outcome::NothingToCheck
        );
    }

    #[test]
    fn overlaps_are_found() {
        for (text, count) in [
            ("a/1:0-10 b/2:9-20", 1),
            ("b/2:9-20 a/1:0-10", 1),
            ("a/1:0-100x50 b/2:49-60", 1),
            ("a/1:0-100 a/1:5-15 b/2:50-60", 1),
            // Two tenures of one ATM: the deadline of one extended the other.
            ("a/1:0-10 a/2:9-20", 1),
            ("a/1:0-10 b/2:1-9 c/3:2-8", 3),
            ("a/1:5-6 b/2:5-6", 1),
        ] {
            let (outcome, found) = judged(Checker::Leases, &history(text));
            assert_eq!(
                (outcome, found.len()),
                (Outcome::Violated, count),
                "{text}: {found:?}"
            );
        }
    }
}
