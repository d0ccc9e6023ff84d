//! What changes the cluster, done by the leader: a hand-over, a new version, a forgotten directory.

use model::command::{Command, Control, Refusal, Response as Outcome};
use model::conf::FILE_BYTES_MAX;
use model::ids::{ConfigNumber, NodeId};
use openraft::async_runtime::WatchReceiver;
use proto::v1;
use tokio::sync::oneshot;
use tonic::{Code, Status};

use super::cluster::Cluster;
use super::convert;
use super::relay::CHANGE_TIMEOUT;
use crate::cluster_file::{ClusterFile, ClusterFileError};
use crate::packets;
use crate::raft::StoredCommand;
use crate::tenure::{HandOver, HandOverError};
use crate::timing::Timing;

/// What a bug would make: commands and their answers belong together.
pub(super) const OTHER_ANSWER: &str = "the state machine gave another command's answer";

impl Cluster {
    pub(super) async fn failover(
        &self,
        request: v1::FailoverRequest,
    ) -> Result<v1::FailoverReply, Status> {
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

    pub(super) async fn apply_config(
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
            | Outcome::Noted(_)
            | Outcome::Connections { .. } => Err(Status::internal(OTHER_ANSWER)),
        }
    }

    pub(super) async fn forget_atm(
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
            | Outcome::Noted(_)
            | Outcome::Connections { .. } => Err(Status::internal(OTHER_ANSWER)),
        }
    }
}
