//! Where in a file each part of a checked configuration stands. Kept beside it, since most have no file.

use std::ops::Range;

/// A part of a [`Config`](super::Config), by its indices there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The file as a whole.
    File,
    /// `nat`.
    Nat,
    /// `user_checks[.0]`: its name.
    UserCheck(usize),
    /// `services[.0]`: its name.
    Service(usize),
    /// `services[.0]`: its agent.
    ServiceAgent(usize),
    /// `services[.0]`: its `tls=`.
    ServiceTls(usize),
    /// `services[.0]`: its fallback.
    ServiceFallback(usize),
    /// `servers[.0]`: its name.
    Server(usize),
    /// `servers[.0]`: its host.
    ServerHost(usize),
    /// `servers[.0]`: its forwarding method.
    ServerMethod(usize),
    /// `servers[.0]`: its source address.
    ServerSource(usize),
    /// `server_pools[.0]`: its name.
    ServerPool(usize),
    /// `server_pools[.0].servers[.1]`: the server's name.
    AddServer(usize, usize),
    /// `server_pools[.0].servers[.1].offers[.2]`.
    Offer(usize, usize, usize),
    /// `atm_pool`: its name.
    AtmPool,
    /// `atm_pool.atms[.0]`: its host.
    Atm(usize),
    /// `virtual_hosts[.0]`: its host.
    VirtualHost(usize),
    /// `virtual_hosts[.0].addresses[.1]`.
    Address(usize, usize),
    /// `virtual_hosts[.0].atm_pool`.
    AddAtmPool(usize),
    /// `virtual_hosts[.0].server_pools[.1]`.
    AddServerPool(usize, usize),
}

type Span = Range<usize>;

/// Spans of the parts of one configuration, in the file it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub(super) nat: Span,
    pub(super) user_checks: Vec<Span>,
    pub(super) services: Vec<ServicePlaces>,
    pub(super) servers: Vec<ServerPlaces>,
    pub(super) server_pools: Vec<PoolPlaces>,
    pub(super) atm_pool: Span,
    pub(super) atms: Vec<Span>,
    pub(super) virtual_hosts: Vec<VirtualHostPlaces>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServicePlaces {
    pub(super) name: Span,
    pub(super) agent: Span,
    pub(super) tls: Span,
    pub(super) fallback: Span,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerPlaces {
    pub(super) name: Span,
    pub(super) host: Span,
    pub(super) method: Span,
    pub(super) source: Span,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolPlaces {
    pub(super) name: Span,
    pub(super) servers: Vec<AddServerPlaces>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddServerPlaces {
    pub(super) server: Span,
    pub(super) offers: Vec<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VirtualHostPlaces {
    pub(super) host: Span,
    pub(super) addresses: Vec<Span>,
    pub(super) atm_pool: Span,
    pub(super) server_pools: Vec<Span>,
}

impl Places {
    /// Bytes of the text of a part; empty, at the beginning of the file, for what the file does not have.
    #[must_use]
    pub fn span(&self, subject: Subject) -> Range<usize> {
        self.find(subject).cloned().unwrap_or_default()
    }

    fn find(&self, subject: Subject) -> Option<&Span> {
        let add_server =
            |pool: usize, server: usize| self.server_pools.get(pool)?.servers.get(server);
        match subject {
            Subject::File => None,
            Subject::Nat => Some(&self.nat),
            Subject::UserCheck(i) => self.user_checks.get(i),
            Subject::Service(i) => Some(&self.services.get(i)?.name),
            Subject::ServiceAgent(i) => Some(&self.services.get(i)?.agent),
            Subject::ServiceTls(i) => Some(&self.services.get(i)?.tls),
            Subject::ServiceFallback(i) => Some(&self.services.get(i)?.fallback),
            Subject::Server(i) => Some(&self.servers.get(i)?.name),
            Subject::ServerHost(i) => Some(&self.servers.get(i)?.host),
            Subject::ServerMethod(i) => Some(&self.servers.get(i)?.method),
            Subject::ServerSource(i) => Some(&self.servers.get(i)?.source),
            Subject::ServerPool(i) => Some(&self.server_pools.get(i)?.name),
            Subject::AddServer(pool, server) => Some(&add_server(pool, server)?.server),
            Subject::Offer(pool, server, offer) => add_server(pool, server)?.offers.get(offer),
            Subject::AtmPool => Some(&self.atm_pool),
            Subject::Atm(i) => self.atms.get(i),
            Subject::VirtualHost(i) => Some(&self.virtual_hosts.get(i)?.host),
            Subject::Address(host, i) => self.virtual_hosts.get(host)?.addresses.get(i),
            Subject::AddAtmPool(i) => Some(&self.virtual_hosts.get(i)?.atm_pool),
            Subject::AddServerPool(host, i) => self.virtual_hosts.get(host)?.server_pools.get(i),
        }
    }
}
