//! New and ended connections into the log: whatever came while the last entries were under way goes into the next one.
//!
//! No linger, and a window of few entries: a held packet waits for one round trip and one sync, not for a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dataplane::{Event, Handle};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use model::command::{BATCH_CHANGES_MAX, Command, Response};
use model::connections::ConnectionChange;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::lease::LeaseKeeper;
use crate::raft::{Raft, StoredCommand};

/// Entries under way at once; at 200,000 connections/s a window of four holds 0.7 ms of them (measured).
const WINDOW: usize = 4;

/// An entry that is not committed by then never mattered: the held packet was given up before.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What happened to connections since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct ReplicatorCounters {
    /// Entries proposed.
    pub(crate) entries: AtomicU64,
    /// Changes committed.
    pub(crate) committed: AtomicU64,
    /// Connections committed whose sticky client belongs to no server: no room for another client.
    pub(crate) not_stuck: AtomicU64,
    /// Changes refused: no tenure, no quorum, a stale epoch or a full table.
    pub(crate) refused: AtomicU64,
}

/// Takes the engine's events to the log.
pub(crate) struct Replicator {
    /// What the engine saw.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Where it goes.
    pub(crate) raft: Raft,
    /// Whose tenure it is.
    pub(crate) lease: LeaseKeeper,
    /// Who is told of refusals.
    pub(crate) engine: Handle,
    /// Shared with the API.
    pub(crate) counters: Arc<ReplicatorCounters>,
}

/// One entry under way: its changes, and what became of it.
type Proposal = BoxFuture<'static, (Vec<ConnectionChange>, Result<Response, String>)>;

impl Replicator {
    /// Runs until the engine ends or `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut under_way: FuturesUnordered<Proposal> = FuturesUnordered::new();
        loop {
            tokio::select! {
                // Finished entries first: they free the window, and new proposals keep their order by being polled below.
                biased;
                () = stop.cancelled() => return,
                Some((changes, outcome)) = under_way.next(), if !under_way.is_empty() => self.finish(changes, outcome).await,
                event = self.events.recv(), if under_way.len() < WINDOW => {
                    let Some(event) = event else { return };
                    if let Some(proposal) = self.propose(event).await {
                        under_way.push(proposal);
                    }
                }
            }
        }
    }

    /// Starts one entry with everything that waits. It is in Raft's queue when this returns, so entries keep their order.
    async fn propose(&mut self, first: Event) -> Option<Proposal> {
        let mut changes = vec![change(first)];
        while changes.len() < BATCH_CHANGES_MAX {
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            changes.push(change(event));
        }
        let Some(lease) = self.lease.current() else {
            self.refuse(&changes).await;
            return None;
        };
        let command = Command::Connections {
            epoch: lease.epoch,
            changes: changes.clone(),
        };
        self.counters.entries.fetch_add(1, Ordering::Relaxed);
        let raft = self.raft.clone();
        let stored = StoredCommand::from(&command);
        let mut write: BoxFuture<'static, _> = Box::pin(async move {
            match tokio::time::timeout(COMMIT_TIMEOUT, raft.client_write(stored)).await {
                Ok(Ok(written)) => Ok(written.data),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("not committed within {COMMIT_TIMEOUT:?}")),
            }
        });
        // The first poll puts the command into Raft's queue.
        match futures_util::poll!(&mut write) {
            std::task::Poll::Ready(outcome) => {
                self.finish(changes, outcome).await;
                None
            }
            std::task::Poll::Pending => Some(Box::pin(async move { (changes, write.await) })),
        }
    }

    async fn finish(&self, changes: Vec<ConnectionChange>, outcome: Result<Response, String>) {
        match outcome {
            Ok(Response::Connections {
                accepted,
                refused,
                not_stuck,
            }) => {
                // Of those that were accepted, so many were not proposed.
                let not_stuck = u64::from(not_stuck);
                let committed = (accepted.len() as u64).saturating_sub(not_stuck);
                self.counters
                    .committed
                    .fetch_add(committed, Ordering::Relaxed);
                self.counters
                    .not_stuck
                    .fetch_add(not_stuck, Ordering::Relaxed);
                self.counters
                    .refused
                    .fetch_add(refused.len() as u64, Ordering::Relaxed);
                for (key, refusal) in refused {
                    debug!(?key, %refusal, "connection refused");
                    if self.engine.refuse(key).await.is_err() {
                        return;
                    }
                }
            }
            Ok(other) => {
                debug!(?other, "connection changes refused");
                self.refuse(&changes).await;
            }
            Err(error) => {
                debug!(error, "connection changes not committed");
                self.refuse(&changes).await;
            }
        }
    }

    async fn refuse(&self, changes: &[ConnectionChange]) {
        self.counters
            .refused
            .fetch_add(changes.len() as u64, Ordering::Relaxed);
        for change in changes {
            if let ConnectionChange::Open(key, _) = change
                && self.engine.refuse(*key).await.is_err()
            {
                return;
            }
        }
    }
}

fn change(event: Event) -> ConnectionChange {
    match event {
        Event::Open(key, pin) => ConnectionChange::Open(key, pin),
        Event::Close(key) => ConnectionChange::Close(key),
        Event::Unstick(key) => ConnectionChange::Unstick(key),
    }
}
