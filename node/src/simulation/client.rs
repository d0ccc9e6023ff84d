//! An operator in the simulation: the Admin calls that the workloads need, from any simulated host.

use std::time::Duration;

use proto::v1;
use proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use crate::channels;

/// A call that has not succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It had no effect and will have none.
    Refused(String),
    /// It may have had, or may have later.
    Unknown(String),
}

/// A version that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRead {
    /// Its number.
    pub version: u64,
    /// Its text.
    pub source: String,
}

/// Calls one ATM.
pub struct Client {
    admin: AdminClient<Channel>,
    deadline: Duration,
}

impl Client {
    /// Of the ATM at this `host:port` of its Admin service. Calls that take longer than `deadline` have an unknown end.
    pub fn new(address: &str, deadline: Duration) -> Option<Self> {
        let channel = channels::to_peer(address).ok()?;
        let admin = channels::admin_client(channel);
        Some(Self { admin, deadline })
    }

    /// Puts a version in force; `expected`: only in the place of this one. Returns its number.
    pub async fn apply(&mut self, source: String, expected: Option<u64>) -> Result<u64, CallError> {
        let request = v1::ApplyConfigRequest {
            source,
            file_name: "simulated.conf".into(),
            expected_version: expected.unwrap_or(0),
        };
        match tokio::time::timeout(self.deadline, self.admin.apply_config(request)).await {
            Err(_) => Err(CallError::Unknown("no answer in time".into())),
            Ok(Err(status)) => Err(judge(&status)),
            Ok(Ok(reply)) => match reply.into_inner() {
                refused if refused.version == 0 => {
                    let problems = refused.problems.into_iter();
                    let said: Vec<_> = problems.map(|problem| problem.message).collect();
                    Err(CallError::Refused(said.join("; ")))
                }
                applied => Ok(applied.version),
            },
        }
    }

    /// Reads the version in force.
    pub async fn read(&mut self) -> Result<ConfigRead, CallError> {
        let request = v1::ShowConfigRequest {
            version: 0,
            local: false,
        };
        match tokio::time::timeout(self.deadline, self.admin.show_config(request)).await {
            Err(_) => Err(CallError::Unknown("no answer in time".into())),
            Ok(Err(status)) => Err(judge(&status)),
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                Ok(ConfigRead {
                    version: reply.version,
                    source: reply.source,
                })
            }
        }
    }

    /// Asks for a hand-over; empty: to whom the active ATM likes.
    pub async fn hand_over(&mut self, to: &str) -> Result<(), CallError> {
        let request = v1::FailoverRequest { to: to.into() };
        match tokio::time::timeout(self.deadline, self.admin.failover(request)).await {
            Err(_) => Err(CallError::Unknown("no answer in time".into())),
            Ok(Err(status)) => Err(judge(&status)),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

/// `UNAVAILABLE` may be the transport's word for a connection that broke after the request had left.
fn judge(status: &tonic::Status) -> CallError {
    match status.code() {
        tonic::Code::Aborted
        | tonic::Code::FailedPrecondition
        | tonic::Code::InvalidArgument
        | tonic::Code::NotFound => CallError::Refused(status.message().into()),
        _ => CallError::Unknown(format!("{}: {}", status.code(), status.message())),
    }
}
