//! The Admin service itself: what this ATM answers, what it passes to the leader, and what it refuses.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt, stream};
use model::planted::{self, Bug};
use proto::v1;
use proto::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::cluster::Cluster;
use super::convert;
use super::orders::EventPages;
use super::relay::{self, ASK_TIMEOUT, Client, Leadership};
use super::trace::Decisions;

/// Connections per message of a listing.
const PAGE: usize = 1000;

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
    type TraceStream = Decisions;
    type EventsStream = EventPages;

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
        convert::known_service(&state, &request.service)?;
        convert::known_server(&state, &request.server)?;
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
            .filter_map(|(key, pin)| convert::connection(&state, &key, pin.server));
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
        let there = |mut client: Client, request| async move { client.failover(request).await };
        relay::at_leader(&cluster.raft, request, there, |message| {
            cluster.failover(message)
        })
        .await
    }

    async fn show_config(
        &self,
        request: Request<v1::ShowConfigRequest>,
    ) -> Result<Response<v1::ShowConfigReply>, Status> {
        let cluster = self.cluster()?;
        if request.get_ref().local || planted::is(Bug::StaleRead) {
            return cluster
                .show_config(&request.into_inner())
                .map(Response::new);
        }
        let there = |mut client: Client, request| async move { client.show_config(request).await };
        relay::at_leader(&cluster.raft, request, there, |message| async move {
            cluster.up_to_date().await?;
            cluster.show_config(&message)
        })
        .await
    }

    async fn apply_config(
        &self,
        request: Request<v1::ApplyConfigRequest>,
    ) -> Result<Response<v1::ApplyConfigReply>, Status> {
        let cluster = self.cluster()?;
        let there = |mut client: Client, request| async move { client.apply_config(request).await };
        relay::at_leader(&cluster.raft, request, there, |message| {
            cluster.apply_config(message)
        })
        .await
    }

    async fn forget_atm(
        &self,
        request: Request<v1::ForgetAtmRequest>,
    ) -> Result<Response<v1::ForgetAtmReply>, Status> {
        let cluster = self.cluster()?;
        let there = |mut client: Client, request| async move { client.forget_atm(request).await };
        relay::at_leader(&cluster.raft, request, there, |message| {
            cluster.forget_atm(message)
        })
        .await
    }

    async fn order_server(
        &self,
        request: Request<v1::OrderServerRequest>,
    ) -> Result<Response<v1::OrderServerReply>, Status> {
        let cluster = self.cluster()?;
        let there = |mut client: Client, request| async move { client.order_server(request).await };
        relay::at_leader(&cluster.raft, request, there, |message| {
            cluster.order_server(message)
        })
        .await
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let cluster = Arc::clone(self.cluster()?);
        cluster.events(request.get_ref()).map(Response::new)
    }

    async fn counters(
        &self,
        request: Request<v1::CountersRequest>,
    ) -> Result<Response<v1::CountersReply>, Status> {
        let cluster = self.cluster()?;
        cluster.counters(request.get_ref()).await.map(Response::new)
    }

    async fn digest(
        &self,
        _request: Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestReply>, Status> {
        let cluster = self.cluster()?;
        cluster.digest().await.map(Response::new)
    }

    async fn trace(
        &self,
        request: Request<v1::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let cluster = self.cluster()?;
        if request.get_ref().local {
            let decisions = Arc::clone(cluster).trace(&request.into_inner()).await?;
            return Ok(Response::new(decisions));
        }
        // The deadline of the relay is for the beginning: a stream that has begun has none.
        let there = |mut client: Client, request| async move {
            let decisions = client.trace(request).await?;
            Ok(decisions.map(StreamExt::boxed))
        };
        relay::at_leader(&cluster.raft, request, there, |message| async move {
            Arc::clone(cluster).trace(&message).await
        })
        .await
    }
}
