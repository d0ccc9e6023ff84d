//! What a simulated host has: a clock, a disk, a cable, a directory, a seed; and what is seen of it from outside.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::LeaseCell;
use dataplane::simulation::Cable;
use dataplane_core::Interface;
use futures_util::FutureExt;
use model::Instant;
use model::connections::ConnectionKey;
use model::ids::ServerId;
use model::lease::Lease;
use model::state::State;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::disk::Disk;
use crate::raft::{Machine, Raft};

/// Every so many indexes a digest is noted: it costs as much as a snapshot.
const DIGEST_EVERY: u64 = 8;

thread_local! {
    /// The host of each runtime. One simulation at a time uses a thread.
    static HOSTS: RefCell<HashMap<tokio::runtime::Id, Arc<Host>>> = RefCell::default();
}

/// A clock of leases: true time at its own rate, from its own zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// How much faster than true time it runs, in millionths.
    pub ppm: i64,
    /// What it showed at the beginning of the simulation, in nanoseconds.
    pub offset: u64,
}

impl Clock {
    /// What it shows at a true time.
    pub fn at(&self, true_time: Duration) -> Instant {
        let nanos = i128::try_from(true_time.as_nanos()).unwrap_or(i128::MAX);
        let own = nanos * (1_000_000 + i128::from(self.ppm)) / 1_000_000;
        Instant::from_nanos(self.offset + u64::try_from(own).unwrap_or(u64::MAX))
    }

    /// The true time at which it shows `instant`, rounded down; zero before the beginning.
    pub fn true_time(&self, instant: Instant) -> Duration {
        let own = i128::from(instant.as_nanos().saturating_sub(self.offset));
        let nanos = own * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A simulated host. It outlives the lives of its ATM.
pub struct Host {
    /// Name of its ATM.
    pub name: String,
    /// clusterserver.conf of its first start.
    pub configuration: String,
    /// Where its files are.
    pub directory: PathBuf,
    /// Its interface.
    pub interface: Interface,
    /// Its clock.
    pub clock: Clock,
    /// The disk its log is on.
    pub disk: Disk,
    /// The cable of its interface.
    pub cable: Cable,
    seed: Mutex<u64>,
    probe: Mutex<Probe>,
    digests: Mutex<BTreeMap<u64, [u8; 32]>>,
}

/// What is seen of a running ATM from outside. Empty between two lives.
#[derive(Clone, Default)]
pub struct Probe {
    pub(super) cell: Option<Arc<LeaseCell>>,
    pub(super) raft: Option<Raft>,
    pub(super) machine: Option<Machine>,
}

/// What Raft says of an ATM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its term.
    pub term: u64,
    /// Whether it leads that term.
    pub leads: bool,
    /// Index of the last entry it has applied.
    pub applied: u64,
}

impl Probe {
    /// The lease as its packet path sees it.
    pub fn lease(&self) -> Option<Lease> {
        self.cell.as_ref().and_then(|cell| cell.read())
    }

    /// What Raft says.
    pub fn role(&self) -> Option<Role> {
        let metrics = self.raft.as_ref()?.metrics();
        let metrics = metrics.borrow_watched();
        Some(Role {
            term: metrics.current_term,
            leads: metrics.state == ServerState::Leader,
            applied: metrics.last_applied.as_ref().map_or(0, |id| id.index()),
        })
    }

    /// The server of a connection in its replicated state.
    pub fn server_of(&self, key: &ConnectionKey) -> Option<ServerId> {
        let machine = self.machine.as_ref()?;
        let pin = machine.read(|state| state.connections().get(key))?;
        Some(pin.server)
    }

    /// How many connections there are in its replicated state.
    pub fn connections(&self) -> usize {
        let machine = self.machine.as_ref();
        machine.map_or(0, |machine| machine.read(|state| state.connections().len()))
    }

    /// If it leads, gives Raft's leadership to the ATM of this name, without ending its tenure first.
    pub fn transfer(&self, to: &str) {
        let Some(raft) = self.raft.clone() else {
            return;
        };
        let target = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let nodes = metrics.membership_config.nodes();
            let named = nodes.filter(|(_, atm)| atm.name == to).map(|(id, _)| *id);
            (metrics.state == ServerState::Leader)
                .then(|| named.last())
                .flatten()
        };
        if let Some(target) = target {
            // It is in Raft's queue after the first poll; its outcome is seen in who leads.
            let _ = raft.trigger().transfer_leader(target).now_or_never();
        }
    }

    /// Reads its replicated state.
    pub fn state<T>(&self, read: impl FnOnce(&State) -> T) -> Option<T> {
        Some(self.machine.as_ref()?.read(read))
    }
}

impl Host {
    /// A host that has not run yet.
    pub fn new(
        name: String,
        configuration: String,
        directory: PathBuf,
        interface: Interface,
        clock: Clock,
        seed: u64,
    ) -> Self {
        Self {
            name,
            configuration,
            directory,
            interface,
            clock,
            disk: Disk::new(seed ^ 0xd15c),
            cable: Cable::default(),
            seed: Mutex::new(seed),
            probe: Mutex::default(),
            digests: Mutex::default(),
        }
    }

    /// What is seen of it now.
    pub fn probe(&self) -> Probe {
        lock(&self.probe).clone()
    }

    /// Its process is gone: what it had not synced, had not sent, and had not looked at is lost.
    pub fn crashed(&self) {
        *lock(&self.probe) = Probe::default();
        self.disk.crashed();
        self.cable.clear();
    }

    /// Takes the digests of the states it went through since the last call, by index of the last applied entry.
    pub fn take_digests(&self) -> BTreeMap<u64, [u8; 32]> {
        std::mem::take(&mut lock(&self.digests))
    }

    /// From now on code of this runtime runs on this host.
    pub(super) fn live(self: &Arc<Self>) {
        let runtime = tokio::runtime::Handle::current().id();
        HOSTS.with_borrow_mut(|hosts| hosts.insert(runtime, Arc::clone(self)));
        dataplane::simulation::set_clock(now);
    }

    /// The next number of its seed.
    pub(super) fn random(&self) -> u64 {
        next(&mut lock(&self.seed))
    }

    pub(super) fn probe_with(&self, change: impl FnOnce(&mut Probe)) {
        change(&mut lock(&self.probe));
    }

    pub(super) fn note_applied(&self, index: u64, state: &State) {
        // States that have parted stay apart, so some of the indexes tell as well as all.
        if index.is_multiple_of(DIGEST_EVERY) {
            lock(&self.digests).insert(index, state.digest());
        }
    }
}

/// The host whose code runs.
///
/// # Panics
/// Outside of a simulation: nothing that calls this is reached there.
pub(super) fn here() -> Arc<Host> {
    found().expect("this code runs on a simulated host")
}

/// SplitMix64: the next of a sequence.
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn found() -> Option<Arc<Host>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?.id();
    HOSTS.with_borrow(|hosts| hosts.get(&runtime).cloned())
}

/// The clock of the host whose code runs; its beginning where time does not matter any more, as when a host is torn down.
fn now() -> u64 {
    match (found(), turmoil::sim_elapsed()) {
        (Some(host), Some(elapsed)) => host.clock.at(elapsed).as_nanos(),
        (Some(host), None) => host.clock.offset,
        (None, _) => 0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
