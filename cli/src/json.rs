//! Results as JSON. The names of the fields are a promise to programs: they may be added to, never changed.

use std::collections::BTreeMap;

use model::conf::{Diagnostic, Severity};
use proto::v1;
use serde::Serialize;

/// `status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) answered_by: String,
    /// Name of the active ATM.
    pub(crate) active: Option<String>,
    pub(crate) epoch: u64,
    /// 0: nobody holds the lease, or its holder could not be asked.
    pub(crate) lease_left_ms: u64,
    pub(crate) config_version: u64,
    pub(crate) applied_index: u64,
    pub(crate) connections: u64,
    pub(crate) connections_max: u64,
    /// Connections that a crash of the active ATM right now would lose.
    pub(crate) replication_debt: u64,
    pub(crate) atms: Vec<Atm>,
    pub(crate) virtual_hosts: Vec<VirtualHost>,
    pub(crate) servers: Vec<Server>,
    pub(crate) notices: Vec<String>,
    pub(crate) tenure: Option<Tenure>,
    pub(crate) conflicts: Vec<Conflict>,
}

/// Another host that claims a VIP. Times are by the clock of the ATM that heard it.
#[derive(Debug, Serialize)]
pub(crate) struct Conflict {
    pub(crate) vip: String,
    pub(crate) mac: String,
    pub(crate) claimant: Claimant,
    /// Address of the ATM that claims it, if it is one.
    pub(crate) atm: Option<String>,
    pub(crate) first_ms_ago: u64,
    pub(crate) last_ms_ago: u64,
    /// How often it was heard.
    pub(crate) claims: u64,
    /// The ATM that heard it.
    pub(crate) heard_by: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Claimant {
    /// Another ATM, or a host that is none.
    Unknown,
    /// No ATM.
    Foreign,
    Atm,
}

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

#[derive(Debug, Serialize)]
pub(crate) struct Atm {
    pub(crate) name: String,
    pub(crate) node: u64,
    pub(crate) address: String,
    pub(crate) role: Role,
    pub(crate) applied_index: u64,
    pub(crate) lag: u64,
    pub(crate) reachable: bool,
    /// It alone sees every server down.
    pub(crate) suspected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Active,
    Backup,
    Claiming,
    Witness,
    Unknown,
}

#[derive(Debug, Serialize)]
pub(crate) struct VirtualHost {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) services: Vec<VirtualService>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VirtualService {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) port: u32,
    pub(crate) connections: u64,
    pub(crate) scheduler: String,
    pub(crate) replication: String,
    pub(crate) fallback: Option<String>,
    pub(crate) on_down: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) method: String,
    pub(crate) services: Vec<ServerService>,
    /// Why it answers no ping.
    pub(crate) down: Option<Finding>,
    /// About the whole server.
    pub(crate) order: Option<Order>,
    /// What atmd on the server said last; `None`: nothing, as where there is none.
    pub(crate) report: Option<ServerReport>,
}

/// What a server says of itself.
#[derive(Debug, Serialize)]
pub(crate) struct ServerReport {
    pub(crate) age_ms: u64,
    /// So old that the server has fallen silent.
    pub(crate) stale: bool,
    /// In force there; `None`: what its own file says.
    pub(crate) config_version: Option<u64>,
    /// Why the latest version is not in force there as a whole.
    pub(crate) error: Option<String>,
    pub(crate) load_1m: Option<f64>,
    /// As the server counts them.
    pub(crate) connections: Option<u64>,
    /// What became of the tunnel's packets.
    pub(crate) counters: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ServerService {
    pub(crate) name: String,
    pub(crate) healthy: bool,
    pub(crate) weight: u32,
    pub(crate) connections: u64,
    /// Why it fails its checks.
    pub(crate) down: Option<Finding>,
    /// About this service alone.
    pub(crate) order: Option<Order>,
    pub(crate) mode: String,
    pub(crate) weight_configured: u32,
    pub(crate) fallback: bool,
}

/// Why something is down.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) since_unix_ms: u64,
    pub(crate) reason: String,
}

/// An operator's order.
#[derive(Debug, Serialize)]
pub(crate) struct Order {
    pub(crate) mode: Option<String>,
    pub(crate) weight: Option<u32>,
    pub(crate) by: String,
    pub(crate) at_unix_ms: u64,
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

impl From<v1::Finding> for Finding {
    fn from(finding: v1::Finding) -> Self {
        Self {
            since_unix_ms: finding.since_unix_ms,
            reason: finding.reason,
        }
    }
}

impl From<v1::Order> for Order {
    fn from(order: v1::Order) -> Self {
        Self {
            mode: filled(order.mode),
            weight: order.weight,
            by: order.by,
            at_unix_ms: order.at_unix_ms,
        }
    }
}

/// Instants in nanoseconds of the active ATM's boot-time clock; 0: not yet.
#[derive(Debug, Serialize)]
pub(crate) struct Tenure {
    pub(crate) epoch: u64,
    pub(crate) last_heard_at_ns: u64,
    pub(crate) leader_at_ns: u64,
    pub(crate) begun_at_ns: u64,
    pub(crate) table_at_ns: u64,
    pub(crate) wait_until_ns: u64,
    pub(crate) claimed_at_ns: u64,
    pub(crate) first_arp_at_ns: u64,
    pub(crate) first_forward_at_ns: u64,
    pub(crate) now_ns: u64,
    pub(crate) now_unix_ns: u64,
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

impl From<v1::StatusReply> for Status {
    fn from(reply: v1::StatusReply) -> Self {
        Self {
            answered_by: reply.answered_by,
            active: reply.active,
            epoch: reply.epoch,
            lease_left_ms: reply.lease_left_ms,
            config_version: reply.config_version,
            applied_index: reply.applied_index,
            connections: reply.connections,
            connections_max: reply.connections_max,
            replication_debt: reply.replication_debt,
            atms: converted(reply.atms),
            virtual_hosts: converted(reply.virtual_hosts),
            servers: converted(reply.servers),
            notices: reply.notices,
            tenure: reply.tenure.map(Tenure::from),
            conflicts: converted(reply.conflicts),
        }
    }
}

impl From<v1::Conflict> for Conflict {
    fn from(conflict: v1::Conflict) -> Self {
        Self {
            claimant: match conflict.claimant() {
                v1::conflict::Claimant::Unknown => Claimant::Unknown,
                v1::conflict::Claimant::Foreign => Claimant::Foreign,
                v1::conflict::Claimant::Atm => Claimant::Atm,
            },
            vip: conflict.vip,
            mac: conflict.mac,
            atm: filled(conflict.atm),
            first_ms_ago: conflict.first_ms_ago,
            last_ms_ago: conflict.last_ms_ago,
            claims: conflict.claims,
            heard_by: conflict.heard_by,
        }
    }
}

impl From<v1::AtmStatus> for Atm {
    fn from(atm: v1::AtmStatus) -> Self {
        Self {
            role: atm.role().into(),
            name: atm.name,
            node: atm.node,
            address: atm.address,
            applied_index: atm.applied_index,
            lag: atm.lag,
            reachable: atm.reachable,
            suspected: atm.suspected,
        }
    }
}

impl From<v1::atm_status::Role> for Role {
    fn from(role: v1::atm_status::Role) -> Self {
        match role {
            v1::atm_status::Role::Unknown => Self::Unknown,
            v1::atm_status::Role::Active => Self::Active,
            v1::atm_status::Role::Backup => Self::Backup,
            v1::atm_status::Role::Claiming => Self::Claiming,
            v1::atm_status::Role::Witness => Self::Witness,
        }
    }
}

impl From<v1::VirtualHostStatus> for VirtualHost {
    fn from(host: v1::VirtualHostStatus) -> Self {
        Self {
            name: host.name,
            addresses: host.addresses,
            services: converted(host.services),
        }
    }
}

impl From<v1::VirtualServiceStatus> for VirtualService {
    fn from(service: v1::VirtualServiceStatus) -> Self {
        Self {
            name: service.name,
            protocol: service.protocol,
            port: service.port,
            connections: service.connections,
            scheduler: service.scheduler,
            replication: service.replication,
            fallback: filled(service.fallback),
            on_down: service.on_down,
        }
    }
}

impl From<v1::ServerStatus> for Server {
    fn from(server: v1::ServerStatus) -> Self {
        Self {
            name: server.name,
            address: server.address,
            method: server.method,
            services: converted(server.services),
            down: server.down.map(Into::into),
            order: server.order.map(Into::into),
            report: server.report.map(ServerReport::from),
        }
    }
}

impl From<v1::ServerReport> for ServerReport {
    fn from(report: v1::ServerReport) -> Self {
        let counters = report.counters.into_iter();
        Self {
            age_ms: report.age_ms,
            stale: report.stale,
            config_version: (!report.from_file).then_some(report.config_version),
            error: filled(report.error),
            load_1m: report.load_1m,
            connections: report.connections,
            counters: counters
                .map(|counter| (counter.name, counter.value))
                .collect(),
        }
    }
}

impl From<v1::ServerServiceStatus> for ServerService {
    fn from(service: v1::ServerServiceStatus) -> Self {
        Self {
            name: service.name,
            healthy: service.healthy,
            weight: service.weight,
            connections: service.connections,
            down: service.down.map(Into::into),
            order: service.order.map(Into::into),
            mode: service.mode,
            weight_configured: service.weight_configured,
            fallback: service.fallback,
        }
    }
}

impl From<v1::Tenure> for Tenure {
    fn from(tenure: v1::Tenure) -> Self {
        Self {
            epoch: tenure.epoch,
            last_heard_at_ns: tenure.last_heard_at_ns,
            leader_at_ns: tenure.leader_at_ns,
            begun_at_ns: tenure.begun_at_ns,
            table_at_ns: tenure.table_at_ns,
            wait_until_ns: tenure.wait_until_ns,
            claimed_at_ns: tenure.claimed_at_ns,
            first_arp_at_ns: tenure.first_arp_at_ns,
            first_forward_at_ns: tenure.first_forward_at_ns,
            now_ns: tenure.now_ns,
            now_unix_ns: tenure.now_unix_ns,
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
