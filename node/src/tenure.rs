//! From winning an election to speaking for the VIP, and from speaking to silence.
//!
//! Invariant: the lease begins only after (1) BeginEpoch is committed in our term, (2) the packet path has everything up to
//! it, (3) every older lease has run out. Ending in order: silent first, acknowledged by the engine, then EndEpoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Instant;
use model::command::{Command, Control, Response};
use model::ids::{Epoch, NodeId};
use model::planted::{self, Bug};
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock;
use crate::cluster_file::ClusterFile;
use crate::lease::LeaseKeeper;
use crate::packets::Packets;
use crate::raft::{LogStore, Machine, Metrics, Raft, StoredCommand, voters};
use crate::timing::Timing;

/// A hand-over that takes longer is given up, and this ATM goes on.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// A proposal that is not committed by then is tried again while this ATM still leads.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a refused step is tried again. Short: a new leader refuses proposals for the moment it takes to store
/// its own vote, and every takeover waits for that.
const RETRY: Duration = Duration::from_millis(2);

/// Pause after a refusal, which trying at once would only repeat.
const REFUSED: Duration = Duration::from_secs(1);

/// When what happened in the latest tenure, by this host's boot-time clock; `BOOT`: not yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeline {
    /// The tenure.
    pub(crate) epoch: Epoch,
    /// Last message from the previous leader.
    pub(crate) last_heard: Instant,
    /// Elected.
    pub(crate) leader: Instant,
    /// BeginEpoch committed and applied.
    pub(crate) begun: Instant,
    /// Forwarding table and connections in the packet path.
    pub(crate) table: Instant,
    /// Every older lease has run out.
    pub(crate) wait_until: Instant,
    /// The lease began.
    pub(crate) claimed: Instant,
}

/// Why a hand-over did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandOverError {
    /// Only the active ATM can.
    #[error("this ATM is not active")]
    NotActive,
    /// No such member.
    #[error("no ATM named {0} in the group (there are: {1})")]
    Unknown(String, String),
    /// It already is.
    #[error("{0} is already active")]
    AlreadyActive(String),
    /// Nobody to hand over to.
    #[error("no other ATM is reachable and caught up")]
    NoSuccessor,
    /// It took too long; this ATM goes on.
    #[error("{0} did not take over within {1:?}; this ATM stays active")]
    TimedOut(String, Duration),
    /// The cluster did not commit it.
    #[error("the end of the tenure was not committed: {0}")]
    NotCommitted(String),
}

/// A hand-over that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandedOver {
    /// Who was active.
    pub(crate) from: String,
    /// Who is.
    pub(crate) to: String,
    /// Its tenure.
    pub(crate) epoch: Epoch,
    /// From the request to the successor's tenure.
    pub(crate) elapsed: Duration,
}

/// Asks the tenure task for a hand-over.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// To whom; `None`: the most caught-up, in configuration order.
    pub(crate) to: Option<String>,
    /// The answer.
    pub(crate) answer: oneshot::Sender<Result<HandedOver, HandOverError>>,
}

/// Follows Raft and decides when this ATM is active. One task.
pub(crate) struct Tenures {
    /// This ATM.
    pub(crate) me: NodeId,
    /// Its name.
    pub(crate) name: String,
    /// Consensus.
    pub(crate) raft: Raft,
    /// The replicated state.
    pub(crate) machine: Machine,
    /// The lease.
    pub(crate) lease: LeaseKeeper,
    /// The packet path.
    pub(crate) packets: Arc<Packets>,
    /// The log, watched for a stalled disk.
    pub(crate) store: LogStore,
    /// Intervals from the configuration.
    pub(crate) timing: Timing,
    /// Becomes the first version, if there is none.
    pub(crate) file: ClusterFile,
    /// Hand-overs.
    pub(crate) requests: mpsc::Receiver<HandOver>,
    /// Shared with the API.
    pub(crate) timeline: Arc<Mutex<Timeline>>,
}

/// What Raft says of this ATM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leading {
    term: u64,
}

impl Tenures {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut metrics = self.raft.metrics();
        let mut tick = tokio::time::interval(self.timing.heartbeat / 2);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut active: Option<(Leading, Epoch)> = None;
        loop {
            let leading = self.observe(&metrics);
            if let Some((was, epoch)) = active
                && leading != Some(was)
            {
                info!(
                    epoch = epoch.0,
                    left_ms = millis(self.lease.left()),
                    "deposed; the lease runs out"
                );
                self.lease.deposed();
                active = None;
            }
            if let (Some(leading), None) = (leading, active) {
                active = self
                    .claim(leading, &metrics, &stop)
                    .await
                    .map(|epoch| (leading, epoch));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
                _ = tick.tick() => {
                    self.lease.refresh();
                    if let Some((_, epoch)) = active
                        && self.store.busy_for() > self.timing.disk_patience()
                    {
                        warn!(epoch = epoch.0, "the disk has stalled; falling silent");
                        self.fall_silent().await;
                        if let Err(error) = self.hand_over(epoch, None).await {
                            warn!(%error, "not handed over; the next claim waits for the disk");
                        }
                        active = None;
                    }
                }
                Some(request) = self.requests.recv() => {
                    let outcome = match active {
                        None => Err(HandOverError::NotActive),
                        Some((_, epoch)) => self.hand_over(epoch, request.to).await,
                    };
                    if !matches!(outcome, Err(HandOverError::Unknown(..) | HandOverError::AlreadyActive(_) | HandOverError::NoSuccessor)) {
                        active = None;
                    }
                    // The asker may have gone away.
                    let _ = request.answer.send(outcome);
                }
            }
        }
    }

    /// Tells the lease who votes, and finds whether this ATM leads.
    fn observe(&self, metrics: &Metrics) -> Option<Leading> {
        let metrics = metrics.borrow_watched();
        let members = voters(&metrics.membership_config);
        if !members.is_empty() {
            self.lease.set_voters(members);
        }
        (metrics.state == ServerState::Leader && metrics.vote.is_committed()).then_some(Leading {
            term: metrics.current_term,
        })
    }

    /// From leader to active. `None`: leadership was lost on the way, or the process ends.
    async fn claim(
        &self,
        leading: Leading,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Option<Epoch> {
        let term = leading.term;
        self.lease.elected(term);
        let mut timeline = Timeline {
            leader: clock::now(),
            last_heard: self.lease.last_append().unwrap_or_default(),
            ..Timeline::default()
        };
        info!(term, "elected");
        if planted::is(Bug::ClaimBeforeApply) {
            self.claim_early(term).await;
        }
        let still = || !stop.is_cancelled() && self.observe(metrics) == Some(leading);
        while still() && self.store.busy_for() > self.timing.disk_patience() {
            tokio::time::sleep(RETRY).await;
        }
        while still() && self.machine.read(|state| state.current().is_none()) {
            self.propose_first_config().await;
        }
        let begin = Command::Control(Control::BeginEpoch {
            node: self.me,
            name: self.name.clone(),
            term,
            lease: self.timing.lease,
        });
        let (epoch, longest) = loop {
            if !still() {
                return None;
            }
            match self.propose(&begin).await {
                Ok(Response::EpochBegun {
                    epoch,
                    longest_older_lease,
                }) => break (epoch, longest_older_lease),
                Ok(other) => {
                    warn!(?other, "tenure refused");
                    tokio::time::sleep(REFUSED).await;
                }
                Err(error) => debug!(error, "tenure not committed, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        };
        timeline.epoch = epoch;
        timeline.begun = clock::now();
        if self.packets.engine().barrier().await.is_err() {
            return None;
        }
        timeline.table = clock::now();
        let until = self.lease.wait_until(term, longest)?;
        timeline.wait_until = until;
        self.show(timeline);
        while clock::now() < until {
            if !still() {
                return None;
            }
            tokio::time::sleep(
                until
                    .saturating_since(clock::now())
                    .min(self.timing.heartbeat),
            )
            .await;
        }
        if !still() {
            return None;
        }
        timeline.claimed = clock::now();
        self.show(timeline);
        self.lease.tenure_begun(term, epoch, self.timing.lease);
        info!(
            epoch = epoch.0,
            term,
            since_elected_ms = millis(timeline.claimed.saturating_since(timeline.leader)),
            waited_ms = millis(until.saturating_since(timeline.table)),
            "lease acquired"
        );
        Some(epoch)
    }

    /// The planted bug: a tenure with a guessed epoch, as soon as older leases have run out.
    async fn claim_early(&self, term: u64) {
        let Some(until) = self.lease.wait_until(term, self.timing.lease) else {
            return;
        };
        tokio::time::sleep(until.saturating_since(clock::now())).await;
        let last = self
            .machine
            .read(|state| state.tenure().map_or(0, |tenure| tenure.epoch.0));
        self.lease
            .tenure_begun(term, Epoch(last + 1), self.timing.lease);
    }

    async fn propose_first_config(&self) {
        let command = Command::Control(Control::ApplyConfig {
            source: self.file.source.clone(),
            hosts: self.file.hosts.clone(),
            expected: Some(model::ids::ConfigNumber(0)),
            by: self.name.clone(),
        });
        match self.propose(&command).await {
            Ok(Response::Applied(number)) => {
                info!(version = number.0, "first configuration committed")
            }
            Ok(Response::Refused(refusal)) => {
                warn!(%refusal, "first configuration refused");
                tokio::time::sleep(REFUSED).await;
            }
            Ok(other) => warn!(?other, "unexpected answer to the first configuration"),
            Err(error) => debug!(error, "first configuration not committed, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }

    async fn propose(&self, command: &Command) -> Result<Response, String> {
        let write = self.raft.client_write(StoredCommand::from(command));
        match tokio::time::timeout(PROPOSAL_TIMEOUT, write).await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no quorum within {PROPOSAL_TIMEOUT:?}")),
        }
    }

    /// Silent, then `EndEpoch`, then leadership to the successor, which claims without waiting.
    async fn hand_over(
        &self,
        epoch: Epoch,
        to: Option<String>,
    ) -> Result<HandedOver, HandOverError> {
        let begun = clock::now();
        let successor = self.successor(to)?;
        let deadline = begun + HAND_OVER_TIMEOUT;
        self.wait_for_log(successor.id, deadline).await;
        self.fall_silent().await;
        info!(epoch = epoch.0, to = successor.name, "silent; handing over");
        match self
            .propose(&Command::Control(Control::EndEpoch { epoch }))
            .await
        {
            Ok(Response::EpochEnded) => {}
            Ok(other) => return Err(HandOverError::NotCommitted(format!("{other:?}"))),
            Err(error) => return Err(HandOverError::NotCommitted(error)),
        }
        self.wait_for_log(successor.id, deadline).await;
        let mut glimpses = self.machine.watch();
        if let Err(error) = self.raft.trigger().transfer_leader(successor.id).await {
            return Err(HandOverError::NotCommitted(error.to_string()));
        }
        let taken = glimpses.wait_for(|glimpse| {
            glimpse
                .tenure
                .as_ref()
                .is_some_and(|tenure| tenure.epoch > epoch)
        });
        match tokio::time::timeout(deadline.saturating_since(clock::now()), taken).await {
            Ok(Ok(glimpse)) => {
                let tenure = glimpse.tenure.clone();
                Ok(HandedOver {
                    from: self.name.clone(),
                    to: tenure
                        .as_ref()
                        .map_or(successor.name, |tenure| tenure.name.clone()),
                    epoch: tenure.map_or(epoch, |tenure| tenure.epoch),
                    elapsed: clock::now().saturating_since(begun),
                })
            }
            Ok(Err(_)) | Err(_) => Err(HandOverError::TimedOut(successor.name, HAND_OVER_TIMEOUT)),
        }
    }

    /// Ends the lease at once, and returns when nothing of it will be sent any more.
    async fn fall_silent(&self) {
        self.lease.tenure_ended();
        // An engine that has ended says nothing either.
        let _ = self.packets.engine().relinquish().await;
    }

    /// The named ATM, or the reachable one that has most of the log; the first in configuration order of equals.
    fn successor(&self, to: Option<String>) -> Result<Successor, HandOverError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members: BTreeMap<u64, String> = metrics
            .membership_config
            .nodes()
            .map(|(id, atm)| (*id, atm.name.clone()))
            .collect();
        let others = members.iter().filter(|(id, _)| **id != self.me.0);
        if let Some(to) = to {
            if to == self.name {
                return Err(HandOverError::AlreadyActive(to));
            }
            let all = members.values().cloned().collect::<Vec<_>>().join(", ");
            let found = others.clone().find(|(_, name)| **name == to);
            return found
                .map(|(id, name)| Successor {
                    id: *id,
                    name: name.clone(),
                })
                .ok_or(HandOverError::Unknown(to, all));
        }
        let matched = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            replication
                .get(id)
                .copied()
                .flatten()
                .map(|log_id| log_id.index())
        };
        let heard = |id: &u64| {
            let acknowledged = metrics
                .heartbeat
                .as_ref()
                .and_then(|heartbeats| heartbeats.get(id).copied().flatten());
            acknowledged.is_some_and(|at| at.elapsed() < self.timing.election_max)
        };
        others
            .filter(|(id, _)| heard(id))
            .max_by_key(|(id, _)| (matched(id), std::cmp::Reverse(**id)))
            .map(|(id, name)| Successor {
                id: *id,
                name: name.clone(),
            })
            .ok_or(HandOverError::NoSuccessor)
    }

    /// Waits until a member has the whole log, or the deadline.
    async fn wait_for_log(&self, member: u64, deadline: Instant) {
        let mut metrics = self.raft.metrics();
        let caught_up = async {
            loop {
                {
                    let now = metrics.borrow_watched();
                    let matched = now
                        .replication
                        .as_ref()
                        .and_then(|replication| replication.get(&member).copied().flatten());
                    if matched.map(|id| id.index()) >= now.last_log_index {
                        return;
                    }
                }
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        // Past the deadline the transfer itself is refused, with its reason.
        let _ = tokio::time::timeout(deadline.saturating_since(clock::now()), caught_up).await;
    }

    fn show(&self, timeline: Timeline) {
        *self.timeline.lock().unwrap_or_else(PoisonError::into_inner) = timeline;
    }
}

struct Successor {
    id: u64,
    name: String,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
