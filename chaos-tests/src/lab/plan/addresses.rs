//! Which addresses and networks a configuration asks for, and which are free. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::conf::{Config, Host, Nat};

use super::super::error::PlanError;
use super::super::place::{Network, twin_of};
use super::Surroundings;

/// Network used when the file names no address at all.
pub(super) const DEFAULT_NETWORK: Network = Network([10, 1, 0]);

/// Networks for clients behind a router: the first one that is not taken.
const CLIENT_NETWORKS: [Network; 3] = [
    Network([10, 2, 0]),
    Network([10, 3, 0]),
    Network([10, 4, 0]),
];

/// The networks of the lab, and which addresses are taken.
pub(super) struct Addresses {
    /// The /24 of the cluster.
    pub(super) network: Network,
    taken: Vec<u8>,
    /// `Gateway` of the NAT block.
    pub(super) gateway: Option<Ipv4Addr>,
    /// The network of clients behind a router.
    pub(super) clients: Option<Network>,
    /// The network of servers behind a router.
    pub(super) servers: Option<Network>,
    /// Addresses of the file outside of the cluster's network.
    pub(super) elsewhere: Vec<Ipv4Addr>,
}

impl Addresses {
    /// Takes every address the file spells out, so that none of them is given to a name.
    pub(super) fn of_literals(
        config: &Config,
        surroundings: &Surroundings,
    ) -> Result<Self, PlanError> {
        let mut gateways = config.nat.iter().flat_map(Nat::gateways);
        let gateway = gateways.find_map(|gateway| lab_address(gateway).ok());
        let mut ours = Vec::new();
        for atm in &config.atm_pool.atms {
            ours.extend(literal(&atm.host)?);
        }
        let mut servers = Vec::new();
        for server in &config.servers {
            servers.extend(literal(&server.host)?);
        }
        let mut vips = Vec::new();
        for virtual_host in &config.virtual_hosts {
            vips.extend(virtual_host.addresses.iter().filter_map(ipv4));
            if let (Host::Address(IpAddr::V4(v4)), true) =
                (&virtual_host.host, virtual_host.addresses.is_empty())
            {
                vips.push(*v4);
            }
        }
        let private = gateway.map(Network::of);
        let is_private = |address: &&Ipv4Addr| private == Some(Network::of(**address));
        let is_public = |address: &&Ipv4Addr| !is_private(address);
        let first = ours
            .iter()
            .chain(servers.iter().filter(is_public))
            .chain(&vips)
            .next();
        let network = first.map_or(DEFAULT_NETWORK, |first| Network::of(*first));
        let elsewhere: Vec<Ipv4Addr> = servers
            .iter()
            .copied()
            .filter(|address| Network::of(*address) != network)
            .collect();
        let beyond = || elsewhere.iter().filter(is_public);
        let servers_network = match surroundings.server_router {
            Some(_) => beyond().next().map(|first| Network::of(*first)),
            None => None,
        };
        let mut strangers = beyond()
            .filter(|address| Some(Network::of(**address)) != servers_network)
            .chain(
                ours.iter()
                    .chain(&vips)
                    .filter(|a| Network::of(**a) != network),
            );
        if let Some(&other) = strangers.next() {
            return Err(PlanError::TwoNetworks {
                address: first.copied().unwrap_or(other),
                other,
            });
        }
        let clients = match surroundings.client_router {
            Some(_) => CLIENT_NETWORKS
                .into_iter()
                .find(|free| ![Some(network), private, servers_network].contains(&Some(*free))),
            None => None,
        };
        let gateway_here = gateway.filter(|address| Network::of(*address) == network);
        let taken = ours
            .iter()
            .chain(&servers)
            .chain(&vips)
            .chain(&gateway_here)
            .filter(|address| Network::of(**address) == network)
            .map(|address| address.octets()[3])
            .collect();
        Ok(Self {
            network,
            taken,
            gateway,
            clients,
            servers: servers_network,
            elsewhere,
        })
    }

    /// The gateway that hosts of `network` have, if it is the subnet of NAT servers and not the cluster's own network.
    pub(super) fn gateway_of(&self, network: Network) -> Option<Ipv4Addr> {
        self.gateway
            .filter(|gateway| Network::of(*gateway) == network && network != self.network)
    }

    /// The address of `host`: its own, the one its name already has, or the next free one from `first` on.
    pub(super) fn resolve(
        &mut self,
        host: &Host,
        first: u8,
        names: &mut BTreeMap<String, Ipv4Addr>,
    ) -> Result<Ipv4Addr, PlanError> {
        match host {
            Host::Address(address) => lab_address(*address),
            Host::Name(name) => {
                if let Some(&known) = names.get(name) {
                    return Ok(known);
                }
                let address = self.free_from(first)?;
                names.insert(name.clone(), address);
                Ok(address)
            }
        }
    }

    pub(super) fn free_from(&mut self, first: u8) -> Result<Ipv4Addr, PlanError> {
        let host = (first..=254)
            .find(|h| !self.taken.contains(h))
            .ok_or(PlanError::NetworkFull)?;
        self.taken.push(host);
        Ok(self.network.host(host))
    }
}

/// The IPv4 address of the host whose address, of either version, the file spells out.
fn literal(host: &Host) -> Result<Option<Ipv4Addr>, PlanError> {
    match host {
        Host::Address(address) => lab_address(*address).map(Some),
        Host::Name(_) => Ok(None),
    }
}

fn lab_address(address: IpAddr) -> Result<Ipv4Addr, PlanError> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => twin_of(v6).ok_or_else(|| PlanError::Ipv6Host(v6.to_string())),
    }
}

pub(super) fn ipv4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}
