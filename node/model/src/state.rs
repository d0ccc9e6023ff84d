//! The replicated state, and the one function that changes it.
//!
//! Invariant: the same commands in the same order give the same bytes ([`State::encode`]) on every ATM (P4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Control, Refusal, Response};
use crate::conf::{self, Config, ForwardingMethod, Host, Protocol, Severity};
use crate::connections::{ConnectionChange, ConnectionKey, ConnectionTable};
use crate::ids::{ConfigNumber, Epoch, NodeId, ServerId, VirtualServiceId};

/// Versions kept for `config show --version`; with files of a few KiB they cost next to nothing in a snapshot.
pub const VERSIONS_MAX: usize = 64;

/// Everything the ATMs agree on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(crate) versions: BTreeMap<ConfigNumber, ConfigVersion>,
    /// The latest version, checked. `None` before the first.
    pub(crate) current: Option<Current>,
    pub(crate) tenure: Option<Tenure>,
    pub(crate) incarnations: BTreeMap<NodeId, String>,
    pub(crate) servers: BTreeMap<ServerId, ServerEntry>,
    pub(crate) services: BTreeMap<VirtualServiceId, ServiceEntry>,
    /// Services of servers that take no new connections; only of those the configuration knows.
    pub(crate) down: BTreeSet<(ServerId, String)>,
    pub(crate) connections: ConnectionTable,
}

/// A committed configuration as it was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigVersion {
    /// The file, comments included.
    pub source: String,
    /// Addresses of the names in it.
    pub hosts: BTreeMap<String, IpAddr>,
    /// The ATM that proposed it.
    pub by: String,
}

/// The version in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    /// Its number.
    pub number: ConfigNumber,
    /// Its content.
    pub config: Arc<Config>,
    /// Addresses of the names in it.
    pub hosts: Arc<BTreeMap<String, IpAddr>>,
}

impl Current {
    /// The address of a host of this version.
    pub fn address(&self, host: &Host) -> Option<IpAddr> {
        match host {
            Host::Address(address) => Some(*address),
            Host::Name(name) => self.hosts.get(name).copied(),
        }
    }
}

/// One ATM's time as the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Its number.
    pub epoch: Epoch,
    /// The ATM.
    pub node: NodeId,
    /// The ATM's name.
    pub name: String,
    /// The Raft term it led.
    pub term: u64,
    /// How long its lease lasts after each acknowledged round.
    pub lease: Duration,
    /// It fell silent in order.
    pub ended: bool,
    /// The longest lease that a tenure before this one may still have held when this one began. It counts until a
    /// tenure ends in order: only that proves that somebody waited it out.
    pub longest_older_lease: Duration,
}

/// A real server, kept while it is configured or has connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerEntry {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// How packets reach it.
    pub method: ForwardingMethod,
    /// It stands in the current configuration.
    pub configured: bool,
}

/// A virtual service, kept while it is configured or has connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// The VIP.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// The service's name in the configuration.
    pub name: String,
    /// The virtual host's name in the configuration.
    pub virtual_host: String,
    /// It stands in the current configuration.
    pub configured: bool,
}

impl State {
    /// Applies one committed command. Total and deterministic; a refused command changes nothing.
    pub fn apply(&mut self, command: Command) -> Response {
        let response = match command {
            Command::Connections { epoch, changes } => self.change_connections(epoch, changes),
            Command::Control(Control::ApplyConfig {
                source,
                hosts,
                expected,
                by,
            }) => self.apply_config(ConfigVersion { source, hosts, by }, expected),
            Command::Control(Control::BeginEpoch {
                node,
                name,
                term,
                lease,
            }) => self.begin_epoch(node, name, term, lease),
            Command::Control(Control::EndEpoch { epoch }) => self.end_epoch(epoch),
            Command::Control(Control::Register { node, incarnation }) => {
                self.register(node, incarnation)
            }
            Command::Control(Control::Forget { node }) => self.forget(node),
            Command::Control(Control::Health {
                server,
                service,
                healthy,
            }) => self.set_health(server, service, healthy),
        };
        debug_assert_eq!(self.violations(), []);
        response.unwrap_or_else(Response::Refused)
    }

    /// The version in force.
    pub fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// The number of the version in force; 0 before the first.
    pub fn config_number(&self) -> ConfigNumber {
        self.current
            .as_ref()
            .map_or(ConfigNumber(0), |current| current.number)
    }

    /// The last [`VERSIONS_MAX`] versions.
    pub fn versions(&self) -> &BTreeMap<ConfigNumber, ConfigVersion> {
        &self.versions
    }

    /// The latest tenure, over or not.
    pub fn tenure(&self) -> Option<&Tenure> {
        self.tenure.as_ref()
    }

    /// Name of the data directory each member is known by.
    pub fn incarnations(&self) -> &BTreeMap<NodeId, String> {
        &self.incarnations
    }

    /// Servers that are configured or have connections.
    pub fn servers(&self) -> &BTreeMap<ServerId, ServerEntry> {
        &self.servers
    }

    /// Virtual services that are configured or have connections.
    pub fn services(&self) -> &BTreeMap<VirtualServiceId, ServiceEntry> {
        &self.services
    }

    /// The connection table.
    pub fn connections(&self) -> &ConnectionTable {
        &self.connections
    }

    /// `NumConnections`, or its default before there is a configuration.
    pub fn connections_max(&self) -> usize {
        self.current.as_ref().map_or(0, |current| {
            current.config.atm_pool.num_connections as usize
        })
    }

    /// Servers that take new connections of a virtual service, with their weights, in configuration order.
    pub fn share(&self, service: VirtualServiceId) -> Vec<(ServerId, u16)> {
        let Some(entry) = self.services.get(&service) else {
            return Vec::new();
        };
        let mut share = self.offered(service);
        share.retain(|(server, _)| self.is_healthy(*server, &entry.name));
        share
    }

    /// Whether a service of a server takes new connections; what was never checked does.
    pub fn is_healthy(&self, server: ServerId, service: &str) -> bool {
        !self
            .down
            .iter()
            .any(|(down, name)| *down == server && name == service)
    }

    /// Servers that offer a virtual service in the current configuration with their weights, in its order.
    pub fn offered(&self, service: VirtualServiceId) -> Vec<(ServerId, u16)> {
        let (Some(entry), Some(current)) = (self.services.get(&service), self.current.as_ref())
        else {
            return Vec::new();
        };
        if !entry.configured {
            return Vec::new();
        }
        let mut share: Vec<(ServerId, u16)> = Vec::new();
        for (server, weight) in offers(current, &entry.virtual_host, &entry.name) {
            let Some(id) = self.server_id(&server) else {
                continue;
            };
            match share.iter_mut().find(|(known, _)| *known == id) {
                // The same server through two pools of one virtual host: its shares add up.
                Some((_, sum)) => *sum = sum.saturating_add(weight),
                None => share.push((id, weight)),
            }
        }
        share
    }

    fn server_id(&self, wanted: &ServerEntry) -> Option<ServerId> {
        self.servers
            .iter()
            .find(|(_, entry)| {
                entry.name == wanted.name
                    && entry.address == wanted.address
                    && entry.method == wanted.method
            })
            .map(|(id, _)| *id)
    }

    fn apply_config(
        &mut self,
        version: ConfigVersion,
        expected: Option<ConfigNumber>,
    ) -> Result<Response, Refusal> {
        let number = self.config_number();
        if let Some(expected) = expected
            && expected != number
        {
            return Err(Refusal::OtherVersion {
                expected,
                current: number,
            });
        }
        let config = check_version(&version)?;
        if let Some(current) = &self.current {
            same_members(&current.config, &config)?;
        }
        let current = Current {
            number: ConfigNumber(number.0 + 1),
            config: Arc::new(config),
            hosts: Arc::new(version.hosts.clone()),
        };
        let servers = renumber(&self.servers, wanted_servers(&current), |id| {
            self.has_connections(|pair| pair.1 == id)
        })?;
        let services = renumber(&self.services, wanted_services(&current), |id| {
            self.has_connections(|pair| pair.0 == id)
        })?;
        let kept = |id: &ServerId| match (self.servers.get(id), servers.get(id)) {
            (Some(old), Some(new)) => old.same(new),
            _ => false,
        };
        self.down.retain(|(server, _)| kept(server));
        self.servers = servers;
        self.services = services;
        self.versions.insert(current.number, version);
        while self.versions.len() > VERSIONS_MAX {
            self.versions.pop_first();
        }
        let number = current.number;
        self.current = Some(current);
        self.down = self.down_that_is_offered();
        Ok(Response::Applied(number))
    }

    /// Verdicts outlive a version only for what the next one still offers.
    fn down_that_is_offered(&self) -> BTreeSet<(ServerId, String)> {
        let offered: BTreeSet<(ServerId, String)> = self
            .services
            .iter()
            .flat_map(|(id, entry)| {
                self.offered(*id)
                    .into_iter()
                    .map(|(server, _)| (server, entry.name.clone()))
            })
            .collect();
        self.down.intersection(&offered).cloned().collect()
    }

    fn has_connections(&self, of: impl Fn(&(VirtualServiceId, ServerId)) -> bool) -> bool {
        self.connections.counts().keys().any(of)
    }

    fn begin_epoch(
        &mut self,
        node: NodeId,
        name: String,
        term: u64,
        lease: Duration,
    ) -> Result<Response, Refusal> {
        let (epoch, longest_older_lease) = match &self.tenure {
            None => (Epoch(1), Duration::ZERO),
            Some(last) if term < last.term => {
                return Err(Refusal::StaleTerm {
                    given: term,
                    current: last.term,
                });
            }
            Some(last) if last.ended => (Epoch(last.epoch.0 + 1), Duration::ZERO),
            Some(last) => (
                Epoch(last.epoch.0 + 1),
                last.lease.max(last.longest_older_lease),
            ),
        };
        self.tenure = Some(Tenure {
            epoch,
            node,
            name,
            term,
            lease,
            ended: false,
            longest_older_lease,
        });
        Ok(Response::EpochBegun {
            epoch,
            longest_older_lease,
        })
    }

    fn end_epoch(&mut self, epoch: Epoch) -> Result<Response, Refusal> {
        let tenure = self.current_tenure(epoch)?;
        tenure.ended = true;
        Ok(Response::EpochEnded)
    }

    fn current_tenure(&mut self, given: Epoch) -> Result<&mut Tenure, Refusal> {
        let current = self.tenure.as_ref().map_or(Epoch(0), |tenure| tenure.epoch);
        self.tenure
            .as_mut()
            .filter(|tenure| tenure.epoch == given && !tenure.ended)
            .ok_or(Refusal::StaleEpoch { given, current })
    }

    fn register(&mut self, node: NodeId, incarnation: String) -> Result<Response, Refusal> {
        match self.incarnations.get(&node) {
            Some(known) if *known != incarnation => Err(Refusal::OtherIncarnation {
                node,
                known: known.clone(),
                given: incarnation,
            }),
            _ => {
                self.incarnations.insert(node, incarnation);
                Ok(Response::Registered)
            }
        }
    }

    fn forget(&mut self, node: NodeId) -> Result<Response, Refusal> {
        match &self.tenure {
            Some(tenure) if tenure.node == node && !tenure.ended => {
                Err(Refusal::Active(tenure.name.clone()))
            }
            _ => Ok(Response::Forgotten(self.incarnations.remove(&node))),
        }
    }

    fn set_health(
        &mut self,
        server: ServerId,
        service: String,
        healthy: bool,
    ) -> Result<Response, Refusal> {
        let known = self.services.iter().any(|(id, entry)| {
            entry.name == service
                && self
                    .offered(*id)
                    .iter()
                    .any(|(offering, _)| *offering == server)
        });
        if !known {
            return Err(Refusal::Unknown);
        }
        let changed = if healthy {
            self.down.remove(&(server, service))
        } else {
            self.down.insert((server, service))
        };
        Ok(Response::Health(changed))
    }

    fn change_connections(
        &mut self,
        epoch: Epoch,
        mut changes: Vec<ConnectionChange>,
    ) -> Result<Response, Refusal> {
        self.current_tenure(epoch)?;
        let mut refused = Vec::new();
        changes.retain(|change| match self.change_connection(change) {
            Ok(()) => true,
            Err(refusal) => {
                refused.push((*change.key(), refusal));
                false
            }
        });
        Ok(Response::Connections {
            accepted: changes,
            refused,
        })
    }

    fn change_connection(&mut self, change: &ConnectionChange) -> Result<(), Refusal> {
        match change {
            ConnectionChange::Open(key, server) => self.open(*key, *server),
            ConnectionChange::Close(key) => {
                // A close that comes twice is a close.
                self.connections.remove(key);
                Ok(())
            }
        }
    }

    fn open(&mut self, key: ConnectionKey, server: ServerId) -> Result<(), Refusal> {
        match self.connections.get(&key) {
            Some(known) if known == server => return Ok(()),
            Some(_) => return Err(Refusal::OtherServer),
            None => {}
        }
        if !self.services.contains_key(&key.service) || !self.servers.contains_key(&server) {
            return Err(Refusal::Unknown);
        }
        if self.connections.len() >= self.connections_max() {
            return Err(Refusal::TableFull);
        }
        self.connections.insert(key, server);
        Ok(())
    }
}

/// Checks a proposed version as `config check` does, with its addresses.
pub(crate) fn check_version(version: &ConfigVersion) -> Result<Config, Refusal> {
    const FILE: &str = "clusterserver.conf";
    let checked = conf::check(FILE, &version.source);
    let mut diagnostics = checked.check_resolved(FILE, &version.source, &version.hosts);
    diagnostics.extend(checked.diagnostics.iter().cloned());
    let errors: Vec<_> = diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .collect();
    match (checked.config, errors.first()) {
        (Some(config), None) => Ok(config),
        (_, first) => Err(Refusal::BadConfig {
            count: errors.len(),
            line: first.map_or(0, |found| found.line),
            first: first.map_or_else(String::new, |found| found.message.clone()),
        }),
    }
}

/// The members of the group stay the same until ATMs can be added and removed.
fn same_members(current: &Config, wanted: &Config) -> Result<(), Refusal> {
    let names = |config: &Config| {
        config
            .atm_pool
            .atms
            .iter()
            .map(|atm| atm.host.to_string())
            .collect::<BTreeSet<_>>()
    };
    let (current, wanted) = (names(current), names(wanted));
    let differences: Vec<_> = current
        .difference(&wanted)
        .map(|name| format!("{name} is missing"))
        .chain(
            wanted
                .difference(&current)
                .map(|name| format!("{name} is new")),
        )
        .collect();
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Refusal::OtherMembers(differences.join(", ")))
    }
}

fn wanted_servers(current: &Current) -> Vec<ServerEntry> {
    current
        .config
        .servers
        .iter()
        .filter_map(|server| server_entry(current, server))
        .collect()
}

fn server_entry(current: &Current, server: &conf::Server) -> Option<ServerEntry> {
    Some(ServerEntry {
        name: server.name.clone(),
        address: current.address(&server.host)?,
        method: server.method,
        configured: true,
    })
}

fn wanted_services(current: &Current) -> Vec<ServiceEntry> {
    let mut wanted = Vec::new();
    for host in &current.config.virtual_hosts {
        let vips: Vec<IpAddr> = if host.addresses.is_empty() {
            current.address(&host.host).into_iter().collect()
        } else {
            host.addresses.clone()
        };
        let name = host.host.to_string();
        for service in &current.config.services {
            if offers(current, &name, &service.name).next().is_none() {
                continue;
            }
            wanted.extend(vips.iter().map(|vip| ServiceEntry {
                vip: *vip,
                protocol: service.protocol,
                port: service.port,
                name: service.name.clone(),
                virtual_host: name.clone(),
                configured: true,
            }));
        }
    }
    wanted
}

/// Servers and weights that offer `service` through the pools of `virtual_host`, in file order.
fn offers<'a>(
    current: &'a Current,
    virtual_host: &'a str,
    service: &'a str,
) -> impl Iterator<Item = (ServerEntry, u16)> + 'a {
    let config = &current.config;
    config
        .virtual_hosts
        .iter()
        .filter(move |host| host.host.to_string() == virtual_host)
        .flat_map(|host| &host.server_pools)
        .filter_map(|pool| config.server_pools.iter().find(|known| known.name == *pool))
        .flat_map(|pool| &pool.servers)
        .flat_map(move |added| {
            let server = config
                .servers
                .iter()
                .find(|server| server.name == added.server);
            added
                .offers
                .iter()
                .filter(move |offer| offer.service == service)
                .filter_map(move |offer| Some((server_entry(current, server?)?, offer.weight)))
        })
}

/// Anything that keeps its number for as long as it is what it is.
trait Numbered: Clone {
    const WHAT: &'static str;
    /// The two are the same thing, in two versions.
    fn same(&self, other: &Self) -> bool;
    fn retire(&mut self);
}

impl Numbered for ServerEntry {
    const WHAT: &'static str = "server";
    fn same(&self, other: &Self) -> bool {
        (&self.name, self.address, self.method) == (&other.name, other.address, other.method)
    }
    fn retire(&mut self) {
        self.configured = false;
    }
}

impl Numbered for ServiceEntry {
    const WHAT: &'static str = "virtual service";
    fn same(&self, other: &Self) -> bool {
        (self.vip, self.protocol, self.port) == (other.vip, other.protocol, other.port)
    }
    fn retire(&mut self) {
        self.configured = false;
    }
}

impl From<u16> for ServerId {
    fn from(raw: u16) -> Self {
        Self(raw)
    }
}

impl From<u16> for VirtualServiceId {
    fn from(raw: u16) -> Self {
        Self(raw)
    }
}

/// The next version's table: what is still wanted keeps its number, what is not stays while it has connections (P8),
/// what is new gets the lowest free number. Numbers of the version before come last: a record or a verdict that was on its
/// way when the version changed must not find another thing under its number.
fn renumber<I, T>(
    old: &BTreeMap<I, T>,
    wanted: Vec<T>,
    in_use: impl Fn(I) -> bool,
) -> Result<BTreeMap<I, T>, Refusal>
where
    I: Copy + Ord + From<u16>,
    T: Numbered,
{
    let mut next = BTreeMap::new();
    for (id, entry) in old {
        if !wanted.iter().any(|new| new.same(entry)) && in_use(*id) {
            let mut entry = entry.clone();
            entry.retire();
            next.insert(*id, entry);
        }
    }
    let mut new = Vec::new();
    for entry in wanted {
        match old.iter().find(|(_, known)| known.same(&entry)) {
            Some((id, _)) => {
                next.insert(*id, entry);
            }
            None => new.push(entry),
        }
    }
    let fresh = (1..=u16::MAX).filter(|id| !old.contains_key(&I::from(*id)));
    let mut numbers = fresh.chain(1..=u16::MAX).map(I::from);
    for entry in new {
        let id = numbers
            .by_ref()
            .find(|id| !next.contains_key(id))
            .ok_or(Refusal::NoNumber(T::WHAT))?;
        next.insert(id, entry);
    }
    Ok(next)
}
