//! A set that only grows: whatever was acknowledged before a read began is in it, and nothing is in it that nobody added.

use std::collections::{BTreeMap, BTreeSet};

use super::verdict::{Checker, Findings, Outcome, Verdict, seconds};
use crate::history::{Op, Operation, Outcome as Done};

/// What became of the addition of one element.
#[derive(Clone, Copy)]
struct Addition {
    process: u64,
    begun_ns: u64,
    acknowledged_ns: Option<u64>,
    failed: bool,
}

/// Judges the set among `operations`.
pub(super) fn check(operations: &[Operation<'_>]) -> Verdict {
    let mut findings = Findings::default();
    let mut additions: BTreeMap<u64, Addition> = BTreeMap::new();
    let mut reads = Vec::new();
    for operation in operations {
        if let Op::SetAdd { element } = *operation.invoked {
            let addition = Addition {
                process: operation.process,
                begun_ns: operation.call_ns,
                acknowledged_ns: match operation.outcome {
                    Done::Ok { return_ns, .. } => Some(return_ns),
                    Done::Fail | Done::Unknown => None,
                },
                failed: operation.outcome == Done::Fail,
            };
            if additions.insert(element, addition).is_some() {
                return Verdict::invalid(
                    Checker::Set,
                    format!("element {element} was added twice"),
                );
            }
        } else if let Done::Ok {
            return_ns,
            result: Op::SetRead { elements },
        } = operation.outcome
        {
            reads.push((operation, return_ns, elements));
        }
    }
    if additions.is_empty() && reads.is_empty() {
        return Verdict::nothing(Checker::Set);
    }
    let acknowledged = || {
        additions
            .values()
            .filter_map(|addition| addition.acknowledged_ns)
    };
    let last = acknowledged().max();
    for &(read, return_ns, elements) in &reads {
        let reader = || {
            (
                read.call_ns,
                format!(
                    "process {} reads the set, until {}",
                    read.process,
                    seconds(return_ns)
                ),
            )
        };
        let mut present = BTreeSet::new();
        for element in elements {
            if !present.insert(*element) {
                findings.add(format!("element {element} is in the set twice"), [reader()]);
            }
            let unexpected = match additions.get(element) {
                None => "nobody added it".to_owned(),
                Some(addition) if addition.failed => {
                    format!("adding it had failed for process {}", addition.process)
                }
                Some(addition) if addition.begun_ns > return_ns => {
                    "it was added only later".to_owned()
                }
                Some(_) => continue,
            };
            findings.add(
                format!("element {element} is in the set, but {unexpected}"),
                [reader()],
            );
        }
        for (element, addition) in &additions {
            let Some(at) = addition.acknowledged_ns.filter(|at| *at < read.call_ns) else {
                continue;
            };
            if !present.contains(element) {
                let added = (
                    at,
                    format!(
                        "process {}: adding {element} acknowledged",
                        addition.process
                    ),
                );
                findings.add(format!("element {element} is lost: it was acknowledged at {}, and a read begun later does not have it", seconds(at)), [added, reader()]);
            }
        }
    }
    let covered = last.is_none_or(|last| reads.iter().any(|(read, ..)| read.call_ns > last));
    let summary = format!(
        "{} elements acknowledged of {}, {} reads",
        acknowledged().count(),
        additions.len(),
        reads.len()
    );
    let broken = !findings.is_empty();
    let mut verdict = findings.verdict(Checker::Set, summary);
    if !broken && !covered {
        verdict.outcome =
            Outcome::Invalid("no read of the set began after the last acknowledgement".to_owned());
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, judged};
    use crate::history::Kind::{Fail, Info, Invoke, Ok};

    fn add(element: u64) -> Op {
        Op::SetAdd { element }
    }

    fn read(elements: &[u64]) -> Op {
        Op::SetRead {
            elements: elements.to_vec(),
        }
    }

    /// 1 acknowledged, 2 unknown, 3 failed, then the set is read.
    fn history(elements: &[u64]) -> History {
        History::default()
            .event(1, 1, Invoke, add(1))
            .event(2, 2, Invoke, add(2))
            .event(3, 1, Ok, add(1))
            .event(4, 2, Info, add(2))
            .event(5, 3, Invoke, add(3))
            .event(6, 3, Fail, add(3))
            .event(7, 1, Invoke, read(&[]))
            .event(9, 1, Ok, read(elements))
    }

    #[test]
    fn sound_sets_are_accepted() {
        for history in [history(&[1]), history(&[1, 2]), history(&[2, 1])] {
            assert_eq!(judged(Checker::Set, &history), (Outcome::Holds, vec![]));
        }
        // An addition that touches the read may be missing in it, or be in it.
        for elements in [&[1_u64][..], &[1, 4]] {
            let history = history(elements)
                .event(8, 4, Invoke, add(4))
                .event(10, 4, Ok, add(4));
            let history = history
                .event(11, 5, Invoke, read(&[]))
                .event(12, 5, Ok, read(&[1, 4]));
            assert_eq!(judged(Checker::Set, &history), (Outcome::Holds, vec![]));
        }
    }

    #[test]
    fn every_kind_of_wrong_set_is_found() {
        for (elements, word) in [
            (&[2_u64][..], "element 1 is lost"),
            (&[1, 3], "had failed"),
            (&[1, 9], "nobody added it"),
            (&[1, 1], "twice"),
        ] {
            let (outcome, found) = judged(Checker::Set, &history(elements));
            assert_eq!(outcome, Outcome::Violated);
            assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
        }
        let later = history(&[1, 4]).event(10, 4, Invoke, add(4));
        let (_, found) = judged(Checker::Set, &later);
        assert!(found[0].contains("only later"), "{found:?}");
    }

    #[test]
    fn without_a_read_at_the_end_nothing_is_proved() {
        let history = history(&[1])
            .event(10, 4, Invoke, add(4))
            .event(11, 4, Ok, add(4));
        assert!(matches!(
            judged(Checker::Set, &history).0,
            Outcome::Invalid(_)
        ));
        assert_eq!(
            judged(Checker::Set, &History::default()).0,
            Outcome::NothingToCheck
        );
    }
}
