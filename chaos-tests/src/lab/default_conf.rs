//! The configuration of a lab that was given none: the mail cluster of `docs/examples`, for any number of ATMs and servers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use model::conf::{
    AddAtm, AddServer, Agent, Config, ForwardingMethod, Host, Offer, Protocol, Server, Service,
    print,
};

use super::configuration::read_configuration;
use super::error::PlanError;

/// A cluster has at most seven ATMs: more voters make every commit wait for more disks and tolerate no likelier fault.
pub const ATMS_MAX: usize = 7;

/// Servers of one lab: their addresses, .11 to .74, stay clear of the VIP (.100) and of the client (.200).
pub const SERVERS_MAX: usize = 64;

/// Port of the service `lines`, which every server offers: two sides that send each other numbered lines.
pub const LINES_PORT: u16 = 7000;

/// The example that everything but the number of hosts is taken from.
const EXAMPLE: &str = include_str!("../../../docs/examples/three-atms.conf");

/// Text of a `clusterserver.conf` with `atms` ATMs (10.1.0.1 …) and `servers` servers (10.1.0.11 …), VIP 10.1.0.100.
///
/// Servers offer what those of the example offer, in turn, and `lines`; the last one also what none before it did. Services
/// are checked by a plain connect: the hosts of a lab have no agent programs installed.
///
/// # Errors
/// [`PlanError::Atms`] unless `atms` is in 1..=[`ATMS_MAX`]; [`PlanError::Servers`] unless `servers` is in
/// 1..=[`SERVERS_MAX`].
pub fn default_configuration(atms: usize, servers: usize) -> Result<String, PlanError> {
    if atms == 0 || atms > ATMS_MAX {
        return Err(PlanError::Atms(atms));
    }
    if servers == 0 || servers > SERVERS_MAX {
        return Err(PlanError::Servers(servers));
    }
    let mut config = read_configuration("three-atms.conf", EXAMPLE)?;
    set_services(&mut config);
    set_servers(&mut config, servers);
    config.atm_pool.atms = (1..)
        .take(atms)
        .map(|n| AddAtm {
            host: address(n),
            witness: false,
        })
        .collect();
    Ok(print(&config))
}

fn set_services(config: &mut Config) {
    config.user_checks.clear();
    for service in &mut config.services {
        service.agent = Agent::Connect;
    }
    config.services.push(Service {
        name: "lines".to_owned(),
        protocol: Protocol::Tcp,
        port: LINES_PORT,
        agent: Agent::Connect,
        sticky: false,
        scheduler: Default::default(),
        replication: Default::default(),
        persist: None,
        mask: None,
        fallback: None,
        on_down: Default::default(),
        tls: Default::default(),
    });
}

fn set_servers(config: &mut Config, servers: usize) {
    let name = |n: u8| format!("serv{n}");
    let numbers = || (1_u8..).take(servers);
    config.servers = numbers()
        .map(|n| Server {
            name: name(n),
            host: address(10 + n),
            method: ForwardingMethod::Tunnel,
            source: None,
            noping: false,
        })
        .collect();
    for pool in &mut config.server_pools {
        let example: Vec<Vec<Offer>> = pool.servers.iter().map(|s| s.offers.clone()).collect();
        pool.servers = numbers()
            .zip(example.iter().cycle())
            .map(|(n, offers)| AddServer {
                server: name(n),
                offers: offers.clone(),
            })
            .collect();
        let offered: BTreeSet<_> = pool
            .servers
            .iter()
            .flat_map(|s| &s.offers)
            .map(|o| o.service.clone())
            .collect();
        let mut missing: Vec<_> = example
            .into_iter()
            .flatten()
            .filter(|o| !offered.contains(&o.service))
            .collect();
        missing.dedup_by(|a, b| a.service == b.service);
        if let Some(last) = pool.servers.last_mut() {
            last.offers.extend(missing);
        }
        for server in &mut pool.servers {
            server.offers.push(Offer {
                service: "lines".to_owned(),
                weight: 1,
            });
        }
    }
}

fn address(host: u8) -> Host {
    Host::Address(Ipv4Addr::new(10, 1, 0, host).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Plan;

    #[test]
    fn every_number_of_hosts_gives_a_valid_file_that_offers_every_service() {
        for servers in 1..=SERVERS_MAX {
            let atms = 1 + servers % ATMS_MAX;
            let text = default_configuration(atms, servers).unwrap();
            let config = read_configuration("generated", &text).unwrap();
            assert_eq!(
                (config.atm_pool.atms.len(), config.servers.len()),
                (atms, servers)
            );
            let offers: BTreeSet<_> = config.server_pools[0]
                .servers
                .iter()
                .flat_map(|s| &s.offers)
                .map(|o| o.service.as_str())
                .collect();
            assert_eq!(
                offers,
                BTreeSet::from(["smtp", "pop-3", "imap4", "lines"]),
                "{servers} servers"
            );
            let plan = Plan::new(&config, true).unwrap();
            assert_eq!(plan.hosts.len(), atms + servers + 1);
            assert_eq!(plan.vips, [Ipv4Addr::new(10, 1, 0, 100)]);
        }
    }

    #[test]
    fn three_atms_and_three_servers_are_the_example() {
        let example = read_configuration("example", EXAMPLE).unwrap();
        let text = default_configuration(3, 3).unwrap();
        let config = read_configuration("generated", &text).unwrap();
        assert_eq!(config.atm_pool, example.atm_pool);
        assert_eq!(config.servers, example.servers);
        assert_eq!(config.virtual_hosts, example.virtual_hosts);
        for (ours, theirs) in config.server_pools[0]
            .servers
            .iter()
            .zip(&example.server_pools[0].servers)
        {
            assert_eq!(ours.offers[..theirs.offers.len()], theirs.offers);
            assert_eq!(ours.offers.len(), theirs.offers.len() + 1, "and lines");
        }
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        assert_eq!(default_configuration(0, 1), Err(PlanError::Atms(0)));
        assert_eq!(default_configuration(8, 1), Err(PlanError::Atms(8)));
        assert_eq!(default_configuration(1, 0), Err(PlanError::Servers(0)));
        assert_eq!(default_configuration(1, 65), Err(PlanError::Servers(65)));
    }
}
