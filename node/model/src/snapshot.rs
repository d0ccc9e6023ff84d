//! The canonical form of a state: what a snapshot carries and what two ATMs compare (P4).
//!
//! Layout: format byte, length of the head (8 bytes, big endian), the head in postcard, then one record per connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::connections::{BadRecord, CHANGE_LEN, ConnectionChange, ConnectionTable};
use crate::ids::{ConfigNumber, NodeId, ServerId, VirtualServiceId};
use crate::invariants::Violation;
use crate::planted::{self, Bug};
use crate::state::{ConfigVersion, Current, ServerEntry, ServiceEntry, State, Tenure};
use crate::version::check_version;

const FORMAT: u8 = 1;

/// Everything but the connections. Ordered maps only: equal states have equal bytes.
#[derive(Serialize, Deserialize)]
struct Head {
    versions: BTreeMap<ConfigNumber, ConfigVersion>,
    tenure: Option<Tenure>,
    incarnations: BTreeMap<NodeId, String>,
    servers: BTreeMap<ServerId, ServerEntry>,
    services: BTreeMap<VirtualServiceId, ServiceEntry>,
    down: BTreeSet<(ServerId, String)>,
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
    /// A connection.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// Its configuration is not valid for this version of the program.
    #[error("the snapshot's configuration is refused: {0}")]
    Config(String),
    /// It breaks an invariant that every state keeps.
    #[error("the snapshot contradicts itself: {0:?}")]
    Inconsistent(Vec<Violation>),
    /// A record that is not an open connection, or a connection that is there twice.
    #[error("connection record {0} does not belong in a snapshot")]
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
        let head = postcard::to_stdvec(&head).expect("a vector takes any state");
        let mut bytes = Vec::with_capacity(9 + head.len() + self.connections.len() * CHANGE_LEN);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&(head.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&head);
        let left_out = usize::from(planted::is(Bug::SnapshotMissingAnEntry));
        let carried = self.connections.len().saturating_sub(left_out);
        for (key, server) in self.connections.iter().take(carried) {
            bytes.extend_from_slice(&ConnectionChange::Open(key, server).encode());
        }
        bytes
    }

    /// The inverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let truncated = || BadSnapshot::Truncated(bytes.len());
        let (format, rest) = bytes.split_first().ok_or_else(truncated)?;
        if *format != FORMAT {
            return Err(BadSnapshot::Format(*format));
        }
        let (len, rest) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let len = usize::try_from(u64::from_be_bytes(*len)).map_err(|_| truncated())?;
        let (head, records) = rest.split_at_checked(len).ok_or_else(truncated)?;
        let head: Head = postcard::from_bytes(head)?;
        let (records, odd) = records.as_chunks::<CHANGE_LEN>();
        if !odd.is_empty() {
            return Err(truncated());
        }
        let mut connections = ConnectionTable::default();
        for (position, record) in records.iter().enumerate() {
            match ConnectionChange::decode(record)? {
                ConnectionChange::Open(key, server) if connections.get(&key).is_none() => {
                    connections.insert(key, server)
                }
                ConnectionChange::Open(..) | ConnectionChange::Close(_) => {
                    return Err(BadSnapshot::Misplaced(position));
                }
            }
        }
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
        let state = Self {
            versions: head.versions,
            current,
            tenure: head.tenure,
            incarnations: head.incarnations,
            servers: head.servers,
            services: head.services,
            down: head.down,
            connections,
        };
        let violations = state.violations();
        if violations.is_empty() {
            Ok(state)
        } else {
            Err(BadSnapshot::Inconsistent(violations))
        }
    }

    /// SHA-256 of the canonical bytes: equal digests, equal states.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }
}
