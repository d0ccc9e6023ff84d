//! The disk under the log: it has the interface of the real database, loses what was not synced in a crash, takes its
//! time, and fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::host::{here, next};

/// An ordinary sync takes up to this long.
const SYNC_MAX: Duration = Duration::from_millis(3);

/// What the database says when it fails.
pub(crate) type DatabaseError = io::Error;

/// Which keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Entries, by index in big endian.
    Log,
    /// Vote and purge mark, by name.
    Meta,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Stores a value.
    Put(Space, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Remove(Space, Vec<u8>),
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Each sync takes this long.
    Slow(Duration),
    /// Writes are refused: no space left.
    Full,
    /// Writes fail, and so do syncs.
    Error,
}

type Records = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// A disk. Clones are the same disk; it outlives the process that writes to it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    /// As a reader sees it.
    records: Records,
    /// As it is found after a crash, but for what the crash spares of `unsynced`.
    durable: Records,
    unsynced: Vec<Vec<Change>>,
    fault: Fault,
    seed: u64,
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Platters {
            seed,
            ..Platters::default()
        })))
    }

    /// What is wrong with it from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.platters().fault = fault;
    }

    /// Its process has died or its host lost power: of what was written and not synced, only the first few batches are found.
    pub(super) fn crashed(&self) {
        let mut platters = self.platters();
        let unsynced = std::mem::take(&mut platters.unsynced);
        let spared = next(&mut platters.seed) % (unsynced.len() as u64 + 1);
        for (change, _) in unsynced.into_iter().zip(0..spared) {
            store(&mut platters.durable, change);
        }
        platters.records = platters.durable.clone();
    }

    fn platters(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn store(records: &mut Records, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(space, key, value) => records.insert((space, key), value),
            Change::Remove(space, key) => records.remove(&(space, key)),
        };
    }
}

/// The database of the host whose code runs.
#[derive(Clone)]
pub(crate) struct Database(Disk);

impl Database {
    /// Opens it. The directory marks that there is one, as on a real disk.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        std::fs::create_dir_all(path)?;
        Ok(Self(here().disk.clone()))
    }

    /// How long the next batch takes before it is written, and how long until it is acknowledged after that.
    pub(crate) fn delays(&self) -> (Duration, Duration) {
        let mut platters = self.0.platters();
        let most = match platters.fault {
            Fault::Slow(most) => most,
            Fault::None | Fault::Full | Fault::Error => SYNC_MAX,
        };
        let total = most.mul_f64((next(&mut platters.seed) % 1000) as f64 / 1000.0);
        if next(&mut platters.seed).is_multiple_of(2) {
            (total, Duration::ZERO)
        } else {
            (Duration::ZERO, total)
        }
    }

    /// A value of the keyspace `Meta`.
    pub(crate) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, DatabaseError> {
        let platters = self.0.platters();
        Ok(platters.records.get(&(Space::Meta, key.into())).cloned())
    }

    /// The keyspace `Log` from a key on, in order.
    pub(crate) fn log_from(
        &self,
        key: [u8; 8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), DatabaseError>> {
        let platters = self.0.platters();
        let range = platters
            .records
            .range((Space::Log, key.to_vec())..(Space::Meta, Vec::new()));
        let found: Vec<_> = range
            .map(|((_, key), value)| Ok((key.clone(), value.clone())))
            .collect();
        found.into_iter()
    }

    /// Makes all changes or none. Durable on return when `sync`.
    pub(crate) fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        sync: bool,
    ) -> Result<(), DatabaseError> {
        let mut platters = self.0.platters();
        match platters.fault {
            Fault::None | Fault::Slow(_) => {}
            Fault::Full => return Err(io::ErrorKind::StorageFull.into()),
            Fault::Error => return Err(io::Error::other("input/output error")),
        }
        let changes: Vec<Change> = changes.into_iter().collect();
        store(&mut platters.records, changes.clone());
        platters.unsynced.push(changes);
        if sync {
            platters.durable = platters.records.clone();
            platters.unsynced.clear();
        }
        Ok(())
    }
}
