//! Records of the connection table as they are replicated: which server each live connection is pinned to.
//!
//! Invariant: a connection has one server from `Open` to `Close`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::ids::{ServerId, VirtualServiceId};

/// What tells one connection from another. The protocol and the VIP are those of the virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The virtual service it talks to.
    pub service: VirtualServiceId,
}

/// One change of the replicated connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionChange {
    /// The connection exists and belongs to this server.
    Open(ConnectionKey, ServerId),
    /// The connection is over: closed, reset or idle for longer than ConnectionTimeout.
    Close(ConnectionKey),
}

/// Bytes of one encoded change, fixed so that a batch is encoded and decoded without a length per record.
pub const CHANGE_LEN: usize = 24;

/// A stored change that no writer of this program produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection record with unknown kind {0}")]
pub struct BadRecord(pub u8);

const OPEN: u8 = 1;
const CLOSE: u8 = 2;

impl ConnectionChange {
    /// The connection that changes.
    pub const fn key(&self) -> &ConnectionKey {
        match self {
            Self::Open(key, _) | Self::Close(key) => key,
        }
    }

    /// Layout, big endian: kind 1, reserved 1, server 2, service 2, client port 2, client address 16 (IPv4 mapped, RFC 4291 §2.5.5.2).
    pub fn encode(&self) -> [u8; CHANGE_LEN] {
        let (kind, server) = match self {
            Self::Open(_, server) => (OPEN, server.0),
            Self::Close(_) => (CLOSE, 0),
        };
        let key = self.key();
        let address = match key.client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut bytes = [0; CHANGE_LEN];
        bytes[0] = kind;
        bytes[2..4].copy_from_slice(&server.to_be_bytes());
        bytes[4..6].copy_from_slice(&key.service.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&key.port.to_be_bytes());
        bytes[8..24].copy_from_slice(&address.octets());
        bytes
    }

    /// The inverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8; CHANGE_LEN]) -> Result<Self, BadRecord> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[8..24]);
        let key = ConnectionKey {
            client: Ipv6Addr::from(address).to_canonical(),
            port: word(6),
            service: VirtualServiceId(word(4)),
        };
        match bytes[0] {
            OPEN => Ok(Self::Open(key, ServerId(word(2)))),
            CLOSE => Ok(Self::Close(key)),
            kind => Err(BadRecord(kind)),
        }
    }
}

/// Shards of the table; a power of two. With a million connections each holds some 250: small to copy when a
/// snapshot shares it, and few enough that cloning the table is 4096 reference counts.
const SHARDS: usize = 4096;

/// The replicated connection table. Cloning is cheap: shards are shared until one of the clones changes them.
#[derive(Clone, Debug)]
pub struct ConnectionTable {
    shards: Vec<Arc<BTreeMap<ConnectionKey, ServerId>>>,
    len: usize,
    /// Live connections by service and server; no zero entries.
    counts: BTreeMap<(VirtualServiceId, ServerId), u64>,
}

impl Default for ConnectionTable {
    fn default() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS],
            len: 0,
            counts: BTreeMap::new(),
        }
    }
}

impl ConnectionTable {
    /// Number of connections.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The server a connection belongs to.
    pub fn get(&self, key: &ConnectionKey) -> Option<ServerId> {
        self.shards[shard(key)].get(key).copied()
    }

    /// All connections, in an order that depends on their keys alone.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionKey, ServerId)> + '_ {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter().map(|(key, server)| (*key, *server)))
    }

    /// Live connections by service and server.
    pub fn counts(&self) -> &BTreeMap<(VirtualServiceId, ServerId), u64> {
        &self.counts
    }

    /// Adds a connection that is not in the table.
    pub(crate) fn insert(&mut self, key: ConnectionKey, server: ServerId) {
        let old = Arc::make_mut(&mut self.shards[shard(&key)]).insert(key, server);
        debug_assert_eq!(old, None, "a connection keeps its server");
        self.len += 1;
        *self.counts.entry((key.service, server)).or_default() += 1;
    }

    /// Removes a connection; `false` when it was not there.
    pub(crate) fn remove(&mut self, key: &ConnectionKey) -> bool {
        let slot = &mut self.shards[shard(key)];
        if !slot.contains_key(key) {
            return false;
        }
        let Some(server) = Arc::make_mut(slot).remove(key) else {
            return false;
        };
        self.len -= 1;
        let pair = (key.service, server);
        if let Some(count) = self.counts.get_mut(&pair) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&pair);
            }
        }
        true
    }
}

impl PartialEq for ConnectionTable {
    fn eq(&self, other: &Self) -> bool {
        self.shards == other.shards
    }
}

/// Which shard a connection is in: FNV-1a over its fields, the same on every machine.
fn shard(key: &ConnectionKey) -> usize {
    let bytes = ConnectionChange::Close(*key).encode();
    let hash = bytes[4..].iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    // The upper half is mixed in: FNV's low bits alone spread addresses poorly.
    (hash ^ (hash >> 16)) as usize & (SHARDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> ConnectionKey {
        ConnectionKey {
            client: "192.0.2.7".parse().unwrap(),
            port,
            service: VirtualServiceId(1),
        }
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut table = ConnectionTable::default();
        table.insert(key(1), ServerId(1));
        let snapshot = table.clone();
        table.insert(key(2), ServerId(2));
        assert!(table.remove(&key(1)));
        assert!(!table.remove(&key(1)));
        assert_eq!(snapshot.iter().collect::<Vec<_>>(), [(key(1), ServerId(1))]);
        assert_eq!(table.len(), 1);
        assert_eq!(
            table.counts(),
            &BTreeMap::from([((VirtualServiceId(1), ServerId(2)), 1)])
        );
    }

    #[test]
    fn shards_are_used_evenly() {
        let mut table = ConnectionTable::default();
        for port in 0..40_960 {
            table.insert(key(port), ServerId(1));
        }
        let fullest = table.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(fullest < 60, "{fullest} of 40960 in one of 4096 shards");
    }
}
