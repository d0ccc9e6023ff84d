//! Records of the connection table as they are replicated: which server each live connection is pinned to.
//!
//! Invariant: a connection has one server, and one source port there, from `Open` to `Close`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use crate::ids::{ServerId, VirtualServiceId};
use crate::sharded::{Fnv, ShardKey, Sharded};
use crate::sticky::StickyKey;

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

/// What a connection is tied to while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin {
    /// Its server.
    pub server: ServerId,
    /// The port it comes from in the server's eyes; only of servers with `source=` (full NAT), where the client's own
    /// address and port are replaced.
    pub source_port: Option<NonZeroU16>,
}

impl From<ServerId> for Pin {
    fn from(server: ServerId) -> Self {
        Self {
            server,
            source_port: None,
        }
    }
}

/// One change of the replicated connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionChange {
    /// The connection exists and belongs to this server; so does its client, if the service is sticky.
    Open(ConnectionKey, Pin),
    /// The connection is over: closed, reset or idle for longer than ConnectionTimeout.
    Close(ConnectionKey),
    /// The client belongs to no server any more: `persist=` has passed since its last connection.
    Unstick(StickyKey),
}

/// Bytes of one encoded change, fixed so that a batch is encoded and decoded without a length per record.
pub const CHANGE_LEN: usize = 26;

/// Bytes of a change before there were source ports: the same without its last two.
pub(crate) const OLD_CHANGE_LEN: usize = 24;

/// A stored change that no writer of this program produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection record with unknown kind {0}")]
pub struct BadRecord(pub u8);

const OPEN: u8 = 1;
const CLOSE: u8 = 2;
const UNSTICK: u8 = 3;
/// Only in snapshots: in the log an `OPEN` says it.
const STICK: u8 = 4;

impl ConnectionChange {
    /// The connection that changes, if one does.
    pub const fn key(&self) -> Option<&ConnectionKey> {
        match self {
            Self::Open(key, _) | Self::Close(key) => Some(key),
            Self::Unstick(_) => None,
        }
    }

    /// Layout, big endian: kind 1, reserved 1, server 2, service 2, client port 2, client address 16 (IPv4 mapped,
    /// RFC 4291 §2.5.5.2), source port 2. What a kind does not have is zero.
    pub fn encode(&self) -> [u8; CHANGE_LEN] {
        match self {
            Self::Open(key, pin) => fields(OPEN, *pin, key),
            Self::Close(key) => fields(CLOSE, ServerId(0).into(), key),
            Self::Unstick(key) => fields(UNSTICK, ServerId(0).into(), &portless(*key)),
        }
    }

    /// The inverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8; CHANGE_LEN]) -> Result<Self, BadRecord> {
        let (kind, pin, key) = parse(bytes);
        match kind {
            OPEN => Ok(Self::Open(key, pin)),
            CLOSE => Ok(Self::Close(key)),
            UNSTICK => Ok(Self::Unstick(sticky(key))),
            kind => Err(BadRecord(kind)),
        }
    }

    /// A change as it was stored before there were source ports.
    pub(crate) fn decode_old(bytes: &[u8; OLD_CHANGE_LEN]) -> Result<Self, BadRecord> {
        match bytes[0] {
            OPEN | CLOSE => Self::decode(&widened(bytes)),
            kind => Err(BadRecord(kind)),
        }
    }
}

/// One record of a snapshot.
pub(crate) enum Entry {
    Connection(ConnectionKey, Pin),
    Sticky(StickyKey, ServerId),
}

impl Entry {
    pub(crate) fn encode(&self) -> [u8; CHANGE_LEN] {
        match self {
            Self::Connection(key, pin) => fields(OPEN, *pin, key),
            Self::Sticky(key, server) => fields(STICK, (*server).into(), &portless(*key)),
        }
    }

    pub(crate) fn decode(bytes: &[u8; CHANGE_LEN]) -> Result<Self, BadRecord> {
        let (kind, pin, key) = parse(bytes);
        match kind {
            OPEN => Ok(Self::Connection(key, pin)),
            STICK => Ok(Self::Sticky(sticky(key), pin.server)),
            kind => Err(BadRecord(kind)),
        }
    }

    /// A record of a snapshot from before there were source ports and sticky clients.
    pub(crate) fn decode_old(bytes: &[u8; OLD_CHANGE_LEN]) -> Result<Self, BadRecord> {
        match bytes[0] {
            OPEN => Self::decode(&widened(bytes)),
            kind => Err(BadRecord(kind)),
        }
    }
}

fn fields(kind: u8, pin: Pin, key: &ConnectionKey) -> [u8; CHANGE_LEN] {
    let mut bytes = [0; CHANGE_LEN];
    bytes[0] = kind;
    bytes[2..4].copy_from_slice(&pin.server.0.to_be_bytes());
    bytes[4..6].copy_from_slice(&key.service.0.to_be_bytes());
    bytes[6..8].copy_from_slice(&key.port.to_be_bytes());
    bytes[8..24].copy_from_slice(&wide(key.client));
    let port = pin.source_port.map_or(0, NonZeroU16::get);
    bytes[24..26].copy_from_slice(&port.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8; CHANGE_LEN]) -> (u8, Pin, ConnectionKey) {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut address = [0; 16];
    address.copy_from_slice(&bytes[8..24]);
    let pin = Pin {
        server: ServerId(word(2)),
        source_port: NonZeroU16::new(word(24)),
    };
    let key = ConnectionKey {
        client: Ipv6Addr::from(address).to_canonical(),
        port: word(6),
        service: VirtualServiceId(word(4)),
    };
    (bytes[0], pin, key)
}

fn widened(bytes: &[u8; OLD_CHANGE_LEN]) -> [u8; CHANGE_LEN] {
    let mut wide = [0; CHANGE_LEN];
    wide[..OLD_CHANGE_LEN].copy_from_slice(bytes);
    wide
}

const fn portless(key: StickyKey) -> ConnectionKey {
    ConnectionKey {
        client: key.client,
        port: 0,
        service: key.service,
    }
}

const fn sticky(key: ConnectionKey) -> StickyKey {
    StickyKey {
        service: key.service,
        client: key.client,
    }
}

/// The 16 bytes of an address in records and in hashes.
pub(crate) const fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The replicated connection table. Cloning is cheap: shards are shared until one of the clones changes them.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTable {
    pins: Sharded<ConnectionKey, Pin>,
    /// Live connections by service and server; no zero entries.
    counts: BTreeMap<(VirtualServiceId, ServerId), u64>,
    /// Those of them that have a source port; no zero entries.
    with_source_port: BTreeMap<(VirtualServiceId, ServerId), u64>,
}

impl ConnectionTable {
    /// Number of connections.
    pub fn len(&self) -> usize {
        self.pins.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a connection is tied to.
    pub fn get(&self, key: &ConnectionKey) -> Option<Pin> {
        self.pins.get(key)
    }

    /// All connections, in an order that depends on their keys alone.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionKey, Pin)> + '_ {
        self.pins.iter()
    }

    /// Live connections by service and server.
    pub fn counts(&self) -> &BTreeMap<(VirtualServiceId, ServerId), u64> {
        &self.counts
    }

    /// Live connections that have a source port, by service and server.
    pub(crate) fn with_source_port(&self) -> &BTreeMap<(VirtualServiceId, ServerId), u64> {
        &self.with_source_port
    }

    /// Adds a connection that is not in the table.
    pub(crate) fn insert(&mut self, key: ConnectionKey, pin: Pin) {
        let old = self.pins.insert(key, pin);
        debug_assert_eq!(old, None, "a connection keeps its server");
        let pair = (key.service, pin.server);
        *self.counts.entry(pair).or_default() += 1;
        if pin.source_port.is_some() {
            *self.with_source_port.entry(pair).or_default() += 1;
        }
    }

    /// Removes a connection; `None` when it was not there.
    pub(crate) fn remove(&mut self, key: &ConnectionKey) -> Option<Pin> {
        let pin = self.pins.remove(key)?;
        let pair = (key.service, pin.server);
        count_down(&mut self.counts, pair);
        if pin.source_port.is_some() {
            count_down(&mut self.with_source_port, pair);
        }
        Some(pin)
    }
}

impl PartialEq for ConnectionTable {
    fn eq(&self, other: &Self) -> bool {
        self.pins == other.pins
    }
}

/// One less of what is counted by service and server; no zero stays.
pub(crate) fn count_down(
    counts: &mut BTreeMap<(VirtualServiceId, ServerId), u64>,
    pair: (VirtualServiceId, ServerId),
) {
    if let Some(count) = counts.get_mut(&pair) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&pair);
        }
    }
}

impl ShardKey for ConnectionKey {
    fn feed(&self, hash: Fnv) -> Fnv {
        hash.bytes(&self.service.0.to_be_bytes())
            .bytes(&self.port.to_be_bytes())
            .bytes(&wide(self.client))
    }
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
        let ported = Pin {
            server: ServerId(2),
            source_port: NonZeroU16::new(7),
        };
        table.insert(key(1), ServerId(1).into());
        let snapshot = table.clone();
        table.insert(key(2), ported);
        assert_eq!(table.remove(&key(1)), Some(ServerId(1).into()));
        assert_eq!(table.remove(&key(1)), None);
        assert_eq!(
            snapshot.iter().collect::<Vec<_>>(),
            [(key(1), ServerId(1).into())]
        );
        assert_eq!((table.len(), table.get(&key(2))), (1, Some(ported)));
        let counts = BTreeMap::from([((VirtualServiceId(1), ServerId(2)), 1)]);
        assert_eq!(table.counts(), &counts);
        assert_eq!(table.with_source_port(), &counts);
        table.remove(&key(2));
        assert!(table.counts().is_empty() && table.with_source_port().is_empty());
    }

    #[test]
    fn records_have_their_bytes() {
        let pin = Pin {
            server: ServerId(0x0102),
            source_port: NonZeroU16::new(0x0304),
        };
        let opened = ConnectionChange::Open(key(0x9c40), pin).encode();
        let mut expected = [0; CHANGE_LEN];
        expected[..8].copy_from_slice(&[1, 0, 1, 2, 0, 1, 0x9c, 0x40]);
        expected[18..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7, 3, 4]);
        assert_eq!(opened, expected);
        let unstuck = ConnectionChange::Unstick(StickyKey {
            service: VirtualServiceId(5),
            client: "2001:db8::".parse().unwrap(),
        });
        let mut expected = [0; CHANGE_LEN];
        expected[..12].copy_from_slice(&[3, 0, 0, 0, 0, 5, 0, 0, 0x20, 1, 0x0d, 0xb8]);
        assert_eq!(unstuck.encode(), expected);
        assert_eq!(ConnectionChange::decode(&expected), Ok(unstuck));
    }

    #[test]
    fn only_snapshots_have_sticky_records_and_only_logs_have_ends() {
        let stuck = Entry::Sticky(sticky(key(0)), ServerId(1)).encode();
        assert_eq!(ConnectionChange::decode(&stuck), Err(BadRecord(STICK)));
        let closed = ConnectionChange::Close(key(1)).encode();
        assert_eq!(Entry::decode(&closed).err(), Some(BadRecord(CLOSE)));
        let old = |kind| {
            let mut bytes = [0; OLD_CHANGE_LEN];
            bytes[0] = kind;
            bytes
        };
        for kind in [UNSTICK, STICK] {
            let refused = Some(BadRecord(kind));
            assert_eq!(ConnectionChange::decode_old(&old(kind)).err(), refused);
            assert_eq!(Entry::decode_old(&old(kind)).err(), refused);
        }
    }
}
