//! The Peer service: what other ATMs ask of this one.
//!
//! Invariant: an append is stamped before Raft sees it, and a granted vote leaves only after this process's own leases of
//! older terms are fenced. Both are half of the lease's argument (ADR-0001).

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt};
use model::ids::NodeId;
use model::planted::{self, Bug};
use prost::bytes::{Bytes, BytesMut};
use proto::v1;
use proto::v1::peer_server::Peer;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::codec::{self, Malformed};
use super::suspicion::Told;
use super::{Raft, Snapshot, seeded};
use crate::bootstrap::Introduction;
use crate::health;
use crate::lease::LeaseKeeper;

/// Largest snapshot accepted: four million connections and their configurations.
const SNAPSHOT_MAX: u64 = 256 * 1024 * 1024;

/// Answers the other ATMs. Before consensus runs it introduces itself and refuses the rest.
#[derive(Clone)]
pub(crate) struct PeerService {
    introduction: Arc<dyn Introduction>,
    consensus: Arc<OnceLock<Consensus>>,
}

/// What is there once the ATM takes part in consensus.
#[derive(Clone)]
pub(crate) struct Consensus {
    /// This member's number.
    pub(crate) me: u64,
    /// The group's identity.
    pub(crate) group: Bytes,
    /// The engine.
    pub(crate) raft: Raft,
    /// The lease.
    pub(crate) lease: LeaseKeeper,
    /// Whether this ATM may vote; see [`Member::votes_from`](crate::identity::Member).
    pub(crate) votes: Arc<AtomicBool>,
    /// Whom suspicions of other ATMs are passed to.
    pub(crate) suspicions: mpsc::Sender<Told>,
    /// Whom their health reports are passed to.
    pub(crate) reports: mpsc::Sender<health::Arrived>,
}

impl Consensus {
    /// A member that has not caught up with what its lost directory knew gives no vote and takes no leadership.
    fn may_vote(&self) -> Result<(), Status> {
        if self.votes.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Status::unavailable(
                "this ATM has just joined and is catching up; it does not vote yet",
            ))
        }
    }
}

impl PeerService {
    /// A service that introduces itself by `introduction`.
    pub(crate) fn new(introduction: Arc<dyn Introduction>) -> Self {
        Self {
            introduction,
            consensus: Arc::default(),
        }
    }

    /// From now on this ATM takes part in consensus.
    pub(crate) fn start(&self, consensus: Consensus) {
        // A second start would be a second life of the same process; there is none.
        let _ = self.consensus.set(consensus);
    }

    fn consensus(&self, group: &[u8], target: u64) -> Result<&Consensus, Status> {
        let consensus = self
            .consensus
            .get()
            .ok_or_else(|| Status::unavailable("this ATM does not take part in consensus yet"))?;
        if consensus.group != group {
            return Err(Status::failed_precondition(
                "this ATM belongs to another group",
            ));
        }
        if consensus.me != target {
            return Err(Status::failed_precondition(format!(
                "this is node {}, not {target}",
                consensus.me
            )));
        }
        Ok(consensus)
    }
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = ReplyStream<v1::AppendReply>;
    type WatchStream = ReplyStream<v1::WatchReply>;

    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        self.introduction
            .hello(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(first) = incoming.message().await? else {
            return Err(Status::invalid_argument("no append in the stream"));
        };
        let consensus = self.consensus(&first.group, first.target)?;
        let lease = consensus.lease.clone();
        let late = planted::is(Bug::LateStamp).then(|| lease.clone());
        if late.is_none() {
            lease.append_received();
        }
        let stamps = late.is_none();
        let first = codec::append_from(first).map_err(|error| malformed(&error))?;
        // A stream that breaks or makes no sense ends here: an answer left out would be taken for the next round's.
        let rest = incoming.scan((), move |(), message| {
            let request = message.ok().and_then(|message| {
                if stamps {
                    lease.append_received();
                }
                codec::append_from(message).ok()
            });
            std::future::ready(request)
        });
        let requests = futures_util::stream::iter([first]).chain(rest);
        let replies = seeded(async { consensus.raft.stream_append(requests) })
            .await
            .inspect(move |_answered| {
                if let Some(lease) = &late {
                    lease.append_received();
                }
            })
            .map(|outcome| match outcome {
                Ok(outcome) => Ok(codec::append_reply_to(&outcome)),
                Err(fatal) => Err(Status::unavailable(format!(
                    "consensus has stopped: {fatal}"
                ))),
            });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteReply>, Status> {
        let request = request.into_inner();
        let consensus = self.consensus(&request.group, request.target)?;
        consensus.may_vote()?;
        let request = codec::vote_request_from(request).map_err(|error| malformed(&error))?;
        let wanted = request.vote;
        let response = consensus
            .raft
            .vote(request)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let age = if response.is_granted_to(&wanted) {
            consensus.lease.vote_granted(wanted.leader_id().term)
        } else {
            std::time::Duration::ZERO
        };
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Ok(Response::new(codec::vote_reply_to(&response, age_ns)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteReply>, Status> {
        let request = request.into_inner();
        let consensus = self.consensus(&request.group, request.target)?;
        consensus.may_vote()?;
        let request = codec::vote_request_from(request).map_err(|error| malformed(&error))?;
        let response = consensus
            .raft
            .pre_vote(request)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(codec::vote_reply_to(&response, 0)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotReply>, Status> {
        let mut incoming = request.into_inner();
        let Some(first) = incoming.message().await? else {
            return Err(Status::invalid_argument("an empty snapshot"));
        };
        let consensus = self.consensus(&first.group, first.target)?;
        consensus.lease.append_received();
        let vote = codec::vote_from(first.vote).map_err(|error| malformed(&error))?;
        let meta = first
            .meta
            .ok_or(Malformed::Missing("meta"))
            .and_then(codec::meta_from);
        let meta = meta.map_err(|error| malformed(&error))?;
        let total = first.total;
        if total > SNAPSHOT_MAX {
            return Err(Status::resource_exhausted(format!(
                "snapshot of {total} bytes; at most {SNAPSHOT_MAX} are taken"
            )));
        }
        let mut bytes = BytesMut::new();
        let mut chunk = Some((first.offset, first.data));
        while let Some((offset, data)) = chunk {
            if offset != bytes.len() as u64 || bytes.len() as u64 + data.len() as u64 > total {
                return Err(Status::invalid_argument(format!(
                    "chunk at {offset} where {} was due",
                    bytes.len()
                )));
            }
            bytes.extend_from_slice(&data);
            chunk = incoming
                .message()
                .await?
                .map(|next| (next.offset, next.data));
        }
        if bytes.len() as u64 != total {
            return Err(Status::data_loss(format!(
                "snapshot of {total} bytes ended after {}",
                bytes.len()
            )));
        }
        let snapshot = Snapshot {
            meta,
            snapshot: bytes.freeze(),
        };
        let response = consensus.raft.install_full_snapshot(vote, snapshot).await;
        let response = response.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(v1::SnapshotReply {
            vote: Some(codec::vote_to(&response.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let request = request.into_inner();
        let consensus = self.consensus(&request.group, request.target)?;
        consensus.may_vote()?;
        let request = codec::transfer_from(request).map_err(|error| malformed(&error))?;
        let answer = consensus.raft.handle_transfer_leader(request).await;
        let refusal = match answer {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        };
        Ok(Response::new(v1::TransferLeaderReply { refusal }))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        self.consensus(&request.group, request.target)?;
        Ok(Response::new(Box::pin(futures_util::stream::pending())))
    }

    async fn suspect(
        &self,
        request: Request<v1::SuspectRequest>,
    ) -> Result<Response<v1::SuspectReply>, Status> {
        let request = request.into_inner();
        let consensus = self.consensus(&request.group, request.target)?;
        let told = Told {
            from: NodeId(request.from),
            term: request.term,
            log: codec::log_end_from(request.last),
        };
        // Full only while this process cannot keep up; the caller tells it again.
        consensus
            .suspicions
            .try_send(told)
            .map_err(|_full| Status::resource_exhausted("too many suspicions wait"))?;
        Ok(Response::new(v1::SuspectReply {}))
    }

    async fn report(
        &self,
        request: Request<v1::HealthReport>,
    ) -> Result<Response<v1::HealthReportReply>, Status> {
        let request = request.into_inner();
        let consensus = self.consensus(&request.group, request.target)?;
        // Full only while this process cannot keep up; the caller says it all again soon.
        consensus
            .reports
            .try_send(health::from_wire(request))
            .map_err(|_full| Status::resource_exhausted("too many reports wait"))?;
        Ok(Response::new(v1::HealthReportReply {}))
    }
}

fn malformed(error: &Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}
