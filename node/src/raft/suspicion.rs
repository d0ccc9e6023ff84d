//! Watching the leader: silence or a refused connection is a suspicion, and a quorum of them is an election (ADR-0007).
//!
//! The rules are `model::suspicion`; here are the clock, the connections and openraft.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::Instant;
use model::ids::NodeId;
use model::suspicion::{LogEnd, Suspicions};
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use openraft::type_config::alias::WatchReceiverOf;
use prost::bytes::Bytes;
use proto::v1;
use proto::v1::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::codec;
use super::{Atm, Raft, TypeConfig, Vote, voters};
use crate::lease::LeaseKeeper;
use crate::timing::Timing;
use crate::{channels, clock};

/// Suspicions of others that wait to be looked at: each of six says one in [`RESEND_MAX`] at most.
pub(crate) const TOLD_MAX: usize = 64;

/// Refused connections that wait to be looked at.
const REFUSED_MAX: usize = 16;

/// A suspicion is told again after one heartbeat, and after this at the latest.
const RESEND_MAX: Duration = Duration::from_millis(100);

/// Between two tries to reach an ATM that refuses or does not answer. The first follow closely: a process that dies takes a
/// moment to close its port, and what it sent last may still be on the way.
const RETRY_MIN: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Connections that hold for less, again and again, are tried again with growing pauses.
const HELD_MIN: Duration = Duration::from_secs(1);

/// Longest sleep with nothing to wait for.
const IDLE: Duration = Duration::from_secs(1);

/// Another voter's suspicion, as it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Who.
    pub(crate) from: NodeId,
    /// Of the leader of this term.
    pub(crate) term: u64,
    /// Where its log ends.
    pub(crate) log: LogEnd,
}

/// What one ATM needs to watch its leader. One task.
pub(crate) struct Suspecting {
    /// This ATM.
    pub(crate) me: NodeId,
    /// The group's identity.
    pub(crate) group: Bytes,
    /// Consensus.
    pub(crate) raft: Raft,
    /// It knows when the last append arrived.
    pub(crate) lease: LeaseKeeper,
    /// Whether this ATM may vote.
    pub(crate) votes: Arc<AtomicBool>,
    /// Intervals from the configuration.
    pub(crate) timing: Timing,
    /// What others say.
    pub(crate) told: mpsc::Receiver<Told>,
}

type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// The leader that is followed.
struct Leader {
    vote: Vote,
    id: NodeId,
    /// When this ATM learned of it.
    since: Instant,
    /// When its host last refused a connection.
    refused: Option<Instant>,
    /// When the others were last told.
    told: Option<Instant>,
}

/// Another voter.
struct Peer {
    atm: Atm,
    client: PeerClient<Channel>,
    _watch: AbortOnDropHandle<()>,
}

/// An ATM whose host refused a connection, and when.
type Refused = (NodeId, Instant);

impl Suspecting {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut metrics = self.raft.server_metrics();
        let resend = self.timing.heartbeat.min(RESEND_MAX);
        let mut rules = Suspicions::new(self.me, 3 * resend);
        let mut leader: Option<Leader> = None;
        let mut peers: BTreeMap<u64, Peer> = BTreeMap::new();
        let mut sending = JoinSet::new();
        let (refuse, mut refused) = mpsc::channel(REFUSED_MAX);
        loop {
            self.observe(&metrics, &mut rules, &mut leader);
            self.meet(&metrics, &mut peers, &refuse);
            let wake = match &mut leader {
                Some(leader) if self.votes.load(Ordering::Acquire) => {
                    let wake = self.consider(leader, &mut rules, resend);
                    if wake.tell {
                        self.tell(leader, &peers, &mut sending, resend);
                    }
                    if rules.stands(wake.now) {
                        self.stand(leader).await;
                    }
                    wake.until.saturating_since(clock::now())
                }
                _ => IDLE,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
                Some(told) = self.told.recv() => {
                    rules.told(told.from, told.term, told.log, clock::now());
                }
                Some((id, at)) = refused.recv() => {
                    if let Some(leader) = leader.as_mut().filter(|leader| leader.id == id) {
                        leader.refused = Some(at);
                    }
                }
                Some(_sent) = sending.join_next() => {}
                () = tokio::time::sleep(wake.min(IDLE)) => {}
            }
        }
    }

    /// Whom this ATM follows, and who votes.
    fn observe(
        &self,
        metrics: &ServerMetrics,
        rules: &mut Suspicions,
        leader: &mut Option<Leader>,
    ) {
        let metrics = metrics.borrow_watched();
        let id = metrics.vote.leader_id().voted_for;
        let follows = metrics.vote.is_committed() && id != self.me.0;
        if !follows {
            *leader = None;
        } else if leader.as_ref().is_none_or(|old| old.vote != metrics.vote) {
            self.lease.follows_another();
            *leader = Some(Leader {
                vote: metrics.vote,
                id: NodeId(id),
                since: clock::now(),
                refused: None,
                told: None,
            });
        }
        let term = leader.as_ref().map(|leader| leader.vote.leader_id().term);
        rules.follow(term, voters(&metrics.membership_config));
    }

    /// Keeps one connection to each other voter.
    fn meet(
        &self,
        metrics: &ServerMetrics,
        peers: &mut BTreeMap<u64, Peer>,
        refuse: &mpsc::Sender<Refused>,
    ) {
        let metrics = metrics.borrow_watched();
        let nodes: BTreeMap<u64, Atm> = metrics
            .membership_config
            .nodes()
            .filter(|(id, _)| **id != self.me.0)
            .map(|(id, atm)| (*id, atm.clone()))
            .collect();
        peers.retain(|id, peer| nodes.get(id) == Some(&peer.atm));
        for (id, atm) in nodes {
            if peers.contains_key(&id) {
                continue;
            }
            // An address that is no URI is refused by bootstrap; whoever has one is not watched.
            let Ok(channel) = channels::to_peer(&atm.address) else {
                continue;
            };
            let client = channels::peer_client(channel);
            let request = v1::WatchRequest {
                group: self.group.clone(),
                target: id,
            };
            let watch = watch(client.clone(), request, NodeId(id), refuse.clone());
            let peer = Peer {
                atm,
                client,
                _watch: AbortOnDropHandle::new(tokio::spawn(watch)),
            };
            peers.insert(id, peer);
        }
    }

    /// Decides whether this ATM suspects the leader, and marks that the others are to be told now.
    fn consider(&self, leader: &mut Leader, rules: &mut Suspicions, resend: Duration) -> Wake {
        let now = clock::now();
        let heard = self
            .lease
            .last_append()
            .unwrap_or_default()
            .max(leader.since);
        let refused = leader.refused.is_some_and(|at| at >= heard);
        let silence = now.saturating_since(heard);
        if !refused && silence < self.timing.detection {
            rules.set_mine(None);
            leader.told = None;
            return Wake {
                now,
                until: heard + self.timing.detection,
                tell: false,
            };
        }
        if !rules.is_mine() {
            info!(
                leader = leader.id.0,
                refused,
                silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
                "the leader is suspected"
            );
        }
        rules.set_mine(Some(self.log_end()));
        match leader.told {
            Some(at) if now.saturating_since(at) < resend => Wake {
                now,
                until: at + resend,
                tell: false,
            },
            _ => {
                leader.told = Some(now);
                Wake {
                    now,
                    until: now + resend,
                    tell: true,
                }
            }
        }
    }

    fn log_end(&self) -> LogEnd {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .last_log
            .as_ref()
            .map_or_else(LogEnd::default, |id| LogEnd {
                term: id.committed_leader_id().term,
                index: id.index(),
            })
    }

    /// Tells every voter but the suspected one. Whoever does not answer in time is told again.
    fn tell(
        &self,
        leader: &Leader,
        peers: &BTreeMap<u64, Peer>,
        sending: &mut JoinSet<()>,
        deadline: Duration,
    ) {
        let log = self.log_end();
        for (id, peer) in peers.iter().filter(|(id, _)| **id != leader.id.0) {
            let request = v1::SuspectRequest {
                group: self.group.clone(),
                target: *id,
                from: self.me.0,
                term: leader.vote.leader_id().term,
                last: Some(codec::log_end_to(log)),
            };
            let mut client = peer.client.clone();
            sending.spawn(async move {
                let _told_again = tokio::time::timeout(deadline, client.suspect(request)).await;
            });
        }
    }

    /// Asks for votes at once. To openraft it is a transfer by the leader: voters grant it before their lease for the leader
    /// has run out. Ignored when this ATM follows another by now.
    async fn stand(&self, leader: &Leader) {
        info!(
            leader = leader.id.0,
            "a quorum suspects the leader; standing for election"
        );
        let request = TransferLeaderRequest::new(leader.vote, self.me.0, None);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "not standing"),
            Err(error) => warn!(%error, "not standing"),
        }
    }
}

struct Wake {
    now: Instant,
    until: Instant,
    /// The others are to be told, once.
    tell: bool,
}

/// Holds a call that never answers, and says when the other host refuses to be called again.
async fn watch(
    mut client: PeerClient<Channel>,
    request: v1::WatchRequest,
    id: NodeId,
    refused: mpsc::Sender<Refused>,
) {
    let (mut pause, mut flapping) = (RETRY_MIN, RETRY_MIN);
    loop {
        let begun = clock::now();
        match client.watch(request.clone()).await {
            Ok(reply) => {
                pause = RETRY_MIN;
                // Whatever it says or however it ends: it is over.
                let _over = reply.into_inner().message().await;
                if clock::now().saturating_since(begun) >= HELD_MIN {
                    flapping = RETRY_MIN;
                } else {
                    tokio::time::sleep(flapping).await;
                    flapping = (flapping * 2).min(RETRY_MAX);
                }
                continue;
            }
            Err(status) if is_refusal(&status) => {
                if refused.send((id, clock::now())).await.is_err() {
                    return;
                }
            }
            // Not there at all, or not ready: its silence will tell.
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// The host is there, and nobody listens: the kernel itself says that the process is gone.
fn is_refusal(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_a_refusal_and_an_answer_is_none() {
        // Other tests get ports of 127.0.0.1, and one that was closed there again.
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut client = channels::peer_client(channels::to_peer(&address).unwrap());
        let request = v1::WatchRequest::default();
        let status = client.watch(request).await.unwrap_err();
        assert!(is_refusal(&status), "{status:?}");
        assert!(!is_refusal(&tonic::Status::unavailable("not yet")));
    }
}
