//! The packet path as consensus sees it: applied changes go in, in log order, and a barrier tells when they are in force.
//!
//! The forwarding table has two sources: the replicated state and the kernel's view of the network. Whichever changes, the
//! table is compiled from the last of both, one after the other under one lock, so an older one never replaces a newer.

mod quiet;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, PoisonError};

use dataplane::{Guarded, Handle};
use dataplane_core::{ForwardingTable, Interface, NextHop, OtherAtms};
use futures_util::future::BoxFuture;
use model::conf::{Config, ForwardingMethod, Protocol};
use model::connections::ConnectionChange;
use model::state::{State, Tenure};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::host;
use crate::raft::Applied;
use crate::routing::{Follower, View};
use quiet::Quiet;

/// One engine, the guard of its VIPs and the groups they are asked for in.
pub(crate) struct Packets {
    handle: Handle,
    interface: Interface,
    interface_name: String,
    parts: Mutex<Parts>,
    /// Locked after `parts`, or alone.
    quiet: Mutex<Quiet>,
    /// Apart from the rest: a takeover does not wait for the kernel's packet filter to be changed.
    others: Mutex<Others>,
    follower: std::sync::Mutex<Option<Follower>>,
}

struct Parts {
    /// The last state of the log.
    last: Option<Last>,
    /// What the kernel says; `None`: it cannot be asked.
    view: Option<View>,
}

/// The other ATMs as the engine is to know them.
#[derive(Default)]
struct Others {
    /// The state they stand in, and the addresses of this host.
    last: Option<(State, Vec<IpAddr>)>,
    /// Addresses of the interface's own network, of those the state names.
    here: Vec<IpAddr>,
    /// The latest tenure; it may be younger than the state's.
    tenure: Option<Tenure>,
    /// What the engine was told.
    told: Option<OtherAtms>,
}

/// What a table is compiled from.
struct Last {
    state: State,
    index: u64,
    nat_servers: Vec<(IpAddr, Protocol, u16)>,
}

impl Last {
    fn of(state: &State, index: u64) -> Self {
        Self {
            nat_servers: nat_servers(state),
            state: state.for_forwarding(),
            index,
        }
    }
}

impl Packets {
    /// The packet path of one interface.
    pub(crate) fn new(handle: Handle, interface: Interface, interface_name: String) -> Self {
        let parts = Parts {
            last: None,
            view: None,
        };
        Self {
            handle,
            interface,
            parts: Mutex::new(parts),
            quiet: Mutex::new(Quiet::new(&interface_name)),
            interface_name,
            others: Mutex::default(),
            follower: std::sync::Mutex::default(),
        }
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Handle {
        &self.handle
    }

    /// Looks at the kernel's routes and addresses for the first time; [`follow`](Self::follow) goes on from here.
    /// `preferred6`: the ATM's own IPv6 address, if it is to be another one than the interface's first choice.
    pub(crate) async fn look(&self, preferred6: Option<Ipv6Addr>) {
        let mut follower = match Follower::open(&self.interface_name, preferred6) {
            Ok(follower) => follower,
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "the kernel's routes are not followed: servers beyond the connected network are behind the default router"
                );
                return;
            }
        };
        if let Some(view) = follower.look() {
            self.take_view(view).await;
        }
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(follower);
    }

    /// Follows the kernel's routes and addresses until `stop`.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let follower = self
            .follower
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut follower) = follower else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                view = follower.next() => self.take_view(view).await,
            }
        }
    }

    /// Keeps the kernel from the VIPs that the server role has on this host, whatever the table says: called before it gets them,
    /// and after it has let go of some.
    pub(crate) async fn guard_served(&self, vips: &[IpAddr]) {
        self.quiet.lock().await.serve(vips).await;
    }

    /// Puts the guard back whenever somebody takes it out of the packet filter, until `stop`.
    pub(crate) async fn watch_guard(&self, stop: CancellationToken) {
        Quiet::watch(&self.quiet, stop).await;
    }

    /// Takes the guard away: for an orderly end only, a kernel that nobody guards might answer for the VIP.
    pub(crate) async fn unguard(&self) {
        self.quiet.lock().await.end();
    }

    async fn take_state(&self, last: Last) {
        let mut parts = self.parts.lock().await;
        let version = last.state.config_number().0;
        parts.last = Some(last);
        if let Some(table) = self.install(&mut parts).await {
            info!(
                version,
                vips = table.vips,
                services = table.services,
                servers = table.servers,
                "forwarding table compiled"
            );
        }
    }

    async fn take_view(&self, view: View) {
        let mut parts = self.parts.lock().await;
        if parts.view.as_ref() == Some(&view) {
            return;
        }
        let ours6 = view.ours6;
        parts.view = Some(view);
        if self.handle.set_addresses6(ours6).await.is_err() {
            warn!("the engine has stopped; the interface's addresses are not told");
        }
        if self.install(&mut parts).await.is_some() {
            info!("the kernel's routes or addresses changed; forwarding table compiled");
        }
    }

    /// Compiles the table of the last state and the last view, and installs it. `None` before the first state.
    async fn install(&self, parts: &mut MutexGuard<'_, Parts>) -> Option<Sizes> {
        let parts = &mut **parts;
        let last = parts.last.as_ref()?;
        let view = parts.view.as_ref();
        let routes = view.map(|view| Arc::clone(&view.routes));
        let interface = self.interface.clone();
        let next_hop = NextHop::new(move |address| match &routes {
            Some(routes) => routes.next_hop(address),
            None => host::next_hop_without_routes(&interface, address),
        });
        let own = view.map_or_else(host::local_addresses, |view| view.own.clone());
        let next = next_hop.clone();
        let table = ForwardingTable::compile(&last.state, last.index, next, |address| {
            self.is_ours(&own, address)
        });
        let sizes = Sizes {
            vips: table.vips.len(),
            services: table.services.len(),
            servers: table.servers.len(),
        };
        let guarded = Guarded {
            vips: table.vips.clone(),
            nat_servers: last.nat_servers.clone(),
            own: own.clone(),
        };
        let here = |address: IpAddr| next_hop.of(address) == Some(address);
        let atms = last.state.current().into_iter().flat_map(|current| {
            let atms = current.config.atm_pool.atms.iter();
            atms.filter_map(|atm| current.address(&atm.host))
        });
        let here = atms.filter(|address| here(*address)).collect();
        self.take_others(last.state.clone(), own, here).await;
        self.quiet.lock().await.keep(guarded).await;
        if self.handle.install(table).await.is_err() {
            warn!("the engine has stopped; the table is not installed");
        }
        Some(sizes)
    }

    async fn take_others(&self, state: State, own: Vec<IpAddr>, here: Vec<IpAddr>) {
        let mut others = self.others.lock().await;
        let newest =
            |tenure: &Option<Tenure>| tenure.as_ref().map(|tenure| (tenure.epoch, tenure.ended));
        if newest(&others.tenure) < newest(&state.tenure().cloned()) {
            others.tenure = state.tenure().cloned();
        }
        others.last = Some((state, own));
        others.here = here;
        self.tell_others(&mut others).await;
    }

    async fn tell_others(&self, others: &mut Others) {
        let Some((state, own)) = &others.last else {
            return;
        };
        let ours = |address| self.is_ours(own, address);
        let is_here = |address| others.here.contains(&address);
        let now = OtherAtms::of(state, others.tenure.as_ref(), ours, is_here);
        if others.told.as_ref() == Some(&now) {
            return;
        }
        if self.handle.set_other_atms(now.clone()).await.is_err() {
            warn!("the engine has stopped; the other ATMs are not told");
        }
        others.told = Some(now);
    }

    /// Whether an address is this host's, of whose interfaces `own` are. A simulated host has no other addresses than its
    /// interface's, and the machine's own are none of its.
    fn is_ours(&self, own: &[IpAddr], address: IpAddr) -> bool {
        address == IpAddr::V4(self.interface.address) || (!cfg!(atm_sim) && own.contains(&address))
    }
}

struct Sizes {
    vips: usize,
    services: usize,
    servers: usize,
}

/// Where servers behind NAT answer from: what they offer, and what they were offered for while connections live on it.
fn nat_servers(state: &State) -> Vec<(IpAddr, Protocol, u16)> {
    let live = state.connections().counts().keys().copied();
    let offered = state.services().keys().flat_map(|service| {
        let servers = state.offered(*service).into_iter();
        servers.map(|(server, _weight)| (*service, server))
    });
    let mut found: Vec<_> = offered
        .chain(live)
        .filter_map(|(service, server)| {
            let service = state.services().get(&service)?;
            let server = state.servers().get(&server)?;
            (server.method == ForwardingMethod::Nat).then_some((
                server.address,
                service.protocol,
                service.port,
            ))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
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
        let last = Last::of(state, index);
        Box::pin(async move { self.take_state(last).await })
    }

    fn tenure(&self, state: &State) -> BoxFuture<'_, ()> {
        let tenure = state.tenure().cloned();
        Box::pin(async move {
            let mut others = self.others.lock().await;
            others.tenure = tenure;
            self.tell_others(&mut others).await;
        })
    }

    fn replaced<'a>(&'a self, state: &State, index: u64) -> BoxFuture<'a, ()> {
        let last = Last::of(state, index);
        let (connections, sticky) = (state.connections().clone(), state.sticky().clone());
        Box::pin(async move {
            if last.state.current().is_none() {
                return;
            }
            self.take_state(last).await;
            if self
                .handle
                .replace_connections(connections.iter().collect(), sticky.iter().collect())
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
    for atm in config.atm_pool.atms.iter().filter(|atm| atm.witness) {
        found.push(format!(
            "ATM {}: witness has no effect yet; it may become active",
            atm.host
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use dataplane::{EngineConfig, LeaseCell, PortKind};
    use dataplane_core::Limits;
    use model::command::{Command, Control, Response};
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

    use super::*;
    use crate::routing::tests::{Host, block_on};

    fn config(method: &str) -> String {
        format!(
            "NetworkMask 255.255.255.0\n\
             NAT\n  Gateway 10.9.0.1\nEndNAT\n\
             Services\n  Service web tcp:80 connect\n  Service dns udp:53 none\nEndServices\n\
             Servers\n  Server far 10.50.0.1 {method}\n  Server near 10.9.0.11 tunnel\nEndServers\n\
             ServerPool Pool\n  AddServer far web/1 dns/1\n  AddServer near web/1\nEndServerPool\n\
             AtmPool ATMs\n  AddAtm 10.9.0.2\nEndAtmPool\n\
             VirtualHost www.my.org\n  Address 10.9.0.100\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n"
        )
    }

    fn apply(state: &mut State, config: &str) {
        let applied = state.apply(Command::Control(Control::ApplyConfig {
            source: config.to_owned(),
            hosts: BTreeMap::new(),
            expected: None,
            by: "10.9.0.2".to_owned(),
        }));
        assert!(matches!(applied, Response::Applied(_)), "{applied:?}");
    }

    #[test]
    fn servers_behind_nat_are_known_by_what_they_answer_from() {
        let mut state = State::default();
        apply(&mut state, &config("tunnel"));
        assert_eq!(nat_servers(&state), []);
        apply(&mut state, &config("nat"));
        let far = IpAddr::from([10, 50, 0, 1]);
        let both = [(far, Protocol::Tcp, 80), (far, Protocol::Udp, 53)];
        assert_eq!(nat_servers(&state), both);
    }

    /// The table is compiled anew from the last state: the engine, a backup, asks for the routers that it is to use.
    #[test]
    fn a_server_behind_a_router_follows_the_kernels_route() {
        let Some(host) = Host::new("a_server_behind_a_router_follows_the_kernels_route") else {
            return;
        };
        host.ip("route add 10.50.0.0/24 via 10.9.0.254\n");
        host.on(|| {
            let cable = cable();
            block_on(async {
                let engine = EngineConfig {
                    interface: "e0".to_owned(),
                    port: PortKind::Ring,
                    address: None,
                    limits: Limits {
                        pending_max: 10,
                        connections_max: 10,
                    },
                };
                let (handle, _events) =
                    dataplane::start(engine, Arc::new(LeaseCell::new())).unwrap();
                let interface = handle.interface().clone();
                let packets = Arc::new(Packets::new(handle, interface, "e0".to_owned()));
                packets.look(None).await;
                let mut state = State::default();
                apply(&mut state, &config("tunnel"));
                packets.table(&state, 1).await;
                // All next hops of a table are asked for in its order: the router's server is the first.
                let mut asked = asked_for(&cable, [10, 9, 0, 11]);
                assert!(asked.contains(&Ipv4Addr::new(10, 9, 0, 254)), "{asked:?}");

                let stop = CancellationToken::new();
                let following = tokio::spawn({
                    let (packets, stop) = (Arc::clone(&packets), stop.clone());
                    async move { packets.follow(stop).await }
                });
                host.ip("route replace 10.50.0.0/24 via 10.9.0.253\n");
                asked = tokio::task::spawn_blocking(move || asked_for(&cable, [10, 9, 0, 253]))
                    .await
                    .unwrap();
                assert!(!asked.contains(&Ipv4Addr::new(10, 50, 0, 1)), "{asked:?}");
                stop.cancel();
                following.await.unwrap();
                packets.unguard().await;
                packets.engine().shutdown().await;
            });
        });
    }

    /// Everything that comes out of the cable.
    fn cable() -> OwnedFd {
        let every = NonZeroU32::new(u32::from(3_u16.to_be())).map(rustix::net::Protocol::from_raw);
        let kind = SocketType::RAW;
        let socket = socket_with(AddressFamily::PACKET, kind, SocketFlags::CLOEXEC, every).unwrap();
        let wait = Some(Duration::from_millis(100));
        set_socket_timeout(&socket, Timeout::Recv, wait).unwrap();
        socket
    }

    /// The targets of ARP requests (RFC 826) up to the first for `router`.
    fn asked_for(cable: &OwnedFd, router: [u8; 4]) -> Vec<Ipv4Addr> {
        let (mut asked, end) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        let mut frame = [0; 2048];
        while Instant::now() < end {
            let Ok((length, _)) = recv(cable, &mut frame[..], RecvFlags::empty()) else {
                continue;
            };
            let frame = &frame[..length];
            if frame.get(12..14) != Some(&[8, 6]) || frame.get(20..22) != Some(&[0, 1]) {
                continue;
            }
            let target: [u8; 4] = frame[38..42].try_into().unwrap();
            asked.push(target.into());
            if target == router {
                return asked;
            }
        }
        panic!("nobody asked for {router:?}, but for {asked:?}");
    }
}
