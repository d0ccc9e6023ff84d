//! The replicated state machine as openraft drives it: applies entries to the model's state and tells the packet path.
//!
//! Invariant: what an entry changed has been handed to [`Applied`] before the entry counts as applied, in log order. A
//! barrier through the packet path after an applied entry therefore proves that the table holds everything up to it (P3).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::{Stream, TryStreamExt};
use model::command::{Command, Response};
use model::connections::ConnectionChange;
use model::ids::ConfigNumber;
use model::state::{State, Tenure};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use prost::bytes::Bytes;
use tokio::sync::watch;
use tracing::trace;

use super::snapshot_file::{self, SnapshotError};
use super::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::clock;

/// Who must hear of applied changes before they count: the packet path.
pub(crate) trait Applied: Send + Sync + 'static {
    /// Committed changes of the connection table, in log order.
    fn connections(&self, changes: Vec<ConnectionChange>) -> BoxFuture<'_, ()>;
    /// Something else changed that the forwarding table is compiled from.
    fn table(&self, state: &State, index: u64) -> BoxFuture<'_, ()>;
    /// A tenure began or ended.
    fn tenure(&self, state: &State) -> BoxFuture<'_, ()>;
    /// The whole state was replaced by a snapshot.
    fn replaced(&self, state: &State, index: u64) -> BoxFuture<'_, ()>;
}

/// What changed last, for tasks that wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glimpse {
    /// Index of the last applied entry.
    pub(crate) applied: u64,
    /// The version in force.
    pub(crate) config: ConfigNumber,
    /// The latest tenure.
    pub(crate) tenure: Option<Tenure>,
    /// The number of the youngest event.
    pub(crate) events: u64,
}

/// The state machine. Clones share it.
#[derive(Clone)]
pub(crate) struct Machine {
    shared: Arc<Shared>,
}

struct Shared {
    core: Mutex<Core>,
    packets: Arc<dyn Applied>,
    snapshot_path: PathBuf,
    glimpse: watch::Sender<Glimpse>,
}

#[derive(Clone, Default)]
struct Core {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// Starts from the snapshot in `directory`, or from nothing.
    pub(crate) async fn open(
        directory: &Path,
        packets: Arc<dyn Applied>,
    ) -> Result<Self, SnapshotError> {
        let snapshot_path = directory.join("snapshot");
        let core = match snapshot_file::read(&snapshot_path)? {
            None => Core::default(),
            Some((meta, bytes)) => {
                Core::from_snapshot(meta, &bytes).map_err(|what| SnapshotError::Damaged {
                    path: snapshot_path.clone(),
                    what: what.to_string(),
                })?
            }
        };
        let machine = Self {
            shared: Arc::new(Shared {
                core: Mutex::new(core),
                packets,
                snapshot_path,
                glimpse: watch::Sender::default(),
            }),
        };
        machine.hand_over_all().await;
        Ok(machine)
    }

    /// Reads the state. Short: nothing is applied meanwhile.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.core().state)
    }

    /// The state at one applied index. The copy shares the connection table until either changes.
    pub(crate) fn state(&self) -> (State, u64) {
        let core = self.core();
        (core.state.clone(), index(core.applied))
    }

    /// What changed last.
    pub(crate) fn watch(&self) -> watch::Receiver<Glimpse> {
        self.shared.glimpse.subscribe()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.shared
            .core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn hand_over_all(&self) {
        let (state, index) = self.state();
        self.shared.packets.replaced(&state, index).await;
        self.announce();
    }

    fn announce(&self) {
        let glimpse = {
            let core = self.core();
            #[cfg(atm_sim)]
            crate::simulation::applied(index(core.applied), &core.state);
            Glimpse {
                applied: index(core.applied),
                config: core.state.config_number(),
                tenure: core.state.tenure().cloned(),
                events: core.state.events().last(),
            }
        };
        self.shared.glimpse.send_if_modified(|last| {
            let changed = *last != glimpse;
            *last = glimpse;
            changed
        });
    }

    /// Applies one entry and hands its effect on.
    async fn apply_one(
        &self,
        id: LogId,
        payload: EntryPayload<super::StoredCommand, u64, super::Atm>,
    ) -> io::Result<Response> {
        let command = match payload {
            EntryPayload::Blank => {
                self.core().applied = Some(id);
                return Ok(Response::None);
            }
            EntryPayload::Membership(membership) => {
                let mut core = self.core();
                core.applied = Some(id);
                core.membership = StoredMembership::new(Some(id), membership);
                return Ok(Response::None);
            }
            // A command that cannot be read must stop this replica: skipping it would let its state drift from the others'.
            EntryPayload::Normal(stored) => Command::decode(&stored.0).map_err(io::Error::other)?,
        };
        let (response, table) = {
            let mut core = self.core();
            let response = core.state.apply(command);
            core.applied = Some(id);
            if let Response::EpochBegun { epoch, .. } = &response {
                let now_ns = clock::now().as_nanos();
                let atm = core.state.tenure().map(|tenure| tenure.name.as_str());
                trace!(target: "lease", epoch = epoch.0, atm, index = id.index(), now_ns, "begun");
            }
            let table = matches!(response, Response::Applied(_) | Response::Health(true))
                .then(|| core.state.clone());
            (response, table)
        };
        if matches!(response, Response::EpochBegun { .. } | Response::EpochEnded) {
            let told = self.shared.packets.tenure(&self.core().state);
            told.await;
        }
        if let Some(state) = table {
            self.shared.packets.table(&state, id.index()).await;
        }
        if let Response::Connections { accepted, .. } = &response
            && !accepted.is_empty()
        {
            self.shared.packets.connections(accepted.clone()).await;
        }
        Ok(response)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let core = self.core();
        Ok((core.applied, core.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let response = self.apply_one(entry.log_id(), entry.payload).await?;
            self.announce();
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let core = Core::from_snapshot(meta.clone(), &snapshot).map_err(io::Error::other)?;
        let (path, meta) = (self.shared.snapshot_path.clone(), meta.clone());
        blocking(move || snapshot_file::write(&path, &meta, &snapshot)).await?;
        *self.core() = core;
        self.hand_over_all().await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let path = self.shared.snapshot_path.clone();
        let found = blocking(move || snapshot_file::read(&path)).await?;
        Ok(found.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let core = self.core().clone();
        let path = self.shared.snapshot_path.clone();
        blocking(move || {
            let meta = SnapshotMeta {
                last_log_id: core.applied,
                last_membership: core.membership,
            };
            let bytes = Bytes::from(core.state.encode());
            snapshot_file::write(&path, &meta, &bytes)?;
            Ok(Snapshot {
                meta,
                snapshot: bytes,
            })
        })
        .await
    }
}

impl Core {
    fn from_snapshot(
        meta: SnapshotMeta,
        bytes: &[u8],
    ) -> Result<Self, model::snapshot::BadSnapshot> {
        Ok(Self {
            state: State::decode(bytes)?,
            applied: meta.last_log_id,
            membership: meta.last_membership,
        })
    }
}

fn index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index())
}

/// Runs file work beside the runtime's workers.
#[cfg(not(atm_sim))]
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

/// A simulation has one thread, and its files take no time.
#[cfg(atm_sim)]
async fn blocking<T>(work: impl FnOnce() -> Result<T, SnapshotError>) -> io::Result<T> {
    work().map_err(io::Error::other)
}
