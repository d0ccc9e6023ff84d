//! What must hold of every state, written once: checked after each `apply` in debug builds, in tests and by simulations.

use std::collections::BTreeMap;

use crate::ids::{ServerId, VirtualServiceId};
use crate::state::State;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A connection belongs to a server that is not in the table.
    UnknownServer(ServerId),
    /// A connection belongs to a service that is not in the table.
    UnknownService(VirtualServiceId),
    /// The counters of the connections or of the sticky clients do not add up to their number.
    Miscounted,
    /// Connections of a server have source ports exactly if the server has a source address; this one's do not.
    SourcePorts(ServerId),
    /// Two connections look the same to their server: fewer five-tuples are taken than connections have source ports.
    SourcePortTwice,
    /// Clients of a service belong to a server that the rules do not give them to.
    Sticky(VirtualServiceId, ServerId),
    /// The current version is not the newest one that is kept.
    CurrentNotNewest,
}

impl State {
    /// Every broken invariant; empty in any state that `apply` can reach. Cheap: no walk over connections
    /// or clients.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let with_source_port = self.connections.with_source_port();
        for ((service, server), count) in self.connections.counts() {
            let ported = with_source_port.get(&(*service, *server)).unwrap_or(&0);
            match self.servers.get(server) {
                None => found.push(Violation::UnknownServer(*server)),
                Some(entry) => {
                    let wanted = entry.source.map_or(0, |_| *count);
                    if *ported != wanted {
                        found.push(Violation::SourcePorts(*server));
                    }
                }
            }
            if !self.services.contains_key(service) {
                found.push(Violation::UnknownService(*service));
            }
        }
        if total(self.connections.counts()) != self.connections.len() as u64
            || total(self.sticky.counts()) != self.sticky.len() as u64
        {
            found.push(Violation::Miscounted);
        }
        if total(with_source_port) != self.source_ports.len() as u64 {
            found.push(Violation::SourcePortTwice);
        }
        for (service, server) in self.sticky.counts().keys() {
            if !self.sticky_rules.allows(*service, *server) {
                found.push(Violation::Sticky(*service, *server));
            }
        }
        if self.current.as_ref().map(|current| current.number)
            != self.versions.keys().next_back().copied()
        {
            found.push(Violation::CurrentNotNewest);
        }
        found
    }
}

fn total(counts: &BTreeMap<(VirtualServiceId, ServerId), u64>) -> u64 {
    counts.values().sum()
}
