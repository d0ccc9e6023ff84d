//! What an ATM does now and then: snapshots, the copy of the version in force, and its vote once it has caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::identity::{self, DataDir};
use crate::raft::{LogStore, Machine, Raft};

/// Log bytes after which a snapshot replaces them: a second's worth of a very busy cluster, and a small file to send.
const SNAPSHOT_LOG_BYTES: u64 = if cfg!(atm_sim) {
    16 * 1024
} else {
    16 * 1024 * 1024
};

/// Snapshots when the log has grown, the copy of the version in force, and the vote of an ATM that has caught up.
pub(crate) async fn keep_house(
    raft: Raft,
    store: LogStore,
    machine: Machine,
    mut data: DataDir,
    votes: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut glimpses = machine.watch();
    let mut saved = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = glimpses.changed() => if changed.is_err() { return },
            _ = tick.tick() => {
                if store.snapshot_due(SNAPSHOT_LOG_BYTES) && let Err(error) = raft.trigger().snapshot().await {
                    warn!(%error, "no snapshot");
                }
            }
        }
        let glimpse = glimpses.borrow_and_update().clone();
        if !votes.load(Ordering::Acquire) {
            gain_vote(&raft, &mut data, glimpse.applied, &votes);
        }
        let number = glimpse.config;
        if saved != Some(number) {
            let source = machine.read(|state| {
                state
                    .versions()
                    .get(&number)
                    .map(|version| version.source.clone())
            });
            if let Some(source) = source
                && let Err(error) = identity::save_last_config(data.path(), &source)
            {
                warn!(%error, "the version in force is not kept for the next start");
            }
            saved = Some(number);
        }
    }
}

/// An ATM that has applied what it must know before it votes may vote from now on.
fn gain_vote(raft: &Raft, data: &mut DataDir, applied: u64, votes: &AtomicBool) {
    let Some(member) = data
        .member()
        .cloned()
        .filter(|member| member.votes_from <= applied)
    else {
        return;
    };
    match data.set_member(member.voting()) {
        Ok(()) => {
            votes.store(true, Ordering::Release);
            raft.runtime_config().elect(true);
            info!(applied, "caught up; this ATM votes");
        }
        Err(error) => warn!(%error, "this ATM does not vote yet"),
    }
}
