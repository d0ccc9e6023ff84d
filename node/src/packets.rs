//! The packet path as consensus sees it: applied changes go in, in log order, and a barrier tells when they are in force.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use dataplane::{Guard, Handle};
use dataplane_core::{ForwardingTable, Interface};
use futures_util::future::BoxFuture;
use model::conf::{Config, ForwardingMethod, Host, Protocol, Scheduler};
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
        let table = ForwardingTable::compile(state, index, &self.interface, host::default_gateway);
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
    for server in &config.servers {
        if let Host::Address(address @ IpAddr::V6(_)) = &server.host {
            found.push(format!(
                "server {}: IPv6 is not there yet; no packets reach {address}",
                server.name
            ));
        }
    }
    found
}
