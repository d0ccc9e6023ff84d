//! Everything the API looks at.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::orders::EventFollowers;
use super::servers::Servers;
use crate::bootstrap::{Myself, Other};
use crate::conflicts::Conflicts;
use crate::health::HealthView;
use crate::lease::LeaseKeeper;
use crate::packets::Packets;
use crate::raft::{Machine, Raft};
use crate::replicator::ReplicatorCounters;
use crate::tenure::{HandOver, Timeline};
use crate::timing::Timing;

/// Everything the API looks at. One per process.
pub(crate) struct Cluster {
    /// Who this ATM is.
    pub(crate) myself: Arc<Myself>,
    /// The other ATMs.
    pub(crate) others: Vec<Other>,
    /// Consensus.
    pub(crate) raft: Raft,
    /// The replicated state.
    pub(crate) machine: Machine,
    /// The lease.
    pub(crate) lease: LeaseKeeper,
    /// The packet path.
    pub(crate) packets: Arc<Packets>,
    /// Who else claims a VIP.
    pub(crate) conflicts: Conflicts,
    /// What is known of health beside the replicated state.
    pub(crate) health: HealthView,
    /// What servers report.
    pub(crate) servers: Arc<Servers>,
    /// The latest tenure's instants.
    pub(crate) timeline: Arc<Mutex<Timeline>>,
    /// Where hand-overs are asked for.
    pub(crate) hand_overs: mpsc::Sender<HandOver>,
    /// Places for those who follow the events.
    pub(crate) event_followers: EventFollowers,
    /// Of the replicator.
    pub(crate) replicator: Arc<ReplicatorCounters>,
    /// Connections this process has room for.
    pub(crate) connections_max: usize,
    /// The intervals this process runs with.
    pub(crate) timing: Timing,
}
