//! A disk: what was written and not yet synced is lost with the process, but for a part that happened to get there.

use std::collections::VecDeque;
use std::sync::Arc;

use model::Instant;

use super::chance::Chance;
use super::log::{Entry, Log, Snapshot};

/// What survives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    pub(crate) term: u64,
    pub(crate) voted_for: Option<usize>,
    pub(crate) log: Log,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Write {
    Vote {
        term: u64,
        voted_for: Option<usize>,
    },
    /// Entries from this index on.
    Append {
        first: u64,
        entries: Vec<Entry>,
    },
    /// Everything from this index on goes.
    Truncate {
        from: u64,
    },
    /// A snapshot takes the place of everything up to it, but for `keep` entries.
    Snapshot {
        snapshot: Arc<Snapshot>,
        keep: u64,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) durable: Durable,
    pending: VecDeque<Write>,
    /// When the present write began, by the host's clock.
    busy_since: Option<Instant>,
}

impl Disk {
    /// `true`: the disk was idle, and begins this write.
    pub(crate) fn write(&mut self, write: Write, now: Instant) -> bool {
        self.pending.push_back(write);
        let idle = self.busy_since.is_none();
        if idle {
            self.busy_since = Some(now);
        }
        idle
    }

    /// The oldest write is synced. `true`: the next one begins.
    pub(crate) fn synced(&mut self, now: Instant) -> bool {
        if let Some(write) = self.pending.pop_front() {
            self.durable.apply(write);
        }
        let more = !self.pending.is_empty();
        self.busy_since = more.then_some(now);
        more
    }

    pub(crate) fn busy_since(&self) -> Option<Instant> {
        self.busy_since
    }

    /// The process dies, or the host loses its power: of what was under way some got there, and the last of it in part.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        let whole = chance.index(self.pending.len() + 1);
        for write in self.pending.drain(..whole) {
            self.durable.apply(write);
        }
        // A torn tail: the store finds it by its checksum and cuts it off, which leaves the entries before.
        if let Some(Write::Append { first, mut entries }) = self.pending.pop_front() {
            entries.truncate(chance.index(entries.len() + 1));
            if !entries.is_empty() {
                self.durable.apply(Write::Append { first, entries });
            }
        }
        self.pending.clear();
        self.busy_since = None;
    }
}

impl Durable {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Vote { term, voted_for } => {
                self.term = term;
                self.voted_for = voted_for;
            }
            Write::Append { first, entries } => {
                self.log.truncate(first);
                self.log.extend(entries);
            }
            Write::Truncate { from } => self.log.truncate(from),
            Write::Snapshot { snapshot, keep } => {
                self.log.compact(&snapshot, keep);
                self.snapshot = Some(snapshot);
            }
        }
    }
}
