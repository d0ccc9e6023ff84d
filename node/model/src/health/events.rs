//! What happened to servers and services, in the order of the log, bounded.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Events that are kept: a day of a cluster in which something happens every minute and a half; 100 kB in a snapshot.
pub const EVENTS_MAX: usize = 1_000;

/// Longest text of an event, and longest reason of a verdict: a line on a screen and a half.
pub const TEXT_BYTES_MAX: usize = 240;

/// What kind of thing happened. New kinds are added at the end only: they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A server answers no ping any more.
    ServerDown,
    /// It answers again.
    ServerUp,
    /// A service of a server fails its checks.
    ServiceDown,
    /// It passes them again.
    ServiceUp,
    /// An operator's order about a server or service.
    Ordered,
    /// An order ended by itself: the configuration has its server or service no more.
    OrderDropped,
    /// A script begins to run.
    ScriptBegun,
    /// It ended.
    ScriptEnded,
    /// Nobody can know whether it ran before the takeover: it runs again.
    ScriptAgain,
    /// It does not run: too many others wait.
    ScriptRefused,
    /// An ATM became active.
    Active,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::ServerDown,
        Self::ServerUp,
        Self::ServiceDown,
        Self::ServiceUp,
        Self::Ordered,
        Self::OrderDropped,
        Self::ScriptBegun,
        Self::ScriptEnded,
        Self::ScriptAgain,
        Self::ScriptRefused,
        Self::Active,
    ];

    /// Its stable name, in kebab-case: scripts may depend on it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerDown => "server-down",
            Self::ServerUp => "server-up",
            Self::ServiceDown => "service-down",
            Self::ServiceUp => "service-up",
            Self::Ordered => "ordered",
            Self::OrderDropped => "order-dropped",
            Self::ScriptBegun => "script-begun",
            Self::ScriptEnded => "script-ended",
            Self::ScriptAgain => "script-again",
            Self::ScriptRefused => "script-refused",
            Self::Active => "active",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place: 1 is the cluster's first, and each has one more than the one before.
    pub number: u64,
    /// When it was proposed: milliseconds since 1970 by the wall clock of the ATM that did; 0: not known.
    pub at_ms: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The server's name; empty: none.
    pub server: String,
    /// The service's name; empty: the whole server, or none.
    pub service: String,
    /// More, for people; at most [`TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

/// The last [`EVENTS_MAX`] events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    last: u64,
    kept: VecDeque<Event>,
}

impl Events {
    /// The number of the youngest event; 0: there was none.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Those that are kept and have a greater number than `after`, in order.
    pub fn since(&self, after: u64) -> impl Iterator<Item = &Event> {
        self.kept.iter().filter(move |event| event.number > after)
    }

    pub(crate) fn add(
        &mut self,
        at_ms: u64,
        kind: EventKind,
        (server, service): (&str, &str),
        text: impl Into<String>,
    ) {
        self.last += 1;
        self.kept.push_back(Event {
            number: self.last,
            at_ms,
            kind,
            server: server.to_owned(),
            service: service.to_owned(),
            text: super::bounded(text.into()),
        });
        while self.kept.len() > EVENTS_MAX {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_numbered() {
        let mut events = Events::default();
        for at in 1..=1_005 {
            events.add(at, EventKind::ServiceDown, ("s", "web"), "é".repeat(500));
        }
        assert_eq!(events.last(), 1_005);
        let numbers: Vec<u64> = events.since(0).map(|event| event.number).collect();
        assert_eq!((numbers[0], numbers.len()), (6, EVENTS_MAX));
        assert_eq!(events.since(1_004).count(), 1);
        assert!(
            events
                .since(0)
                .all(|event| event.text.len() <= TEXT_BYTES_MAX)
        );
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> =
            EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
    }
}
