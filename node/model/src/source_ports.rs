//! Which ports of which source addresses full NAT has given out: what two connections would share, a server's answers
//! could not tell apart.
//!
//! Derived from the connections, never stored. Invariant: as many five-tuples as connections with a source port.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::conf::Protocol;
use crate::connections::wide;
use crate::sharded::{Fnv, ShardKey, Sharded};

/// A full-NAT connection as its server sees it: the five-tuple of its packets on that side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTuple {
    /// Where packets come from: `source=` of the server.
    pub source: IpAddr,
    /// The port there.
    pub source_port: NonZeroU16,
    /// Where they go: the server's address.
    pub server: IpAddr,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
}

impl ShardKey for ServerTuple {
    fn feed(&self, hash: Fnv) -> Fnv {
        hash.bytes(&self.source_port.get().to_be_bytes())
            .bytes(&self.port.to_be_bytes())
            .bytes(&wide(self.server))
            .bytes(&wide(self.source))
    }
}

/// The five-tuples that are taken. Cloning is cheap, as it is of the connection table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourcePorts {
    taken: Sharded<ServerTuple, ()>,
}

impl SourcePorts {
    /// How many are taken.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a live connection has this one.
    pub fn is_taken(&self, tuple: &ServerTuple) -> bool {
        self.taken.get(tuple).is_some()
    }

    pub(crate) fn take(&mut self, tuple: ServerTuple) {
        self.taken.insert(tuple, ());
    }

    pub(crate) fn give_back(&mut self, tuple: &ServerTuple) {
        self.taken.remove(tuple);
    }
}
