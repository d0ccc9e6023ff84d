//! The judgement: did ever two ATMs speak for one VIP? Pure.
//!
//! A gratuitous ARP by another than the holder begins a *tenure*: from then on only that ATM may speak, until another
//! begins one. A frame of anybody else in between is a second voice. The holder's own repeated announcements begin nothing.
//! Two ATMs that announce by turns would look like a row of takeovers, so a tenure that returns to an ATM sooner than
//! [`Rules::tenure_min`] after it lost the VIP is reported as well.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::event::{Event, Kind, Mac};

/// Default of [`Rules::tenure_min`]. The VIP cannot honestly leave an ATM and return to it in less: that is two elections.
pub const TENURE_MIN: Duration = Duration::from_millis(100);

/// Contradictions reported at most; one is enough to fail, and a broken lease would give one per packet.
pub const OVERLAPS_MAX: usize = 1000;

/// How strict the judgement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The shortest time after which an ATM may hold a VIP again that another has taken from it.
    pub tenure_min: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            tenure_min: TENURE_MIN,
        }
    }
}

/// Two ATMs spoke for one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoVoices {
    /// When the second voice was heard: nanoseconds since 1970.
    pub at: u64,
    /// The VIP.
    pub vip: Ipv4Addr,
    /// Who held it.
    pub holder: Mac,
    /// Who spoke.
    pub other: Mac,
    /// What it did.
    pub kind: Contradiction,
}

/// How two voices were noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// A frame of this kind from an ATM that does not hold the VIP.
    Spoke(Kind),
    /// A takeover by the ATM that lost the VIP only this many nanoseconds before.
    Alternated(u64),
}

/// Consecutive frames of one ATM for one VIP. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// Who spoke.
    pub mac: Mac,
    /// Its first frame.
    pub first: u64,
    /// Its last frame.
    pub last: u64,
    /// Its first gratuitous ARP.
    pub first_claim: Option<u64>,
    /// Its first forwarded packet.
    pub first_forward: Option<u64>,
    /// Its last forwarded packet.
    pub last_forward: Option<u64>,
    /// Number of its frames.
    pub frames: u64,
}

/// Who spoke when, in the order of their first frames. Relayed frames are no voice. `events` need no order.
#[must_use]
pub fn voices(events: &[Event]) -> Vec<Voice> {
    let mut finished = Vec::new();
    let mut current: BTreeMap<Ipv4Addr, Voice> = BTreeMap::new();
    for event in in_time(events) {
        match current.get_mut(&event.vip) {
            Some(voice) if voice.mac == event.source => voice.hear(event),
            _ => finished.extend(current.insert(event.vip, Voice::begin(event))),
        }
    }
    finished.extend(current.into_values());
    finished.sort_by_key(|v: &Voice| v.first);
    finished
}

/// Every contradiction in `events`, earliest first, at most [`OVERLAPS_MAX`]. `events` need no order.
///
/// The first ATM heard counts as the holder, whatever it says: an observation may begin in the middle of a tenure.
#[must_use]
pub fn overlaps(events: &[Event], rules: &Rules) -> Vec<TwoVoices> {
    let tenure_min = u64::try_from(rules.tenure_min.as_nanos()).unwrap_or(u64::MAX);
    let mut found = Vec::new();
    let mut holders: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
    let mut lost: BTreeMap<(Ipv4Addr, Mac), u64> = BTreeMap::new();
    for event in in_time(events) {
        let &mut holder = holders.entry(event.vip).or_insert(event.source);
        if holder == event.source {
            continue;
        }
        let contradiction = if event.kind == Kind::GratuitousArp {
            holders.insert(event.vip, event.source);
            lost.insert((event.vip, holder), event.at);
            let away = lost.get(&(event.vip, event.source)).map(|at| event.at - at);
            away.filter(|away| *away < tenure_min)
                .map(Contradiction::Alternated)
        } else {
            Some(Contradiction::Spoke(event.kind))
        };
        if let Some(kind) = contradiction {
            found.push(TwoVoices {
                at: event.at,
                vip: event.vip,
                holder,
                other: event.source,
                kind,
            });
            if found.len() == OVERLAPS_MAX {
                break;
            }
        }
    }
    found
}

/// The voices among `events` in the order of time. Frames of several processors may arrive slightly out of order.
fn in_time(events: &[Event]) -> Vec<&Event> {
    let mut ordered: Vec<_> = events.iter().filter(|e| e.kind != Kind::Relayed).collect();
    ordered.sort_by_key(|e| e.at);
    ordered
}

impl Voice {
    fn begin(event: &Event) -> Self {
        let mut voice = Self {
            vip: event.vip,
            mac: event.source,
            first: event.at,
            last: event.at,
            first_claim: None,
            first_forward: None,
            last_forward: None,
            frames: 0,
        };
        voice.hear(event);
        voice
    }

    fn hear(&mut self, event: &Event) {
        self.last = event.at;
        self.frames += 1;
        match event.kind {
            Kind::GratuitousArp => self.first_claim = self.first_claim.or(Some(event.at)),
            Kind::Tunnelled | Kind::Direct => {
                self.first_forward = self.first_forward.or(Some(event.at));
                self.last_forward = Some(event.at);
            }
            Kind::ArpAnswer | Kind::ArpQuestion | Kind::Relayed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
    const MS: u64 = 1_000_000;

    fn mac(name: char) -> Mac {
        [2, 0, 0, 0, 0, u8::try_from(name).unwrap()]
    }

    /// Events from words such as `A0!` (gratuitous ARP by A at 0 ms), `B5?` (answer), `A7>` (tunnelled), `A7=` (relayed).
    fn heard(text: &str) -> Vec<Event> {
        let event = |word: &str| {
            let (name, rest) = word.split_at(1);
            let (time, kind) = rest.split_at(rest.len() - 1);
            Event {
                at: time.parse::<u64>().unwrap() * MS,
                source: mac(name.chars().next().unwrap()),
                vip: VIP,
                kind: match kind {
                    "!" => Kind::GratuitousArp,
                    "?" => Kind::ArpAnswer,
                    ">" => Kind::Tunnelled,
                    "=" => Kind::Relayed,
                    other => panic!("{other}"),
                },
                flow: None,
            }
        };
        text.split_whitespace().map(event).collect()
    }

    fn judged(text: &str) -> Vec<(u64, Contradiction)> {
        overlaps(&heard(text), &Rules::default())
            .iter()
            .map(|t| (t.at / MS, t.kind))
            .collect()
    }

    #[test]
    fn orderly_sequences_are_one_voice() {
        for (name, text) in [
            ("nothing", ""),
            ("one ATM", "A0! A0! A20! A30> A40? A100! A500! A20500!"),
            ("observation begins in the middle", "A0> A1> A2?"),
            (
                "takeover",
                "A0! A5> A900> B1000! B1000! B1001> B1020! B1100! B1500!",
            ),
            (
                "takeover by a third",
                "A0! A5> B1000! B1001> C2000! C2001> C2020!",
            ),
            ("there and back", "A0! A5> B1000! B1001> A1100! A1101>"),
            (
                "handed over while frames are relayed",
                "A0! A5> B10! B11> A12= B13> A14=",
            ),
            (
                "out of order in the capture, in order in time",
                "B1000! A0! A5>",
            ),
        ] {
            assert_eq!(judged(text), [], "{name}");
        }
    }

    #[test]
    fn second_voices_are_found() {
        use Contradiction::{Alternated, Spoke};
        for (name, text, expected) in [
            (
                "forwards after it lost the VIP",
                "A0! A5> B10! A11>",
                vec![(11, Spoke(Kind::Tunnelled))],
            ),
            (
                "answers after it lost the VIP",
                "A0! B1000! B1001> A5000?",
                vec![(5000, Spoke(Kind::ArpAnswer))],
            ),
            (
                "speaks before it claims",
                "A0! A5> B10> B11!",
                vec![(10, Spoke(Kind::Tunnelled))],
            ),
            (
                "a holder never announced",
                "A0> B1> A2>",
                vec![(1, Spoke(Kind::Tunnelled))],
            ),
            (
                "announce by turns",
                "A0! B50! A120!",
                vec![(120, Alternated(70 * MS))],
            ),
            (
                "a resumed burst",
                "A0! A20! B50! B70! A100! A101>",
                vec![(100, Alternated(50 * MS))],
            ),
            (
                "round in three",
                "A0! B10! C20! A30!",
                vec![(30, Alternated(20 * MS))],
            ),
            (
                "both to the end",
                "A0! A5> B1000! A1001> B1002> A1003>",
                vec![
                    (1001, Spoke(Kind::Tunnelled)),
                    (1003, Spoke(Kind::Tunnelled)),
                ],
            ),
        ] {
            assert_eq!(judged(text), expected, "{name}");
        }
    }

    #[test]
    fn vips_are_judged_apart() {
        let mut events = heard("A0! A5>");
        let mut second = heard("B1! B6>");
        second
            .iter_mut()
            .for_each(|e| e.vip = Ipv4Addr::new(10, 1, 0, 101));
        events.extend(second);
        assert_eq!(overlaps(&events, &Rules::default()), []);
    }

    #[test]
    fn the_longest_silence_allowed_is_a_rule() {
        let rules = Rules {
            tenure_min: Duration::from_secs(2),
        };
        assert_eq!(overlaps(&heard("A0! B1000! A2000!"), &rules).len(), 1);
    }

    #[test]
    fn reports_are_bounded() {
        let mut text = String::from("A0! B1! ");
        for at in 2..3000 {
            text += &format!("A{at}> ");
        }
        assert_eq!(
            overlaps(&heard(&text), &Rules::default()).len(),
            OVERLAPS_MAX
        );
    }

    #[test]
    fn voices_give_the_timeline_of_a_takeover() {
        let found = voices(&heard("A0! A5> A900> A901? B1000! B1003> B1004= B1009>"));
        let [a, b] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(
            (a.mac, a.last_forward, a.last, a.frames),
            (mac('A'), Some(900 * MS), 901 * MS, 4)
        );
        assert_eq!(
            (b.mac, b.first_claim, b.first_forward),
            (mac('B'), Some(1000 * MS), Some(1003 * MS))
        );
        assert_eq!((b.last_forward, b.frames), (Some(1009 * MS), 3));
    }
}
