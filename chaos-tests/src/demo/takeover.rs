//! One takeover, from what the observer heard and what the new ATM says of itself. Pure.

use serde::Serialize;

use super::status::Tenure;
use crate::observer::{Event, Kind, Mac};

/// One takeover by phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Takeover {
    /// What was done to the old active ATM.
    pub cause: String,
    /// The old active ATM's host.
    pub from: String,
    /// The new one's.
    pub to: String,
    /// What happened, in the order in which the phases follow each other.
    pub milestones: Vec<Milestone>,
}

/// An instant of a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Milestone {
    /// What happened.
    pub name: &'static str,
    /// The same in a word.
    #[serde(skip)]
    pub short: &'static str,
    /// Who says so: `wire` (the observer) or `atm` (the new active one).
    pub seen_by: &'static str,
    /// Milliseconds after the fault; negative: before it.
    pub at_ms: f64,
}

/// What the observer heard of a takeover. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// The new active ATM.
    pub(super) by: Mac,
    /// Last packet that the old one forwarded.
    pub(super) last_old: Option<u64>,
    /// First gratuitous ARP of the new one.
    pub(super) claim: u64,
    /// First packet that it forwarded.
    pub(super) first_new: u64,
}

impl Heard {
    /// The first takeover after `since` by another than `old`, complete with a forwarded packet; `None`: not yet.
    pub(super) fn among(events: &[Event], old: Mac, since: u64) -> Option<Self> {
        let forwards = |event: &Event| matches!(event.kind, Kind::Tunnelled | Kind::Direct);
        let claim = events.iter().find(|event| {
            event.at >= since && event.source != old && event.kind == Kind::GratuitousArp
        })?;
        let first_new = events.iter().find(|event| {
            event.at >= claim.at && event.source == claim.source && forwards(event)
        })?;
        let last_old = events
            .iter()
            .rev()
            .find(|event| event.at < claim.at && event.source == old && forwards(event));
        Some(Self {
            by: claim.source,
            last_old: last_old.map(|event| event.at),
            claim: claim.at,
            first_new: first_new.at,
        })
    }

    /// Time without a forwarded packet, in milliseconds.
    pub(super) fn outage_ms(&self, since: u64) -> f64 {
        ms(self.last_old.unwrap_or(since), self.first_new)
    }

    /// Every milestone that is known, in milliseconds after `since`; without `tenure` only what was heard.
    pub(super) fn milestones(&self, tenure: Option<&Tenure>, since: u64) -> Vec<Milestone> {
        let atm = |name, short, instant: fn(&Tenure) -> u64| {
            let at = tenure.and_then(|tenure| tenure.wall(instant(tenure)));
            (name, short, "atm", at)
        };
        let all = [
            (
                "last packet through the old ATM",
                "last packet",
                "wire",
                self.last_old,
            ),
            atm("last message from the old leader", "heard", |tenure| {
                tenure.last_heard_at_ns
            }),
            atm("new leader elected", "elected", |tenure| {
                tenure.leader_at_ns
            }),
            atm("BeginEpoch committed and applied", "begun", |tenure| {
                tenure.begun_at_ns
            }),
            atm("table installed", "table", |tenure| tenure.table_at_ns),
            atm("every older lease waited out", "waited out", |tenure| {
                tenure.wait_until_ns
            }),
            atm("lease claimed", "claimed", |tenure| tenure.claimed_at_ns),
            ("gratuitous ARP", "ARP", "wire", Some(self.claim)),
            (
                "first packet through the new ATM",
                "first packet",
                "wire",
                Some(self.first_new),
            ),
        ];
        all.into_iter()
            .filter_map(|(name, short, seen_by, at)| {
                Some(Milestone {
                    name,
                    short,
                    seen_by,
                    at_ms: ms(since, at?),
                })
            })
            .collect()
    }
}

/// From `from` to `to`, both in nanoseconds, in milliseconds; negative if `to` is earlier.
pub(super) fn ms(from: u64, to: u64) -> f64 {
    let distance = std::time::Duration::from_nanos(to.abs_diff(from)).as_secs_f64() * 1e3;
    if to < from { -distance } else { distance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const OLD: Mac = [2, 0, 0, 0, 0, 1];
    const NEW: Mac = [2, 0, 0, 0, 0, 2];

    fn event(at: u64, source: Mac, kind: Kind) -> Event {
        Event {
            at: at * 1_000_000,
            source,
            vip: Ipv4Addr::new(10, 1, 0, 100),
            kind,
            flow: None,
        }
    }

    #[test]
    fn a_takeover_is_complete_with_its_first_packet() {
        let events = [
            event(90, OLD, Kind::GratuitousArp),
            event(99, OLD, Kind::Tunnelled),
            event(101, OLD, Kind::ArpAnswer),
            event(400, NEW, Kind::GratuitousArp),
            event(401, NEW, Kind::ArpAnswer),
            event(405, NEW, Kind::Tunnelled),
        ];
        let since = 100 * 1_000_000;
        assert_eq!(Heard::among(&events[..5], OLD, since), None);
        let heard = Heard::among(&events, OLD, since).unwrap();
        assert_eq!(heard.by, NEW);
        assert_eq!(heard.last_old, Some(99 * 1_000_000));
        assert!((heard.outage_ms(since) - 306.0).abs() < 1e-9);
        assert!((ms(since, heard.first_new) - 305.0).abs() < 1e-9);
        assert!((ms(since, 99 * 1_000_000) + 1.0).abs() < 1e-9);
        assert_eq!(Heard::among(&events, NEW, since), None);
    }
}
