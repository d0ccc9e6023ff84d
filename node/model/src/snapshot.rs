//! The canonical form of a state: what a snapshot carries and what two ATMs compare (P4).
//!
//! Layout: format byte, length of the head (8 bytes, big endian), the head in postcard, then one record per connection,
//! then one per sticky client. What follows from these is not stored. `FORMAT_WITHOUT_HEALTH`, from before there were
//! reasons, orders, events and scripts, and `FORMAT_OLD`, from before there were source addresses, source ports and sticky
//! clients, are read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::conf::ForwardingMethod;
use crate::connections::{BadRecord, CHANGE_LEN, ConnectionTable, Entry, OLD_CHANGE_LEN};
use crate::health::{Health, Subject};
use crate::ids::{ConfigNumber, NodeId, ServerId, VirtualServiceId};
use crate::invariants::Violation;
use crate::planted::{self, Bug};
use crate::source_ports::SourcePorts;
use crate::state::{ConfigVersion, Current, ServerEntry, ServiceEntry, State, Tenure};
use crate::sticky::{StickyRules, StickyTable};
use crate::version::check_version;

const FORMAT_OLD: u8 = 1;
const FORMAT_WITHOUT_HEALTH: u8 = 2;
const FORMAT: u8 = 3;

/// Everything but the connections and the sticky clients. Ordered maps only: equal states have equal bytes.
#[derive(Serialize, Deserialize)]
struct Head<S> {
    versions: BTreeMap<ConfigNumber, ConfigVersion>,
    tenure: Option<Tenure>,
    incarnations: BTreeMap<NodeId, String>,
    servers: BTreeMap<ServerId, S>,
    services: BTreeMap<VirtualServiceId, ServiceEntry>,
    down: BTreeSet<Subject>,
}

/// The head of `FORMAT`.
#[derive(Serialize, Deserialize)]
struct HeadWithHealth {
    head: Head<ServerEntry>,
    health: Health,
}

/// A [`ServerEntry`] of `FORMAT_OLD`.
#[derive(Deserialize)]
struct OldServerEntry {
    name: String,
    address: IpAddr,
    method: ForwardingMethod,
    configured: bool,
}

impl From<OldServerEntry> for ServerEntry {
    fn from(old: OldServerEntry) -> Self {
        Self {
            name: old.name,
            address: old.address,
            method: old.method,
            source: None,
            configured: old.configured,
        }
    }
}

/// A snapshot that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// Cut short, or not a snapshot.
    #[error("snapshot of {0} bytes is cut short")]
    Truncated(usize),
    /// Written by a newer version, or damaged.
    #[error("snapshot of unknown format {0} (written by a newer version?)")]
    Format(u8),
    /// The head.
    #[error("snapshot head cannot be decoded")]
    Head(#[from] postcard::Error),
    /// A connection or a sticky client.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// Its configuration is not valid for this version of the program.
    #[error("the snapshot's configuration is refused: {0}")]
    Config(String),
    /// It breaks an invariant that every state keeps.
    #[error("the snapshot contradicts itself: {0:?}")]
    Inconsistent(Vec<Violation>),
    /// A connection or a client that is there twice, or a client that is not masked.
    #[error("record {0} does not belong in the snapshot")]
    Misplaced(usize),
}

impl State {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            versions: self.versions.clone(),
            tenure: self.tenure.clone(),
            incarnations: self.incarnations.clone(),
            servers: self.servers.clone(),
            services: self.services.clone(),
            down: self.down.clone(),
        };
        let health = self.health.clone();
        let head = HeadWithHealth { head, health };
        let head = postcard::to_stdvec(&head).expect("a vector takes any state");
        let records = self.connections.len() + self.sticky.len();
        let mut bytes = Vec::with_capacity(9 + head.len() + records * CHANGE_LEN);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&(head.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&head);
        let left_out = usize::from(planted::is(Bug::SnapshotMissingAnEntry));
        let carried = self.connections.len().saturating_sub(left_out);
        for (key, pin) in self.connections.iter().take(carried) {
            bytes.extend_from_slice(&Entry::Connection(key, pin).encode());
        }
        for (key, server) in self.sticky.iter() {
            bytes.extend_from_slice(&Entry::Sticky(key, server).encode());
        }
        bytes
    }

    /// The inverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let truncated = || BadSnapshot::Truncated(bytes.len());
        let (format, rest) = bytes.split_first().ok_or_else(truncated)?;
        if ![FORMAT, FORMAT_WITHOUT_HEALTH, FORMAT_OLD].contains(format) {
            return Err(BadSnapshot::Format(*format));
        }
        let (len, rest) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let len = usize::try_from(u64::from_be_bytes(*len)).map_err(|_| truncated())?;
        let (head, records) = rest.split_at_checked(len).ok_or_else(truncated)?;
        let (state, odd) = if *format == FORMAT_OLD {
            let head: Head<OldServerEntry> = postcard::from_bytes(head)?;
            let mut state = State::of_head(head, Health::default())?;
            let (records, odd) = records.as_chunks::<OLD_CHANGE_LEN>();
            state.take_entries(records.iter().map(Entry::decode_old))?;
            (state, odd)
        } else {
            let HeadWithHealth { head, health } = if *format == FORMAT {
                postcard::from_bytes(head)?
            } else {
                HeadWithHealth {
                    head: postcard::from_bytes(head)?,
                    health: Health::default(),
                }
            };
            let mut state = State::of_head(head, health)?;
            let (records, odd) = records.as_chunks::<CHANGE_LEN>();
            state.take_entries(records.iter().map(Entry::decode))?;
            (state, odd)
        };
        if !odd.is_empty() {
            return Err(truncated());
        }
        let violations = state.violations();
        if violations.is_empty() {
            Ok(state)
        } else {
            Err(BadSnapshot::Inconsistent(violations))
        }
    }

    /// A state without connections.
    fn of_head<S: Into<ServerEntry>>(head: Head<S>, health: Health) -> Result<Self, BadSnapshot> {
        let current = head
            .versions
            .last_key_value()
            .map(|(number, version)| {
                let config = check_version(version)
                    .map_err(|refusal| BadSnapshot::Config(refusal.to_string()))?;
                Ok::<_, BadSnapshot>(Current {
                    number: *number,
                    config: Arc::new(config),
                    hosts: Arc::new(version.hosts.clone()),
                })
            })
            .transpose()?;
        let servers = head.servers.into_iter();
        let mut state = Self {
            versions: head.versions,
            current,
            tenure: head.tenure,
            incarnations: head.incarnations,
            servers: servers.map(|(id, entry)| (id, entry.into())).collect(),
            services: head.services,
            down: head.down,
            health,
            connections: ConnectionTable::default(),
            source_ports: SourcePorts::default(),
            sticky: StickyTable::default(),
            sticky_rules: StickyRules::default(),
        };
        state.sticky_rules = state.compile_sticky_rules();
        Ok(state)
    }

    fn take_entries(
        &mut self,
        entries: impl Iterator<Item = Result<Entry, BadRecord>>,
    ) -> Result<(), BadSnapshot> {
        for (position, entry) in entries.enumerate() {
            match entry? {
                Entry::Connection(key, pin) if self.connections.get(&key).is_none() => {
                    self.insert_connection(key, pin);
                }
                Entry::Sticky(key, server)
                    if self.sticky.get(&key).is_none()
                        && self.sticky_key(key.service, key.client) == Some(key) =>
                {
                    self.sticky.set(key, server);
                }
                Entry::Connection(..) | Entry::Sticky(..) => {
                    return Err(BadSnapshot::Misplaced(position));
                }
            }
        }
        Ok(())
    }

    /// SHA-256 of the canonical bytes: equal digests, equal states.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }
}
