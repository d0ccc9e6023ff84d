//! A configuration with its hosts looked up and its names turned into indices, once for all checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::super::places::Subject;
use super::super::types::{Config, ForwardingMethod, Host, Service};
use super::Hosts;

/// What a host is known by: its address, or its name while that has none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place<'c> {
    Address(IpAddr),
    Name(&'c str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl Place<'_> {
    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Name(_) => None,
        }
    }
}

/// A configuration with its hosts looked up and its names resolved to indices, once.
pub(super) struct View<'c> {
    pub(super) config: &'c Config,
    pub(super) atms: Vec<Option<Place<'c>>>,
    pub(super) servers: Vec<Option<Place<'c>>>,
    /// Virtual addresses of each virtual host.
    pub(super) vips: Vec<Vec<(Place<'c>, Subject)>>,
    /// Known server pools of each virtual host, ascending.
    pub(super) pools: Vec<BTreeSet<usize>>,
    /// What each server pool offers.
    pub(super) offers: Vec<Vec<Offered>>,
}

/// A server offers a service: indices into the configuration, and where it says so.
#[derive(Clone, Copy)]
pub(super) struct Offered {
    pub(super) server: usize,
    pub(super) service: usize,
    pub(super) add_server: Subject,
    pub(super) offer: Subject,
}

impl<'c> View<'c> {
    pub(super) fn new(config: &'c Config, hosts: &Hosts) -> Self {
        let place = |host: &'c Host| match host {
            Host::Address(address) => Some(Place::Address(*address)),
            // The stand-in for a host that is wrong.
            Host::Name(name) if name.is_empty() => None,
            Host::Name(name) => Some(
                hosts
                    .get(name)
                    .map_or(Place::Name(name), |address| Place::Address(*address)),
            ),
        };
        let server_index = index(config.servers.iter().map(|server| server.name.as_str()));
        let service_index = index(config.services.iter().map(|service| service.name.as_str()));
        let pool_index = index(config.server_pools.iter().map(|pool| pool.name.as_str()));
        let vips = config.virtual_hosts.iter().enumerate().map(|(h, host)| {
            if host.addresses.is_empty() {
                return place(&host.host)
                    .into_iter()
                    .map(|vip| (vip, Subject::VirtualHost(h)))
                    .collect();
            }
            let addresses = host.addresses.iter().enumerate();
            addresses
                .map(|(a, address)| (Place::Address(*address), Subject::Address(h, a)))
                .collect()
        });
        let offers = config.server_pools.iter().enumerate().map(|(p, pool)| {
            let mut offers = Vec::new();
            for (s, added) in pool.servers.iter().enumerate() {
                let Some(&server) = server_index.get(added.server.as_str()) else {
                    continue;
                };
                for (o, offer) in added.offers.iter().enumerate() {
                    let Some(&service) = service_index.get(offer.service.as_str()) else {
                        continue;
                    };
                    let (add_server, offer) = (Subject::AddServer(p, s), Subject::Offer(p, s, o));
                    offers.push(Offered {
                        server,
                        service,
                        add_server,
                        offer,
                    });
                }
            }
            offers
        });
        let pools = config.virtual_hosts.iter().map(|host| {
            host.server_pools
                .iter()
                .filter_map(|pool| pool_index.get(pool.as_str()).copied())
                .collect()
        });
        Self {
            config,
            atms: config
                .atm_pool
                .atms
                .iter()
                .map(|atm| place(&atm.host))
                .collect(),
            servers: config
                .servers
                .iter()
                .map(|server| place(&server.host))
                .collect(),
            vips: vips.collect(),
            pools: pools.collect(),
            offers: offers.collect(),
        }
    }

    /// What a virtual host offers, pool by pool.
    pub(super) fn offers_of(&self, host: usize) -> impl Iterator<Item = &Offered> {
        self.pools
            .get(host)
            .into_iter()
            .flatten()
            .filter_map(|pool| self.offers.get(*pool))
            .flatten()
    }

    pub(super) fn server(
        &self,
        offered: &Offered,
    ) -> Option<(Place<'c>, ForwardingMethod, &'c str)> {
        let server = self.config.servers.get(offered.server)?;
        let place = self.servers.get(offered.server).copied().flatten()?;
        Some((place, server.method, &server.name))
    }

    pub(super) fn service(&self, offered: &Offered) -> Option<&'c Service> {
        self.config.services.get(offered.service)
    }
}

fn index<'c>(names: impl Iterator<Item = &'c str>) -> BTreeMap<&'c str, usize> {
    names.enumerate().map(|(i, name)| (name, i)).collect()
}
