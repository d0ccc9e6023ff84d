//! What the observer heard, as facts of a history.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::event::{Event, HARNESS, Kind};
use super::facts::{Contradiction, Observation, Speech, TwoVoices, Voice};
use super::op::Op;
use crate::observer::{self, Mac, Rules};

/// Turns an observation into facts.
pub struct Observed<'a> {
    /// What the observer returned.
    pub observation: &'a observer::Observation,
    /// How strict the judgement is.
    pub rules: Rules,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, in nanoseconds: the observer stamps frames with the former.
    pub realtime_offset_ns: i128,
    /// The name of each ATM.
    pub names: &'a BTreeMap<Mac, String>,
    /// When the observation began, CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// When it ended.
    pub to_ns: u64,
}

impl Observed<'_> {
    /// One [`Op::Observation`], each [`Op::Voice`], each [`Op::TwoVoices`].
    #[must_use]
    pub fn facts(&self) -> Vec<Event> {
        let seen = Op::Observation(Observation {
            from_ns: self.from_ns,
            frames: u64::try_from(self.observation.events.len()).unwrap_or(u64::MAX),
            overflow: self.observation.overflow,
            missed: self.observation.missed,
            complete: self.observation.complete,
        });
        let voices = observer::voices(&self.observation.events)
            .into_iter()
            .map(|voice| self.voice(&voice));
        let contradictions = observer::overlaps(&self.observation.events, &self.rules)
            .into_iter()
            .map(|found| self.contradiction(&found));
        [(self.to_ns, seen)]
            .into_iter()
            .chain(voices)
            .chain(contradictions)
            .map(|(t_ns, op)| Event {
                t_ns,
                process: HARNESS,
                kind: Kind::Info,
                op,
            })
            .collect()
    }

    fn voice(&self, voice: &observer::Voice) -> (u64, Op) {
        let at = |at: Option<u64>| at.map(|at| self.monotonic(at));
        let fact = Voice {
            vip: voice.vip,
            atm: self.name(&voice.mac),
            first_ns: self.monotonic(voice.first),
            last_ns: self.monotonic(voice.last),
            first_claim_ns: at(voice.first_claim),
            first_forward_ns: at(voice.first_forward),
            last_forward_ns: at(voice.last_forward),
            frames: voice.frames,
        };
        (fact.last_ns, Op::Voice(Box::new(fact)))
    }

    fn contradiction(&self, found: &observer::TwoVoices) -> (u64, Op) {
        let fact = TwoVoices {
            vip: found.vip,
            holder: self.name(&found.holder),
            other: self.name(&found.other),
            how: match found.kind {
                observer::Contradiction::Spoke(kind) => Contradiction::Spoke(kind.into()),
                observer::Contradiction::Alternated(ns) => Contradiction::Alternated(ns),
            },
        };
        (self.monotonic(found.at), Op::TwoVoices(Box::new(fact)))
    }

    fn monotonic(&self, realtime: u64) -> u64 {
        u64::try_from(i128::from(realtime) - self.realtime_offset_ns).unwrap_or(0)
    }

    fn name(&self, mac: &Mac) -> String {
        self.names.get(mac).cloned().unwrap_or_else(|| {
            mac.iter()
                .enumerate()
                .fold(String::new(), |mut text, (at, byte)| {
                    let colon = if at == 0 { "" } else { ":" };
                    let _ = write!(text, "{colon}{byte:02x}");
                    text
                })
        })
    }
}

impl From<observer::Kind> for Speech {
    fn from(kind: observer::Kind) -> Self {
        match kind {
            observer::Kind::GratuitousArp => Self::GratuitousArp,
            observer::Kind::ArpAnswer => Self::ArpAnswer,
            observer::Kind::ArpQuestion => Self::ArpQuestion,
            observer::Kind::Tunnelled => Self::Tunnelled,
            observer::Kind::Direct => Self::Direct,
            observer::Kind::Relayed => Self::Relayed,
        }
    }
}

impl From<Speech> for observer::Kind {
    fn from(speech: Speech) -> Self {
        match speech {
            Speech::GratuitousArp => Self::GratuitousArp,
            Speech::ArpAnswer => Self::ArpAnswer,
            Speech::ArpQuestion => Self::ArpQuestion,
            Speech::Tunnelled => Self::Tunnelled,
            Speech::Direct => Self::Direct,
            Speech::Relayed => Self::Relayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn voices_and_contradictions_become_facts_on_the_axis_of_the_run() {
        const OFFSET: i128 = 1_700_000_000_000_000_000;
        let (one, two) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0xab]);
        let frame = |at: u64, source, kind| observer::Event {
            at: u64::try_from(OFFSET).unwrap() + at,
            source,
            vip: Ipv4Addr::new(10, 1, 0, 100),
            kind,
            flow: None,
        };
        let observation = observer::Observation {
            events: vec![
                frame(10, one, observer::Kind::GratuitousArp),
                frame(20, one, observer::Kind::Tunnelled),
                frame(30, two, observer::Kind::Tunnelled),
            ],
            complete: true,
            ..observer::Observation::default()
        };
        let facts = Observed {
            observation: &observation,
            rules: Rules::default(),
            realtime_offset_ns: OFFSET,
            names: &BTreeMap::from([(one, "atm1".to_owned())]),
            from_ns: 5,
            to_ns: 40,
        }
        .facts();
        let [seen, first, second, two_voices] = facts.as_slice() else {
            panic!("{facts:?}")
        };
        assert_eq!(
            (seen.t_ns, &seen.op),
            (
                40,
                &Op::Observation(Observation {
                    from_ns: 5,
                    frames: 3,
                    overflow: 0,
                    missed: 0,
                    complete: true
                })
            )
        );
        let Op::Voice(voice) = &first.op else {
            panic!("{first:?}")
        };
        assert_eq!(
            (
                voice.atm.as_str(),
                voice.first_ns,
                voice.last_ns,
                voice.first_claim_ns,
                voice.first_forward_ns
            ),
            ("atm1", 10, 20, Some(10), Some(20))
        );
        let Op::Voice(voice) = &second.op else {
            panic!("{second:?}")
        };
        assert_eq!((voice.atm.as_str(), voice.frames), ("02:00:00:00:00:ab", 1));
        let Op::TwoVoices(found) = &two_voices.op else {
            panic!("{two_voices:?}")
        };
        assert_eq!(
            (two_voices.t_ns, found.how),
            (30, Contradiction::Spoke(Speech::Tunnelled))
        );
    }
}
