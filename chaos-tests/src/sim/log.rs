//! The log of one ATM: entries after the last one a snapshot has taken the place of.

use std::sync::Arc;

/// A log entry. Without bytes it is the blank one that a new leader begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    /// The command's stored form.
    pub(crate) bytes: Arc<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// The state's canonical form.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Index and term of the last entry that is not here any more.
    base: u64,
    base_term: u64,
    entries: Vec<Entry>,
}

impl Log {
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn last(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.entries
            .last()
            .map_or(self.base_term, |entry| entry.term)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.base + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base {
            return Some(self.base_term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// Entries from `first` on, at most `max`.
    pub(crate) fn from(&self, first: u64, max: usize) -> Vec<Entry> {
        let at = first.saturating_sub(self.base + 1);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let rest = self.entries.get(at..).unwrap_or_default();
        rest[..rest.len().min(max)].to_vec()
    }

    pub(crate) fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push(entry);
        self.last()
    }

    pub(crate) fn extend(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries);
    }

    /// Everything from `from` on goes.
    pub(crate) fn truncate(&mut self, from: u64) {
        let keep = from.saturating_sub(self.base + 1);
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// The snapshot takes the place of all it covers but the last `keep`; and of all, where it does not fit the log.
    pub(crate) fn compact(&mut self, snapshot: &Snapshot, keep: u64) {
        if self.term_of(snapshot.index) != Some(snapshot.term) {
            if snapshot.index > self.base {
                self.entries.clear();
                self.base = snapshot.index;
                self.base_term = snapshot.term;
            }
            return;
        }
        let base = snapshot.index.saturating_sub(keep);
        let Some(base_term) = self.term_of(base).filter(|_| base > self.base) else {
            return;
        };
        let gone = usize::try_from(base - self.base).unwrap_or(usize::MAX);
        self.entries.drain(..gone.min(self.entries.len()));
        self.base = base;
        self.base_term = base_term;
    }
}
