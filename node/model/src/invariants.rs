//! What must hold of every state, written once: checked after each `apply` in debug builds, in tests and by simulations.

use crate::connections::ConnectionTable;
use crate::ids::{ServerId, VirtualServiceId};
use crate::state::State;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A connection belongs to a server that is not in the table.
    UnknownServer(ServerId),
    /// A connection belongs to a service that is not in the table.
    UnknownService(VirtualServiceId),
    /// The table's counters do not add up to its length.
    Miscounted,
    /// The current version is not the newest one that is kept.
    CurrentNotNewest,
}

impl State {
    /// Every broken invariant; empty in any state that `apply` can reach. Cheap: no walk over connections.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for (service, server) in self.connections.counts().keys() {
            if !self.servers.contains_key(server) {
                found.push(Violation::UnknownServer(*server));
            }
            if !self.services.contains_key(service) {
                found.push(Violation::UnknownService(*service));
            }
        }
        if counted(&self.connections) != self.connections.len() as u64 {
            found.push(Violation::Miscounted);
        }
        if self.current.as_ref().map(|current| current.number)
            != self.versions.keys().next_back().copied()
        {
            found.push(Violation::CurrentNotNewest);
        }
        found
    }
}

fn counted(connections: &ConnectionTable) -> u64 {
    connections.counts().values().sum()
}
