//! From the replicated state to the forwarding table of one interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use model::state::State;

use crate::{ForwardingTable, Interface, Real, VirtualService};

impl ForwardingTable {
    /// What the replicated state at `index` means for the packet path of this interface. IPv4 only: IPv6 VIPs and servers
    /// are left out. `gateway` is asked only about servers beyond the connected network.
    pub fn compile(
        state: &State,
        index: u64,
        interface: &Interface,
        gateway: impl Fn() -> Option<Ipv4Addr>,
    ) -> Self {
        let Some(current) = state.current() else {
            return Self::default();
        };
        let pool = &current.config.atm_pool;
        let mut vips = BTreeSet::new();
        let mut services = Vec::new();
        for (id, entry) in state.services() {
            let IpAddr::V4(vip) = entry.vip else { continue };
            vips.insert(vip);
            let settings = current
                .config
                .services
                .iter()
                .find(|service| service.name == entry.name);
            services.push(VirtualService {
                id: *id,
                vip,
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
        let servers = state.servers().iter().filter_map(|(id, entry)| {
            let IpAddr::V4(address) = entry.address else {
                return None;
            };
            Some(Real {
                id: *id,
                address,
                next_hop: next_hop(address, interface, &gateway),
                method: entry.method,
            })
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

/// A server on the connected network is its own next hop; others go through the kernel's default route.
fn next_hop(
    address: Ipv4Addr,
    interface: &Interface,
    gateway: impl Fn() -> Option<Ipv4Addr>,
) -> Ipv4Addr {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(interface.prefix_len))
        .unwrap_or(0);
    if (u32::from(address) ^ u32::from(interface.address)) & mask == 0 {
        return address;
    }
    gateway().unwrap_or(address)
}
