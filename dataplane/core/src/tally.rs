//! The verdicts of each virtual service and server, and the later ends of held frames, counted apart. Only frames that were about a service or a server are
//! here; what is missing to the sum of all verdicts was about neither, or about one that the table has dropped.

use std::borrow::Cow;
use std::collections::BTreeSet;

use model::ids::{ServerId, VirtualServiceId};
use rustc_hash::FxHashMap;

use crate::{About, Event, ForwardingTable, Verdict};

/// Rows at most, 16 bytes each: 1,000 servers of 8 services, each with 8 ends. A frame beyond is counted with all
/// frames only.
const ROWS_MAX: usize = 65_536;

/// Frames by virtual service, server and verdict.
///
/// A row is made when the first frame of its kind comes, and goes with its service or server; nothing is allocated for the
/// frames after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    rows: FxHashMap<Row, u64>,
}

/// How many frames about one virtual service and server ended in one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// What they were about.
    pub about: About,
    /// Their end.
    pub verdict: Verdict,
    /// They had been held, and this became of them later: sent, or thrown away.
    pub held: bool,
    /// How many, since this service and server are in the table.
    pub frames: u64,
}

impl Tallied {
    /// The end's name in telemetry: that of the verdict, or of the counter of held frames that ended so.
    pub fn name(&self) -> Cow<'static, str> {
        match (self.held, self.verdict) {
            (false, verdict) => verdict.name().into(),
            (true, Verdict::Transmit) => Event::HeldReleased.name().into(),
            (true, verdict) => format!("held-{}", verdict.name()).into(),
        }
    }
}

/// Service, server and end in one word, which is hashed faster than its parts.
///
/// Bits 0..8 the verdict's index, and `Verdict::COUNT` more if it is that of a frame that was held; 8..25 the server and 25..42 the service, each one more than its number; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row(u64);

const VERDICT_BITS: u32 = 8;
const NUMBER_BITS: u32 = 17;
const _: () = assert!(2 * Verdict::COUNT <= 1 << VERDICT_BITS);

impl Row {
    fn new(about: About, verdict: Verdict, held: bool) -> Self {
        let number = |number: Option<u16>| number.map_or(0, |number| u64::from(number) + 1);
        let service = number(about.service.map(|service| service.0));
        let server = number(about.server.map(|server| server.0));
        let end = verdict.index() + if held { Verdict::COUNT } else { 0 };
        Self((((service << NUMBER_BITS) | server) << VERDICT_BITS) | end as u64)
    }

    fn about(self) -> About {
        let number = |shift: u32| {
            let number = (self.0 >> shift) & ((1 << NUMBER_BITS) - 1);
            number
                .checked_sub(1)
                .and_then(|number| u16::try_from(number).ok())
        };
        About {
            service: number(VERDICT_BITS + NUMBER_BITS).map(VirtualServiceId),
            server: number(VERDICT_BITS).map(ServerId),
        }
    }

    /// The verdict, and whether it is that of a frame that was held.
    fn end(self) -> Option<(Verdict, bool)> {
        let index = usize::try_from(self.0 & ((1 << VERDICT_BITS) - 1)).ok()?;
        let verdict = Verdict::ALL.get(index % Verdict::COUNT)?;
        Some((*verdict, index >= Verdict::COUNT))
    }
}

impl Tally {
    /// Counts one frame.
    pub(crate) fn count(&mut self, about: About, verdict: Verdict) {
        self.add(about, verdict, false);
    }

    /// Counts what became of one frame that had been held.
    pub(crate) fn count_held(&mut self, about: About, end: Verdict) {
        self.add(about, end, true);
    }

    fn add(&mut self, about: About, verdict: Verdict, held: bool) {
        if about == About::default() {
            return;
        }
        let row = Row::new(about, verdict, held);
        if let Some(frames) = self.rows.get_mut(&row) {
            *frames += 1;
        } else if self.rows.len() < ROWS_MAX {
            self.rows.insert(row, 1);
        }
    }

    /// Forgets the services and servers that are not in `table`.
    pub(crate) fn keep(&mut self, table: &ForwardingTable) {
        if self.rows.is_empty() {
            return;
        }
        let services: BTreeSet<_> = table.services.iter().map(|service| service.id).collect();
        let servers: BTreeSet<_> = table.servers.iter().map(|server| server.id).collect();
        self.rows.retain(|row, _| {
            let about = row.about();
            about.service.is_none_or(|id| services.contains(&id))
                && about.server.is_none_or(|id| servers.contains(&id))
        });
    }

    /// Every row, by service, server and end.
    pub(crate) fn rows(&self) -> Vec<Tallied> {
        #[expect(clippy::disallowed_methods, reason = "sorted right after")]
        let mut rows: Vec<(Row, u64)> = self
            .rows
            .iter()
            .map(|(row, frames)| (*row, *frames))
            .collect();
        rows.sort_unstable();
        let tallied = |(row, frames): (Row, u64)| {
            let (verdict, held) = row.end()?;
            Some(Tallied {
                about: row.about(),
                verdict,
                held,
                frames,
            })
        };
        rows.into_iter().filter_map(tallied).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;

    fn about(service: Option<u16>, server: Option<u16>) -> About {
        About {
            service: service.map(VirtualServiceId),
            server: server.map(ServerId),
        }
    }

    #[test]
    fn a_row_is_what_it_was_made_of() {
        let numbers = [None, Some(0), Some(1), Some(u16::MAX)];
        for service in numbers {
            for server in numbers {
                for (verdict, held) in Verdict::ALL.map(|v| [(v, false), (v, true)]).concat() {
                    let row = Row::new(about(service, server), verdict, held);
                    assert_eq!(row.about(), about(service, server));
                    assert_eq!(row.end(), Some((verdict, held)));
                }
            }
        }
    }

    #[test]
    fn rows_are_in_order_and_frames_about_nothing_have_none() {
        let mut tally = Tally::default();
        let full = Verdict::Drop(DropReason::TableFull);
        tally.count(about(Some(2), Some(1)), Verdict::Transmit);
        tally.count(about(Some(1), None), full);
        tally.count(about(None, None), Verdict::Host);
        tally.count(about(Some(2), Some(1)), Verdict::Transmit);
        tally.count(about(Some(2), Some(1)), Verdict::Held);
        tally.count_held(about(Some(2), Some(1)), Verdict::Transmit);
        tally.count_held(about(None, None), Verdict::Transmit);
        tally.count_held(about(Some(1), None), full);
        let all = tally.rows();
        let rows: Vec<_> = all
            .iter()
            .map(|row| (row.about, row.name(), row.frames))
            .collect();
        assert_eq!(
            rows,
            [
                (about(Some(1), None), "table-full".into(), 1),
                (about(Some(1), None), "held-table-full".into(), 1),
                (about(Some(2), Some(1)), "transmit".into(), 2),
                (about(Some(2), Some(1)), "held".into(), 1),
                (about(Some(2), Some(1)), "held-released".into(), 1),
            ]
        );
    }

    #[test]
    fn the_number_of_rows_is_bounded_and_full_stops_no_row_that_is_there() {
        let mut tally = Tally::default();
        let first = about(Some(0), Some(0));
        tally.count(first, Verdict::Transmit);
        for service in 0..=u16::MAX {
            tally.count(about(Some(service), None), Verdict::Transmit);
        }
        tally.count(first, Verdict::Transmit);
        assert_eq!(tally.rows.len(), ROWS_MAX);
        assert_eq!(tally.rows[&Row::new(first, Verdict::Transmit, false)], 2);
    }
}
