//! The hands of [`model::tenure`]: follows Raft, does what the rules say next, and tells them what came of it.
//!
//! Invariant: nothing is decided here. One step at a time: the next is asked for when the last is done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Instant;
use model::command::{Command, Control, Response};
use model::ids::{ConfigNumber, Epoch, NodeId};
use model::tenure::{Action, Done, Member, Seen, Tenures as Rules, Why};
pub(crate) use model::tenure::{HandOverError, HandedOver, Timeline};
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use crate::clock;
use crate::cluster_file::ClusterFile;
use crate::lease::LeaseKeeper;
use crate::packets::Packets;
use crate::raft::{LogStore, Machine, Metrics, Raft, StoredCommand, voters};
use crate::timing::Timing;

/// A proposal that is not committed by then is tried again while this ATM still leads.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<HandedOver, HandOverError>>;

/// Asks the tenure task for a hand-over.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// To whom; `None`: the most caught-up, in configuration order.
    pub(crate) to: Option<String>,
    /// The answer.
    pub(crate) answer: Answer,
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

/// What the task has besides its parts.
struct Run {
    rules: Rules,
    metrics: Metrics,
    tick: Interval,
    /// Who asked for the hand-over that is under way; `None`: nobody did, or there is none.
    asker: Option<Answer>,
}

impl Tenures {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut run = Run {
            rules: Rules::new(self.me, self.name.clone(), self.timing.lease),
            metrics: self.raft.metrics(),
            tick: tokio::time::interval(self.timing.heartbeat / 2),
            asker: None,
        };
        run.tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            let seen = self.observe(&run.metrics);
            let action = run.rules.step(seen, clock::now());
            if action == Action::Rest {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = run.metrics.changed() => if changed.is_err() { return },
                    _ = run.tick.tick() => self.lease.refresh(),
                    Some(request) = self.requests.recv() => self.hand_over(&mut run, request),
                }
            } else if let Some(done) = self.act(action, &mut run).await {
                run.rules.done(done, clock::now());
            }
        }
    }

    /// Tells the lease who votes, and finds what the rules want to know.
    fn observe(&self, metrics: &Metrics) -> Seen {
        let metrics = metrics.borrow_watched();
        let members = voters(&metrics.membership_config);
        if !members.is_empty() {
            self.lease.set_voters(members);
        }
        let (configured, latest) = self.machine.read(|state| {
            let latest = state.tenure().map_or(Epoch(0), |tenure| tenure.epoch);
            (state.current().is_some(), latest)
        });
        let leads = metrics.state == ServerState::Leader && metrics.vote.is_committed();
        Seen {
            leading: leads.then_some(metrics.current_term),
            disk_stalled: self.store.busy_for() > self.timing.disk_patience(),
            configured,
            latest,
        }
    }

    /// Does one thing, however long it takes.
    async fn act(&self, action: Action, run: &mut Run) -> Option<Done> {
        match action {
            Action::Rest => None,
            Action::Wait(until) => {
                let timeline = run.rules.timeline();
                if timeline.wait_until == until {
                    self.show(timeline);
                }
                let left = until.saturating_since(clock::now());
                tokio::time::sleep(left.min(self.timing.heartbeat)).await;
                None
            }
            Action::Elected(term) => {
                self.lease.elected(term);
                run.rules.note_last_heard(self.lease.last_append());
                info!(term, "elected");
                None
            }
            Action::Deposed(epoch) => {
                let left_ms = millis(self.lease.left());
                info!(epoch = epoch.0, left_ms, "deposed; the lease runs out");
                self.lease.deposed();
                None
            }
            Action::ProposeConfig => Some(Done::Answered(self.propose_first_config().await)),
            Action::Propose(control) => Some(Done::Answered(self.propose_step(control).await)),
            Action::Barrier => Some(Done::Reached(self.packets.engine().barrier().await.is_ok())),
            Action::AskWaitOut { term, longest } => {
                Some(Done::WaitOut(self.lease.wait_until(term, longest)))
            }
            Action::Begin {
                term,
                epoch,
                length,
            } => {
                let timeline = run.rules.timeline();
                self.show(timeline);
                let (applied_ns, table_ns) = (timeline.begun.as_nanos(), timeline.table.as_nanos());
                let now_ns = timeline.claimed.as_nanos();
                trace!(target: "lease", epoch = epoch.0, applied_ns, table_ns, now_ns, "claimed");
                self.lease.tenure_begun(term, epoch, length);
                info!(
                    epoch = epoch.0,
                    term,
                    since_elected_ms = millis(timeline.claimed.saturating_since(timeline.leader)),
                    waited_ms = millis(timeline.wait_until.saturating_since(timeline.table)),
                    "lease acquired"
                );
                None
            }
            Action::FallSilent(why) => {
                match why {
                    Why::DiskStalled => warn!("the disk has stalled; falling silent"),
                    Why::Asked => info!("falling silent, to hand over"),
                }
                self.lease.tenure_ended();
                // An engine that has ended says nothing either.
                let _ = self.packets.engine().relinquish().await;
                Some(Done::Silent)
            }
            Action::FindSuccessor => {
                if let Err(error) = run.rules.hand_over(None, &self.group(), clock::now()) {
                    warn!(%error, "not handed over; the next claim waits for the disk");
                }
                None
            }
            Action::CatchUp(member, deadline) => {
                self.wait_for_log(member.0, deadline).await;
                Some(Done::CaughtUp)
            }
            Action::Transfer(member) => {
                info!(to = member.0, "handing over");
                let begun = self.raft.trigger().transfer_leader(member.0).await;
                Some(Done::Transferred(
                    begun.map_err(|error| error.to_string()).map(|_| ()),
                ))
            }
            Action::AwaitSuccessor(epoch, deadline) => {
                Some(Done::Successor(self.later_tenure(epoch, deadline).await))
            }
            Action::Answer(outcome) => {
                match run.asker.take() {
                    // The asker may have gone away.
                    Some(asker) => drop(asker.send(outcome)),
                    None => {
                        if let Err(error) = outcome {
                            warn!(%error, "not handed over; the next claim waits for the disk");
                        }
                    }
                }
                None
            }
        }
    }

    fn hand_over(&self, run: &mut Run, request: HandOver) {
        let begun = run.rules.hand_over(request.to, &self.group(), clock::now());
        match begun {
            Ok(()) => run.asker = Some(request.answer),
            // The asker may have gone away.
            Err(error) => drop(request.answer.send(Err(error))),
        }
    }

    async fn propose_first_config(&self) -> Result<Response, String> {
        let command = Command::Control(Control::ApplyConfig {
            source: self.file.source.clone(),
            hosts: self.file.hosts.clone(),
            expected: Some(ConfigNumber(0)),
            by: self.name.clone(),
        });
        let answer = self.propose(&command).await;
        match &answer {
            Ok(Response::Applied(number)) => {
                info!(version = number.0, "first configuration committed");
            }
            Ok(other) => warn!(?other, "first configuration refused"),
            Err(error) => debug!(error, "first configuration not committed, trying again"),
        }
        answer
    }

    async fn propose_step(&self, control: Control) -> Result<Response, String> {
        let answer = self.propose(&Command::Control(control)).await;
        match &answer {
            Ok(Response::EpochBegun { .. } | Response::EpochEnded) => {}
            Ok(other) => warn!(?other, "tenure refused"),
            Err(error) => debug!(error, "tenure not committed"),
        }
        answer
    }

    async fn propose(&self, command: &Command) -> Result<Response, String> {
        let write = self.raft.client_write(StoredCommand::from(command));
        match tokio::time::timeout(PROPOSAL_TIMEOUT, write).await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no quorum within {PROPOSAL_TIMEOUT:?}")),
        }
    }

    /// The members of the group, and who of them was heard.
    fn group(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
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
        metrics
            .membership_config
            .nodes()
            .map(|(id, atm)| Member {
                id: NodeId(*id),
                name: atm.name.clone(),
                heard: heard(id),
                matched: matched(id),
            })
            .collect()
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

    /// The first tenure after `epoch`, unless the deadline comes before.
    async fn later_tenure(&self, epoch: Epoch, deadline: Instant) -> Option<(Epoch, String)> {
        let mut glimpses = self.machine.watch();
        let taken = glimpses.wait_for(|glimpse| {
            glimpse
                .tenure
                .as_ref()
                .is_some_and(|tenure| tenure.epoch > epoch)
        });
        let left = deadline.saturating_since(clock::now());
        let glimpse = tokio::time::timeout(left, taken).await.ok()?.ok()?;
        let tenure = glimpse.tenure.as_ref()?;
        Some((tenure.epoch, tenure.name.clone()))
    }

    fn show(&self, timeline: Timeline) {
        *self.timeline.lock().unwrap_or_else(PoisonError::into_inner) = timeline;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
