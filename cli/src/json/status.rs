//! `status` as JSON.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::{converted, filled};

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
