//! One question to the cluster: which ATM is asked, for how long, and what its answer means.
//!
//! Every channel is built here. Every call has a deadline (a stream that is followed: its beginning); nothing is asked twice, and the next endpoint is tried only
//! when the one before cannot have done anything, which is said on stderr.

use std::error::Error;
use std::io;
use std::time::Duration;

use proto::v1::admin_client::AdminClient;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, Channel};
use tonic::{Code, Request, Status};

use crate::args::Global;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::output;

/// An ATM that answers does so at once; this only bounds the wait for one that does not, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest single answer: the status of 1000 servers with 100 services each has some 4 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What asking twice would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: another ATM may be asked the same.
    Reads,
    /// Something, perhaps again: once a request is sent, its fate is the answer.
    Changes,
}

/// A connected ATM. Each of its calls carries the deadline, so that the ATM too knows when to give up.
pub(crate) type Admin = AdminClient<InterceptedService<Channel, Deadline>>;

/// Puts the time that is left into each request; `None`: the answer may take as long as it likes.
#[derive(Clone, Debug)]
pub(crate) struct Deadline(Option<Duration>);

impl Interceptor for Deadline {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(left) = self.0 {
            request.set_timeout(left);
        }
        Ok(request)
    }
}

/// Asks the endpoints in order until one answers, each within its `timeout_default` or what the operator said.
pub(crate) async fn ask<T>(
    global: &Global,
    effect: Effect,
    timeout_default: Duration,
    call: impl AsyncFn(Admin) -> Result<T, Status>,
) -> Result<T, Failure> {
    let timeout = global.timeout_or(timeout_default);
    let (answer, _) = ask_in_turn(global, effect, timeout, Deadline(Some(timeout)), call).await?;
    Ok(answer)
}

/// Asks for a stream like [`ask`], for reading: `call` returns when it has begun, and only this has to happen in time. Also
/// returns who answers.
pub(crate) async fn follow<T>(
    global: &Global,
    timeout_default: Duration,
    call: impl AsyncFn(Admin) -> Result<T, Status>,
) -> Result<(T, Endpoint), Failure> {
    let timeout = global.timeout_or(timeout_default);
    ask_in_turn(global, Effect::Reads, timeout, Deadline(None), call).await
}

/// What it means that a stream of `endpoint` that had begun has ended like this.
pub(crate) fn broken(endpoint: &Endpoint, status: &Status) -> Failure {
    // It has no deadline that could have passed.
    let (meaning, why) = meaning(status, Duration::ZERO);
    failure(endpoint, Effect::Reads, meaning, why)
}

async fn ask_in_turn<T>(
    global: &Global,
    effect: Effect,
    timeout: Duration,
    deadline: Deadline,
    call: impl AsyncFn(Admin) -> Result<T, Status>,
) -> Result<(T, Endpoint), Failure> {
    let mut endpoints = global.endpoints.iter().peekable();
    while let Some(endpoint) = endpoints.next() {
        let failure = match ask_one(endpoint, effect, timeout, deadline.clone(), &call).await {
            Ok(answer) => return Ok((answer, endpoint.clone())),
            Err(failure) => failure,
        };
        match (&failure, endpoints.peek()) {
            (Failure::Unreachable { why, .. } | Failure::Unavailable { why, .. }, Some(next)) => {
                let why = output::printable(why);
                output::say(format_args!(
                    "no answer from {endpoint}: {why}; trying {next}"
                ));
            }
            _ => return Err(failure),
        }
    }
    Err(Failure::Refused("no endpoint is given".to_owned()))
}

async fn ask_one<T>(
    endpoint: &Endpoint,
    effect: Effect,
    timeout: Duration,
    deadline: Deadline,
    call: impl AsyncFn(Admin) -> Result<T, Status>,
) -> Result<T, Failure> {
    let channel = connect(endpoint, timeout).await?;
    let admin = AdminClient::with_interceptor(channel, deadline)
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (unanswered, why) = match tokio::time::timeout(timeout, call(admin)).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(status)) => meaning(&status, timeout),
        Err(_) => (Meaning::Silence, too_late(timeout)),
    };
    Err(failure(endpoint, effect, unanswered, why))
}

fn failure(endpoint: &Endpoint, effect: Effect, meaning: Meaning, why: String) -> Failure {
    let endpoint = endpoint.clone();
    match (meaning, effect) {
        (Meaning::Refusal, _) => Failure::Refused(why),
        (Meaning::Silence, Effect::Reads) => Failure::Unreachable { endpoint, why },
        (Meaning::CannotServe, Effect::Reads) => Failure::Unavailable { endpoint, why },
        (Meaning::Silence | Meaning::CannotServe, Effect::Changes) => {
            Failure::Unknown { endpoint, why }
        }
    }
}

async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Channel, Failure> {
    let unreachable = |why| Failure::Unreachable {
        endpoint: endpoint.clone(),
        why,
    };
    let timeout = timeout.min(CONNECT_TIMEOUT);
    let transport = transport::Endpoint::from_shared(format!("http://{}", endpoint.authority()))
        .map_err(|error| unreachable(root_cause(&error)))?
        .connect_timeout(timeout);
    let late = || unreachable(format!("no connection within {timeout:?}"));
    match tokio::time::timeout(timeout, transport.connect()).await {
        Ok(Err(error)) if is_elapsed(&error) => Err(late()),
        Ok(connected) => connected.map_err(|error| unreachable(root_cause(&error))),
        Err(_) => Err(late()),
    }
}

/// Whether time ran out inside of the connector, which shares it out among the addresses of a name.
fn is_elapsed(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| {
        error.is::<tokio::time::error::Elapsed>()
            || error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// What kind of answer a status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The cluster heard it and said no.
    Refusal,
    /// This ATM answered that it cannot: no leader, no quorum, too late.
    CannotServe,
    /// No ATM answered.
    Silence,
}

fn meaning(status: &Status, timeout: Duration) -> (Meaning, String) {
    /// How `tonic` words a deadline that passed, on either side.
    const EXPIRED: &str = "Timeout expired";
    let words = || match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded if status.message() == EXPIRED => {
            (Meaning::Silence, too_late(timeout))
        }
        // How `tonic` words an answer that is HTTP/2 but not gRPC.
        _ if status.message().starts_with("grpc-status header missing") => {
            (Meaning::Silence, "it does not speak gRPC".to_owned())
        }
        // Only statuses that did not come from the other side have a source.
        _ if status.source().is_some() => (Meaning::Silence, root_cause(status)),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
            (Meaning::CannotServe, words())
        }
        Code::Unimplemented => (
            Meaning::Refusal,
            format!("that ATM does not know this command ({})", words()),
        ),
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => (Meaning::Refusal, words()),
    }
}

fn too_late(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}

/// The innermost of an error's reasons: the outer ones only say that there was a transport error.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}
