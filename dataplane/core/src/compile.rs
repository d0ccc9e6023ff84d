//! From the replicated state to the forwarding table of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::state::State;

use crate::{ForwardingTable, Real, VirtualService};

impl ForwardingTable {
    /// What the replicated state at `index` means for the packet path of this interface. `next_hop` says where frames to a server
    /// go: to itself, to a router, or (`None`) nowhere.
    pub fn compile(state: &State, index: u64, next_hop: impl Fn(IpAddr) -> Option<IpAddr>) -> Self {
        let Some(current) = state.current() else {
            return Self::default();
        };
        let pool = &current.config.atm_pool;
        let mut vips = BTreeSet::new();
        let mut services = Vec::new();
        for (id, entry) in state.services() {
            vips.insert(entry.vip);
            let settings = current
                .config
                .services
                .iter()
                .find(|service| service.name == entry.name);
            services.push(VirtualService {
                id: *id,
                vip: entry.vip,
                protocol: entry.protocol,
                port: entry.port,
                scheduler: settings
                    .map(|service| service.scheduler)
                    .unwrap_or_default(),
                replication: settings
                    .map(|service| service.replication)
                    .unwrap_or_default(),
                share: state.share(*id),
            });
        }
        let servers = state.servers().iter().map(|(id, entry)| Real {
            id: *id,
            address: entry.address,
            next_hop: next_hop(entry.address),
            method: entry.method,
        });
        Self {
            applied_index: index,
            vips: vips.into_iter().collect(),
            services,
            servers: servers.collect(),
            connections_max: pool.num_connections as usize,
            connection_timeout: pool.connection_timeout,
            send_arp_delay: pool.send_arp_delay,
        }
    }
}
