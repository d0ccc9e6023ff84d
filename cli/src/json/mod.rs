//! Results as JSON. The names of the fields are a promise to programs: they may be added to, never changed.

mod status;

use std::collections::BTreeMap;

use model::conf::{Diagnostic, Severity};
use proto::v1;
use serde::Serialize;

pub(crate) use status::{Claimant, Role, Server, ServerService, Status};

/// One frame of `explain`.
#[derive(Debug, Serialize)]
pub(crate) struct Frame<'a> {
    /// From 1.
    pub(crate) index: u64,
    pub(crate) verdict: &'a str,
    pub(crate) server: Option<&'a str>,
    pub(crate) reason: &'a str,
    pub(crate) emitted: u64,
}

/// `server drain` and its like.
#[derive(Debug, Serialize)]
pub(crate) struct Ordered {
    pub(crate) server: String,
    pub(crate) service: Option<String>,
    pub(crate) changed: bool,
    pub(crate) connections: u64,
    pub(crate) index: u64,
}

/// One line of `events`.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) number: u64,
    pub(crate) at_unix_ms: u64,
    pub(crate) kind: String,
    pub(crate) server: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) text: String,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Self {
            number: event.number,
            at_unix_ms: event.at_unix_ms,
            kind: event.kind,
            server: filled(event.server),
            service: filled(event.service),
            text: event.text,
        }
    }
}

/// `connections`.
#[derive(Debug, Serialize)]
pub(crate) struct Connections {
    /// How many there are in all.
    pub(crate) total: u64,
    pub(crate) connections: Vec<Connection>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Connection {
    pub(crate) protocol: String,
    pub(crate) client: String,
    pub(crate) vip: String,
    pub(crate) service: String,
    pub(crate) server: String,
}

/// `failover`.
#[derive(Debug, Serialize)]
pub(crate) struct Failover {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) epoch: u64,
    pub(crate) elapsed_ms: u64,
}

/// `atm forget`.
#[derive(Debug, Serialize)]
pub(crate) struct Forgotten {
    pub(crate) name: String,
    /// Of the directory that is forgotten.
    pub(crate) incarnation: Option<String>,
}

/// `config show`.
#[derive(Debug, Serialize)]
pub(crate) struct Configuration {
    pub(crate) version: u64,
    pub(crate) applied_by: String,
    /// Those that can be shown.
    pub(crate) versions: Vec<u64>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) source: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// `config apply`.
#[derive(Debug, Serialize)]
pub(crate) struct Applied {
    /// `None`: refused.
    pub(crate) version: Option<u64>,
    /// Raft index at which it was committed; `None`: nothing was committed.
    pub(crate) index: Option<u64>,
    pub(crate) unchanged: bool,
    pub(crate) problems: Vec<Problem>,
}

/// One element of `config check`, and of the problems of `config apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// `error` or `warning`.
    pub(crate) severity: Severity,
    /// Its stable name.
    pub(crate) code: String,
    pub(crate) file: String,
    /// From 1; `None`: it has no place in the file.
    pub(crate) line: Option<u64>,
    /// From 1, in characters.
    pub(crate) column: Option<u64>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// `counters`.
#[derive(Debug, Serialize)]
pub(crate) struct Counters {
    /// Whose they are.
    pub(crate) atm: String,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) by_service: Vec<ServiceCounter>,
}

/// Frames about one virtual service and server that ended in one verdict.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceCounter {
    /// `None`: about none.
    pub(crate) service: Option<String>,
    /// With the port.
    pub(crate) vip: Option<String>,
    /// `None`: about none, or it was not known yet.
    pub(crate) server: Option<String>,
    pub(crate) verdict: String,
    pub(crate) value: u64,
}

/// One decision of `trace`.
#[derive(Debug, Serialize)]
pub(crate) struct TracedFrame {
    /// Nanoseconds since 1970.
    pub(crate) at_unix_ns: u64,
    pub(crate) summary: String,
    /// Bytes, Ethernet header included.
    pub(crate) length: u32,
    pub(crate) source: Option<String>,
    pub(crate) source_port: Option<u32>,
    pub(crate) destination: Option<String>,
    pub(crate) destination_port: Option<u32>,
    pub(crate) protocol: Option<String>,
    /// Of TCP.
    pub(crate) flags: Option<String>,
    pub(crate) verdict: String,
    pub(crate) service: Option<String>,
    pub(crate) server: Option<String>,
    pub(crate) why: String,
}

/// Decisions of `trace` that are not told, events of `events` that are not kept any more.
#[derive(Debug, Serialize)]
pub(crate) struct Missed {
    pub(crate) missed: u64,
}

/// `digest`.
#[derive(Debug, Serialize)]
pub(crate) struct Digest {
    /// Whose it is.
    pub(crate) atm: String,
    /// The last entry that it has applied.
    pub(crate) applied_index: u64,
    /// Of the canonical bytes of the replicated state, in hexadecimal digits.
    pub(crate) sha256: String,
}

/// `server setup`.
#[derive(Debug, Serialize)]
pub(crate) struct ServerCommands {
    /// Its `Server` line.
    pub(crate) server: String,
    /// For a shell.
    pub(crate) commands: String,
}

/// `version`.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) version: &'static str,
}

impl Problem {
    /// A problem that the cluster found in `file`.
    pub(crate) fn from_cluster(problem: v1::Problem, file: &str) -> Self {
        let from_1 = |number: u32| (number > 0).then(|| u64::from(number));
        Self {
            severity: match problem.severity() {
                v1::problem::Severity::Error => Severity::Error,
                v1::problem::Severity::Warning => Severity::Warning,
            },
            file: file.to_owned(),
            line: from_1(problem.line),
            column: from_1(problem.column),
            code: problem.code,
            message: problem.message,
            hint: filled(problem.hint),
        }
    }
}

impl From<&Diagnostic> for Problem {
    fn from(found: &Diagnostic) -> Self {
        Self {
            severity: found.severity,
            code: found.code.to_string(),
            file: found.file.clone(),
            line: u64::try_from(found.line).ok(),
            column: u64::try_from(found.column).ok(),
            message: found.message.clone(),
            hint: found.help.clone(),
        }
    }
}

impl From<v1::Connection> for Connection {
    fn from(connection: v1::Connection) -> Self {
        Self {
            protocol: connection.protocol,
            client: connection.client,
            vip: connection.vip,
            service: connection.service,
            server: connection.server,
        }
    }
}

impl From<v1::FailoverReply> for Failover {
    fn from(reply: v1::FailoverReply) -> Self {
        Self {
            from: reply.from,
            to: reply.to,
            epoch: reply.epoch,
            elapsed_ms: reply.elapsed_ms,
        }
    }
}

impl From<v1::ForgetAtmReply> for Forgotten {
    fn from(reply: v1::ForgetAtmReply) -> Self {
        Self {
            name: reply.name,
            incarnation: filled(reply.incarnation),
        }
    }
}

impl From<v1::ShowConfigReply> for Configuration {
    fn from(reply: v1::ShowConfigReply) -> Self {
        Self {
            version: reply.version,
            applied_by: reply.applied_by,
            versions: reply.versions,
            hosts: converted(reply.hosts),
            source: reply.source,
        }
    }
}

impl From<v1::HostAddress> for Host {
    fn from(host: v1::HostAddress) -> Self {
        Self {
            name: host.name,
            address: host.address,
        }
    }
}

impl From<v1::CountersReply> for Counters {
    fn from(reply: v1::CountersReply) -> Self {
        let counters = reply.counters.into_iter();
        Self {
            atm: reply.atm,
            counters: counters
                .map(|counter| (counter.name, counter.value))
                .collect(),
            by_service: converted(reply.by_service),
        }
    }
}

impl From<v1::ServiceCounter> for ServiceCounter {
    fn from(counter: v1::ServiceCounter) -> Self {
        Self {
            service: filled(counter.service),
            vip: filled(counter.vip),
            server: filled(counter.server),
            verdict: counter.verdict,
            value: counter.value,
        }
    }
}

impl From<v1::TracedFrame> for TracedFrame {
    fn from(frame: v1::TracedFrame) -> Self {
        let port = |port: u32| (port > 0).then_some(port);
        Self {
            at_unix_ns: frame.at_unix_ns,
            summary: frame.summary,
            length: frame.length,
            source: filled(frame.source),
            source_port: port(frame.source_port),
            destination: filled(frame.destination),
            destination_port: port(frame.destination_port),
            protocol: filled(frame.protocol),
            flags: filled(frame.flags),
            verdict: frame.verdict,
            service: filled(frame.service),
            server: filled(frame.server),
            why: frame.why,
        }
    }
}

impl From<v1::DigestReply> for Digest {
    fn from(reply: v1::DigestReply) -> Self {
        Self {
            atm: reply.atm,
            applied_index: reply.applied_index,
            sha256: reply
                .sha256
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn converted<T, U: From<T>>(from: Vec<T>) -> Vec<U> {
    from.into_iter().map(U::from).collect()
}
