//! One ATM: what its host keeps through a crash, and the process that a crash ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dataplane_core::{Forwarder, ForwardingTable, Interface, Limits, OtherAtms};
use model::Instant;
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::{Epoch, NodeId, ServerId};
use model::lease::Term;
use model::state::State;
use model::sticky::StickyKey;
use model::tenure::{Done, Tenures};

use super::chance::Chance;
use super::clock::{Clock, True};
use super::disk::Disk;
use super::hosts;
use super::keeper::Keeper;
use super::network::ATM;
use super::outlet::Outlet;
use super::raft::Raft;
use super::timing::Timing;

/// Held frames of one ATM at most. Small, so that it is reached at times.
const PENDING_MAX: usize = 16;
/// Entries of the forwarder's table.
const CONNECTIONS_MAX: usize = 1000;

#[derive(Debug)]
pub(crate) struct Atm {
    pub(crate) me: usize,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// Each write takes so long until then.
    pub(crate) slow: (True, True),
    pub(crate) full_until: True,
    /// Which process it is; answers to an earlier one are lost.
    pub(crate) life: u32,
    pub(crate) paused_until: True,
    /// The process will be stopped for so long in the middle of its next batch.
    pub(crate) stop_in_batch: Option<True>,
    pub(crate) process: Option<Box<Process>>,
}

/// What dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) raft: Raft,
    pub(crate) keeper: Keeper,
    pub(crate) tenures: Tenures,
    pub(crate) waits: Waits,
    /// Counts the tenure task's proposals.
    pub(crate) proposal: u64,
    pub(crate) leading_seen: Option<Term>,
    /// The term of the tenure that began last.
    pub(crate) begun: Term,
    pub(crate) machine: Machine,
    pub(crate) engine: Engine,
    pub(crate) waiters: BTreeMap<u64, (Term, Waiter)>,
    /// Entries of the replicator under way.
    pub(crate) under_way: usize,
    pub(crate) replicate_due: bool,
    pub(crate) apply_due: bool,
    pub(crate) timer_at: Option<True>,
}

/// What the tenure task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Nothing,
    Proposal(u64),
    Engine,
    Log(NodeId, Instant),
    Tenure(Epoch, Instant),
}

/// Who proposed an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    Tenure(u64),
    Replicator(Vec<ConnectionChange>),
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) state: State,
    pub(crate) applied: u64,
    /// A sum over all connections, kept up to date with each change.
    pub(crate) connections: u64,
    /// Committed entries up to here were told to the judge.
    pub(crate) reported: u64,
}

/// What the node asks of the engine.
#[derive(Debug)]
pub(crate) enum Control {
    Install(Box<ForwardingTable>),
    Commit(Vec<ConnectionChange>),
    Replace(Vec<(ConnectionKey, Pin)>, Vec<(StickyKey, ServerId)>),
    Refuse(ConnectionKey),
    OtherAtms(OtherAtms),
    Barrier,
    Relinquish,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) forwarder: Forwarder,
    pub(crate) outlet: Outlet,
    /// With the index that it brings the table to.
    pub(crate) control: VecDeque<(u64, Control)>,
    /// What was handed over, and what of it is in the table.
    pub(crate) handed: u64,
    pub(crate) reached: u64,
    /// Frames, and the wall clock when each arrived.
    pub(crate) socket: VecDeque<(u64, Vec<u8>)>,
    pub(crate) batch_at: Option<True>,
    /// A batch was decided and is not sent; what is answered then.
    pub(crate) open: Option<Vec<Done>>,
    pub(crate) received: u64,
}

impl Atm {
    pub(crate) fn new(me: usize, seed: u64) -> Self {
        Self {
            me,
            clock: Clock::new(&mut Chance::new(seed, 100 + me as u64)),
            disk: Disk::default(),
            slow: (0, 0),
            full_until: 0,
            life: 0,
            paused_until: 0,
            stop_in_batch: None,
            process: None,
        }
    }

    pub(crate) fn name(&self) -> String {
        name(self.me)
    }

    pub(crate) fn now(&self, now: True) -> Instant {
        self.clock.read(now)
    }

    /// The process, if it runs: it may be stopped.
    pub(crate) fn process(&mut self) -> Option<&mut Process> {
        self.process.as_deref_mut()
    }

    /// The epoch in which it may speak at this instant, stopped or not.
    pub(crate) fn speaks(&self, now: True) -> Option<Epoch> {
        let process = self.process.as_ref()?;
        process.keeper.held(self.now(now)).map(|lease| lease.epoch)
    }
}

pub(crate) fn name(me: usize) -> String {
    format!("atm{}", me + 1)
}

pub(crate) fn node(me: usize) -> NodeId {
    NodeId(1 + me as u64)
}

/// The ATM of a number.
pub(crate) fn place(node: NodeId) -> usize {
    usize::try_from(node.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

impl Process {
    pub(crate) fn start(
        me: usize,
        count: usize,
        timing: Timing,
        disk: &Disk,
        chance: &mut Chance,
        now: Instant,
    ) -> Result<Self, model::snapshot::BadSnapshot> {
        let voters = vec![(0..count).map(node).collect()];
        let keeper = Keeper::new(node(me), voters, now);
        let raft = Raft::start(me, count, timing, &disk.durable, chance, now);
        let (state, applied) = match &disk.durable.snapshot {
            None => (State::default(), 0),
            Some(snapshot) => (State::decode(&snapshot.bytes)?, snapshot.index),
        };
        let interface = Interface {
            mac: hosts::mac(ATM + me),
            address: hosts::address(ATM + me),
            prefix_len: 24,
            address6: None,
            link_local: None,
            mtu: 1500,
        };
        let limits = Limits {
            pending_max: PENDING_MAX,
            connections_max: CONNECTIONS_MAX,
        };
        Ok(Self {
            raft,
            tenures: Tenures::new(node(me), name(me), timing.lease),
            waits: Waits::Nothing,
            proposal: 0,
            leading_seen: None,
            begun: 0,
            machine: Machine {
                connections: Machine::sum(&state),
                state,
                applied,
                reported: applied,
            },
            engine: Engine {
                forwarder: Forwarder::new(interface, limits),
                outlet: Outlet::new(Arc::clone(&keeper.cell)),
                control: VecDeque::new(),
                handed: 0,
                reached: 0,
                socket: VecDeque::new(),
                batch_at: None,
                open: None,
                received: 0,
            },
            keeper,
            waiters: BTreeMap::new(),
            under_way: 0,
            replicate_due: false,
            apply_due: false,
            timer_at: None,
        })
    }
}

impl Machine {
    /// The sum over all connections of a state.
    pub(crate) fn sum(state: &State) -> u64 {
        state
            .connections()
            .iter()
            .fold(0, |sum, (key, pin)| sum.wrapping_add(weight(&key, pin)))
    }
}

/// What a connection adds to the sum.
pub(crate) fn weight(key: &ConnectionKey, pin: Pin) -> u64 {
    let mut digest = super::chance::Digest::default();
    digest.add_bytes(&ConnectionChange::Open(*key, pin).encode());
    digest.get()
}

impl Engine {
    /// Hands something over, after everything before.
    pub(crate) fn tell(&mut self, index: u64, control: Control) {
        self.handed = self.handed.max(index);
        self.control.push_back((index, control));
    }
}
