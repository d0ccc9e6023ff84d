//! The durable Raft log and vote; one thread writes and syncs, and what came meanwhile goes into its next sync.
//!
//! The whole log that is not purged is also kept in memory: snapshots bound it ([`LogStore::snapshot_due`]), and no read touches
//! the disk. Invariant: nothing is acknowledged (vote, append, truncation, purge) before it is synced; the commit index
//! and the state machine are not synced, they are found again from the log.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::planted::{self, Bug};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use prost::Message;
use proto::v1;
use tokio::sync::{mpsc, oneshot};

use super::codec::{self, Malformed};
use super::log_database::{Change, Database, DatabaseError, Space};
use super::{Entry, LogId, TypeConfig, Vote};
use crate::clock;

/// Jobs waiting for the writer at most; openraft has far fewer in flight, so a full queue means the disk is stuck and the
/// caller waits with it.
const QUEUE_MAX: usize = 4096;

/// Appends that go into one sync at most; more would only make the first of them wait longer.
const GROUP_MAX: usize = 256;

const KEY_VOTE: &str = "vote";
const KEY_PURGED: &str = "purged";

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database itself.
    #[error("the log in {} cannot be opened; if its files are damaged, move the data directory away, let the group forget it (atmctl atm forget) and start again", path.display())]
    Open {
        /// Directory of the database.
        path: PathBuf,
        /// What the database says.
        #[source]
        source: DatabaseError,
    },
    /// A record in it.
    #[error("the log in {} is damaged: {what}; move the data directory away, let the group forget it (atmctl atm forget) and start again", path.display())]
    Damaged {
        /// Directory of the database.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The log as openraft uses it. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

struct Shared {
    memory: Mutex<Memory>,
    /// Boot-time nanoseconds at which the writer began the sync that is under way; 0: none is.
    busy_since: AtomicU64,
    /// Bytes appended since a snapshot was last due.
    appended: AtomicU64,
}

#[derive(Default)]
struct Memory {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

enum Job {
    Append(Vec<(u64, Vec<u8>)>, IOFlushed<TypeConfig>),
    Vote(Vec<u8>, oneshot::Sender<io::Result<()>>),
    /// Removes entries from this index on.
    Truncate(u64, oneshot::Sender<io::Result<()>>),
    /// Removes entries up to and including this one.
    Purge(v1::LogId, u64, oneshot::Sender<io::Result<()>>),
}

/// How the log lies in its database.
struct Disk {
    database: Database,
}

/// Owns the disk and takes jobs in order.
struct Writer {
    disk: Disk,
    queue: mpsc::Receiver<Job>,
    /// Found while appends were gathered: its turn is next.
    next: Option<Job>,
    shared: Arc<Shared>,
}

impl LogStore {
    /// Opens or creates the log in `path` and starts its writer.
    #[cfg(not(atm_sim))]
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let database = Database::open(path).map_err(open)?;
        let (store, mut writer) = Self::on(database, path)?;
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                while let Some(job) = writer.next.take().or_else(|| writer.queue.blocking_recv()) {
                    writer.begin();
                    writer.perform(job).answer();
                    writer.end();
                }
            })
            .map_err(|error| open(DatabaseError::Io(error)))?;
        Ok(store)
    }

    /// The same on a simulated disk, where a task takes the place of the thread and the disk its time.
    #[cfg(atm_sim)]
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::open(path).map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })?;
        let (store, mut writer) = Self::on(database.clone(), path)?;
        tokio::spawn(async move {
            loop {
                let job = match writer.next.take() {
                    Some(job) => job,
                    None => match writer.queue.recv().await {
                        Some(job) => job,
                        None => return,
                    },
                };
                writer.begin();
                // A crash finds the change written and not yet acknowledged, or not written at all.
                let (before, after) = database.delays();
                tokio::time::sleep(before).await;
                let performed = writer.perform(job);
                tokio::time::sleep(after).await;
                performed.answer();
                writer.end();
            }
        });
        Ok(store)
    }

    /// The log in a database, and its writer, which is to be run.
    fn on(database: Database, path: &Path) -> Result<(Self, Writer), StoreError> {
        let disk = Disk { database };
        let memory = disk.load().map_err(|problem| match problem {
            LoadError::Database(source) => StoreError::Open {
                path: path.to_owned(),
                source,
            },
            LoadError::Damaged(what) => StoreError::Damaged {
                path: path.to_owned(),
                what,
            },
        })?;
        let shared = Arc::new(Shared {
            memory: Mutex::new(memory),
            busy_since: AtomicU64::new(0),
            appended: AtomicU64::new(0),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            disk,
            queue,
            next: None,
            shared: Arc::clone(&shared),
        };
        Ok((Self { shared, jobs }, writer))
    }

    /// How long the sync that is under way has been; zero when none is. A watchdog gives up the lease on it.
    pub(crate) fn busy_for(&self) -> Duration {
        match self.shared.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => clock::now().saturating_since(model::Instant::from_nanos(since)),
        }
    }

    /// Whether more than `limit` bytes were appended since this last said so: time for a snapshot.
    pub(crate) fn snapshot_due(&self, limit: u64) -> bool {
        let due = self.shared.appended.load(Ordering::Relaxed) > limit;
        if due {
            self.shared.appended.store(0, Ordering::Relaxed);
        }
        due
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn submit(&self, job: Job) -> io::Result<()> {
        self.jobs
            .send(job)
            .await
            .map_err(|_| io::Error::other("the log writer has stopped"))
    }

    async fn submit_and_wait(
        &self,
        job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job,
    ) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.submit(job(done)).await?;
        wait.await
            .map_err(|_| io::Error::other("the log writer has stopped"))?
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // An empty or reversed range would make BTreeMap panic.
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        Ok(self
            .memory()
            .entries
            .range(start..end)
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.memory();
        let last = memory
            .entries
            .last_key_value()
            .map(|(_, entry)| entry.log_id())
            .or(memory.purged);
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = codec::vote_to(vote).encode_to_vec();
        self.submit_and_wait(|done| Job::Vote(bytes, done)).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut memory = self.memory();
            for entry in entries {
                let index = entry.log_id().index();
                records.push((index, codec::entry_to(&entry).encode_to_vec()));
                memory.entries.insert(index, entry);
            }
        }
        let bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
        self.shared
            .appended
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.submit(Job::Append(records, callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index() + 1);
        self.memory().entries.split_off(&from);
        self.submit_and_wait(|done| Job::Truncate(from, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let first = {
            let mut memory = self.memory();
            let first = memory
                .entries
                .first_key_value()
                .map_or(upto.index() + 1, |(index, _)| *index);
            let kept = memory.entries.split_off(&(upto.index() + 1));
            memory.entries = kept;
            memory.purged = memory.purged.max(Some(upto));
            first
        };
        self.submit_and_wait(|done| Job::Purge(codec::log_id_to(&upto), first, done))
            .await
    }
}

enum LoadError {
    Database(DatabaseError),
    Damaged(String),
}

impl From<DatabaseError> for LoadError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl Disk {
    fn load(&self) -> Result<Memory, LoadError> {
        let damaged = |what: &str, error: &dyn std::fmt::Display| {
            LoadError::Damaged(format!("{what}: {error}"))
        };
        let mut memory = Memory::default();
        if let Some(bytes) = self.database.meta(KEY_VOTE)? {
            let vote = v1::RaftVote::decode(&bytes[..]).map_err(|error| damaged("vote", &error))?;
            memory.vote =
                Some(codec::vote_from(Some(vote)).map_err(|error| damaged("vote", &error))?);
        }
        if let Some(bytes) = self.database.meta(KEY_PURGED)? {
            let purged =
                v1::LogId::decode(&bytes[..]).map_err(|error| damaged("purge mark", &error))?;
            memory.purged = Some(codec::log_id_from(purged));
        }
        let mut expected = memory.purged.map(|purged| purged.index() + 1);
        for item in self.database.log_from([0; 8]) {
            let (key, value) = item?;
            let index = <[u8; 8]>::try_from(&key[..])
                .map(u64::from_be_bytes)
                .map_err(|_| LoadError::Damaged("odd key".into()))?;
            if expected.is_some_and(|expected| index < expected) {
                // Left by a crash between the purge mark and the removal.
                continue;
            }
            if expected.is_some_and(|expected| index != expected) {
                return Err(LoadError::Damaged(format!(
                    "entries before {index} are missing"
                )));
            }
            let entry =
                decode_entry(&value).map_err(|error| damaged(&format!("entry {index}"), &error))?;
            if entry.log_id().index() != index {
                return Err(LoadError::Damaged(format!(
                    "entry {index} calls itself {}",
                    entry.log_id().index()
                )));
            }
            memory.entries.insert(index, entry);
            expected = Some(index + 1);
        }
        Ok(memory)
    }

    fn append(&self, records: impl Iterator<Item = (u64, Vec<u8>)>) -> Result<(), DatabaseError> {
        let put = |(index, record)| Change::Put(Space::Log, key(index), record);
        self.database.commit(records.map(put), synced())
    }

    fn save_vote(&self, bytes: Vec<u8>) -> Result<(), DatabaseError> {
        let put = Change::Put(Space::Meta, KEY_VOTE.into(), bytes);
        self.database.commit([put], synced())
    }

    fn truncate(&self, from: u64) -> Result<(), DatabaseError> {
        let mut changes = Vec::new();
        for item in self.database.log_from(from.to_be_bytes()) {
            changes.push(Change::Remove(Space::Log, item?.0.to_vec()));
        }
        self.database.commit(changes, synced())
    }

    fn purge(&self, upto: &v1::LogId, first: u64) -> Result<(), DatabaseError> {
        let mark = Change::Put(Space::Meta, KEY_PURGED.into(), upto.encode_to_vec());
        let gone = (first..=upto.index).map(|index| Change::Remove(Space::Log, key(index)));
        self.database
            .commit([mark].into_iter().chain(gone), synced())
    }
}

/// What is acknowledged is synced first.
fn synced() -> bool {
    !planted::is(Bug::LogNotSynced)
}

fn key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

fn decode_entry(bytes: &[u8]) -> Result<Entry, Malformed> {
    codec::entry_from(v1::Entry::decode(bytes)?)
}

impl Writer {
    fn begin(&self) {
        let now = clock::now().as_nanos();
        self.shared.busy_since.store(now, Ordering::Release);
    }

    fn end(&self) {
        self.shared.busy_since.store(0, Ordering::Release);
    }

    /// Does a job; appends that wait behind one go with it. Nobody is answered yet.
    fn perform(&mut self, job: Job) -> Performed {
        match job {
            Job::Append(records, callback) => {
                let mut group = vec![(records, callback)];
                while group.len() < GROUP_MAX {
                    match self.queue.try_recv() {
                        Ok(Job::Append(records, callback)) => group.push((records, callback)),
                        Ok(other) => {
                            self.next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                let (records, callbacks): (Vec<_>, Vec<_>) = group.into_iter().unzip();
                let result = self.disk.append(records.into_iter().flatten());
                Performed::Appended(callbacks, result)
            }
            Job::Vote(bytes, done) => Performed::Other(done, self.disk.save_vote(bytes)),
            Job::Truncate(from, done) => Performed::Other(done, self.disk.truncate(from)),
            Job::Purge(upto, first, done) => Performed::Other(done, self.disk.purge(&upto, first)),
        }
    }
}

/// What became of a job, for whoever waits for it.
enum Performed {
    Appended(Vec<IOFlushed<TypeConfig>>, Result<(), DatabaseError>),
    Other(oneshot::Sender<io::Result<()>>, Result<(), DatabaseError>),
}

impl Performed {
    fn answer(self) {
        match self {
            Self::Appended(callbacks, result) => {
                let failure = result.err().map(|error| error.to_string());
                for callback in callbacks {
                    callback.io_completed(
                        failure
                            .as_ref()
                            .map_or(Ok(()), |error| Err(io::Error::other(error.clone()))),
                    );
                }
            }
            // Nobody waits any more when the process is going down.
            Self::Other(done, result) => {
                let _ = done.send(result.map_err(io::Error::other));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::RaftTypeConfig;
    use openraft::type_config::async_runtime::oneshot::Oneshot as _;
    use openraft::vote::leader_id_std::CommittedLeaderId;

    fn entry(term: u64, index: u64) -> Entry {
        let command = super::super::StoredCommand(prost::bytes::Bytes::from(vec![1; 100]));
        Entry::new(
            LogId::new(CommittedLeaderId::new(term), index),
            openraft::EntryPayload::Normal(command),
        )
    }

    async fn append(store: &mut LogStore, entries: Vec<Entry>) {
        type Oneshot = openraft::type_config::alias::OneshotOf<TypeConfig>;
        let (sender, receiver) = Oneshot::channel();
        store
            .append(entries, IOFlushed::signal(sender))
            .await
            .unwrap();
        receiver.await.unwrap().unwrap();
    }

    async fn indexes(store: &mut LogStore) -> Vec<u64> {
        store
            .try_get_log_entries(..)
            .await
            .unwrap()
            .iter()
            .map(|entry| entry.log_id().index())
            .collect()
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        {
            let mut store = LogStore::open(&path).unwrap();
            assert!(indexes(&mut store).await.is_empty());
            store.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
            append(&mut store, (0..10).map(|index| entry(3, index)).collect()).await;
            store
                .truncate_after(Some(LogId::new(CommittedLeaderId::new(3), 7)))
                .await
                .unwrap();
            store
                .purge(LogId::new(CommittedLeaderId::new(3), 2))
                .await
                .unwrap();
            append(&mut store, vec![entry(4, 8)]).await;
        }
        // The writer lets go of the database a moment after the last handle is dropped.
        let mut store = loop {
            match LogStore::open(&path) {
                Ok(store) => break store,
                Err(StoreError::Open { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(indexes(&mut store).await, [3, 4, 5, 6, 7, 8]);
        assert_eq!(
            store.read_vote().await.unwrap(),
            Some(Vote::new_committed(3, 1))
        );
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id.map(|id| id.index()), Some(2));
        assert_eq!(
            state
                .last_log_id
                .map(|id| (id.committed_leader_id().term, id.index())),
            Some((4, 8))
        );
        assert_eq!(store.busy_for(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_damaged_log_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), "not a directory").unwrap();
        let error = LogStore::open(&dir.path().join("log")).err().unwrap();
        assert!(error.to_string().contains("cannot be opened"), "{error}");
    }

    #[tokio::test]
    async fn reversed_ranges_are_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = LogStore::open(&dir.path().join("log")).unwrap();
        append(&mut store, vec![entry(1, 0)]).await;
        let reversed = (Bound::Included(5), Bound::Excluded(2));
        assert!(
            store
                .try_get_log_entries(reversed)
                .await
                .unwrap()
                .is_empty()
        );
    }

    const _: fn() = || {
        fn config<C: RaftTypeConfig>() {}
        config::<TypeConfig>();
    };
}
