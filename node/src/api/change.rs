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
const OTHER_ANSWER: &str = "the state machine gave another command's answer";

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
        let version = Control::ApplyConfig {
            source: file.source,
            hosts: file.hosts,
            expected,
            by: self.myself.name.clone(),
        };
        let late = "no quorum committed the version in time; it may still be committed: see atmctl config show";
        let (outcome, index) = self.commit(version, late).await?;
        let Outcome::Applied(number) = outcome else {
            return Err(no_answer(outcome));
        };
        Ok(v1::ApplyConfigReply {
            version: number.0,
            index,
            problems,
            unchanged: false,
        })
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
        let forget = Control::Forget { node: NodeId(node) };
        let (outcome, _) = self
            .commit(forget, "no quorum committed it in time")
            .await?;
        let Outcome::Forgotten(incarnation) = outcome else {
            return Err(no_answer(outcome));
        };
        Ok(v1::ForgetAtmReply {
            name,
            incarnation: incarnation.unwrap_or_default(),
        })
    }

    /// Has a command committed, and returns its outcome and its index. `late`: what an operator is told when its time is over.
    pub(super) async fn commit(
        &self,
        control: Control,
        late: &'static str,
    ) -> Result<(Outcome, u64), Status> {
        let command = StoredCommand::from(&Command::Control(control));
        let write = self.raft.client_write(command);
        match tokio::time::timeout(CHANGE_TIMEOUT, write).await {
            Ok(Ok(written)) => Ok((written.data, written.log_id.index())),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::unavailable(late)),
        }
    }
}

/// The status where a command has another outcome than the one that is its answer.
pub(super) fn no_answer(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Refused(refusal @ Refusal::UnknownServer(_)) => {
            Status::not_found(refusal.to_string())
        }
        Outcome::Refused(refusal @ Refusal::OtherVersion { .. }) => {
            Status::aborted(refusal.to_string())
        }
        Outcome::Refused(refusal) => Status::failed_precondition(refusal.to_string()),
        Outcome::None
        | Outcome::Applied(_)
        | Outcome::EpochBegun { .. }
        | Outcome::EpochEnded
        | Outcome::Registered
        | Outcome::Forgotten(_)
        | Outcome::Health(_)
        | Outcome::Noted(_)
        | Outcome::Connections { .. } => Status::internal(OTHER_ANSWER),
    }
}
