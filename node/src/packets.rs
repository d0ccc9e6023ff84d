//! The packet path as consensus sees it: applied changes go in, in log order, and a barrier tells when they are in force.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use dataplane::{Guard, Handle};
use dataplane_core::{ForwardingTable, Interface, Real, VirtualService};
use futures_util::future::BoxFuture;
use model::conf::{Config, ForwardingMethod, Protocol, Scheduler};
use model::connections::ConnectionChange;
use model::state::State;
use tracing::{info, warn};

use crate::host;
use crate::raft::Applied;

/// One engine and the guard of its VIPs.
pub(crate) struct Packets {
    handle: Handle,
    interface: Interface,
    interface_name: String,
    guard: Mutex<Option<Guard>>,
}

impl Packets {
    /// The packet path of one interface.
    pub(crate) fn new(handle: Handle, interface: Interface, interface_name: String) -> Self {
        Self {
            handle,
            interface,
            interface_name,
            guard: Mutex::default(),
        }
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Handle {
        &self.handle
    }

    /// Takes the guard away: for an orderly end only, a kernel that nobody guards might answer for the VIP.
    pub(crate) fn unguard(&self) {
        if let Some(guard) = self
            .guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            && let Err(error) = guard.remove()
        {
            warn!(%error, "the guard of the VIP stays");
        }
    }

    async fn install(&self, state: &State, index: u64) {
        let table = compile(state, index, &self.interface);
        self.keep_guard(&table.vips);
        info!(
            version = state.config_number().0,
            vips = table.vips.len(),
            services = table.services.len(),
            servers = table.servers.len(),
            "forwarding table compiled"
        );
        if self.handle.install(table).await.is_err() {
            warn!("the engine has stopped; the table is not installed");
        }
    }

    /// Keeps the kernel silent about the VIPs. Without nft the dataplane works; the log says what is missing.
    fn keep_guard(&self, vips: &[Ipv4Addr]) {
        // A simulated host has no kernel that could answer.
        if cfg!(atm_sim) {
            return;
        }
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match guard.as_mut() {
            Some(guard) => guard.update(vips),
            None => Guard::install(&self.interface_name, vips).map(|new| *guard = Some(new)),
        };
        if let Err(error) = kept {
            warn!(
                error = format!("{error:#}"),
                "the kernel is not kept from answering for the VIP"
            );
        }
    }
}

impl Applied for Packets {
    fn connections(&self, changes: Vec<ConnectionChange>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.handle.commit(changes).await.is_err() {
                warn!("the engine has stopped; changes are not installed");
            }
        })
    }

    fn table<'a>(&'a self, state: &State, index: u64) -> BoxFuture<'a, ()> {
        let state = state.clone();
        Box::pin(async move { self.install(&state, index).await })
    }

    fn replaced<'a>(&'a self, state: &State, index: u64) -> BoxFuture<'a, ()> {
        let state = state.clone();
        Box::pin(async move {
            if state.current().is_none() {
                return;
            }
            self.install(&state, index).await;
            if self
                .handle
                .replace_connections(state.connections().iter().collect())
                .await
                .is_err()
            {
                warn!("the engine has stopped; connections are not installed");
            }
        })
    }
}

/// What the replicated state means for the packet path of this interface. IPv4 only: IPv6 VIPs and servers are left out.
pub(crate) fn compile(state: &State, index: u64, interface: &Interface) -> ForwardingTable {
    let Some(current) = state.current() else {
        return ForwardingTable::default();
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
            next_hop: next_hop(address, interface),
            method: entry.method,
        })
    });
    ForwardingTable {
        applied_index: index,
        vips: vips.into_iter().collect(),
        services,
        servers: servers.collect(),
        connections_max: pool.num_connections as usize,
        connection_timeout: pool.connection_timeout,
        send_arp_delay: pool.send_arp_delay,
    }
}

/// A server on the connected network is its own next hop; others go through the kernel's default route.
fn next_hop(address: Ipv4Addr, interface: &Interface) -> Ipv4Addr {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(interface.prefix_len))
        .unwrap_or(0);
    if (u32::from(address) ^ u32::from(interface.address)) & mask == 0 {
        return address;
    }
    host::default_gateway().unwrap_or(address)
}

/// What this version cannot do of a configuration, in words for the operator.
pub(crate) fn limitations(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for server in config
        .servers
        .iter()
        .filter(|server| server.method == ForwardingMethod::Nat)
    {
        found.push(format!(
            "server {}: forwarding by nat is not there yet; its packets are dropped and counted",
            server.name
        ));
    }
    for service in &config.services {
        let mut lacks = |what: &str| found.push(format!("service {}: {what}", service.name));
        if service.scheduler != Scheduler::Wrr {
            lacks("only scheduler=wrr is there yet; new connections are refused and counted");
        }
        if service.protocol == Protocol::Udp {
            lacks("UDP is not forwarded yet; its packets are dropped and counted");
        }
        if service.sticky {
            lacks("sticky is not there yet; clients are shared out afresh with every connection");
        }
    }
    for atm in config.atm_pool.atms.iter().filter(|atm| atm.witness) {
        found.push(format!(
            "ATM {}: witness has no effect yet; it may become active",
            atm.host
        ));
    }
    for address in config
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.addresses)
        .filter(|address| address.is_ipv6())
    {
        found.push(format!(
            "VIP {address}: IPv6 is not there yet; nobody answers for it"
        ));
    }
    found
}
