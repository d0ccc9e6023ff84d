//! P3: a new active ATM speaks only after it has applied its BeginEpoch, hence everything before, and its forwarding table
//! holds that.
//!
//! Three things are compared with a tenure's timeline: its own first speech, the begin of its lease, and the frames that were
//! heard. Where a frame does not say of which epoch it is, it belongs to the first one of its ATM after all epochs that others had
//! claimed by then, provided that every epoch in between is known to be another's; otherwise it is counted as unproved.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::leases::leases;
use super::one_voice::frames;
use super::rules::{Rules, ns};
use super::verdict::{Checker, Findings, Verdict, millis};
use crate::history::{Event, Op, Speech, Tenure};

/// Judges the begin of every tenure among `events`.
pub(super) fn check(events: &[Event], rules: &Rules) -> Verdict {
    let known = Known::among(events);
    if known.tenures.is_empty() {
        return Verdict::nothing(Checker::ClaimGate);
    }
    let mut gate = Gate {
        known: &known,
        tolerance: ns(rules.clock_tolerance),
        findings: Findings::default(),
        proved: 0,
        unproved: 0,
    };
    for tenure in known.tenures.values() {
        if tenure.table_index < tenure.index && tenure.claimed_ns.or(tenure.spoke_ns).is_some() {
            gate.findings.add(
                format!(
                    "{} claimed epoch {} with a table of index {}, its BeginEpoch is {}",
                    tenure.atm, tenure.epoch, tenure.table_index, tenure.index
                ),
                timeline(tenure),
            );
        }
        // These are instants of one clock.
        for (what, at) in [
            ("began its lease", tenure.claimed_ns),
            ("spoke", tenure.spoke_ns),
        ] {
            gate.compare(tenure, what, at, 0);
        }
    }
    for (&(epoch, atm), &from) in &lease_begins(events) {
        match known.tenure(epoch, atm) {
            Some(tenure) => gate.compare(tenure, "held the lease", Some(from), 0),
            None => gate.unproved += 1,
        }
    }
    for speech in speeches(events) {
        let tolerance = gate.tolerance;
        match known.belongs_to(&speech) {
            Some(tenure) => gate.compare(tenure, "was heard", Some(speech.at), tolerance),
            None => gate.unproved += 1,
        }
    }
    let summary = format!(
        "{} tenures, {} begins compared, {} without a timeline",
        known.tenures.len(),
        gate.proved,
        gate.unproved
    );
    gate.findings.verdict(Checker::ClaimGate, summary)
}

/// What is known of epochs.
struct Known<'a> {
    /// Timelines, by epoch and ATM.
    tenures: BTreeMap<(u64, &'a str), &'a Tenure>,
    holders: BTreeMap<u64, &'a str>,
    /// From when on an epoch was active.
    claims: Vec<(u64, u64, &'a str)>,
}

/// The first frame of an ATM after another's.
struct Speaking<'a> {
    atm: &'a str,
    at: u64,
    epoch: Option<u64>,
}

struct Gate<'a> {
    known: &'a Known<'a>,
    tolerance: u64,
    findings: Findings,
    proved: u64,
    unproved: u64,
}

impl Gate<'_> {
    fn compare(&mut self, tenure: &Tenure, what: &str, at: Option<u64>, tolerance: u64) {
        let Some(at) = at else { return };
        debug_assert!(self.known.tenure(tenure.epoch, &tenure.atm).is_some());
        self.proved += 1;
        let gates = [
            ("applied its BeginEpoch", tenure.applied_ns),
            ("its table held it", tenure.table_ns),
        ];
        for (gate, open) in gates {
            let early = open.saturating_sub(at);
            if early > tolerance {
                let moments = timeline(tenure)
                    .into_iter()
                    .chain([(at, format!("{} {what}", tenure.atm))]);
                self.findings.add(
                    format!(
                        "{} {what} in epoch {} {} before {gate}",
                        tenure.atm,
                        tenure.epoch,
                        millis(early)
                    ),
                    moments,
                );
            }
        }
    }
}

impl<'a> Known<'a> {
    fn among(events: &'a [Event]) -> Self {
        let mut known = Self {
            tenures: BTreeMap::new(),
            holders: BTreeMap::new(),
            claims: Vec::new(),
        };
        for event in events {
            if let Op::Tenure(tenure) = &event.op {
                known.holders.insert(tenure.epoch, &tenure.atm);
                let key = (tenure.epoch, tenure.atm.as_str());
                // A timeline is read again and again, and fills up.
                known.tenures.insert(key, tenure);
                let begins = tenure.claimed_ns.into_iter().chain(tenure.spoke_ns);
                known
                    .claims
                    .extend(begins.map(|at| (at, tenure.epoch, tenure.atm.as_str())));
            } else if let Op::Epoch { epoch, atm, .. } = &event.op {
                known.holders.insert(*epoch, atm);
            }
        }
        let begins = lease_begins(events);
        known
            .claims
            .extend(begins.iter().map(|(&(epoch, atm), &at)| (at, epoch, atm)));
        known
    }

    fn tenure(&self, epoch: u64, atm: &str) -> Option<&'a Tenure> {
        self.tenures.get(&(epoch, atm)).copied()
    }

    /// The tenure in which `speech` must have been made, if that is certain.
    fn belongs_to(&self, speech: &Speaking<'_>) -> Option<&'a Tenure> {
        if let Some(epoch) = speech.epoch {
            return self.tenure(epoch, speech.atm);
        }
        let others = self
            .claims
            .iter()
            .filter(|(at, _, atm)| *at <= speech.at && *atm != speech.atm)
            .map(|(_, epoch, _)| *epoch);
        // The first epoch of a cluster is 1 at least.
        let past = others.max().unwrap_or(0);
        let mut next = past;
        loop {
            next += 1;
            if *self.holders.get(&next)? == speech.atm {
                return self.tenure(next, speech.atm);
            }
        }
    }
}

/// When each ATM first held the lease of each epoch.
fn lease_begins(events: &[Event]) -> BTreeMap<(u64, &str), u64> {
    let mut begins: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for lease in leases(events).filter(|lease| lease.from_ns < lease.end_ns()) {
        let first = begins
            .entry((lease.epoch, &lease.atm))
            .or_insert(lease.from_ns);
        *first = lease.from_ns.min(*first);
    }
    begins
}

/// The first frame of each voice, and of each epoch where frames tell theirs.
fn speeches(events: &[Event]) -> Vec<Speaking<'_>> {
    let mut found = Vec::new();
    for event in events {
        if let Op::Voice(voice) = &event.op {
            found.push(Speaking {
                atm: &voice.atm,
                at: voice.first_ns,
                epoch: None,
            });
        }
    }
    let mut ordered: Vec<_> = frames(events)
        .filter(|(_, heard)| heard.what != Speech::Relayed)
        .collect();
    ordered.sort_by_key(|(at, _)| *at);
    let mut last: BTreeMap<Ipv4Addr, (&str, Option<u64>)> = BTreeMap::new();
    for (at, heard) in ordered {
        let this = (heard.atm.as_str(), heard.epoch);
        if last.insert(heard.vip, this) != Some(this) {
            found.push(Speaking {
                atm: &heard.atm,
                at,
                epoch: heard.epoch,
            });
        }
    }
    found
}

fn timeline(tenure: &Tenure) -> Vec<(u64, String)> {
    let Tenure {
        atm,
        epoch,
        index,
        table_index,
        ..
    } = tenure;
    vec![
        (
            tenure.applied_ns,
            format!("{atm} applied BeginEpoch of {epoch} at index {index}"),
        ),
        (
            tenure.table_ns,
            format!("{atm}'s table held index {table_index}"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::checkers::testing::{History, judged};
    use crate::history::{Heard, Lease, Voice};

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
    const MS: u64 = 1_000_000;

    /// A tenure that applied at `applied`, whose table held it 10 ms later, and that claimed 20 ms later.
    fn tenure(epoch: u64, atm: &str, applied: u64) -> Tenure {
        Tenure {
            atm: atm.to_owned(),
            epoch,
            index: epoch * 10,
            applied_ns: applied * MS,
            table_index: epoch * 10 + 1,
            table_ns: (applied + 10) * MS,
            claimed_ns: Some((applied + 20) * MS),
            spoke_ns: Some((applied + 21) * MS),
        }
    }

    fn fact(tenure: Tenure) -> Op {
        Op::Tenure(Box::new(tenure))
    }

    fn voice(atm: &str, first: u64) -> Op {
        Op::Voice(Box::new(Voice {
            vip: VIP,
            atm: atm.to_owned(),
            first_ns: first * MS,
            last_ns: (first + 1) * MS,
            first_claim_ns: None,
            first_forward_ns: None,
            last_forward_ns: None,
            frames: 9,
        }))
    }

    fn heard(atm: &str, epoch: Option<u64>) -> Op {
        Op::Heard(Heard {
            vip: VIP,
            atm: atm.to_owned(),
            what: Speech::GratuitousArp,
            epoch,
        })
    }

    fn lease(atm: &str, epoch: u64, from: u64) -> Op {
        Op::Lease(Lease {
            atm: atm.to_owned(),
            epoch,
            from_ns: from * MS,
            until_ns: (from + 50) * MS,
            revoked_ns: None,
        })
    }

    fn judge(ops: Vec<Op>) -> (Outcome, Vec<String>) {
        judged(
            Checker::ClaimGate,
            &History::default().facts((1..).zip(ops)),
        )
    }

    #[test]
    fn tenures_that_wait_at_the_gate_are_accepted() {
        let sound = vec![
            fact(tenure(1, "a", 100)),
            fact(tenure(2, "b", 1000)),
            voice("a", 121),
            voice("b", 1021),
            voice("a", 2121),
            lease("a", 1, 120),
            lease("b", 2, 1020),
            // Epoch 3 was not asked for its timeline: nothing is said of it.
            Op::Epoch {
                epoch: 3,
                atm: "a".to_owned(),
                index: 30,
                seen_by: "b".to_owned(),
            },
            lease("a", 3, 2120),
            fact(tenure(4, "b", 3000)),
            voice("b", 3021),
            // Begun and never spoken.
            fact(Tenure {
                table_index: 0,
                claimed_ns: None,
                spoke_ns: None,
                ..tenure(5, "a", 4000)
            }),
        ];
        assert_eq!(judge(sound), (Outcome::Holds, vec![]));
        assert_eq!(judge(vec![voice("a", 1)]).0, Outcome::NothingToCheck);
    }

    #[test]
    fn whoever_passes_the_gate_too_early_is_found() {
        let before = fact(tenure(1, "b", 10));
        for (ops, word) in [
            (
                vec![fact(Tenure {
                    spoke_ns: Some(1009 * MS),
                    ..tenure(2, "a", 1000)
                })],
                "a spoke in epoch 2 1.000 ms before its table",
            ),
            (
                vec![fact(Tenure {
                    table_index: 19,
                    ..tenure(2, "a", 1000)
                })],
                "table of index 19",
            ),
            (
                vec![fact(tenure(2, "a", 1000)), lease("a", 2, 1009)],
                "held the lease in epoch 2 1.000 ms before its table",
            ),
            (
                vec![
                    before.clone(),
                    fact(tenure(2, "a", 1000)),
                    voice("b", 31),
                    voice("a", 1005),
                ],
                "a was heard in epoch 2 5.000 ms before its table",
            ),
            (
                vec![fact(tenure(1, "a", 1000)), voice("a", 1005)],
                "a was heard in epoch 1 5.000 ms before its table",
            ),
        ] {
            let (outcome, found) = judge(ops);
            assert_eq!((outcome, found.len()), (Outcome::Violated, 1), "{found:?}");
            assert!(found[0].contains(word), "{found:?}");
        }
        // Before even its BeginEpoch: two gates are passed. The frame says its epoch.
        let heard = History::default()
            .fact(1, fact(tenure(2, "a", 1000)))
            .fact(900 * MS, heard("a", Some(2)));
        assert_eq!(judged(Checker::ClaimGate, &heard).1.len(), 2);
    }

    #[test]
    fn a_frame_that_may_belong_to_another_epoch_accuses_nobody() {
        // Epoch 2 is unknown: it may be a's, and its speech may be of that.
        let ops = vec![
            fact(tenure(1, "b", 10)),
            fact(tenure(3, "a", 1000)),
            voice("b", 31),
            voice("a", 500),
        ];
        assert_eq!(judge(ops), (Outcome::Holds, vec![]));
    }
}
