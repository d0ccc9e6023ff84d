//! P4: two ATMs at the same applied index have the same state.

use std::collections::BTreeMap;

use super::verdict::{Checker, Findings, Verdict};
use crate::history::{Event, Op};

/// Judges every digest among `events`.
pub(super) fn check(events: &[Event]) -> Verdict {
    let mut first: BTreeMap<u64, (u64, &str, &str)> = BTreeMap::new();
    let (mut digests, mut compared) = (0_u64, 0_u64);
    let mut findings = Findings::default();
    for event in events {
        let Op::Digest {
            atm,
            applied,
            digest,
        } = &event.op
        else {
            continue;
        };
        digests += 1;
        let (t_ns, other, expected) = *first.entry(*applied).or_insert((event.t_ns, atm, digest));
        compared += u64::from(other != atm);
        if expected != digest {
            findings.add(
                format!("at index {applied} {atm} and {other} differ"),
                [
                    (t_ns, format!("{other} at index {applied}: {expected}")),
                    (event.t_ns, format!("{atm} at index {applied}: {digest}")),
                ],
            );
        }
    }
    if digests == 0 {
        return Verdict::nothing(Checker::Digests);
    }
    let summary = format!(
        "{digests} digests of {} indices, {compared} compared between ATMs",
        first.len()
    );
    findings.verdict(Checker::Digests, summary)
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::checkers::testing::{History, judged};

    fn history(digests: &[(&str, u64, &str)]) -> History {
        let ops = digests.iter().map(|&(atm, applied, digest)| Op::Digest {
            atm: atm.to_owned(),
            applied,
            digest: digest.to_owned(),
        });
        History::default().facts((1..).zip(ops))
    }

    #[test]
    fn the_same_index_must_have_the_same_digest() {
        let sound = [
            ("atm1", 5, "a"),
            ("atm2", 5, "a"),
            ("atm1", 6, "b"),
            ("atm3", 7, "a"),
            ("atm3", 5, "a"),
        ];
        assert_eq!(
            judged(Checker::Digests, &history(&sound)),
            (Outcome::Holds, vec![])
        );
        let mut drifted = sound.to_vec();
        drifted.push(("atm3", 6, "c"));
        let expected = vec!["at index 6 atm3 and atm1 differ".to_owned()];
        assert_eq!(
            judged(Checker::Digests, &history(&drifted)),
            (Outcome::Violated, expected)
        );
        // An ATM that contradicts itself has a state that its log does not explain.
        let (outcome, _) = judged(
            Checker::Digests,
            &history(&[("atm1", 5, "a"), ("atm1", 5, "b")]),
        );
        assert_eq!(outcome, Outcome::Violated);
        assert_eq!(
            judged(Checker::Digests, &history(&[])).0,
            Outcome::NothingToCheck
        );
    }
}
