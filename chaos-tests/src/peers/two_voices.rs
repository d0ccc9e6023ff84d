//! For how long two routers spoke for the VIP. Pure.
//!
//! A router speaks from one frame in the VIP's name to the next if they are at most [`BREATH`] apart: it is asked by ARP
//! every [`ASKED_EVERY`], so a longer silence means that it does not hold the VIP. Two voices last as long as such times of
//! two routers overlap. An orderly takeover (all frames of the old router, then all of the new one) has no overlap, however
//! short the pause between them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observer::{Event, Kind, Mac};

/// How often every router that believes to hold the VIP has to say so.
pub(super) const ASKED_EVERY: Duration = Duration::from_millis(2);

/// The longest pause between two frames of one speech: a dozen questions.
const BREATH: Duration = Duration::from_millis(25);

/// A stretch of time, in nanoseconds since 1970.
type Span = (u64, u64);

/// Two voices in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TwoVoices {
    /// For how long, in nanoseconds.
    pub(super) ns: u64,
    /// Whether there were still two when the stretch ended.
    pub(super) to_the_end: bool,
}

/// How long two or more routers spoke at once in `events` from `from` to `to`. Frames of a second router between those of the
/// first count for [`ASKED_EVERY`] at least. `events` need no order; relayed frames are no voice.
pub(super) fn two_voices(events: &[Event], from: u64, to: u64) -> TwoVoices {
    let speeches = speeches(events, from, to);
    let least = nanos(ASKED_EVERY);
    let mut both: Vec<Span> = Vec::new();
    for (n, (mac, speech)) in speeches.iter().enumerate() {
        for (_, other) in speeches.iter().skip(n + 1).filter(|(m, _)| m != mac) {
            let (begin, end) = (speech.0.max(other.0), speech.1.min(other.1));
            // Frames of one instant are in no order.
            if begin <= end && speech != other {
                both.push((begin, end.max(begin + least)));
            }
        }
    }
    both.sort_unstable();
    let (mut sum, mut until) = (0, 0);
    for (begin, end) in both {
        sum += end.saturating_sub(begin.max(until));
        until = until.max(end);
    }
    TwoVoices {
        ns: sum,
        to_the_end: sum > 0 && until + nanos(BREATH) >= to,
    }
}

fn speeches(events: &[Event], from: u64, to: u64) -> Vec<(Mac, Span)> {
    let mut of: BTreeMap<Mac, Vec<u64>> = BTreeMap::new();
    let voices = events.iter().filter(|e| e.kind != Kind::Relayed);
    for event in voices.filter(|e| (from..=to).contains(&e.at)) {
        of.entry(event.source).or_default().push(event.at);
    }
    let breath = nanos(BREATH);
    let mut speeches: Vec<(Mac, Span)> = Vec::new();
    for (mac, mut times) in of {
        times.sort_unstable();
        let mut spans: Vec<Span> = Vec::new();
        for at in times {
            match spans.last_mut() {
                Some(last) if at - last.1 <= breath => last.1 = at,
                _ => spans.push((at, at)),
            }
        }
        speeches.extend(spans.into_iter().map(|span| (mac, span)));
    }
    speeches
}

/// The only router that spoke between `from` and `to`; `None` if none did, or several.
pub(super) fn only_voice(events: &[Event], from: u64, to: u64) -> Option<Mac> {
    let mut heard = events
        .iter()
        .filter(|e| e.kind != Kind::Relayed && (from..=to).contains(&e.at))
        .map(|e| e.source);
    let first = heard.next()?;
    heard.all(|mac| mac == first).then_some(first)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MS: u64 = 1_000_000;

    fn answers(name: u8, times: impl IntoIterator<Item = u64>) -> Vec<Event> {
        let at = |ms: u64| Event {
            at: ms * MS,
            source: [2, 0, 0, 0, 0, name],
            vip: Ipv4Addr::new(10, 1, 0, 100),
            kind: Kind::ArpAnswer,
            flow: None,
        };
        times.into_iter().map(at).collect()
    }

    fn ms(parts: &[Vec<Event>]) -> u64 {
        two_voices(&parts.concat(), 0, u64::MAX).ns / MS
    }

    #[test]
    fn a_takeover_is_one_voice_however_quick() {
        let old = answers(1, (0..100).step_by(2));
        assert_eq!(ms(&[old.clone(), answers(2, (99..200).step_by(2))]), 0);
        assert_eq!(ms(&[old.clone(), answers(2, (300..400).step_by(2))]), 0);
        assert_eq!(ms(&[old]), 0);
        assert_eq!(ms(&[]), 0);
    }

    #[test]
    fn two_that_answer_are_two_voices_for_as_long_as_they_do() {
        let old = answers(1, (0..100).step_by(2));
        let new = answers(2, (50..200).step_by(2));
        assert_eq!(ms(&[old.clone(), new.clone()]), 48);
        let third = answers(3, (60..90).step_by(2));
        assert_eq!(ms(&[old, new, third]), 48, "two or more count once");
    }

    #[test]
    fn what_has_not_ended_is_said_to_last() {
        let both = [
            answers(1, (0..100).step_by(2)),
            answers(2, (50..200).step_by(2)),
        ]
        .concat();
        assert!(two_voices(&both, 0, 90 * MS).to_the_end);
        assert!(!two_voices(&both, 0, 190 * MS).to_the_end);
    }

    #[test]
    fn a_single_frame_counts_as_long_as_a_question() {
        let new = answers(2, (0..200).step_by(2));
        assert_eq!(ms(&[new.clone(), answers(1, [101])]), 2);
        assert_eq!(ms(&[new, answers(1, [101, 150])]), 4);
    }

    #[test]
    fn by_turns_with_pauses_is_one_voice_at_a_time() {
        let (first, again) = (
            answers(1, (0..100).step_by(2)),
            answers(1, (300..400).step_by(2)),
        );
        assert_eq!(ms(&[first, answers(2, (150..250).step_by(2)), again]), 0);
    }

    #[test]
    fn relayed_frames_are_no_voice() {
        let mut relayed = answers(1, [50]);
        relayed[0].kind = Kind::Relayed;
        assert_eq!(ms(&[relayed, answers(2, (0..100).step_by(2))]), 0);
    }

    #[test]
    fn the_only_voice_is_known_only_where_there_is_one() {
        let (one, two) = (answers(1, [1, 5]), answers(2, [7]));
        let both = [one.clone(), two].concat();
        assert_eq!(only_voice(&both, 0, 6 * MS), Some(one[0].source));
        assert_eq!(only_voice(&both, 0, 8 * MS), None);
        assert_eq!(only_voice(&both, 8 * MS, 9 * MS), None);
    }
}
