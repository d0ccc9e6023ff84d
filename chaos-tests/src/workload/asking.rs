//! Asking one ATM through its Admin service, each call within a deadline, and what an answer proves.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proto::v1;
use proto::v1::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::lab::{ADMIN_PORT, enter};

/// A connection on a host's own loopback takes microseconds; only a stopped process with a full backlog delays it.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// The largest answer: a configuration is far below a mebibyte, a listing comes in pages of a thousand connections.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A task of a host's thread.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs `tasks` to their ends on a thread of their own inside the network namespace `namespace`.
///
/// # Errors
/// The thread, its runtime, or the namespace cannot be had.
pub(crate) fn run_inside(
    namespace: &str,
    tasks: impl FnOnce() -> Vec<Task> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let namespace = namespace.to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let work = move || {
        let begun = enter(&namespace).map_err(io::Error::other).and_then(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
        });
        let runtime = match begun {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        runtime.block_on(async {
            let running: Vec<_> = tasks().into_iter().map(tokio::spawn).collect();
            for task in running {
                if let Err(error) = task.await
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        });
    };
    let thread = thread::Builder::new()
        .name("workload".to_owned())
        .spawn(work)?;
    is_ready
        .recv()
        .map_err(|_| io::Error::other("the thread ended at once"))??;
    Ok(thread)
}

/// The Admin service of the host that the calling thread is in.
#[derive(Clone)]
pub(crate) struct Atm {
    client: AdminClient<Channel>,
    deadline: Duration,
}

/// Why there is no answer, and what may have happened all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It did certainly not happen.
    Refused(String),
    /// Another version was in force: it did certainly not happen.
    OtherVersion,
    /// Nobody knows.
    Unknown(String),
}

impl NoAnswer {
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Unknown(why) => why,
            Self::OtherVersion => "another version is in force",
        }
    }
}

/// A committed version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: u64,
    pub(crate) source: String,
}

impl Atm {
    /// Each call takes at most `deadline`. To be made inside a runtime.
    pub(crate) fn new(deadline: Duration) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{ADMIN_PORT}"))?
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self {
            client: AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            deadline,
        })
    }

    /// The version in force: the group's, or with `local` what this ATM has applied.
    pub(crate) async fn show(&self, local: bool) -> Result<Version, NoAnswer> {
        let request = self.request(v1::ShowConfigRequest { version: 0, local });
        let mut client = self.client.clone();
        let reply = self.within(client.show_config(request)).await?;
        Ok(Version {
            number: reply.version,
            source: reply.source,
        })
    }

    /// Applies `source` if version `expected` is in force, and tells the number of the new version.
    pub(crate) async fn apply(&self, source: String, expected: u64) -> Result<u64, NoAnswer> {
        let request = self.request(v1::ApplyConfigRequest {
            source,
            file_name: "chaos.conf".to_owned(),
            expected_version: expected,
        });
        let mut client = self.client.clone();
        let reply = self.within(client.apply_config(request)).await?;
        if reply.version == 0 {
            let why = reply
                .problems
                .first()
                .map(|problem| problem.message.clone());
            return Err(NoAnswer::Refused(why.unwrap_or_default()));
        }
        Ok(reply.version)
    }

    /// The digest of this ATM's own state.
    pub(crate) async fn digest(&self) -> Result<v1::DigestReply, NoAnswer> {
        let request = self.request(v1::DigestRequest {});
        let mut client = self.client.clone();
        self.within(client.digest(request)).await
    }

    /// This ATM's own connection table.
    pub(crate) async fn connections(&self) -> Result<Vec<v1::Connection>, NoAnswer> {
        let request = self.request(v1::ListConnectionsRequest::default());
        let mut client = self.client.clone();
        let mut pages = self.within(client.list_connections(request)).await?;
        let mut connections = Vec::new();
        loop {
            let page = tokio::time::timeout(self.deadline, pages.message()).await;
            match page {
                Ok(Ok(Some(page))) => connections.extend(page.connections),
                Ok(Ok(None)) => return Ok(connections),
                Ok(Err(status)) => return Err(meaning(&status)),
                Err(_) => return Err(NoAnswer::Unknown("a page did not come".to_owned())),
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, NoAnswer> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(meaning(&status)),
            Err(_) => Err(NoAnswer::Unknown(format!(
                "no answer within {:?}",
                self.deadline
            ))),
        }
    }
}

/// What a refusal proves about the change that was asked for.
fn meaning(status: &Status) -> NoAnswer {
    let why = || match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    match status.code() {
        Code::Aborted => NoAnswer::OtherVersion,
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::Unimplemented => {
            NoAnswer::Refused(why())
        }
        // The request has not left this host when there was no connection to send it on.
        Code::Unavailable if never_connected(status) => NoAnswer::Refused(why()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => NoAnswer::Unknown(why()),
    }
}

fn never_connected(status: &Status) -> bool {
    let first: Option<&(dyn Error + 'static)> = status.source();
    std::iter::successors(first, |error| (*error).source()).any(|error| {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}
