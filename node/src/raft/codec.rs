//! Between openraft's types and the wire and disk form, `proto/atm/raft.proto`. The only file that sees both.

use std::collections::{BTreeMap, BTreeSet};

use model::suspicion::LogEnd;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::leader_id_std::CommittedLeaderId;
use proto::v1;

use super::{
    Atm, Entry, LogId, Membership, SnapshotMeta, StoredCommand, StoredMembership, TypeConfig, Vote,
};

/// A message that is not what its contract says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// A field that must be there is not.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A membership that openraft refuses.
    #[error("membership is not valid: {0}")]
    Membership(String),
    /// Not a protobuf message of this kind.
    #[error("message cannot be decoded")]
    Decode(#[from] prost::DecodeError),
}

pub(crate) fn log_id_to(id: &LogId) -> v1::LogId {
    v1::LogId {
        term: id.committed_leader_id().term,
        index: id.index(),
    }
}

pub(crate) fn log_id_from(id: v1::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term), id.index)
}

pub(crate) fn log_end_to(end: LogEnd) -> v1::LogId {
    v1::LogId {
        term: end.term,
        index: end.index,
    }
}

/// Absent: an empty log.
pub(crate) fn log_end_from(last: Option<v1::LogId>) -> LogEnd {
    last.map_or_else(LogEnd::default, |last| LogEnd {
        term: last.term,
        index: last.index,
    })
}

pub(crate) fn vote_to(vote: &Vote) -> v1::RaftVote {
    let leader = vote.leader_id();
    v1::RaftVote {
        term: leader.term,
        node: leader.voted_for,
        committed: vote.is_committed(),
    }
}

pub(crate) fn vote_from(vote: Option<v1::RaftVote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed::Missing("vote"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    })
}

pub(crate) fn membership_to(membership: &Membership) -> v1::Membership {
    v1::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| v1::NodeSet {
                ids: set.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, atm)| v1::Node {
                id: *id,
                name: atm.name.clone(),
                address: atm.address.clone(),
            })
            .collect(),
    }
}

pub(crate) fn membership_from(membership: v1::Membership) -> Result<Membership, Malformed> {
    let voters: Vec<BTreeSet<u64>> = membership
        .voters
        .into_iter()
        .map(|set| set.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Atm> = membership
        .nodes
        .into_iter()
        .map(|node| {
            (
                node.id,
                Atm {
                    name: node.name,
                    address: node.address,
                },
            )
        })
        .collect();
    if voters.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, nodes).map_err(|error| Malformed::Membership(error.to_string()))
}

pub(crate) fn entry_to(entry: &Entry) -> v1::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(command) => Some(v1::entry::Payload::Command(command.0.clone())),
        EntryPayload::Membership(membership) => {
            Some(v1::entry::Payload::Membership(membership_to(membership)))
        }
    };
    v1::Entry {
        id: Some(log_id_to(&entry.log_id())),
        payload,
    }
}

pub(crate) fn entry_from(entry: v1::Entry) -> Result<Entry, Malformed> {
    let id = log_id_from(entry.id.ok_or(Malformed::Missing("entry.id"))?);
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(v1::entry::Payload::Command(bytes)) => EntryPayload::Normal(StoredCommand(bytes)),
        Some(v1::entry::Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_from(membership)?)
        }
    };
    Ok(Entry::new(id, payload))
}

/// Where a message goes: the group it belongs to, and the member it is meant for.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// The group.
    pub(crate) group: prost::bytes::Bytes,
    /// The member.
    pub(crate) target: u64,
}

pub(crate) fn append_to(
    to: &Address,
    request: &AppendEntriesRequest<TypeConfig>,
) -> v1::AppendRequest {
    v1::AppendRequest {
        group: to.group.clone(),
        target: to.target,
        vote: Some(vote_to(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to),
        entries: request.entries.iter().map(entry_to).collect(),
        commit: request.leader_commit.as_ref().map(log_id_to),
    }
}

pub(crate) fn append_from(
    request: v1::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote_from(request.vote)?,
        prev_log_id: request.prev.map(log_id_from),
        entries: request
            .entries
            .into_iter()
            .map(entry_from)
            .collect::<Result<_, _>>()?,
        leader_commit: request.commit.map(log_id_from),
    })
}

/// One answer in a stream of appends.
pub(crate) type AppendOutcome = Result<Option<LogId>, StreamAppendError<TypeConfig>>;

pub(crate) fn append_reply_to(outcome: &AppendOutcome) -> v1::AppendReply {
    use v1::append_reply::Outcome;
    let outcome = match outcome {
        Ok(Some(id)) => Outcome::Matching(log_id_to(id)),
        Ok(None) => Outcome::Empty(true),
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(log_id_to(id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::Higher(vote_to(vote)),
    };
    v1::AppendReply {
        outcome: Some(outcome),
    }
}

pub(crate) fn append_reply_from(reply: v1::AppendReply) -> Result<AppendOutcome, Malformed> {
    use v1::append_reply::Outcome;
    Ok(match reply.outcome.ok_or(Malformed::Missing("outcome"))? {
        Outcome::Matching(id) => Ok(Some(log_id_from(id))),
        Outcome::Empty(_) => Ok(None),
        Outcome::Conflict(id) => Err(StreamAppendError::Conflict(log_id_from(id))),
        Outcome::Higher(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

pub(crate) fn vote_request_to(to: &Address, request: &VoteRequest<TypeConfig>) -> v1::VoteRequest {
    v1::VoteRequest {
        group: to.group.clone(),
        target: to.target,
        vote: Some(vote_to(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to),
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from(
    request: v1::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut out = VoteRequest::new(vote_from(request.vote)?, request.last.map(log_id_from));
    out.leadership_transfer = request.transfer;
    Ok(out)
}

pub(crate) fn vote_reply_to(response: &VoteResponse<TypeConfig>, age_ns: u64) -> v1::VoteReply {
    v1::VoteReply {
        vote: Some(vote_to(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_to),
        age_ns,
    }
}

pub(crate) fn vote_reply_from(reply: v1::VoteReply) -> Result<VoteResponse<TypeConfig>, Malformed> {
    Ok(VoteResponse::new(
        vote_from(reply.vote)?,
        reply.last.map(log_id_from),
        reply.granted,
    ))
}

pub(crate) fn meta_to(meta: &SnapshotMeta) -> v1::SnapshotMeta {
    v1::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_to),
        membership_at: meta.last_membership.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(meta.last_membership.membership())),
    }
}

pub(crate) fn meta_from(meta: v1::SnapshotMeta) -> Result<SnapshotMeta, Malformed> {
    let membership = membership_from(meta.membership.ok_or(Malformed::Missing("membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last.map(log_id_from),
        last_membership: StoredMembership::new(meta.membership_at.map(log_id_from), membership),
    })
}

pub(crate) fn transfer_to(
    to: &Address,
    request: &TransferLeaderRequest<TypeConfig>,
) -> v1::TransferLeaderRequest {
    v1::TransferLeaderRequest {
        group: to.group.clone(),
        target: to.target,
        from: Some(vote_to(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_to),
    }
}

pub(crate) fn transfer_from(
    request: v1::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    Ok(TransferLeaderRequest::new(
        vote_from(request.from)?,
        request.to,
        request.last.map(log_id_from),
    ))
}
