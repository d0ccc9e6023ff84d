//! Finds a connection's entry by its flow.
//!
//! Holds numbers of entries alone: the flow is compared where the entry has it anyway. 100,000 connections are half a megabyte, which
//! stays in a processor's cache, so that a packet of a known connection waits for one line of memory: its entry.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::{Entry, Flow};

/// Invariant: no two of its numbers are of entries with the same flow.
#[derive(Debug)]
pub(super) struct Index(HashTable<u32>);

impl Index {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(HashTable::with_capacity(capacity))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn find(&self, flow: Flow, entries: &[Entry]) -> Option<u32> {
        self.0
            .find(hash(flow), |&id| flow_of(id, entries) == Some(flow))
            .copied()
    }

    /// `entries[id]` has this flow; another entry that had it is not found any more.
    pub(super) fn insert(&mut self, flow: Flow, id: u32, entries: &[Entry]) {
        self.0
            .entry(
                hash(flow),
                |&id| flow_of(id, entries) == Some(flow),
                |&id| flow_of(id, entries).map_or(0, hash),
            )
            .insert(id);
    }

    /// `false`: `id` was not in.
    pub(super) fn remove(&mut self, flow: Flow, id: u32) -> bool {
        match self.0.find_entry(hash(flow), |&known| known == id) {
            Ok(known) => {
                known.remove();
                true
            }
            Err(_absent) => false,
        }
    }
}

fn flow_of(id: u32, entries: &[Entry]) -> Option<Flow> {
    entries.get(id as usize).map(|entry| entry.flow)
}

/// The addresses of clients are in rows, and many of their bits are the same: FxHash leaves chains of them, above all of IPv6.
fn hash(flow: Flow) -> u64 {
    FixedState::with_seed(0).hash_one(flow)
}
