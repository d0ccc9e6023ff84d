//! The hosts a configuration asks for: names, addresses, roles. Pure.
//!
//! Invariant: no two hosts share an address, no host has a VIP, and all of it lies in one /24: all but NAT servers, which are in
//! that of their gateway, and what stands behind a router.

mod addresses;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use model::conf::{Config, Host};

use super::error::PlanError;
use super::place::{Network, PATH_MTU_MAX, PATH_MTU_MIN, Place, Route, Segment};
use super::record::PortKind;
use addresses::{Addresses, DEFAULT_NETWORK, ipv4};

/// Length of the network's prefix; one /24 holds every host the limits allow.
pub const PREFIX_LENGTH: u8 = 24;

/// TCP port on which ATMs talk to one another.
pub const PEER_PORT: u16 = 7410;

/// TCP port of the admin service, on each host's loopback.
pub const ADMIN_PORT: u16 = 7411;

/// Host part of the first ATM, server, VIP and of the client, where the file gives names instead of addresses.
const FIRST_ATM: u8 = 1;
const FIRST_SERVER: u8 = 11;
const FIRST_VIP: u8 = 100;
const CLIENT: u8 = 200;
const ROGUE: u8 = 201;

/// Host part of the first host that has no part in the cluster: right behind a few servers.
const FIRST_FURTHER: u8 = 31;

/// Host part of a router's addresses: before the servers on the cluster's side, and everywhere else.
const SERVER_ROUTER: u8 = 253;
const ROUTER: u8 = 254;

/// Added to the number of an ATM for its address in the subnet of NAT servers.
const FIRST_ATM_IN_SUBNET: u8 = 240;

/// Name of the host that clients run in.
pub(crate) const CLIENT_NAME: &str = "client";

/// Name of the host that has no part in the cluster.
pub const ROGUE_NAME: &str = "rogue";

/// Name of the router between the clients and the cluster.
pub const CLIENT_ROUTER_NAME: &str = "router";

/// Name of the router between the cluster and the servers.
pub const SERVER_ROUTER_NAME: &str = "srouter";

/// What there is besides the hosts of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The host `client`.
    pub client: bool,
    /// A router between the client and the cluster.
    pub client_router: Option<Router>,
    /// A router between the cluster and the servers in another network than the ATMs'.
    pub server_router: Option<Router>,
}

/// A router of the lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// The largest packet that it passes on, in bytes; see [`Place::path_mtu`].
    pub path_mtu: Option<u16>,
}

/// Everything that has to be built for one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hosts: ATMs, servers that are no ATMs, the client, the rogue.
    pub hosts: Vec<HostPlan>,
    /// IPv4 addresses of the virtual hosts, in file order.
    pub vips: Vec<Ipv4Addr>,
    /// All addresses of the virtual hosts, in file order.
    pub virtual_addresses: Vec<IpAddr>,
    /// What each name in the file resolves to.
    pub names: BTreeMap<String, Ipv4Addr>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// `atm1`, `serv1`, `client`.
    pub name: String,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Listed in the ATM pool.
    pub atm: bool,
    /// Listed under Servers.
    pub server: bool,
    /// The host as the file writes it; `None` for the client and the rogue.
    pub written: Option<String>,
    /// Its segment, further addresses and routes.
    pub place: Place,
}

impl Plan {
    /// Lays `config` out, in one network; see [`Self::within`].
    ///
    /// # Errors
    /// Those of [`Self::within`].
    pub fn new(config: &Config, client: bool) -> Result<Self, PlanError> {
        Self::within(
            config,
            &Surroundings {
                client,
                ..Surroundings::default()
            },
        )
    }

    /// Lays `config` out: the n-th ATM is `atm<n>`, the n-th server `serv<n>`, unless it is one of the ATMs.
    ///
    /// A server in the network of the NAT block's `Gateway` has that one as its default route and nothing else; with a router
    /// before the servers, those in another network than the ATMs' stand behind it.
    ///
    /// # Errors
    /// [`PlanError`]: addresses in more networks than that, IPv6 hosts without a twin, shared addresses, no address left, a path
    /// MTU out of bounds.
    pub fn within(config: &Config, surroundings: &Surroundings) -> Result<Self, PlanError> {
        let mut addresses = Addresses::of_literals(config, surroundings)?;
        let mut plan = Self {
            hosts: Vec::new(),
            vips: Vec::new(),
            virtual_addresses: Vec::new(),
            names: BTreeMap::new(),
        };

        for virtual_host in &config.virtual_hosts {
            if let (Host::Address(IpAddr::V6(vip)), true) =
                (&virtual_host.host, virtual_host.addresses.is_empty())
            {
                plan.virtual_addresses.push((*vip).into());
                continue; // An IPv6 VIP needs no place in the IPv4 network.
            }
            if virtual_host.addresses.is_empty() {
                let vip = addresses.resolve(&virtual_host.host, FIRST_VIP, &mut plan.names)?;
                plan.vips.push(vip);
                plan.virtual_addresses.push(vip.into());
            } else {
                plan.vips
                    .extend(virtual_host.addresses.iter().filter_map(ipv4));
                plan.virtual_addresses.extend(&virtual_host.addresses);
                if let (Host::Name(name), Some(vip)) = (
                    &virtual_host.host,
                    virtual_host.addresses.iter().find_map(ipv4),
                ) {
                    plan.names.insert(name.clone(), vip);
                }
            }
        }
        for (n, atm) in config.atm_pool.atms.iter().enumerate() {
            let address = addresses.resolve(&atm.host, FIRST_ATM, &mut plan.names)?;
            plan.add(format!("atm{}", n + 1), address, Some(&atm.host), true)?;
        }
        for (n, server) in config.servers.iter().enumerate() {
            let address = addresses.resolve(&server.host, FIRST_SERVER, &mut plan.names)?;
            plan.add(format!("serv{}", n + 1), address, Some(&server.host), false)?;
        }
        if surroundings.client {
            let address = match addresses.clients {
                Some(network) => network.host(CLIENT),
                None => addresses.free_from(CLIENT)?,
            };
            plan.add(CLIENT_NAME.to_owned(), address, None, false)?;
        }
        plan.add_routers(&addresses, surroundings)?;
        plan.give_places(&addresses)?;
        Ok(plan)
    }

    /// Adds the routers: `eth0` towards the ATMs, `eth1` away from them.
    fn add_routers(
        &mut self,
        addresses: &Addresses,
        surroundings: &Surroundings,
    ) -> Result<(), PlanError> {
        let cluster = addresses.network;
        let client_side = (CLIENT_ROUTER_NAME, surroundings.client_router, ROUTER);
        let server_side = (
            SERVER_ROUTER_NAME,
            surroundings.server_router,
            SERVER_ROUTER,
        );
        let beyond = [
            (client_side, Segment::Clients, addresses.clients),
            (server_side, Segment::Servers, addresses.servers),
        ];
        for ((name, router, host), segment, network) in beyond {
            let (Some(router), Some(network)) = (router, network) else {
                continue;
            };
            if let Some(mtu) = router.path_mtu {
                check_path_mtu(mtu)?;
            }
            self.add(name.to_owned(), cluster.host(host), None, false)?;
            if let Some(added) = self.hosts.last_mut() {
                added.place.second = Some((segment, network.host(ROUTER)));
                added.place.path_mtu = router.path_mtu;
            }
        }
        Ok(())
    }

    /// Says of each host where it stands and how it reaches the others.
    fn give_places(&mut self, addresses: &Addresses) -> Result<(), PlanError> {
        let cluster = addresses.network;
        let out = |to, via| Route { to, via };
        let towards_clients = addresses.clients.map(|_| out(None, cluster.host(ROUTER)));
        // With nothing else to go to, the servers' router is the default: what only knows that one gets there as well.
        let only = addresses.clients.is_none();
        let towards_servers = addresses
            .servers
            .map(|servers| out((!only).then_some(servers), cluster.host(SERVER_ROUTER)));
        for host in &mut self.hosts {
            let network = Network::of(host.address);
            let place = &mut host.place;
            if place.is_router() {
                let other = match place.second {
                    Some((Segment::Servers, _)) => towards_clients,
                    Some(_) | None => towards_servers,
                };
                place.routes.extend(other);
            } else if addresses.clients == Some(network) {
                place.segment = Segment::Clients;
                place.routes.push(out(None, network.host(ROUTER)));
            } else if addresses.servers == Some(network) {
                place.segment = Segment::Servers;
                place.routes.push(out(None, network.host(ROUTER)));
            } else if let Some(gateway) = addresses.gateway_of(network) {
                place.routes.push(out(None, gateway));
            } else {
                place.routes.extend(towards_clients);
                place.routes.extend(towards_servers);
            }
        }
        // Each ATM has a foot in the subnet of the NAT servers, as their neighbour.
        if let Some(gateway) = addresses.gateway.filter(|g| Network::of(*g) != cluster) {
            let atms = self.hosts.iter_mut().filter(|host| host.atm);
            for (n, atm) in (FIRST_ATM_IN_SUBNET..).zip(atms) {
                let foot = Network::of(gateway).host(n);
                if foot == gateway || addresses.elsewhere.contains(&foot) {
                    return Err(PlanError::SharedAddress {
                        address: foot,
                        first: atm.name.clone(),
                        second: "the subnet of NAT servers".to_owned(),
                    });
                }
                atm.place.further.push(foot);
            }
        }
        Ok(())
    }

    /// Adds the host `rogue`.
    ///
    /// # Errors
    /// [`PlanError::NetworkFull`].
    pub(crate) fn add_rogue(&mut self) -> Result<(), PlanError> {
        self.add_neighbour(ROGUE_NAME, ROGUE)
    }

    /// Adds a host of this name that has no part in the cluster.
    ///
    /// # Errors
    /// [`PlanError::NetworkFull`], [`PlanError::SharedName`].
    pub(crate) fn add_further(&mut self, name: &str) -> Result<(), PlanError> {
        if self.hosts.iter().any(|host| host.name == name) {
            return Err(PlanError::SharedName(name.to_owned()));
        }
        self.add_neighbour(name, FIRST_FURTHER)
    }

    /// Gives the host `host` one more name.
    ///
    /// # Errors
    /// [`PlanError::NoHost`].
    pub(crate) fn add_name(&mut self, host: &str, name: &str) -> Result<(), PlanError> {
        let known = self.hosts.iter().find(|known| known.name == host);
        let address = known.ok_or_else(|| PlanError::NoHost(host.to_owned()))?;
        self.names.insert(name.to_owned(), address.address);
        Ok(())
    }

    fn add_neighbour(&mut self, name: &str, first: u8) -> Result<(), PlanError> {
        let hosts = self.hosts.iter().map(|host| host.address);
        let taken: Vec<Ipv4Addr> = hosts.chain(self.vips.iter().copied()).collect();
        // The first host is an ATM: its network is the cluster's, and its routes are right for a neighbour.
        let network = taken.first().map_or(DEFAULT_NETWORK, |a| Network::of(*a));
        let routes = self.hosts.first().map(|host| host.place.routes.clone());
        let address = (first..=254)
            .map(|host| network.host(host))
            .find(|address| !taken.contains(address))
            .ok_or(PlanError::NetworkFull)?;
        self.add(name.to_owned(), address, None, false)?;
        if let Some(added) = self.hosts.last_mut() {
            added.place.routes = routes.unwrap_or_default();
        }
        Ok(())
    }

    /// Adds a host, or the role of server to the ATM that already has this address.
    fn add(
        &mut self,
        name: String,
        address: Ipv4Addr,
        host: Option<&Host>,
        atm: bool,
    ) -> Result<(), PlanError> {
        if self.vips.contains(&address) {
            return Err(PlanError::SharedAddress {
                address,
                first: name,
                second: "a virtual host".to_owned(),
            });
        }
        if let Some(same) = self.hosts.iter_mut().find(|h| h.address == address) {
            if !atm && same.atm && !same.server && host.is_some() {
                same.server = true;
                return Ok(());
            }
            return Err(PlanError::SharedAddress {
                address,
                first: same.name.clone(),
                second: name,
            });
        }
        let written = host.map(ToString::to_string);
        let server = !atm && written.is_some();
        self.hosts.push(HostPlan {
            name,
            address,
            atm,
            server,
            written,
            place: Place::default(),
        });
        Ok(())
    }

    /// Text of the hosts file every host sees as `/etc/hosts`.
    #[must_use]
    pub fn hosts_file(&self) -> String {
        let mut text = String::from("127.0.0.1 localhost\n");
        for host in &self.hosts {
            let _ = writeln!(text, "{} {}", host.address, host.name);
        }
        for (name, address) in &self.names {
            if !self.hosts.iter().any(|h| h.name == *name) {
                let _ = writeln!(text, "{address} {name}");
            }
        }
        text
    }
}

/// Text of a host's `atmd.toml`; `directory` is the host's own directory in the lab's.
#[must_use]
pub fn atmd_toml(written: &str, address: Ipv4Addr, directory: &str, port: PortKind) -> String {
    format!(
        "name = {written:?}\n\
         interface = \"eth0\"\n\
         cluster_config = {conf:?}\n\
         data_dir = {data:?}\n\
         port = \"{port}\"\n\
         peer_listen = \"{address}:{PEER_PORT}\"\n\
         admin_listen = \"127.0.0.1:{ADMIN_PORT}\"\n",
        conf = format!("{directory}/clusterserver.conf"),
        data = format!("{directory}/data"),
    )
}

/// Whether a router of the lab can have this path MTU.
///
/// # Errors
/// [`PlanError::PathMtu`].
pub(crate) fn check_path_mtu(mtu: u16) -> Result<(), PlanError> {
    if (PATH_MTU_MIN..=PATH_MTU_MAX).contains(&mtu) {
        return Ok(());
    }
    Err(PlanError::PathMtu(mtu))
}

#[cfg(test)]
mod tests;
