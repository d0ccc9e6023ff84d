//! Raft's messages to the other ATMs, each with a deadline; and what their answers mean for the lease.
//!
//! Invariant: a round's send time is read before its bytes leave, and a vote's age is recorded before openraft counts the vote.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use model::Instant;
use model::ids::NodeId;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use prost::bytes::Bytes;
use proto::v1;
use proto::v1::peer_client::PeerClient;
use tonic::Code;
use tonic::transport::Channel;

use super::codec::{self, Address};
use super::{Atm, Snapshot, TypeConfig, Vote};
use crate::lease::LeaseKeeper;
use crate::{channels, clock};

/// Bytes of a snapshot per message: a few milliseconds of a gigabit, so that heartbeats on other connections are not delayed.
const SNAPSHOT_CHUNK: usize = 256 * 1024;

/// How long a whole snapshot may take; 24 MB (a million connections) take under a second.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// An acknowledgement of a replicated entry includes the follower's fsync; a disk that takes longer is a fault.
const APPEND_TIMEOUT: Duration = Duration::from_millis(1000);

/// Retries of an unreachable peer: soon enough that a returning ATM is heard within a heartbeat or two.
const BACKOFF: Duration = Duration::from_millis(50);

/// Makes the connections of one ATM to the others.
#[derive(Clone)]
pub(crate) struct Network {
    me: NodeId,
    group: Bytes,
    lease: LeaseKeeper,
}

impl Network {
    /// Connections of `me`, in the group of this identity.
    pub(crate) fn new(me: NodeId, group: Bytes, lease: LeaseKeeper) -> Self {
        Self { me, group, lease }
    }

    fn connect(&self, target: u64, node: &Atm) -> Link {
        // An address that is no URI stays unreachable; bootstrap has refused it before.
        let client = channels::to_peer(&node.address)
            .ok()
            .map(channels::peer_client);
        Link {
            from: self.clone(),
            to: Address {
                group: self.group.clone(),
                target,
            },
            client,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    // openraft asks for heartbeats and snapshots separately, and each gets its own connection: bulk never delays a heartbeat.
    async fn new_client(&mut self, target: u64, node: &Atm) -> Link {
        self.connect(target, node)
    }
}

/// One connection to one ATM.
pub(crate) struct Link {
    from: Network,
    to: Address,
    client: Option<PeerClient<Channel>>,
}

/// Rounds that were sent and not yet answered: term and send time, in order.
type Sent = Arc<Mutex<VecDeque<(u64, Instant)>>>;

impl Link {
    fn client(&self) -> Result<PeerClient<Channel>, RPCError<TypeConfig>> {
        self.client
            .clone()
            .ok_or_else(|| unreachable(&AnyError::error("not an address")))
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout {
            action,
            id: self.from.me.0,
            target: self.to.target,
            timeout,
        })
    }

    /// One call with its own deadline.
    async fn call<T>(
        &self,
        action: RPCTypes,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(deadline, call).await {
            Err(_) => Err(self.timed_out(action, deadline)),
            Ok(Err(status)) => Err(refused(&status)),
            Ok(Ok(response)) => Ok(response.into_inner()),
        }
    }

    async fn ask_for_vote(
        &mut self,
        request: &VoteRequest<TypeConfig>,
        deadline: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let term = request.vote.leader_id().term;
        self.from.lease.campaign_started(term);
        let mut client = self.client()?;
        let reply = self
            .call(
                RPCTypes::Vote,
                deadline,
                client.vote(codec::vote_request_to(&self.to, request)),
            )
            .await?;
        let age = Duration::from_nanos(reply.age_ns);
        let response = codec::vote_reply_from(reply).map_err(|error| network(&error))?;
        if response.is_granted_to(&request.vote) {
            self.from
                .lease
                .grant_received(term, NodeId(self.to.target), age);
        }
        Ok(response)
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let input = Box::pin(stream::once(async move { request }));
        let mut replies = self.stream_append(input, option).await?;
        match replies.next().await {
            Some(reply) => Ok(match reply? {
                Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
                Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
                Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
            }),
            None => Err(unreachable(&AnyError::error(
                "the stream ended without an answer",
            ))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        async move {
            // openraft applies its back-off inside the input: polling it before dialling keeps a dead peer cheap.
            let Some(first) = input.next().await else {
                return Ok(stream::empty().boxed());
            };
            let sent = Sent::default();
            let (queue, to) = (Arc::clone(&sent), self.to.clone());
            let outgoing = stream::iter([first]).chain(input).map(move |request| {
                let round = (request.vote.leader_id().term, clock::now());
                queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_back(round);
                codec::append_to(&to, &request)
            });
            let mut client = self.client()?;
            let replies = self
                .call(
                    RPCTypes::AppendEntries,
                    APPEND_TIMEOUT,
                    client.append(outgoing),
                )
                .await?;
            Ok(answers(self, replies, sent).boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(&request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let call = client.pre_vote(codec::vote_request_to(&self.to, &request));
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), call).await?;
        codec::vote_reply_from(reply).map_err(|error| network(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client()?;
        let chunks = stream::iter(snapshot_chunks(&self.to, &vote, &snapshot));
        let send = self.call(
            RPCTypes::InstallSnapshot,
            SNAPSHOT_TIMEOUT,
            client.snapshot(chunks),
        );
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = send => {
                let vote = codec::vote_from(reply?.vote).map_err(|error| network(&error))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let call = client.transfer_leader(codec::transfer_to(&self.to, &request));
        let reply = self
            .call(RPCTypes::TransferLeader, option.soft_ttl(), call)
            .await?;
        if reply.refusal.is_empty() {
            Ok(Ok(()))
        } else {
            Err(network(&AnyError::error(reply.refusal)))
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// Answers to the rounds of one append stream, in order; each acknowledgement is told to the lease before openraft hears it.
fn answers<'s>(
    link: &'s Link,
    replies: tonic::Streaming<v1::AppendReply>,
    sent: Sent,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> + 's {
    stream::unfold(Some((replies, sent)), move |open| async move {
        let (mut replies, sent) = open?;
        let message = loop {
            match tokio::time::timeout(APPEND_TIMEOUT, replies.message()).await {
                Ok(message) => break message,
                // Silence is a fault only while an answer is due.
                Err(_)
                    if oldest(&sent)
                        .is_none_or(|at| clock::now().saturating_since(at) < APPEND_TIMEOUT) => {}
                Err(_) => {
                    return Some((
                        Err(link.timed_out(RPCTypes::AppendEntries, APPEND_TIMEOUT)),
                        None,
                    ));
                }
            }
        };
        let outcome = match message {
            Ok(None) => return None,
            Err(status) => return Some((Err(refused(&status)), None)),
            Ok(Some(reply)) => match codec::append_reply_from(reply) {
                Ok(outcome) => outcome,
                Err(error) => return Some((Err(network(&error)), None)),
            },
        };
        let round = sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if let Some((term, at)) = round
            && !matches!(outcome, Err(StreamAppendError::HigherVote(_)))
        {
            // A conflict is an acknowledgement too: the follower follows this leader, its log just differs.
            link.from
                .lease
                .round_acknowledged(term, NodeId(link.to.target), at);
        }
        let next = outcome.is_ok().then_some((replies, sent));
        Some((Ok(outcome), next))
    })
}

fn oldest(sent: &Sent) -> Option<Instant> {
    sent.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .front()
        .map(|(_, at)| *at)
}

fn snapshot_chunks(to: &Address, vote: &Vote, snapshot: &Snapshot) -> Vec<v1::SnapshotChunk> {
    let data = &snapshot.snapshot;
    let total = data.len();
    // An empty state is one empty chunk: the description travels with the first.
    (0..total.max(1))
        .step_by(SNAPSHOT_CHUNK)
        .map(|offset| v1::SnapshotChunk {
            group: to.group.clone(),
            target: to.target,
            vote: (offset == 0).then(|| codec::vote_to(vote)),
            meta: (offset == 0).then(|| codec::meta_to(&snapshot.meta)),
            offset: offset as u64,
            data: data.slice(offset..total.min(offset + SNAPSHOT_CHUNK)),
            total: total as u64,
        })
        .collect()
}

fn refused(status: &tonic::Status) -> RPCError<TypeConfig> {
    // Whoever is not there, or not ready, is asked again after the back-off.
    if matches!(
        status.code(),
        Code::Unavailable | Code::FailedPrecondition | Code::Unknown
    ) {
        unreachable(status)
    } else {
        network(status)
    }
}

fn unreachable<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn network<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}
