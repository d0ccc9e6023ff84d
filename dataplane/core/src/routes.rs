//! The forwarding table, compiled for look-ups.

use std::net::Ipv4Addr;
use std::time::Duration;

use model::Instant;
use model::conf::{ForwardingMethod, Protocol, Replication};
use model::ids::{ServerId, VirtualServiceId};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::neighbours::Neighbours;
use crate::scheduler::{Picker, Tables};
use crate::{DropReason, ForwardingTable, Real};

/// What the installed table says.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) applied_index: u64,
    pub(crate) vips: Vec<Ipv4Addr>,
    pub(crate) arp_interval: Duration,
    vip_set: FxHashSet<Ipv4Addr>,
    services: Vec<Service>,
    tcp: FxHashMap<(Ipv4Addr, u16), usize>,
    servers: FxHashMap<ServerId, Server>,
}

/// A virtual service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) id: VirtualServiceId,
    pub(crate) replication: Replication,
    pub(crate) picker: Picker,
}

/// A server and the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) address: Ipv4Addr,
    pub(crate) method: ForwardingMethod,
    /// Its next hop's place among the neighbours; `None` cannot be reached.
    pub(crate) neighbour: Option<usize>,
}

impl Routes {
    /// Compiles a table; schedulers go on where those of `previous` were, neighbours keep what they know.
    pub(crate) fn compile(
        table: ForwardingTable,
        previous: &Self,
        neighbours: &mut Neighbours,
        now: Instant,
    ) -> Self {
        neighbours.install(table.servers.iter().map(|server| server.next_hop), now);
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
                replication: service.replication,
                picker: Picker::new(
                    service.scheduler,
                    &service.share,
                    before.get(&service.id).map(|service| &service.picker),
                    &mut tables,
                ),
            })
            .collect();
        let mut tcp = FxHashMap::default();
        for (at, service) in table
            .services
            .iter()
            .enumerate()
            .filter(|(_, service)| service.protocol == Protocol::Tcp)
        {
            // One address is one service: the replicated state never gives it two numbers.
            tcp.entry((service.vip, service.port)).or_insert(at);
        }
        Self {
            applied_index: table.applied_index,
            arp_interval: table.send_arp_delay,
            vip_set: table.vips.iter().copied().collect(),
            vips: table.vips,
            services,
            tcp,
            servers: table
                .servers
                .into_iter()
                .map(|server| {
                    let Real {
                        id,
                        address,
                        next_hop,
                        method,
                    } = server;
                    (
                        id,
                        Server {
                            address,
                            method,
                            neighbour: neighbours.position(next_hop),
                        },
                    )
                })
                .collect(),
        }
    }

    pub(crate) fn is_vip(&self, address: Ipv4Addr) -> bool {
        self.vip_set.contains(&address)
    }

    /// Where the TCP service at this address and port is.
    pub(crate) fn tcp(&self, vip: Ipv4Addr, port: u16) -> Result<usize, DropReason> {
        self.tcp
            .get(&(vip, port))
            .copied()
            .ok_or(DropReason::NoService)
    }

    pub(crate) fn service(&self, at: usize) -> Result<&Service, DropReason> {
        self.services.get(at).ok_or(DropReason::NoService)
    }

    pub(crate) fn service_mut(&mut self, at: usize) -> Result<&mut Service, DropReason> {
        self.services.get_mut(at).ok_or(DropReason::NoService)
    }

    pub(crate) fn server(&self, id: ServerId) -> Result<Server, DropReason> {
        self.servers
            .get(&id)
            .copied()
            .ok_or(DropReason::UnknownServer)
    }
}
