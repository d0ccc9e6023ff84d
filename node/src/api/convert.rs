//! The model's types as those of `proto/atm/admin.proto`: every conversion of a value stands here.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;

use dataplane_core::{About, Tallied};
use model::conf::{Config, Diagnostic, Protocol, Replication, Scheduler, Severity};
use model::connections::ConnectionKey;
use model::health::{HOST, Mode, OverrideKey};
use model::ids::{ServerId, VirtualServiceId};
use model::state::{ServerEntry, ServiceEntry, State};
use proto::v1;
use tonic::Status;

/// A diagnostic of the configuration.
pub(super) fn problem(found: &Diagnostic) -> v1::Problem {
    let severity = match found.severity {
        Severity::Error => v1::problem::Severity::Error,
        Severity::Warning => v1::problem::Severity::Warning,
    };
    v1::Problem {
        severity: severity.into(),
        code: found.code.as_str().into(),
        line: u32::try_from(found.line).unwrap_or(u32::MAX),
        column: u32::try_from(found.column).unwrap_or(u32::MAX),
        message: found.message.clone(),
        hint: found
            .help
            .clone()
            .or_else(|| found.label.clone())
            .unwrap_or_default(),
    }
}

/// A problem without a place in the file.
pub(super) fn warning(code: &str, message: String) -> v1::Problem {
    v1::Problem {
        severity: v1::problem::Severity::Warning.into(),
        code: code.into(),
        message,
        ..Default::default()
    }
}

/// One connection, with names.
pub(super) fn connection(
    state: &State,
    key: &ConnectionKey,
    server: ServerId,
) -> Option<v1::Connection> {
    let service = state.services().get(&key.service)?;
    Some(v1::Connection {
        protocol: protocol(service.protocol).into(),
        client: SocketAddr::new(key.client, key.port).to_string(),
        vip: SocketAddr::new(service.vip, service.port).to_string(),
        service: service.name.clone(),
        server: state.servers().get(&server)?.name.clone(),
    })
}

/// Refuses a name that no service has; empty stands for all.
pub(super) fn known_service(state: &State, name: &str) -> Result<(), Status> {
    let known = state.services().values().any(|entry| entry.name == name);
    known_or_empty(state, "service", name, known)
}

/// Refuses a name that no server has; empty stands for all.
pub(super) fn known_server(state: &State, name: &str) -> Result<(), Status> {
    let known = state.servers().values().any(|entry| entry.name == name);
    known_or_empty(state, "server", name, known)
}

fn known_or_empty(state: &State, what: &str, name: &str, known: bool) -> Result<(), Status> {
    if known || name.is_empty() {
        return Ok(());
    }
    let version = state.config_number();
    Err(Status::not_found(format!(
        "no {what} named {name} in version {version}"
    )))
}

/// The names of what the packet path knows by number.
pub(super) struct Names {
    services: BTreeMap<VirtualServiceId, (String, SocketAddr)>,
    servers: BTreeMap<ServerId, String>,
}

impl Names {
    /// The names in this state.
    pub(super) fn of(state: &State) -> Self {
        let service = |(id, entry): (&VirtualServiceId, &ServiceEntry)| {
            let vip = SocketAddr::new(entry.vip, entry.port);
            (*id, (entry.name.clone(), vip))
        };
        let server = |(id, entry): (&ServerId, &ServerEntry)| (*id, entry.name.clone());
        Self {
            services: state.services().iter().map(service).collect(),
            servers: state.servers().iter().map(server).collect(),
        }
    }

    /// The service that a frame was about; empty: none.
    pub(super) fn service(&self, about: About) -> String {
        let known = |id| self.services.get(&id).map(|(name, _)| name);
        name(about.service, known)
    }

    /// The server that a frame was about; empty: none.
    pub(super) fn server(&self, about: About) -> String {
        name(about.server, |id| self.servers.get(&id))
    }
}

/// The packet path may have a number a moment longer than the state.
fn name<'a, I: Copy + Display>(id: Option<I>, known: impl Fn(I) -> Option<&'a String>) -> String {
    id.map_or_else(String::new, |id| {
        known(id).map_or_else(|| format!("number {id}"), Clone::clone)
    })
}

/// How many frames about one virtual service and server ended in one verdict, or later, as they had been held.
pub(super) fn service_counter(names: &Names, row: &Tallied) -> v1::ServiceCounter {
    let service = row.about.service.and_then(|id| names.services.get(&id));
    v1::ServiceCounter {
        service: names.service(row.about),
        vip: service.map_or_else(String::new, |(_, vip)| vip.to_string()),
        server: names.server(row.about),
        verdict: row.name().into(),
        value: row.frames,
    }
}

/// Every virtual host with its services and how many connections each has.
pub(super) fn virtual_hosts(state: &State) -> Vec<v1::VirtualHostStatus> {
    let Some(current) = state.current() else {
        return Vec::new();
    };
    let host_status = |host: &model::conf::VirtualHost| {
        let name = host.host.to_string();
        let mine = || {
            state
                .services()
                .values()
                .filter(|entry| entry.virtual_host == name && entry.configured)
        };
        let mut addresses: Vec<String> = mine().map(|entry| entry.vip.to_string()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let services = mine()
            .map(|entry| virtual_service(state, &current.config, entry))
            .collect();
        v1::VirtualHostStatus {
            name,
            addresses,
            services,
        }
    };
    current
        .config
        .virtual_hosts
        .iter()
        .map(host_status)
        .collect()
}

fn virtual_service(
    state: &State,
    config: &Config,
    entry: &ServiceEntry,
) -> v1::VirtualServiceStatus {
    let settings = config
        .services
        .iter()
        .find(|service| service.name == entry.name);
    let counts = state.connections().counts().iter();
    let connections = counts
        .filter(|((id, _), _)| state.services().get(id) == Some(entry))
        .map(|(_, count)| count)
        .sum();
    v1::VirtualServiceStatus {
        name: entry.name.clone(),
        protocol: protocol(entry.protocol).into(),
        port: entry.port.into(),
        connections,
        scheduler: settings
            .map_or("", |service| scheduler(service.scheduler))
            .into(),
        replication: settings
            .map_or("", |service| replication(service.replication))
            .into(),
        fallback: settings
            .and_then(|service| service.fallback.clone())
            .unwrap_or_default(),
        on_down: settings
            .map_or("", |service| service.on_down.as_str())
            .into(),
    }
}

/// Every server with what it offers. A server that left the configuration is shown while it has connections.
pub(super) fn servers(state: &State) -> Vec<v1::ServerStatus> {
    // Every server is looked up in every virtual service; each of them is asked once.
    let offered: BTreeMap<(VirtualServiceId, ServerId), u16> = state
        .services()
        .keys()
        .flat_map(|service| {
            let offered = state.offered(*service).into_iter();
            offered.map(|(server, weight)| ((*service, server), weight))
        })
        .collect();
    let server_status = |(id, entry): (&ServerId, &ServerEntry)| {
        let serves = state.services_of(*id);
        let mut services: Vec<v1::ServerServiceStatus> = Vec::new();
        for (service_id, service) in state.services() {
            let weight = offered.get(&(*service_id, *id)).copied();
            let connections = state
                .connections()
                .counts()
                .get(&(*service_id, *id))
                .copied()
                .unwrap_or(0);
            let fallback = weight.is_none() && service.configured && serves.contains(&service.name);
            if weight.is_none() && connections == 0 && !fallback {
                continue;
            }
            let (mode, ordered) = state.ordered(&entry.name, &service.name);
            let configured = weight.unwrap_or(u16::from(fallback));
            match services.iter_mut().find(|known| known.name == service.name) {
                Some(known) => known.connections += connections,
                None => services.push(v1::ServerServiceStatus {
                    name: service.name.clone(),
                    healthy: state.is_healthy(*id, &service.name),
                    weight: ordered.unwrap_or(configured).into(),
                    connections,
                    down: finding(state, *id, &service.name),
                    order: order(state, &entry.name, &service.name),
                    mode: mode_word(mode).into(),
                    weight_configured: configured.into(),
                    fallback,
                }),
            }
        }
        v1::ServerStatus {
            name: entry.name.clone(),
            address: entry.address.to_string(),
            method: method(entry.method).into(),
            services,
            down: finding(state, *id, HOST),
            order: order(state, &entry.name, HOST),
            report: None,
        }
    };
    state.servers().iter().map(server_status).collect()
}

fn finding(state: &State, server: ServerId, service: &str) -> Option<v1::Finding> {
    let found = state.finding(server, service)?;
    Some(v1::Finding {
        since_unix_ms: found.since_ms,
        reason: found.reason,
    })
}

/// The order about exactly this server, or this service of it.
fn order(state: &State, server: &str, service: &str) -> Option<v1::Order> {
    let key = OverrideKey {
        server: server.to_owned(),
        service: service.to_owned(),
    };
    let present = state.overrides().get(&key)?;
    Some(v1::Order {
        mode: present.mode.map_or("", mode_word).to_owned(),
        weight: present.weight.map(u32::from),
        by: present.by.clone(),
        at_unix_ms: present.at_ms,
    })
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enabled => "enabled",
        Mode::Draining { sticky: true } => "draining",
        Mode::Draining { sticky: false } => "draining-all",
        Mode::Disabled => "disabled",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn method(method: model::conf::ForwardingMethod) -> &'static str {
    match method {
        model::conf::ForwardingMethod::Direct => "direct",
        model::conf::ForwardingMethod::Tunnel => "tunnel",
        model::conf::ForwardingMethod::Nat => "nat",
    }
}

fn scheduler(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::Wrr => "wrr",
        Scheduler::Wlc => "wlc",
        Scheduler::Maglev => "maglev",
        Scheduler::Sh => "sh",
    }
}

fn replication(replication: Replication) -> &'static str {
    match replication {
        Replication::Quorum => "quorum",
        Replication::Async => "async",
        Replication::None => "none",
    }
}
