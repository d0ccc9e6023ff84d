//! Consensus: log, state machine, network and service of openraft, whose API moves between releases.
//!
//! Invariant: its storage and network traits, entries and votes are named here only. Outside, `timing` makes its
//! configuration, and tenure, bootstrap, API and app read its metrics and propose commands.

pub(crate) mod codec;
#[cfg(not(atm_sim))]
mod log_database;
mod log_store;
mod machine;
mod network;
mod service;
mod snapshot_file;
mod suspicion;

use std::fmt;

use model::command::{Command, Response};
use model::ids::NodeId;

#[cfg(atm_sim)]
use crate::simulation::disk as log_database;

pub(crate) use log_store::{LogStore, StoreError};
pub(crate) use machine::{Applied, Glimpse, Machine};
pub(crate) use network::Network;
pub(crate) use service::{Consensus, PeerService};
pub(crate) use snapshot_file::SnapshotError;
pub(crate) use suspicion::{Suspecting, TOLD_MAX};

openraft::declare_raft_types!(
    /// The types consensus runs on. The standard leader id: one leader per term at most, which the lease relies on.
    pub(crate) TypeConfig:
        D = StoredCommand,
        R = Response,
        NodeId = u64,
        Node = Atm,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// What openraft spawns, waits and draws its random numbers by.
#[cfg(not(atm_sim))]
type Runtime = openraft_rt_tokio::TokioRuntime;
#[cfg(atm_sim)]
type Runtime = crate::simulation::Runtime;

/// Whatever starts tasks of openraft runs in this: in a simulation their random numbers come from a seed.
#[cfg(not(atm_sim))]
pub(crate) use std::convert::identity as seeded;

#[cfg(atm_sim)]
pub(crate) use crate::simulation::seeded;

/// The group's consensus, shared by everything in the process.
pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// Follows what openraft says of itself.
pub(crate) type Metrics =
    openraft::type_config::alias::WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>;

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, prost::bytes::Bytes>;
pub(crate) type Membership = openraft::Membership<u64, Atm>;

/// A member of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Atm {
    /// Its name in AtmPool.
    pub(crate) name: String,
    /// `host:port` of its Peer service.
    pub(crate) address: String,
}

impl fmt::Display for Atm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

/// A command in its stored form: decoded when it is applied, not before.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredCommand(pub prost::bytes::Bytes);

impl From<&Command> for StoredCommand {
    fn from(command: &Command) -> Self {
        Self(command.encode().into())
    }
}

impl fmt::Debug for StoredCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for StoredCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Node ids as the model counts them.
pub(crate) fn voters(membership: &StoredMembership) -> model::lease::Voters {
    membership
        .get_joint_config()
        .iter()
        .map(|set| set.iter().copied().map(NodeId).collect())
        .collect()
}
