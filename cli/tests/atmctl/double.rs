//! An ATM's admin service that answers by script and remembers what it was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use proto::v1;
use proto::v1::admin_server::{Admin, AdminServer};
use proto::v1::trace_reply::Event;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

/// What the double answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Every call is answered with this.
    pub(crate) refusal: Option<(Code, String)>,
    /// No call is ever answered.
    pub(crate) silent: bool,
    pub(crate) status: v1::StatusReply,
    pub(crate) connections: Vec<v1::ConnectionList>,
    /// The lists of connections and of events never end.
    pub(crate) endless: bool,
    pub(crate) failover: v1::FailoverReply,
    pub(crate) forgotten: v1::ForgetAtmReply,
    pub(crate) shown: v1::ShowConfigReply,
    pub(crate) applied: v1::ApplyConfigReply,
    pub(crate) counters: v1::CountersReply,
    pub(crate) digest: v1::DigestReply,
    pub(crate) traced: Vec<Event>,
    pub(crate) events: Vec<v1::EventsReply>,
    pub(crate) ordered: v1::OrderServerReply,
    /// How the stream of decisions ends; without it, it does not.
    pub(crate) trace_end: Option<(Code, String)>,
}

impl Script {
    pub(crate) fn refusing(code: Code, message: &str) -> Self {
        Self {
            refusal: Some((code, message.to_owned())),
            ..Self::default()
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Status,
    Connections(v1::ListConnectionsRequest),
    Failover(v1::FailoverRequest),
    Forget(v1::ForgetAtmRequest),
    Show(v1::ShowConfigRequest),
    Apply(v1::ApplyConfigRequest),
    Counters(v1::CountersRequest),
    Digest,
    Trace(v1::TraceRequest),
    Events(v1::EventsRequest),
    Order(v1::OrderServerRequest),
}

/// A running double; it ends when dropped.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    log: Log,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Requests, each with its `grpc-timeout` header.
type Log = Arc<Mutex<Vec<(Asked, Option<String>)>>>;

impl Double {
    pub(crate) fn start(script: Script) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let log = Log::default();
        let service = Service {
            script,
            log: Arc::clone(&log),
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let serving = Server::builder()
                    .add_service(AdminServer::new(service))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: address.recv().unwrap(),
            log,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        let log = self.log.lock().unwrap();
        log.iter().map(|(asked, _)| asked.clone()).collect()
    }

    pub(crate) fn deadlines(&self) -> Vec<Option<String>> {
        let log = self.log.lock().unwrap();
        log.iter().map(|(_, deadline)| deadline.clone()).collect()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

struct Service {
    script: Script,
    log: Log,
}

impl Service {
    async fn answer<Q, A: Clone>(
        &self,
        request: Request<Q>,
        asked: impl FnOnce(Q) -> Asked,
        answer: &A,
    ) -> Result<Response<A>, Status> {
        let deadline = request.metadata().get("grpc-timeout");
        let deadline = deadline.map(|value| value.to_str().unwrap().to_owned());
        let asked = asked(request.into_inner());
        self.log.lock().unwrap().push((asked, deadline));
        if self.script.silent {
            std::future::pending::<()>().await;
        }
        match &self.script.refusal {
            Some((code, message)) => Err(Status::new(*code, message.clone())),
            None => Ok(Response::new(answer.clone())),
        }
    }
}

#[tonic::async_trait]
impl Admin for Service {
    type ListConnectionsStream =
        Pin<Box<dyn Stream<Item = Result<v1::ConnectionList, Status>> + Send>>;
    type TraceStream = Pin<Box<dyn Stream<Item = Result<v1::TraceReply, Status>> + Send>>;
    type EventsStream = Pin<Box<dyn Stream<Item = Result<v1::EventsReply, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let pages = self
            .answer(request, Asked::Events, &self.script.events)
            .await?
            .into_inner();
        let pages = tokio_stream::iter(pages.into_iter().map(Ok));
        Ok(Response::new(if self.script.endless {
            Box::pin(pages.chain(tokio_stream::pending()))
        } else {
            Box::pin(pages)
        }))
    }

    async fn order_server(
        &self,
        request: Request<v1::OrderServerRequest>,
    ) -> Result<Response<v1::OrderServerReply>, Status> {
        self.answer(request, Asked::Order, &self.script.ordered)
            .await
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.answer(request, |_| Asked::Status, &self.script.status)
            .await
    }

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let lists = self
            .answer(request, Asked::Connections, &self.script.connections)
            .await?
            .into_inner();
        let lists = tokio_stream::iter(lists.into_iter().map(Ok));
        Ok(Response::new(if self.script.endless {
            Box::pin(lists.chain(tokio_stream::pending()))
        } else {
            Box::pin(lists)
        }))
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverReply>, Status> {
        self.answer(request, Asked::Failover, &self.script.failover)
            .await
    }

    async fn show_config(
        &self,
        request: Request<v1::ShowConfigRequest>,
    ) -> Result<Response<v1::ShowConfigReply>, Status> {
        self.answer(request, Asked::Show, &self.script.shown).await
    }

    async fn apply_config(
        &self,
        request: Request<v1::ApplyConfigRequest>,
    ) -> Result<Response<v1::ApplyConfigReply>, Status> {
        self.answer(request, Asked::Apply, &self.script.applied)
            .await
    }

    async fn forget_atm(
        &self,
        request: Request<v1::ForgetAtmRequest>,
    ) -> Result<Response<v1::ForgetAtmReply>, Status> {
        self.answer(request, Asked::Forget, &self.script.forgotten)
            .await
    }

    async fn counters(
        &self,
        request: Request<v1::CountersRequest>,
    ) -> Result<Response<v1::CountersReply>, Status> {
        self.answer(request, Asked::Counters, &self.script.counters)
            .await
    }

    async fn digest(
        &self,
        request: Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestReply>, Status> {
        self.answer(request, |_| Asked::Digest, &self.script.digest)
            .await
    }

    async fn trace(
        &self,
        request: Request<v1::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let events = self
            .answer(request, Asked::Trace, &self.script.traced)
            .await?
            .into_inner();
        let replies = events
            .into_iter()
            .map(|event| Ok(v1::TraceReply { event: Some(event) }));
        let replies = tokio_stream::iter(replies);
        Ok(Response::new(match self.script.trace_end.clone() {
            Some((code, message)) => {
                let end = Err(Status::new(code, message));
                Box::pin(replies.chain(tokio_stream::once(end)))
            }
            None => Box::pin(replies.chain(tokio_stream::pending())),
        }))
    }
}
