//! The forwarding table, compiled for look-ups.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use model::Instant;
use model::conf::{ForwardingMethod, Protocol, Replication};
use model::ids::{ServerId, VirtualServiceId};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::neighbours::Neighbours;
use crate::scheduler::{Picker, Tables};
use crate::{DropReason, ForwardingTable, NextHop, Real};

/// What the installed table says.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) applied_index: u64,
    pub(crate) vips: Vec<IpAddr>,
    pub(crate) arp_interval: Duration,
    pub(crate) next_hop: NextHop,
    vip_set: FxHashSet<Address>,
    gateways: Vec<IpAddr>,
    services_at: Places,
    /// Addresses of servers whose answers pass here.
    behind_nat: FxHashSet<Address>,
    /// Addresses of servers by tunnel.
    tunnel_ends: FxHashSet<Address>,
    services: Vec<Service>,
    by_port: FxHashMap<End, usize>,
    servers: Vec<Server>,
    servers_at: Places,
}

/// A virtual service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) id: VirtualServiceId,
    pub(crate) vip: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Servers that may get connections of sticky clients: all healthy ones, sorted.
    healthy: Vec<ServerId>,
    /// Servers whose connections are reset, sorted; most often none.
    reset: Vec<ServerId>,
    pub(crate) replication: Replication,
    pub(crate) picker: Picker,
}

/// A server and the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) address: IpAddr,
    pub(crate) method: ForwardingMethod,
    /// Full NAT: where its packets come from.
    pub(crate) source: Option<IpAddr>,
    /// Its next hop's place among the neighbours; `None` cannot be reached over the wire.
    pub(crate) neighbour: Option<usize>,
    /// It is this very host.
    pub(crate) here: bool,
}

impl Routes {
    /// Compiles a table; schedulers go on where those of `previous` were, neighbours keep what they know.
    pub(crate) fn compile(
        table: ForwardingTable,
        previous: &Self,
        neighbours: &mut Neighbours,
        now: Instant,
    ) -> Self {
        neighbours.install(
            table.servers.iter().filter_map(|server| server.next_hop),
            now,
        );
        let before: FxHashMap<VirtualServiceId, &Service> = previous
            .services
            .iter()
            .map(|service| (service.id, service))
            .collect();
        let mut tables = Tables::of(previous.services.iter().map(|service| &service.picker));
        let services: Vec<Service> = table
            .services
            .iter()
            .map(|service| Service {
                id: service.id,
                vip: service.vip,
                protocol: service.protocol,
                port: service.port,
                healthy: sorted(service.share.iter().map(|&(server, _weight)| server)),
                reset: sorted(service.reset.iter().copied()),
                replication: service.replication,
                picker: Picker::new(
                    service.scheduler,
                    &service.share,
                    before.get(&service.id).map(|service| &service.picker),
                    &mut tables,
                ),
            })
            .collect();
        let mut by_port = FxHashMap::default();
        for (at, service) in table.services.iter().enumerate() {
            // One address is one service: the replicated state never gives it two numbers.
            by_port
                .entry(End::new(service.vip, service.protocol, service.port))
                .or_insert(at);
        }
        let services_at = Places::of(table.services.iter().map(|service| service.id.0));
        let servers_at = Places::of(table.servers.iter().map(|server| server.id.0));
        let by = |method| {
            let servers = table.servers.iter();
            let servers = servers.filter(move |server| server.method == method);
            servers.map(|server| server.address.into()).collect()
        };
        let (behind_nat, tunnel_ends) = (by(ForwardingMethod::Nat), by(ForwardingMethod::Tunnel));
        Self {
            applied_index: table.applied_index,
            arp_interval: table.send_arp_delay,
            vip_set: table.vips.iter().copied().map(Address::from).collect(),
            gateways: table.gateways,
            vips: table.vips,
            services,
            by_port,
            services_at,
            servers_at,
            behind_nat,
            tunnel_ends,
            next_hop: table.next_hop,
            servers: table
                .servers
                .into_iter()
                .map(|server| {
                    let Real {
                        id: _,
                        address,
                        next_hop,
                        here,
                        method,
                        source,
                    } = server;
                    Server {
                        address,
                        method,
                        source,
                        neighbour: next_hop.and_then(|next_hop| neighbours.position(next_hop)),
                        here,
                    }
                })
                .collect(),
        }
    }

    pub(crate) fn is_vip(&self, address: IpAddr) -> bool {
        self.vip_set.contains(&address.into())
    }

    /// Whether hosts have this VIP as their router; there are two at most.
    pub(crate) fn is_gateway(&self, vip: IpAddr) -> bool {
        self.gateways.contains(&vip)
    }

    /// The gateway of servers in the IP version of an address.
    pub(crate) fn gateway_of(&self, address: IpAddr) -> Option<IpAddr> {
        let mut gateways = self.gateways.iter().copied();
        gateways.find(|gateway| gateway.is_ipv4() == address.is_ipv4())
    }

    /// Where the service at this address and port is.
    pub(crate) fn at(
        &self,
        vip: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Result<usize, DropReason> {
        self.by_port
            .get(&End::new(vip, protocol, port))
            .copied()
            .ok_or(DropReason::NoService)
    }

    pub(crate) fn service(&self, at: usize) -> Result<&Service, DropReason> {
        self.services.get(at).ok_or(DropReason::NoService)
    }

    pub(crate) fn service_mut_of(
        &mut self,
        id: VirtualServiceId,
    ) -> Result<&mut Service, DropReason> {
        let at = self.services_at.of_id(id.0);
        let service = at.and_then(|at| self.services.get_mut(at));
        service.ok_or(DropReason::NoService)
    }

    pub(crate) fn service_of(&self, id: VirtualServiceId) -> Result<&Service, DropReason> {
        let at = self.services_at.of_id(id.0);
        self.service(at.ok_or(DropReason::NoService)?)
    }

    /// Whether answers of this address may pass here.
    pub(crate) fn is_behind_nat(&self, address: IpAddr) -> bool {
        !self.behind_nat.is_empty() && self.behind_nat.contains(&address.into())
    }

    /// Whether any server is behind NAT.
    pub(crate) fn has_nat(&self) -> bool {
        !self.behind_nat.is_empty()
    }

    /// Whether servers know every connection as they do under `other`: most tables differ in health and weights only, and those that
    /// do not have the whole connection table walked.
    pub(crate) fn has_peers_of(&self, other: &Self) -> bool {
        if !self.has_nat() && !other.has_nat() {
            return true;
        }
        let known_as = |server: &Server| (server.address, server.method, server.source);
        let server_port = |service: &Service| (service.id, service.protocol, service.port);
        self.servers_at == other.servers_at
            && self
                .servers
                .iter()
                .map(known_as)
                .eq(other.servers.iter().map(known_as))
            && self
                .services
                .iter()
                .map(server_port)
                .eq(other.services.iter().map(server_port))
    }

    /// Whether any server is reached by tunnel.
    pub(crate) fn has_tunnels(&self) -> bool {
        !self.tunnel_ends.is_empty()
    }

    /// Whether a server with this address is reached by tunnel.
    pub(crate) fn is_tunnel_end(&self, address: IpAddr) -> bool {
        self.tunnel_ends.contains(&address.into())
    }

    pub(crate) fn server(&self, id: ServerId) -> Result<&Server, DropReason> {
        let at = self.servers_at.of_id(id.0);
        let server = at.and_then(|at| self.servers.get(at));
        server.ok_or(DropReason::UnknownServer)
    }
}

/// Where in a list the one with a number is: asked several times for each packet, and quicker than a hash table. As long as the
/// highest number of a table, which is at most 65,535.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places(Vec<u32>);

impl Places {
    /// Of none: no list is so long.
    const NONE: u32 = u32::MAX;

    /// Of a list whose entries have these numbers, each its own.
    fn of(ids: impl Iterator<Item = u16>) -> Self {
        let mut places = Vec::new();
        for (at, id) in (0..).zip(ids) {
            let id = usize::from(id);
            if places.len() <= id {
                places.resize(id + 1, Self::NONE);
            }
            places[id] = at;
        }
        Self(places)
    }

    fn of_id(&self, id: u16) -> Option<usize> {
        let at = *self.0.get(usize::from(id))?;
        (at != Self::NONE).then_some(at as usize)
    }
}

/// An address in three words, quick to hash. An IPv4 address equals no IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    high: u64,
    low: u64,
    is_v4: bool,
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self {
                high: 0,
                low: v4.to_bits().into(),
                is_v4: true,
            },
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, low @ ..] = v6.octets();
                Self {
                    high: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                    low: u64::from_be_bytes(low),
                    is_v4: false,
                }
            }
        }
    }
}

impl Hash for Address {
    /// The family is left to the comparison.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.high);
        state.write_u64(self.low);
    }
}

/// A transport address in three words: a VIP, and protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct End(Address, u32);

impl End {
    fn new(address: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self(
            address.into(),
            (protocol as u32) << u16::BITS | u32::from(port),
        )
    }
}

impl Service {
    /// Whether connections to this server are reset: it is down.
    pub(crate) fn resets(&self, server: ServerId) -> bool {
        self.reset.binary_search(&server).is_ok()
    }

    /// Whether a sticky client may go to this server: it serves, with any weight.
    pub(crate) fn is_healthy(&self, server: ServerId) -> bool {
        self.healthy.binary_search(&server).is_ok()
    }
}

fn sorted(servers: impl Iterator<Item = ServerId>) -> Vec<ServerId> {
    let mut servers: Vec<_> = servers.collect();
    servers.sort_unstable();
    servers
}
