//! P1, by the wire's word: at every instant at most one ATM speaks for a VIP. What counts as a second voice is decided by
//! [`overlaps`]; here it is asked about single frames, and its findings about observations are taken over.
//!
//! From the wire alone, an ATM that gets the VIP back soon cannot be told from two that announce by turns. Where the ATMs' own leases are
//! known, they decide that one question: two tenures, one after the other, are what they look like.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::leases::leases;
use super::rules::{Rules, ns};
use super::verdict::{Checker, Findings, Outcome, Verdict, seconds};
use crate::history::{self, Contradiction, Event, Lease, Op, Speech, TwoVoices, Voice};
use crate::observer::{self, Mac, overlaps};

/// Judges all voices among `events`.
pub(super) fn check(events: &[Event], rules: &Rules) -> Verdict {
    let mut findings = Findings::default();
    let mut holes = Vec::new();
    let (mut frames, mut observations) = (0, 0_u64);
    let mut contradictions = by_frames(events, rules);
    let mut voices = Vec::new();
    for event in events {
        if let Op::TwoVoices(found) = &event.op {
            contradictions.push((event.t_ns, found.as_ref().clone()));
        } else if let Op::Voice(voice) = &event.op {
            voices.push(voice.as_ref());
        } else if let Op::Observation(seen) = event.op {
            observations += 1;
            frames += seen.frames;
            if seen.overflow > 0 || seen.missed > 0 || !seen.complete {
                let end = if seen.complete {
                    ""
                } else {
                    ", its end mark was not heard"
                };
                holes.push(format!(
                    "the observation up to {} has holes: {} frames missed, {} not kept{end}",
                    seconds(event.t_ns),
                    seen.missed,
                    seen.overflow
                ));
            }
        } else if let Op::Heard(_) = event.op {
            frames += 1;
        }
    }
    if frames == 0 && observations == 0 && voices.is_empty() && contradictions.is_empty() {
        return Verdict::nothing(Checker::OneVoice);
    }
    contradictions.sort_by_key(|(t_ns, _)| *t_ns);
    let known: Vec<_> = leases(events).collect();
    let mut quick = 0_u64;
    for (t_ns, found) in &contradictions {
        if quick_takeover(*t_ns, found, &known, ns(rules.clock_tolerance)) {
            quick += 1;
            continue;
        }
        let TwoVoices {
            vip,
            holder,
            other,
            how,
        } = found;
        let did = match how {
            Contradiction::Spoke(speech) => words(*speech).to_owned(),
            Contradiction::Alternated(ns) => format!("took it back after {} us", ns / 1000),
        };
        findings.add(
            format!(
                "{other} spoke for {vip}, which {holder} held, at {}: {did}",
                seconds(*t_ns)
            ),
            [(*t_ns, format!("{other} {did}"))],
        );
    }
    overlapping(voices, &mut findings);
    let summary = format!(
        "{frames} frames in {observations} observations, {quick} quick returns proved by leases"
    );
    let broken = !findings.is_empty();
    let mut verdict = findings.verdict(Checker::OneVoice, summary);
    if !broken && !holes.is_empty() {
        verdict.outcome = Outcome::Invalid(holes.join("; "));
    }
    verdict
}

/// Whether `found` at `t_ns` is a VIP that came back soon, and honestly: who spoke did so in a lease that it got after it had lost the
/// VIP, and the holder's lease, which the loss had begun, had ended before.
fn quick_takeover(t_ns: u64, found: &TwoVoices, leases: &[&Lease], tolerance: u64) -> bool {
    let Contradiction::Alternated(away_ns) = found.how else {
        return false;
    };
    let lost_ns = t_ns.saturating_sub(away_ns);
    let returned = leases.iter().filter(|lease| {
        lease.atm == found.other
            && lease.from_ns > lost_ns
            && lease.from_ns <= t_ns.saturating_add(tolerance)
            && lease.end_ns().saturating_add(tolerance) >= t_ns
    });
    returned.into_iter().any(|returned| {
        leases.iter().any(|between| {
            between.atm == found.holder
                && between.epoch < returned.epoch
                && between.end_ns() > lost_ns
                && between.end_ns() <= returned.from_ns
        })
    })
}

/// What [`overlaps`] finds among single frames.
fn by_frames(events: &[Event], rules: &Rules) -> Vec<(u64, TwoVoices)> {
    // The judgement knows ATMs by their MAC addresses: here a number for each name.
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let mut frames = Vec::new();
    for event in events {
        let Op::Heard(heard) = &event.op else {
            continue;
        };
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let number = *numbers.entry(&heard.atm).or_insert(next);
        frames.push(observer::Event {
            at: event.t_ns,
            source: mac(number),
            vip: heard.vip,
            kind: heard.what.into(),
            flow: None,
        });
    }
    let name = |of: Mac| {
        let mut names = numbers.iter().filter(|(_, number)| mac(**number) == of);
        names
            .next()
            .map_or_else(String::new, |(name, _)| (*name).to_owned())
    };
    overlaps(&frames, &rules.voices)
        .into_iter()
        .map(|found| {
            let how = match found.kind {
                observer::Contradiction::Spoke(kind) => Contradiction::Spoke(kind.into()),
                observer::Contradiction::Alternated(ns) => Contradiction::Alternated(ns),
            };
            let (holder, other) = (name(found.holder), name(found.other));
            (
                found.at,
                TwoVoices {
                    vip: found.vip,
                    holder,
                    other,
                    how,
                },
            )
        })
        .collect()
}

fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

/// Voices of one observation never overlap, by their making; those of several, or of a simulator, may.
fn overlapping(mut voices: Vec<&Voice>, findings: &mut Findings) {
    voices.sort_by_key(|voice| (voice.first_ns, voice.last_ns));
    let mut latest: BTreeMap<Ipv4Addr, &Voice> = BTreeMap::new();
    for voice in voices {
        let before = *latest.entry(voice.vip).or_insert(voice);
        if before.atm != voice.atm && before.last_ns > voice.first_ns {
            findings.add(
                format!(
                    "{} and {} spoke for {} at the same time, from {} on",
                    before.atm,
                    voice.atm,
                    voice.vip,
                    seconds(voice.first_ns)
                ),
                [describe(before), describe(voice)],
            );
        }
        if voice.last_ns >= before.last_ns {
            latest.insert(voice.vip, voice);
        }
    }
}

fn describe(voice: &Voice) -> (u64, String) {
    (
        voice.first_ns,
        format!("{} speaks until {}", voice.atm, seconds(voice.last_ns)),
    )
}

fn words(speech: Speech) -> &'static str {
    match speech {
        Speech::GratuitousArp => "announced itself",
        Speech::ArpAnswer => "answered ARP",
        Speech::ArpQuestion => "asked ARP in its name",
        Speech::Tunnelled => "forwarded a packet by tunnel",
        Speech::Direct => "forwarded a packet directly",
        Speech::Relayed => "handed a packet on",
    }
}

/// Every frame among `events`.
pub(super) fn frames(events: &[Event]) -> impl Iterator<Item = (u64, &history::Heard)> {
    events.iter().filter_map(|event| {
        if let Op::Heard(heard) = &event.op {
            Some((event.t_ns, heard))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, judged};
    use crate::history::{Heard, Observation};

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

    fn heard(atm: &str, what: Speech) -> Op {
        Op::Heard(Heard {
            vip: VIP,
            atm: atm.to_owned(),
            what,
            epoch: None,
        })
    }

    fn observation(missed: u64) -> Op {
        Op::Observation(Observation {
            from_ns: 0,
            frames: 1000,
            overflow: 0,
            missed,
            complete: true,
        })
    }

    fn voice(atm: &str, first_ns: u64, last_ns: u64) -> Op {
        Op::Voice(Box::new(Voice {
            vip: VIP,
            atm: atm.to_owned(),
            first_ns,
            last_ns,
            first_claim_ns: None,
            first_forward_ns: None,
            last_forward_ns: None,
            frames: 9,
        }))
    }

    #[test]
    fn one_voice_at_a_time_is_accepted() {
        use Speech::{GratuitousArp, Relayed, Tunnelled};
        let takeover = History::default()
            .fact(0, heard("a", GratuitousArp))
            .fact(5, heard("a", Tunnelled))
            .fact(10, heard("b", GratuitousArp))
            .fact(11, heard("a", Relayed))
            .fact(12, heard("b", Tunnelled));
        let observed = History::default()
            .fact(9, observation(0))
            .fact(9, voice("a", 0, 5))
            .fact(9, voice("b", 5, 9));
        for history in [takeover, observed] {
            assert_eq!(
                judged(Checker::OneVoice, &history),
                (Outcome::Holds, vec![])
            );
        }
        assert_eq!(
            judged(Checker::OneVoice, &History::default()).0,
            Outcome::NothingToCheck
        );
    }

    #[test]
    fn second_voices_are_found() {
        use Speech::{GratuitousArp, Tunnelled};
        let stale = History::default()
            .fact(0, heard("a", GratuitousArp))
            .fact(10, heard("b", GratuitousArp))
            .fact(11, heard("a", Tunnelled));
        let found = TwoVoices {
            vip: VIP,
            holder: "b".to_owned(),
            other: "a".to_owned(),
            how: Contradiction::Spoke(Tunnelled),
        };
        let observed = History::default()
            .fact(9, observation(0))
            .fact(7, Op::TwoVoices(Box::new(found.clone())));
        // What was heard through holes was heard all the same.
        let with_holes = History::default()
            .fact(9, observation(4))
            .fact(7, Op::TwoVoices(Box::new(found)));
        let apart = History::default()
            .fact(9, voice("a", 0, 6))
            .fact(9, voice("b", 5, 9));
        let inside = History::default().facts([
            (9, voice("a", 0, 9)),
            (9, voice("a", 1, 2)),
            (9, voice("b", 5, 6)),
        ]);
        for history in [stale, observed, with_holes, apart, inside] {
            let (outcome, found) = judged(Checker::OneVoice, &history);
            assert_eq!((outcome, found.len()), (Outcome::Violated, 1), "{found:?}");
        }
    }

    fn lease(atm: &str, epoch: u64, from_ns: u64, until_ns: u64) -> Op {
        Op::Lease(Lease {
            atm: atm.to_owned(),
            epoch,
            from_ns,
            until_ns,
            revoked_ns: None,
        })
    }

    /// a held, b took it at 10 ms, a took it back at 80 ms. What it comes to depends on the leases.
    #[test]
    fn a_quick_return_is_judged_by_the_leases() {
        const MS: u64 = 1_000_000;
        let returned = TwoVoices {
            vip: VIP,
            holder: "b".to_owned(),
            other: "a".to_owned(),
            how: Contradiction::Alternated(70 * MS),
        };
        let wire = History::default()
            .fact(90 * MS, observation(0))
            .fact(80 * MS, Op::TwoVoices(Box::new(returned)));
        let tenures = |a_again: u64, b_until: u64| {
            wire.clone().facts([
                (0, lease("a", 1, 0, 8 * MS)),
                (9 * MS, lease("b", 2, 9 * MS, b_until)),
                (a_again, lease("a", 3, a_again, 200 * MS)),
            ])
        };
        for (what, history, outcome) in [
            ("no leases are known", wire.clone(), Outcome::Violated),
            (
                "one after the other",
                tenures(79 * MS, 60 * MS),
                Outcome::Holds,
            ),
            (
                "b had not ended",
                tenures(79 * MS, 79 * MS + 1),
                Outcome::Violated,
            ),
            (
                "a spoke before its lease",
                tenures(82 * MS, 60 * MS),
                Outcome::Violated,
            ),
            (
                "a never stopped",
                wire.clone().facts([
                    (0, lease("a", 1, 0, 200 * MS)),
                    (9 * MS, lease("b", 2, 9 * MS, 60 * MS)),
                ]),
                Outcome::Violated,
            ),
        ] {
            let (found, findings) = judged(Checker::OneVoice, &history);
            assert_eq!(found, outcome, "{what}: {findings:?}");
        }
    }

    #[test]
    fn holes_prove_nothing() {
        let history = History::default().fact(9, observation(4));
        assert!(matches!(
            judged(Checker::OneVoice, &history).0,
            Outcome::Invalid(_)
        ));
    }
}
