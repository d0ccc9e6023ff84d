//! How a group comes to be, and how an ATM finds its group: by introduction, before it gives or asks for any vote.
//!
//! Invariant: the group is made only when a majority of AtmPool has the same configuration; and an ATM whose data
//! directory the group knows by another name never takes part, because it has forgotten what the lost one promised.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use model::command::{Command, Control, Response as Applied};
use model::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use prost::bytes::Bytes;
use proto::v1;
use proto::v1::peer_client::PeerClient;
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::channels;
use crate::conflicts::Conflicts;
use crate::identity::Member;
use crate::raft::{Atm, Machine, Raft, StoredCommand};

/// Another ATM answers an introduction within this, or counts as absent in this round.
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between two rounds of introductions.
const ROUND: Duration = Duration::from_millis(250);

/// Progress is said this often while a majority is missing.
const PROGRESS: Duration = Duration::from_secs(5);

/// Each ATM behind the first in AtmPool waits this much longer before it makes the group in the first one's place.
const STAND_IN: Duration = Duration::from_secs(2);

/// Answers introductions.
pub(crate) trait Introduction: Send + Sync + 'static {
    /// Who this is and where it stands; with `join`, the leader also commits the caller's data directory.
    fn hello(&self, request: v1::HelloRequest) -> BoxFuture<'_, Result<v1::HelloReply, Status>>;
}

/// Who this ATM is to the others.
pub(crate) struct Myself {
    /// Its name in AtmPool.
    pub(crate) name: String,
    /// SHA-256 of its configuration.
    pub(crate) digest: [u8; 32],
    /// Of its data directory.
    pub(crate) incarnation: String,
    taking_part: OnceLock<TakingPart>,
    /// What operators should know of the other ATMs, by name.
    notices: Mutex<BTreeMap<String, String>>,
}

struct TakingPart {
    node: u64,
    group: Bytes,
    raft: Raft,
    machine: Machine,
    conflicts: Conflicts,
}

/// Another ATM, as the configuration names it.
#[derive(Clone)]
pub(crate) struct Other {
    /// Its name in AtmPool.
    pub(crate) name: String,
    client: PeerClient<Channel>,
}

impl Other {
    /// An ATM at this Peer address.
    pub(crate) fn new(name: String, address: &str) -> Result<Self, tonic::transport::Error> {
        Ok(Self {
            name,
            client: channels::peer_client(channels::to_peer(address)?),
        })
    }

    /// Introduces this ATM to the other.
    pub(crate) async fn hello(
        &self,
        myself: &Myself,
        join: bool,
    ) -> Result<v1::HelloReply, Status> {
        let request = v1::HelloRequest {
            name: myself.name.clone(),
            digest: Bytes::copy_from_slice(&myself.digest),
            incarnation: myself.incarnation.clone(),
            join,
            empty: join && myself.taking_part.get().is_none(),
        };
        let mut client = self.client.clone();
        match tokio::time::timeout(HELLO_TIMEOUT, client.hello(request)).await {
            Ok(reply) => reply.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer within {HELLO_TIMEOUT:?}"
            ))),
        }
    }
}

impl Other {
    /// Tells the other what the checks of this ATM say.
    pub(crate) async fn report(
        &self,
        report: v1::HealthReport,
        limit: Duration,
    ) -> Result<(), Status> {
        let mut client = self.client.clone();
        match tokio::time::timeout(limit, client.report(report)).await {
            Ok(reply) => reply.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer within {limit:?}"
            ))),
        }
    }
}

/// An ATM that cannot take part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootstrapError {
    /// The group remembers another directory.
    #[error(
        "{peer} says that the group knows this ATM by another data directory ({known}): this one has forgotten what that one \
         promised; restore the directory, or let the group forget it (atmctl atm forget) and start again"
    )]
    Forgotten {
        /// Who says so.
        peer: String,
        /// The directory the group knows.
        known: String,
    },
    /// Ours belongs to another group.
    #[error(
        "the data directory belongs to another group than {peer}; set data_dir to the directory of this group, or move it away"
    )]
    OtherGroup {
        /// Who is in another group.
        peer: String,
    },
    /// The group does not know us.
    #[error("{peer} belongs to a group that this ATM ({name}) is not a member of")]
    NotAMember {
        /// Who says so.
        peer: String,
        /// Our name.
        name: String,
    },
}

/// How this ATM begins to take part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// It has a log: go on.
    Return,
    /// It joins the group that is there.
    Join(Member),
    /// A majority is there and nobody has a group: make it, after this pause if nobody else has.
    Found(Member, Duration),
}

impl Myself {
    /// Before it takes part.
    pub(crate) fn new(name: String, digest: [u8; 32], incarnation: String) -> Self {
        Self {
            name,
            digest,
            incarnation,
            taking_part: OnceLock::new(),
            notices: Mutex::default(),
        }
    }

    /// From now on introductions tell where this ATM stands.
    pub(crate) fn takes_part(
        &self,
        member: &Member,
        raft: Raft,
        machine: Machine,
        conflicts: Conflicts,
    ) {
        let _ = self.taking_part.set(TakingPart {
            node: member.node,
            group: member.group(),
            raft,
            machine,
            conflicts,
        });
    }

    /// What operators should know of the other ATMs.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn note(&self, peer: &str, notice: Option<String>) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            Some(notice) => {
                if notices.get(peer) != Some(&notice) {
                    warn!(peer, "{notice}");
                }
                notices.insert(peer.to_owned(), notice);
            }
            None => {
                notices.remove(peer);
            }
        }
    }

    /// An ATM that already has a log asks once whether anything speaks against it; who is absent does not.
    pub(crate) async fn check_return(
        &self,
        member: &Member,
        others: &[Other],
    ) -> Result<(), BootstrapError> {
        for (other, reply) in self.round(others).await {
            let Ok(reply) = reply else { continue };
            if !reply.group.is_empty() && reply.group != member.group() {
                return Err(BootstrapError::OtherGroup {
                    peer: other.name.clone(),
                });
            }
            self.check_incarnation(other, &reply)?;
        }
        Ok(())
    }

    /// A first start: waits for the group, or for the majority that can make it. `atms` are all names of AtmPool in order.
    pub(crate) async fn find_group(
        &self,
        atms: &[String],
        others: &[Other],
    ) -> Result<Beginning, BootstrapError> {
        let majority = atms.len() / 2 + 1;
        let mut said = None::<tokio::time::Instant>;
        loop {
            let mut matching = vec![self.name.clone()];
            let mut missing = Vec::new();
            for (other, reply) in self.round(others).await {
                let reply = match reply {
                    Ok(reply) => reply,
                    Err(status) => {
                        missing.push(format!(
                            "{} does not answer ({})",
                            other.name,
                            reason(&status)
                        ));
                        continue;
                    }
                };
                if !reply.group.is_empty() {
                    self.check_incarnation(other, &reply)?;
                    if reply.your_node == 0 {
                        return Err(BootstrapError::NotAMember {
                            peer: other.name.clone(),
                            name: self.name.clone(),
                        });
                    }
                    if let Some(member) = self.try_join(others).await {
                        return Ok(Beginning::Join(member));
                    }
                    missing.push(format!(
                        "{} is in the group, which has no leader to let this ATM in",
                        other.name
                    ));
                    continue;
                }
                if reply.digest[..] == self.digest {
                    self.note(&other.name, None);
                    matching.push(other.name.clone());
                } else {
                    self.note(
                        &other.name,
                        Some(format!(
                            "{} has a different clusterserver.conf; make them equal",
                            other.name
                        )),
                    );
                    missing.push(format!("{} has a different configuration", other.name));
                }
            }
            if matching.len() >= majority {
                let group = group_identity(&self.digest);
                let position = |name: &String| {
                    atms.iter()
                        .position(|atm| atm == name)
                        .unwrap_or(atms.len())
                };
                let rank = matching
                    .iter()
                    .filter(|name| position(name) < position(&self.name))
                    .count();
                let member = Member::new(position(&self.name) as u64 + 1, &group, 0);
                let pause = STAND_IN * u32::try_from(rank).unwrap_or(u32::MAX);
                return Ok(Beginning::Found(member, pause));
            }
            if said.is_none_or(|at| at.elapsed() > PROGRESS) {
                info!(
                    have = matching.len(),
                    need = majority,
                    missing = missing.join("; "),
                    "waiting for a majority of the ATMs"
                );
                said = Some(tokio::time::Instant::now());
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Asks everybody to let this ATM in; the one that leads will. What it had applied by then is what this ATM must have
    /// applied before it votes.
    async fn try_join(&self, others: &[Other]) -> Option<Member> {
        let answers = join_all(others.iter().map(|other| other.hello(self, true))).await;
        let known = |answer: &v1::HelloReply| answer.your_incarnation == self.incarnation;
        let answer = answers.into_iter().flatten().find(known)?;
        Some(Member::new(
            answer.your_node,
            &answer.group,
            answer.applied_index,
        ))
    }

    /// Once the group has a leader, sees to it that the group knows this data directory.
    pub(crate) async fn register(&self, others: &[Other]) {
        loop {
            let Some(part) = self.taking_part.get() else {
                return;
            };
            let known = part
                .machine
                .read(|state| state.incarnations().get(&NodeId(part.node)).cloned());
            if let Some(known) = known {
                if known != self.incarnation {
                    self.note(
                        &self.name,
                        Some(format!(
                            "the group knows this ATM by another data directory ({known})"
                        )),
                    );
                }
                return;
            }
            if let Err(status) = part.register(NodeId(part.node), &self.incarnation).await
                && status.code() == tonic::Code::FailedPrecondition
            {
                join_all(others.iter().map(|other| other.hello(self, true))).await;
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    fn check_incarnation(
        &self,
        other: &Other,
        reply: &v1::HelloReply,
    ) -> Result<(), BootstrapError> {
        if !reply.your_incarnation.is_empty() && reply.your_incarnation != self.incarnation {
            return Err(BootstrapError::Forgotten {
                peer: other.name.clone(),
                known: reply.your_incarnation.clone(),
            });
        }
        Ok(())
    }

    async fn round<'a>(
        &self,
        others: &'a [Other],
    ) -> Vec<(&'a Other, Result<v1::HelloReply, Status>)> {
        join_all(
            others
                .iter()
                .map(|other| async move { (other, other.hello(self, false).await) }),
        )
        .await
    }
}

impl TakingPart {
    /// Commits, as the leader, that a member belongs to a data directory.
    async fn register(&self, node: NodeId, incarnation: &str) -> Result<(), Status> {
        let command = Command::Control(Control::Register {
            node,
            incarnation: incarnation.into(),
        });
        let write = self.raft.client_write(StoredCommand::from(&command));
        match tokio::time::timeout(HELLO_TIMEOUT, write).await {
            Ok(Ok(written)) => {
                if let Applied::Refused(refusal) = written.data {
                    return Err(Status::already_exists(refusal.to_string()));
                }
                Ok(())
            }
            Ok(Err(error)) => Err(Status::failed_precondition(error.to_string())),
            Err(_) => Err(Status::deadline_exceeded("no quorum")),
        }
    }

    /// Tells openraft, which takes a follower's shrunken log for a bug and stops the leader, that this one begins anew.
    async fn expect_empty_log(&self, node: NodeId) {
        if node.0 == self.node {
            return;
        }
        if let Ok(Err(error)) = self.raft.trigger().allow_next_revert(&node.0, true).await {
            debug!(node = node.0, %error, "no replication to begin anew");
        }
    }

    fn member_named(&self, name: &str) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .nodes()
            .find(|(_, atm)| atm.name == name)
            .map(|(id, _)| *id)
    }
}

impl Introduction for Myself {
    fn hello(&self, request: v1::HelloRequest) -> BoxFuture<'_, Result<v1::HelloReply, Status>> {
        Box::pin(async move {
            let mut reply = v1::HelloReply {
                name: self.name.clone(),
                digest: Bytes::copy_from_slice(&self.digest),
                incarnation: self.incarnation.clone(),
                ..Default::default()
            };
            let Some(part) = self.taking_part.get() else {
                return Ok(reply);
            };
            // Until the group is made there is none, even if this ATM is ready for it.
            let Some(node) = part.member_named(&self.name) else {
                return Ok(reply);
            };
            reply.node = node;
            reply.conflicts = part.conflicts.told_by(&self.name);
            reply.group = part.group.clone();
            reply.leader = part
                .raft
                .metrics()
                .borrow_watched()
                .current_leader
                .unwrap_or(0);
            reply.your_node = part.member_named(&request.name).unwrap_or(0);
            if request.join && reply.your_node != 0 {
                let node = NodeId(reply.your_node);
                // A refusal shows in the answer below: the group keeps what it knew.
                let registered = part.register(node, &request.incarnation).await;
                if request.empty && registered.is_ok() {
                    part.expect_empty_log(node).await;
                }
            }
            (
                reply.applied_index,
                reply.config_version,
                reply.your_incarnation,
            ) = {
                let (state, applied) = part.machine.state();
                let known = state
                    .incarnations()
                    .get(&NodeId(reply.your_node))
                    .cloned()
                    .unwrap_or_default();
                (applied, state.config_number().0, known)
            };
            Ok(reply)
        })
    }
}

/// Makes the group unless somebody else has. All founders make the same first entry, so two of them do no harm.
pub(crate) async fn found(raft: &Raft, members: BTreeMap<u64, Atm>, pause: Duration) {
    tokio::time::sleep(pause).await;
    if let Ok(false) = raft.is_initialized().await {
        match raft.initialize(members).await {
            Ok(()) => info!("group made"),
            Err(error) => info!(%error, "the group was made by another ATM"),
        }
    }
}

fn group_identity(digest: &[u8; 32]) -> [u8; 16] {
    let hash = Sha256::new()
        .chain_update(b"atm group")
        .chain_update(digest)
        .finalize();
    let mut identity = [0; 16];
    identity.copy_from_slice(&hash[..16]);
    identity
}

fn reason(status: &Status) -> &str {
    let message = status.message();
    if message.is_empty() {
        "unreachable"
    } else {
        message
    }
}
