//! The verdicts of each virtual service and server, counted apart. Only frames that were about a service or a server are
//! here; what is missing to the sum of all verdicts was about neither, or about one that the table has dropped.

use std::collections::BTreeSet;

use model::ids::{ServerId, VirtualServiceId};
use rustc_hash::FxHashMap;

use crate::{About, ForwardingTable, Verdict};

/// Rows at most, 16 bytes each: 1,000 servers of 8 services, each with 8 verdicts. A frame beyond is counted with all
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
    /// How many, since this service and server are in the table.
    pub frames: u64,
}

/// Service, server and verdict in one word, which is hashed faster than its parts.
///
/// Bits 0..8 the verdict's index, 8..25 the server and 25..42 the service, each one more than its number; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row(u64);

const VERDICT_BITS: u32 = 8;
const NUMBER_BITS: u32 = 17;
const _: () = assert!(Verdict::COUNT <= 1 << VERDICT_BITS);

impl Row {
    fn new(about: About, verdict: Verdict) -> Self {
        let number = |number: Option<u16>| number.map_or(0, |number| u64::from(number) + 1);
        let service = number(about.service.map(|service| service.0));
        let server = number(about.server.map(|server| server.0));
        Self((((service << NUMBER_BITS) | server) << VERDICT_BITS) | verdict.index() as u64)
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

    fn verdict(self) -> Option<Verdict> {
        let index = usize::try_from(self.0 & ((1 << VERDICT_BITS) - 1)).ok()?;
        Verdict::ALL.get(index).copied()
    }
}

impl Tally {
    /// Counts one frame.
    pub(crate) fn count(&mut self, about: About, verdict: Verdict) {
        if about == About::default() {
            return;
        }
        let row = Row::new(about, verdict);
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

    /// Every row, by service, server and verdict.
    pub(crate) fn rows(&self) -> Vec<Tallied> {
        #[expect(clippy::disallowed_methods, reason = "sorted right after")]
        let mut rows: Vec<(Row, u64)> = self
            .rows
            .iter()
            .map(|(row, frames)| (*row, *frames))
            .collect();
        rows.sort_unstable();
        let tallied = |(row, frames): (Row, u64)| {
            Some(Tallied {
                about: row.about(),
                verdict: row.verdict()?,
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
                for verdict in Verdict::ALL {
                    let row = Row::new(about(service, server), verdict);
                    assert_eq!(row.about(), about(service, server));
                    assert_eq!(row.verdict(), Some(verdict));
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
        let rows: Vec<_> = tally
            .rows()
            .iter()
            .map(|row| (row.about, row.verdict, row.frames))
            .collect();
        assert_eq!(
            rows,
            [
                (about(Some(1), None), full, 1),
                (about(Some(2), Some(1)), Verdict::Transmit, 2),
                (about(Some(2), Some(1)), Verdict::Held, 1),
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
        assert_eq!(tally.rows[&Row::new(first, Verdict::Transmit)], 2);
    }
}
