//! The Admin service itself: what this ATM answers, what it passes to the leader, and what it refuses.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dataplane_core::{Event, Verdict};
use futures_util::{Stream, StreamExt, stream};
use model::command::{Command, Control, Refusal, Response as Outcome};
use model::conf::FILE_BYTES_MAX;
use model::ids::{ConfigNumber, NodeId};
use openraft::async_runtime::WatchReceiver;
use proto::v1;
use proto::v1::admin_server::Admin;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Request, Response, Status};

use super::convert;
use super::relay::{self, Leadership};
use crate::bootstrap::{Myself, Other};
use crate::cluster_file::{ClusterFile, ClusterFileError};
use crate::lease::LeaseKeeper;
use crate::packets::{self, Packets};
use crate::raft::{Machine, Raft, StoredCommand};
use crate::replicator::ReplicatorCounters;
use crate::tenure::{HandOver, HandOverError, Timeline};
use crate::timing::Timing;

/// The leader answers questions within this.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// A change is committed, or a hand-over done, within this.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a bug would make: commands and their answers belong together.
const OTHER_ANSWER: &str = "the state machine gave another command's answer";

/// Connections per message of a listing.
const PAGE: usize = 1000;

/// Everything the API looks at. One per process.
pub(crate) struct Cluster {
    /// Who this ATM is.
    pub(crate) myself: Arc<Myself>,
    /// The other ATMs.
    pub(crate) others: Vec<Other>,
    /// Consensus.
    pub(crate) raft: Raft,
    /// The replicated state.
    pub(crate) machine: Machine,
    /// The lease.
    pub(crate) lease: LeaseKeeper,
    /// The packet path.
    pub(crate) packets: Arc<Packets>,
    /// The latest tenure's instants.
    pub(crate) timeline: Arc<Mutex<Timeline>>,
    /// Where hand-overs are asked for.
    pub(crate) hand_overs: mpsc::Sender<HandOver>,
    /// Of the replicator.
    pub(crate) replicator: Arc<ReplicatorCounters>,
    /// Connections this process has room for.
    pub(crate) connections_max: usize,
    /// The intervals this process runs with.
    pub(crate) timing: Timing,
}

/// The Admin service. Until the ATM takes part in consensus every request is refused, with the reason.
#[derive(Clone, Default)]
pub(crate) struct AdminService {
    cluster: Arc<OnceLock<Arc<Cluster>>>,
}

impl AdminService {
    /// From now on requests are answered.
    pub(crate) fn start(&self, cluster: Arc<Cluster>) {
        // There is one start in the life of a process.
        let _ = self.cluster.set(cluster);
    }

    fn cluster(&self) -> Result<&Arc<Cluster>, Status> {
        self.cluster.get().ok_or_else(|| {
            Status::unavailable("this ATM waits for a majority of the ATMs with the same configuration; its log says who is missing")
        })
    }
}

type Pages = Pin<Box<dyn Stream<Item = Result<v1::ConnectionList, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for AdminService {
    type ListConnectionsStream = Pages;

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let cluster = self.cluster()?;
        let hindrance = match relay::leadership(&cluster.raft) {
            Leadership::Other(leader) if !relay::is_relayed(&request) => {
                let name = leader.name.clone();
                let call = leader.relay(
                    request.into_inner(),
                    ASK_TIMEOUT,
                    |mut client, request| async move { client.status(request).await },
                );
                match call.await {
                    Ok(reply) => return Ok(reply),
                    Err(status) => Some(format!(
                        "{name}, which leads, could not be asked: {}",
                        status.message()
                    )),
                }
            }
            Leadership::Nobody => Some("the ATMs have no leader".into()),
            Leadership::Other(_) | Leadership::Mine => None,
        };
        Ok(Response::new(cluster.status(hindrance).await))
    }

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let cluster = self.cluster()?;
        let request = request.into_inner();
        let (state, _) = cluster.machine.state();
        if !request.service.is_empty()
            && !state
                .services()
                .values()
                .any(|entry| entry.name == request.service)
        {
            return Err(Status::not_found(format!(
                "no service named {} in version {}",
                request.service,
                state.config_number()
            )));
        }
        if !request.server.is_empty()
            && !state
                .servers()
                .values()
                .any(|entry| entry.name == request.server)
        {
            return Err(Status::not_found(format!(
                "no server named {} in version {}",
                request.server,
                state.config_number()
            )));
        }
        let limit = if request.limit == 0 {
            usize::MAX
        } else {
            usize::try_from(request.limit).unwrap_or(usize::MAX)
        };
        let wanted = |connection: &v1::Connection| {
            (request.service.is_empty() || connection.service == request.service)
                && (request.server.is_empty() || connection.server == request.server)
        };
        let found = state
            .connections()
            .iter()
            .filter_map(|(key, server)| convert::connection(&state, &key, server));
        let mut found: Vec<_> = found.filter(wanted).collect();
        let total = found.len() as u64;
        found.truncate(limit);
        let mut pages = vec![v1::ConnectionList {
            connections: Vec::new(),
            total,
        }];
        for page in found.chunks(PAGE) {
            pages.push(v1::ConnectionList {
                connections: page.to_vec(),
                total,
            });
        }
        Ok(Response::new(stream::iter(pages).map(Ok).boxed()))
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverReply>, Status> {
        let cluster = self.cluster()?;
        match relay::leadership(&cluster.raft) {
            Leadership::Other(leader) if !relay::is_relayed(&request) => {
                leader
                    .relay(
                        request.into_inner(),
                        CHANGE_TIMEOUT,
                        |mut client, request| async move { client.failover(request).await },
                    )
                    .await
            }
            Leadership::Nobody => Err(relay::nobody()),
            Leadership::Other(_) | Leadership::Mine => cluster
                .failover(request.into_inner())
                .await
                .map(Response::new),
        }
    }

    async fn show_config(
        &self,
        request: Request<v1::ShowConfigRequest>,
    ) -> Result<Response<v1::ShowConfigReply>, Status> {
        let cluster = self.cluster()?;
        let wanted = request.into_inner().version;
        let (state, _) = cluster.machine.state();
        let number = if wanted == 0 {
            state.config_number()
        } else {
            ConfigNumber(wanted)
        };
        let versions: Vec<u64> = state.versions().keys().map(|number| number.0).collect();
        let Some(version) = state.versions().get(&number) else {
            let kept = match (versions.first(), versions.last()) {
                (Some(first), Some(last)) => format!("versions {first} to {last} are kept"),
                _ => "there is no version yet".into(),
            };
            return Err(Status::not_found(format!("no version {number}: {kept}")));
        };
        let hosts = version.hosts.iter();
        let hosts = hosts.map(|(name, address)| v1::HostAddress {
            name: name.clone(),
            address: address.to_string(),
        });
        Ok(Response::new(v1::ShowConfigReply {
            version: number.0,
            source: version.source.clone(),
            applied_by: version.by.clone(),
            hosts: hosts.collect(),
            versions,
        }))
    }

    async fn apply_config(
        &self,
        request: Request<v1::ApplyConfigRequest>,
    ) -> Result<Response<v1::ApplyConfigReply>, Status> {
        let cluster = self.cluster()?;
        match relay::leadership(&cluster.raft) {
            Leadership::Other(leader) if !relay::is_relayed(&request) => {
                leader
                    .relay(
                        request.into_inner(),
                        CHANGE_TIMEOUT,
                        |mut client, request| async move { client.apply_config(request).await },
                    )
                    .await
            }
            Leadership::Nobody => Err(relay::nobody()),
            Leadership::Other(_) | Leadership::Mine => cluster
                .apply_config(request.into_inner())
                .await
                .map(Response::new),
        }
    }

    async fn forget_atm(
        &self,
        request: Request<v1::ForgetAtmRequest>,
    ) -> Result<Response<v1::ForgetAtmReply>, Status> {
        let cluster = self.cluster()?;
        match relay::leadership(&cluster.raft) {
            Leadership::Other(leader) if !relay::is_relayed(&request) => {
                leader
                    .relay(
                        request.into_inner(),
                        CHANGE_TIMEOUT,
                        |mut client, request| async move { client.forget_atm(request).await },
                    )
                    .await
            }
            Leadership::Nobody => Err(relay::nobody()),
            Leadership::Other(_) | Leadership::Mine => cluster
                .forget_atm(request.into_inner())
                .await
                .map(Response::new),
        }
    }

    async fn counters(
        &self,
        _request: Request<v1::CountersRequest>,
    ) -> Result<Response<v1::CountersReply>, Status> {
        let cluster = self.cluster()?;
        let counters = cluster.counters().await?;
        Ok(Response::new(v1::CountersReply {
            atm: cluster.myself.name.clone(),
            counters,
        }))
    }
}

impl Cluster {
    async fn failover(&self, request: v1::FailoverRequest) -> Result<v1::FailoverReply, Status> {
        let (answer, wait) = oneshot::channel();
        let to = (!request.to.is_empty()).then_some(request.to);
        let gone = || Status::unavailable("this ATM is shutting down");
        self.hand_overs
            .send(HandOver { to, answer })
            .await
            .map_err(|_| gone())?;
        let outcome = tokio::time::timeout(CHANGE_TIMEOUT, wait).await;
        let outcome = outcome
            .map_err(|_| Status::deadline_exceeded("the hand-over is still under way"))?
            .map_err(|_| gone())?;
        match outcome {
            Ok(done) => Ok(v1::FailoverReply {
                from: done.from,
                to: done.to,
                epoch: done.epoch.0,
                elapsed_ms: u64::try_from(done.elapsed.as_millis()).unwrap_or(u64::MAX),
            }),
            Err(error) => Err(Status::new(
                match error {
                    HandOverError::Unknown(..) => Code::NotFound,
                    HandOverError::NotActive
                    | HandOverError::AlreadyActive(_)
                    | HandOverError::NoSuccessor
                    | HandOverError::TimedOut(..)
                    | HandOverError::NotCommitted(_) => Code::FailedPrecondition,
                },
                error.to_string(),
            )),
        }
    }

    async fn apply_config(
        &self,
        request: v1::ApplyConfigRequest,
    ) -> Result<v1::ApplyConfigReply, Status> {
        if request.source.len() > FILE_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "field `source`: more than {FILE_BYTES_MAX} bytes"
            )));
        }
        let (file, diagnostics) = match ClusterFile::parse(&request.file_name, request.source).await
        {
            Ok(parsed) => parsed,
            Err(ClusterFileError::Invalid { errors, .. }) => {
                let problems = errors.iter().map(convert::problem).collect();
                return Ok(v1::ApplyConfigReply {
                    problems,
                    ..Default::default()
                });
            }
            Err(error) => return Err(Status::failed_precondition(error.to_string())),
        };
        let mut problems: Vec<_> = diagnostics.iter().map(convert::problem).collect();
        if Timing::of(&file.config.atm_pool) != self.timing {
            let message = "HeartBeatDelay or MaxLostHeartbeats changes: each atmd keeps its intervals until it is restarted";
            problems.push(convert::warning("timing-after-restart", message.into()));
        }
        if file.config.atm_pool.num_connections as usize > self.connections_max {
            let message =
                "NumConnections grows: each atmd makes room for more when it is restarted";
            problems.push(convert::warning(
                "num-connections-after-restart",
                message.into(),
            ));
        }
        problems.extend(
            packets::limitations(&file.config)
                .into_iter()
                .map(|what| convert::warning("unsupported", what)),
        );
        let current = self.machine.read(|state| {
            state
                .versions()
                .last_key_value()
                .map(|(number, version)| (*number, version.source.clone(), version.hosts.clone()))
        });
        let expected =
            (request.expected_version != 0).then_some(ConfigNumber(request.expected_version));
        if let Some((number, source, hosts)) = current
            && source == file.source
            && hosts == file.hosts
            && expected.is_none_or(|expected| expected == number)
        {
            return Ok(v1::ApplyConfigReply {
                version: number.0,
                problems,
                unchanged: true,
                ..Default::default()
            });
        }
        let command = Command::Control(Control::ApplyConfig {
            source: file.source,
            hosts: file.hosts,
            expected,
            by: self.myself.name.clone(),
        });
        let write = self.raft.client_write(StoredCommand::from(&command));
        let written = tokio::time::timeout(CHANGE_TIMEOUT, write).await.map_err(|_| {
            Status::unavailable("no quorum committed the version in time; it may still be committed: see atmctl config show")
        })?;
        let written = written.map_err(|error| Status::unavailable(error.to_string()))?;
        match written.data {
            Outcome::Applied(number) => {
                let index = written.log_id.index();
                Ok(v1::ApplyConfigReply {
                    version: number.0,
                    index,
                    problems,
                    unchanged: false,
                })
            }
            Outcome::Refused(refusal @ Refusal::OtherVersion { .. }) => {
                Err(Status::aborted(refusal.to_string()))
            }
            Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
            Outcome::None
            | Outcome::EpochBegun { .. }
            | Outcome::EpochEnded
            | Outcome::Registered
            | Outcome::Forgotten(_)
            | Outcome::Health(_)
            | Outcome::Connections { .. } => Err(Status::internal(OTHER_ANSWER)),
        }
    }

    async fn forget_atm(
        &self,
        request: v1::ForgetAtmRequest,
    ) -> Result<v1::ForgetAtmReply, Status> {
        let name = request.name;
        let node = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let named = metrics
                .membership_config
                .nodes()
                .find(|(_, atm)| atm.name == name);
            named.map(|(node, _)| *node)
        };
        let Some(node) = node else {
            return Err(Status::not_found(format!(
                "no ATM named {name} in the group"
            )));
        };
        // One that answers has its directory: forgetting it would let a second one beside it vote in its name.
        for other in self.others.iter().filter(|other| other.name == name) {
            if other
                .hello(&self.myself, false)
                .await
                .is_ok_and(|hello| hello.node != 0)
            {
                return Err(Status::failed_precondition(format!(
                    "{name} takes part with its data directory; stop it first"
                )));
            }
        }
        let command = Command::Control(Control::Forget { node: NodeId(node) });
        let write = self.raft.client_write(StoredCommand::from(&command));
        let written = tokio::time::timeout(CHANGE_TIMEOUT, write).await;
        let written = written.map_err(|_| Status::unavailable("no quorum committed it in time"))?;
        match written
            .map_err(|error| Status::unavailable(error.to_string()))?
            .data
        {
            Outcome::Forgotten(incarnation) => Ok(v1::ForgetAtmReply {
                name,
                incarnation: incarnation.unwrap_or_default(),
            }),
            Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
            Outcome::None
            | Outcome::Applied(_)
            | Outcome::EpochBegun { .. }
            | Outcome::EpochEnded
            | Outcome::Registered
            | Outcome::Health(_)
            | Outcome::Connections { .. } => Err(Status::internal(OTHER_ANSWER)),
        }
    }

    async fn counters(&self) -> Result<Vec<v1::Counter>, Status> {
        let engine = self.packets.engine();
        let snapshot = engine
            .snapshot()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let counter = |name: String, value: u64| v1::Counter { name, value };
        let verdicts = &snapshot.verdicts;
        let mut counters: Vec<v1::Counter> = Verdict::ALL
            .iter()
            .map(|verdict| counter(verdict.name().into(), verdicts.verdict(*verdict)))
            .collect();
        for verdict in Verdict::ALL {
            if let Verdict::Drop(reason) = verdict
                && verdicts.held_dropped(reason) != 0
            {
                counters.push(counter(
                    format!("held-{}", verdict.name()),
                    verdicts.held_dropped(reason),
                ));
            }
        }
        counters.extend(
            Event::ALL
                .iter()
                .map(|event| counter(event.name().into(), verdicts.event(*event))),
        );
        counters.push(counter(
            "receive-kernel-dropped".into(),
            snapshot.receive.kernel_dropped,
        ));
        counters.push(counter(
            "receive-truncated".into(),
            snapshot.receive.truncated,
        ));
        counters.push(counter(
            "receive-other-vlan".into(),
            snapshot.receive.other_vlan,
        ));
        for count in dataplane::Count::ALL {
            counters.push(counter(
                format!("send-{}", count.name()),
                engine.stats().count(count),
            ));
        }
        let replicator = &self.replicator;
        let read =
            |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed);
        counters.push(counter(
            "replicator-entries".into(),
            read(&replicator.entries),
        ));
        counters.push(counter(
            "replicator-committed".into(),
            read(&replicator.committed),
        ));
        counters.push(counter(
            "replicator-refused".into(),
            read(&replicator.refused),
        ));
        counters.push(counter(
            "engine-connections".into(),
            snapshot.connections as u64,
        ));
        counters.push(counter("engine-pending".into(), snapshot.pending as u64));
        Ok(counters)
    }
}
