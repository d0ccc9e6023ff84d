//! How long a connection went without an answer. Pure.

use std::collections::BTreeMap;

use crate::lines::{LineEvent, LineKind};

/// The longest time, in milliseconds, in which some connection got no acknowledgement, as far as that time reaches into
/// `from_ns..=to_ns`; and whose it was.
///
/// Lines of a server may go on for a while when its clients are cut off from it; acknowledgements prove both directions.
/// `events` are in the order of their times and begin before `from_ns`: a connection's silence begins with its last
/// acknowledgement before the fault, not with the fault.
pub(super) fn longest_unanswered(events: &[LineEvent], from_ns: u64, to_ns: u64) -> (f64, u32) {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let mut longest = (0_u64, 0_u32);
    let mut gap = |since: u64, at: u64, connection: u32| {
        if at >= from_ns && at.saturating_sub(since) > longest.0 {
            longest = (at - since, connection);
        }
    };
    let answered =
        |event: &&LineEvent| event.kind == LineKind::Acknowledgement && event.at_ns <= to_ns;
    for event in events.iter().filter(answered) {
        if let Some(since) = last.insert(event.connection, event.at_ns) {
            gap(since, event.at_ns, event.connection);
        }
    }
    for (connection, since) in last {
        gap(since, to_ns, connection);
    }
    let (ns, connection) = longest;
    (
        std::time::Duration::from_nanos(ns).as_secs_f64() * 1e3,
        connection,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(connection: u32, at_ms: u64, kind: LineKind) -> LineEvent {
        LineEvent {
            at_ns: at_ms * 1_000_000,
            connection,
            kind,
            number: 0,
        }
    }

    #[test]
    fn the_worst_connection_counts_and_servers_lines_do_not() {
        use LineKind::{Acknowledgement, Line};
        let events = [
            event(0, 90, Acknowledgement),
            event(1, 95, Acknowledgement),
            event(1, 300, Line),
            event(0, 400, Acknowledgement),
            event(1, 700, Acknowledgement),
            event(0, 990, Acknowledgement),
        ];
        let ms = 1_000_000;
        assert_eq!(longest_unanswered(&events, 100 * ms, 1000 * ms), (605.0, 1));
        assert_eq!(
            longest_unanswered(&events[..2], 100 * ms, 1000 * ms),
            (910.0, 0),
            "nothing ever came again"
        );
        assert_eq!(
            longest_unanswered(&events, 950 * ms, 995 * ms),
            (590.0, 0),
            "a silence that reaches into the span"
        );
    }
}
