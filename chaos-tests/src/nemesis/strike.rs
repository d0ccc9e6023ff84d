//! What every fault can do: say whom it strikes and what harm it does, begin, and leave behind how it is undone.

use rustix::time::{ClockId, clock_gettime};

use crate::lab::{Lab, ROGUE_NAME};

use super::chance::Chance;
use super::error::NemesisError;
use super::scene::Scene;
use super::schedule::FaultId;
use super::target::{Resolved, Target, minority_of};

/// A fault that can be made to happen.
pub trait Strike {
    /// Its name in tables and plots, as `kill` or `slow-fsync`: the same for all parameters.
    fn name(&self) -> &'static str;

    /// Whom it strikes. They are resolved together, right before [`Self::begin`].
    fn targets(&self) -> Vec<Target>;

    /// What the ATMs that it strikes lose while it lasts; generators keep the sum within what the cluster promises to survive.
    fn harm(&self) -> Harm;

    /// Makes it happen. Before each thing that it breaks it hands `undo` what restores it: after an error what was handed
    /// over until then is run.
    ///
    /// # Errors
    /// The fault could not be applied, or not to everybody.
    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError>;
}

/// A family that faults can be drawn from.
pub trait Draw: Sized {
    /// A fault that makes sense within `bounds`, and how long it should last.
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self>;
}

/// A fault and its duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lasting<F> {
    /// The fault.
    pub fault: F,
    /// From its begin to its end, in ms. 0: what it does is done at once.
    pub lasts_ms: u64,
}

impl<F> Lasting<F> {
    /// The same duration of what `wrap` makes of the fault.
    pub fn map<G>(self, wrap: impl FnOnce(F) -> G) -> Lasting<G> {
        Lasting {
            fault: wrap(self.fault),
            lasts_ms: self.lasts_ms,
        }
    }
}

/// What a generator may assume of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// ATMs, at least 1.
    pub atms: usize,
    /// Servers.
    pub servers: usize,
    /// Length of a lease in ms: pauses are drawn shorter and longer than this.
    pub lease_ms: u64,
    /// Whether the lab has the userspace switch: without it there is no delay, jitter or reordering.
    pub switch: bool,
    /// Whether the lab has the host `rogue`.
    pub rogue: bool,
}

impl Bounds {
    /// Those of `lab`, whose leases are `lease_ms` long.
    #[must_use]
    pub fn of(lab: &Lab, lease_ms: u64) -> Self {
        let hosts = lab.hosts();
        Self {
            atms: hosts.iter().filter(|host| host.is_atm()).count(),
            servers: hosts.iter().filter(|host| host.is_server()).count(),
            lease_ms,
            switch: lab.record().switched,
            rogue: hosts.iter().any(|host| host.name() == ROGUE_NAME),
        }
    }

    /// How many ATMs may be without power or memory of the past at one time.
    #[must_use]
    pub fn down_max(&self) -> usize {
        minority_of(self.atms)
    }

    /// One backup, or the only ATM.
    pub fn some_atm(&self, chance: &mut Chance) -> Target {
        let backups = u64::try_from(self.atms.saturating_sub(1)).unwrap_or(0);
        // The active ATM is what clients notice; half of the faults are its.
        if backups == 0 || chance.percent(50) {
            return Target::Active;
        }
        Target::Backup(u16::try_from(chance.between(1, backups)).unwrap_or(1))
    }

    /// One server.
    pub fn some_server(&self, chance: &mut Chance) -> Target {
        let servers = u64::try_from(self.servers).unwrap_or(1).max(1);
        Target::Server(u16::try_from(chance.between(1, servers)).unwrap_or(1))
    }
}

/// What a struck ATM loses while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Time, packets, or nothing at all: as many ATMs as one likes may suffer it.
    Bearable,
    /// It does not run: at most a minority at one time; a fault that takes down more by design (all restarted) is alone.
    Down,
    /// What it had stored: at most a minority, and nobody else may be down meanwhile.
    Amnesia,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The fault's number in its schedule.
    pub id: FaultId,
    /// The schedule's seed and the number mixed: for what the fault leaves to chance.
    pub seed: u64,
    /// Its targets, in the order of [`Strike::targets`].
    pub resolved: &'a [Resolved],
}

impl Place<'_> {
    /// The hosts of the n-th target.
    #[must_use]
    pub fn hosts(&self, n: usize) -> &[String] {
        self.resolved.get(n).map_or(&[], |r| &r.hosts[..])
    }
}

type UndoStep = Box<dyn FnMut(&Scene<'_>) -> Result<(), NemesisError> + Send>;

/// How a fault is undone: steps that run latest first, each until it succeeds once.
#[derive(Default)]
pub struct Undo {
    steps: Vec<UndoStep>,
}

impl Undo {
    /// Adds a step. It may be run again after an error, and must then do no harm.
    pub fn push(
        &mut self,
        step: impl FnMut(&Scene<'_>) -> Result<(), NemesisError> + Send + 'static,
    ) {
        self.steps.push(Box::new(step));
    }

    /// Whether nothing is left to be undone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Runs every step, also behind one that fails; those that fail stay for another call.
    ///
    /// # Errors
    /// The first error.
    pub fn run(&mut self, scene: &Scene<'_>) -> Result<(), NemesisError> {
        let mut failed = Vec::new();
        let mut first = Ok(());
        for mut step in std::mem::take(&mut self.steps).into_iter().rev() {
            if let Err(error) = step(scene) {
                failed.push(step);
                first = first.and(Err(error));
            }
        }
        failed.reverse();
        self.steps = failed;
        first
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Undo({} steps)", self.steps.len())
    }
}

/// CLOCK_MONOTONIC in nanoseconds: the axis of every history of a run.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}
