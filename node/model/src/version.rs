//! What a version of the configuration means for the state: its servers, its virtual services, and who offers what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::command::Refusal;
use crate::conf::{self, Config, Severity};
use crate::state::{ConfigVersion, Current, ServerEntry, ServiceEntry};

/// Checks a proposed version as `config check` does, with its addresses.
pub(crate) fn check_version(version: &ConfigVersion) -> Result<Config, Refusal> {
    const FILE: &str = "clusterserver.conf";
    let checked = conf::check(FILE, &version.source);
    let mut diagnostics = checked.check_resolved(FILE, &version.source, &version.hosts);
    diagnostics.extend(checked.diagnostics.iter().cloned());
    let errors: Vec<_> = diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .collect();
    match (checked.config, errors.first()) {
        (Some(config), None) => Ok(config),
        (_, first) => Err(Refusal::BadConfig {
            count: errors.len(),
            line: first.map_or(0, |found| found.line),
            first: first.map_or_else(String::new, |found| found.message.clone()),
        }),
    }
}

/// The members of the group stay the same until ATMs can be added and removed.
pub(crate) fn same_members(current: &Config, wanted: &Config) -> Result<(), Refusal> {
    let names = |config: &Config| {
        config
            .atm_pool
            .atms
            .iter()
            .map(|atm| atm.host.to_string())
            .collect::<BTreeSet<_>>()
    };
    let (current, wanted) = (names(current), names(wanted));
    let differences: Vec<_> = current
        .difference(&wanted)
        .map(|name| format!("{name} is missing"))
        .chain(
            wanted
                .difference(&current)
                .map(|name| format!("{name} is new")),
        )
        .collect();
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Refusal::OtherMembers(differences.join(", ")))
    }
}

pub(crate) fn wanted_servers(current: &Current) -> Vec<ServerEntry> {
    current
        .config
        .servers
        .iter()
        .filter_map(|server| server_entry(current, server))
        .collect()
}

fn server_entry(current: &Current, server: &conf::Server) -> Option<ServerEntry> {
    Some(ServerEntry {
        name: server.name.clone(),
        address: current.address(&server.host)?,
        method: server.method,
        source: server.source,
        configured: true,
    })
}

pub(crate) fn wanted_services(current: &Current) -> Vec<ServiceEntry> {
    let mut wanted = Vec::new();
    for host in &current.config.virtual_hosts {
        let vips: Vec<IpAddr> = if host.addresses.is_empty() {
            current.address(&host.host).into_iter().collect()
        } else {
            host.addresses.clone()
        };
        let name = host.host.to_string();
        for service in &current.config.services {
            if offers(current, &name, &service.name).next().is_none() {
                continue;
            }
            wanted.extend(vips.iter().map(|vip| ServiceEntry {
                vip: *vip,
                protocol: service.protocol,
                port: service.port,
                name: service.name.clone(),
                virtual_host: name.clone(),
                configured: true,
            }));
        }
    }
    wanted
}

/// Servers and weights that offer `service` through the pools of `virtual_host`, in file order.
pub(crate) fn offers<'a>(
    current: &'a Current,
    virtual_host: &'a str,
    service: &'a str,
) -> impl Iterator<Item = (ServerEntry, u16)> + 'a {
    let config = &current.config;
    // Names are unique; looking for each among a thousand servers would make each verdict cost milliseconds.
    let servers: BTreeMap<&str, &conf::Server> = config
        .servers
        .iter()
        .map(|server| (server.name.as_str(), server))
        .collect();
    config
        .virtual_hosts
        .iter()
        .filter(move |host| host.host.to_string() == virtual_host)
        .flat_map(|host| &host.server_pools)
        .filter_map(|pool| config.server_pools.iter().find(|known| known.name == *pool))
        .flat_map(|pool| &pool.servers)
        .flat_map(move |added| {
            let server = servers.get(added.server.as_str()).copied();
            added
                .offers
                .iter()
                .filter(move |offer| offer.service == service)
                .filter_map(move |offer| Some((server_entry(current, server?)?, offer.weight)))
        })
}
