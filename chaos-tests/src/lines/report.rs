//! What a run of numbered lines showed.

use std::collections::BTreeMap;

use serde::Serialize;

/// The outcome of all connections of a [`Client`](super::Client), at the end or while it runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Connections asked for.
    pub connections: usize,
    /// Connections that were opened and welcomed by a server.
    pub opened: usize,
    /// Connections that live, or that ended in order after [`Client::finish`](super::Client::finish).
    pub alive: usize,
    /// Numbered lines sent to the servers.
    pub lines_sent: u64,
    /// Sent lines that a server acknowledged.
    pub lines_acknowledged: u64,
    /// Numbered lines received from the servers.
    pub lines_received: u64,
    /// Lines, of both directions, that never came although a later one or the end did.
    pub lost: u64,
    /// Lines, of both directions, that came more than once.
    pub repeated: u64,
    /// Lines, of both directions, that came after a later one.
    pub out_of_order: u64,
    /// Lines of another connection: its bytes came through this one.
    pub foreign: u64,
    /// Lines that are none of the protocol.
    pub malformed: u64,
    /// Sent lines not acknowledged so far; at the end: on connections that broke or did not end in time.
    pub unacknowledged: u64,
    /// Connections that were reset, or closed by the server before the end.
    pub resets: usize,
    /// Connections that were not answered before the deadline of `finish`.
    pub unfinished: usize,
    /// Connections on which nothing came for longer than the bound of the options, at some time.
    pub stalled: usize,
    /// Connections on which nothing has come for longer than that bound right now.
    pub stalled_now: usize,
    /// Longest time without a line on any one connection, in milliseconds.
    pub longest_stall_ms: u64,
    /// On which connection that was.
    pub longest_stall_token: Option<String>,
    /// The longest time without a line on any connection at all.
    pub longest_silence: Option<Silence>,
    /// Why connections could not be opened; the first ten reasons.
    pub open_failures: Vec<String>,
    /// How many connections each server has.
    pub servers: BTreeMap<String, usize>,
    /// The oldest events that were dropped to make room.
    pub events_dropped: u64,
    /// Each connection, in the order of their numbers.
    pub per_connection: Vec<ConnectionReport>,
}

impl Report {
    /// Every connection was opened and lives, and no line was lost, repeated, out of order or foreign. Says nothing
    /// of stalls.
    #[must_use]
    pub fn is_unbroken(&self) -> bool {
        let faults = [
            self.lost,
            self.repeated,
            self.out_of_order,
            self.foreign,
            self.malformed,
        ];
        self.alive == self.connections
            && self.resets == 0
            && self.unfinished == 0
            && faults == [0; 5]
    }
}

/// The outcome of one connection.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectionReport {
    /// Its name.
    pub token: String,
    /// The server it has; `None` before it was welcomed.
    pub server: Option<String>,
    /// As in [`Report::alive`].
    pub alive: bool,
    /// Numbered lines sent.
    pub lines_sent: u64,
    /// Sent lines that the server acknowledged.
    pub lines_acknowledged: u64,
    /// Numbered lines received.
    pub lines_received: u64,
    /// As in [`Report::lost`].
    pub lost: u64,
    /// As in [`Report::repeated`].
    pub repeated: u64,
    /// As in [`Report::out_of_order`].
    pub out_of_order: u64,
    /// Longest time without a line, in milliseconds.
    pub longest_stall_ms: u64,
    /// How it ended, if it has.
    pub ended: Option<String>,
}

/// What kind of line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    /// A numbered line of the server.
    Line,
    /// The acknowledgement of a line of ours.
    Acknowledgement,
}

/// One line that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LineEvent {
    /// When, by the clock of the options, in nanoseconds.
    pub at_ns: u64,
    /// Number of the connection, counted from 0.
    pub connection: u32,
    /// Of which kind.
    pub kind: LineKind,
    /// Its number.
    pub number: u64,
}

/// A time in which nothing came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// The last line before, by the clock of the options, in nanoseconds.
    pub from_ns: u64,
    /// The first line after.
    pub to_ns: u64,
}

impl Silence {
    /// How long it was, in milliseconds with their fraction.
    #[must_use]
    pub fn ms(&self) -> f64 {
        std::time::Duration::from_nanos(self.to_ns.saturating_sub(self.from_ns)).as_secs_f64() * 1e3
    }
}

/// The longest time without an event between `from_ns` and `to_ns`, both ends counted as events: the outage that a
/// fault at `from_ns` caused. Events are in the order of their times.
#[must_use]
pub fn longest_silence(events: &[LineEvent], from_ns: u64, to_ns: u64) -> Silence {
    let inside = events
        .iter()
        .map(|event| event.at_ns)
        .filter(|at| (from_ns..=to_ns).contains(at));
    let mut longest = Silence {
        from_ns,
        to_ns: from_ns,
    };
    let mut before = from_ns;
    for at in inside.chain([to_ns]) {
        if at.saturating_sub(before) > longest.to_ns - longest.from_ns {
            longest = Silence {
                from_ns: before,
                to_ns: at,
            };
        }
        before = at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_counts_both_ends() {
        let at = |at_ns| LineEvent {
            at_ns,
            connection: 0,
            kind: LineKind::Line,
            number: 0,
        };
        let events = [at(10), at(12), at(30), at(31)];
        assert_eq!(
            longest_silence(&events, 0, 32),
            Silence {
                from_ns: 12,
                to_ns: 30
            }
        );
        assert_eq!(
            longest_silence(&events, 13, 90),
            Silence {
                from_ns: 31,
                to_ns: 90
            }
        );
        assert_eq!(
            longest_silence(&[], 5, 9),
            Silence {
                from_ns: 5,
                to_ns: 9
            }
        );
        assert_eq!(
            longest_silence(&[], 9, 5),
            Silence {
                from_ns: 9,
                to_ns: 9
            }
        );
    }
}
