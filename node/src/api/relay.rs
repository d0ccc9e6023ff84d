//! A request that only the leader can answer, passed to it once.

use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use proto::v1::admin_client::AdminClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::channels;
use crate::raft::Raft;

/// The leader answers questions within this.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// A change is committed, or a hand-over done, within this.
pub(super) const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Another ATM's Admin service.
pub(super) type Client = AdminClient<Channel>;

/// Marks a relayed request: it is answered where it arrives, never passed on again.
const RELAYED: &str = "atm-relayed";

/// Whether another ATM passed this request on.
pub(super) fn is_relayed<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(RELAYED)
}

/// The leader, if it is another ATM.
pub(super) struct Leader {
    /// Its name.
    pub(super) name: String,
    client: Client,
}

/// Who leads, as this ATM sees it.
pub(super) enum Leadership {
    /// This ATM.
    Mine,
    /// Another.
    Other(Leader),
    /// Nobody that is known.
    Nobody,
}

/// Finds the leader.
pub(super) fn leadership(raft: &Raft) -> Leadership {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let Some(id) = metrics.current_leader else {
        return Leadership::Nobody;
    };
    if id == metrics.id {
        return Leadership::Mine;
    }
    let leader = metrics.membership_config.get_node(&id).and_then(|atm| {
        let channel = channels::to_peer(&atm.address).ok()?;
        Some(Leader {
            name: atm.name.clone(),
            client: channels::admin_client(channel),
        })
    });
    leader.map_or(Leadership::Nobody, Leadership::Other)
}

/// Answers a change `here` when this ATM leads, or when it was passed on already; else has the leader answer it.
pub(super) async fn at_leader<M, R, There, Here>(
    raft: &Raft,
    request: Request<M>,
    there: impl FnOnce(Client, Request<M>) -> There,
    here: impl FnOnce(M) -> Here,
) -> Result<Response<R>, Status>
where
    There: Future<Output = Result<Response<R>, Status>>,
    Here: Future<Output = Result<R, Status>>,
{
    match leadership(raft) {
        Leadership::Other(leader) if !is_relayed(&request) => {
            leader
                .relay(request.into_inner(), CHANGE_TIMEOUT, there)
                .await
        }
        Leadership::Nobody => Err(nobody()),
        Leadership::Other(_) | Leadership::Mine => {
            here(request.into_inner()).await.map(Response::new)
        }
    }
}

impl Leader {
    /// Passes a message on with a deadline.
    pub(super) async fn relay<M, R, F>(
        self,
        message: M,
        deadline: Duration,
        call: impl FnOnce(Client, Request<M>) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert(RELAYED, MetadataValue::from_static("1"));
        request.set_timeout(deadline);
        match tokio::time::timeout(deadline, call(self.client, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::unavailable(format!(
                "{}, which leads, did not answer within {deadline:?}",
                self.name
            ))),
        }
    }
}

/// The refusal when there is nobody to ask.
fn nobody() -> Status {
    Status::unavailable("the ATMs have no leader: fewer than a majority of them reach one another")
}
