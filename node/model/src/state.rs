//! The replicated state, and the one function that changes it.
//!
//! Invariant: the same commands in the same order give the same bytes ([`State::encode`]) on every ATM (P4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Control, Refusal, Response};
use crate::conf::{Config, ForwardingMethod, Host, Protocol, Service};
use crate::connections::ConnectionTable;
use crate::health::{EventKind, Health, Subject, Verdict};
use crate::ids::{ConfigNumber, Epoch, NodeId, ServerId, VirtualServiceId};
use crate::numbering::{Numbered, keeps_number, renumber};
use crate::source_ports::SourcePorts;
use crate::sticky::{StickyKey, StickyRule, StickyRules, StickyTable};
use crate::version::{check_version, offers, same_members, wanted_servers, wanted_services};

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
    /// What fails its checks; only of what the configuration knows.
    pub(crate) down: BTreeSet<Subject>,
    pub(crate) health: Health,
    pub(crate) connections: ConnectionTable,
    /// Derived from the connections.
    pub(crate) source_ports: SourcePorts,
    pub(crate) sticky: StickyTable,
    /// Derived from the latest version and the numbers it gave.
    pub(crate) sticky_rules: StickyRules,
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
        host.address(&self.hosts)
    }

    /// How packets reach the server at `address` whose line says `method`, in this version.
    pub fn reached_by(&self, method: ForwardingMethod, address: IpAddr) -> ForwardingMethod {
        self.config.reached_by(method, address, &self.hosts)
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
    /// Where packets to it come from, with full NAT; such a server's connections have a source port.
    pub source: Option<IpAddr>,
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
            Command::Connections { epoch, changes } => {
                self.change_connections(epoch, changes, true)
            }
            Command::ConnectionsBeforeSticky { epoch, changes } => {
                self.change_connections(epoch, changes, false)
            }
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
            Command::Control(Control::Verdict {
                epoch,
                subject,
                healthy,
                at_ms,
                reason,
            }) => self.verdict(
                epoch,
                Verdict {
                    subject,
                    healthy,
                    at_ms,
                    reason,
                },
            ),
            Command::Control(Control::Order {
                key,
                order,
                by,
                at_ms,
            }) => self.order(key, order, by, at_ms),
            Command::Control(Control::Script {
                epoch,
                run,
                step,
                at_ms,
            }) => self.script(epoch, run, step, at_ms),
            Command::Control(Control::Active { epoch, at_ms }) => self.active(epoch, at_ms),
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

    /// What forwarding needs of it besides connections, to be kept: without them and without the texts of versions. Holding
    /// a whole clone would make each part of the connection table be copied when it next changes.
    #[must_use]
    pub fn for_forwarding(&self) -> Self {
        Self {
            versions: BTreeMap::new(),
            connections: ConnectionTable::default(),
            current: self.current.clone(),
            tenure: self.tenure.clone(),
            incarnations: self.incarnations.clone(),
            servers: self.servers.clone(),
            services: self.services.clone(),
            down: self.down.clone(),
            health: self.health.for_forwarding(),
            source_ports: Default::default(),
            sticky: StickyTable::default(),
            sticky_rules: self.sticky_rules.clone(),
        }
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

    /// The five-tuples that full NAT has given out.
    pub fn source_ports(&self) -> &SourcePorts {
        &self.source_ports
    }

    /// The servers that clients of sticky services belong to. Their entries keep no server in [`servers`](Self::servers).
    pub fn sticky(&self) -> &StickyTable {
        &self.sticky
    }

    /// What the current version says about sticky clients.
    pub fn sticky_rules(&self) -> &StickyRules {
        &self.sticky_rules
    }

    /// The sticky entry of a client of a service; `None`: the service is not sticky.
    pub fn sticky_key(&self, service: VirtualServiceId, client: IpAddr) -> Option<StickyKey> {
        self.sticky_rules.key(service, client)
    }

    /// `NumConnections`, or its default before there is a configuration.
    pub fn connections_max(&self) -> usize {
        self.current.as_ref().map_or(0, |current| {
            current.config.atm_pool.num_connections as usize
        })
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
        let configured = self.servers.iter().filter(|(_, entry)| entry.configured);
        let ids: BTreeMap<&str, (ServerId, &ServerEntry)> = configured
            .map(|(id, entry)| (entry.name.as_str(), (*id, entry)))
            .collect();
        let mut share: Vec<(ServerId, u16)> = Vec::new();
        let mut places: BTreeMap<ServerId, usize> = BTreeMap::new();
        for (server, weight) in offers(current, &entry.virtual_host, &entry.name) {
            let known = ids.get(server.name.as_str());
            let Some((id, _)) = known.filter(|(_, known)| known.same(&server)) else {
                continue;
            };
            let place = *places.entry(*id).or_insert(share.len());
            match share.get_mut(place) {
                // The same server through two pools of one virtual host: its shares add up.
                Some((_, sum)) => *sum = sum.saturating_add(weight),
                None => share.push((*id, weight)),
            }
        }
        share
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
        self.down
            .retain(|(server, _)| keeps_number(&self.servers, &servers, *server));
        self.sticky.retain(|service, server| {
            keeps_number(&self.services, &services, service)
                && keeps_number(&self.servers, &servers, server)
        });
        self.servers = servers;
        self.services = services;
        self.versions.insert(current.number, version);
        while self.versions.len() > VERSIONS_MAX {
            self.versions.pop_first();
        }
        let number = current.number;
        self.current = Some(current);
        self.drop_stale_verdicts();
        self.drop_stale_orders();
        let before = std::mem::take(&mut self.sticky_rules);
        let rules = self.compile_sticky_rules();
        self.sticky
            .retain(|service, server| rules.keeps(&before, service, server));
        self.sticky_rules = rules;
        Ok(Response::Applied(number))
    }

    /// The rules of the current version for the sticky services it has.
    pub(crate) fn compile_sticky_rules(&self) -> StickyRules {
        let Some(current) = self.current.as_ref() else {
            return StickyRules::default();
        };
        let sticky: BTreeMap<&str, &Service> = current
            .config
            .services
            .iter()
            .filter(|service| service.sticky)
            .map(|service| (service.name.as_str(), service))
            .collect();
        let configured = self.services.iter().filter(|(_, entry)| entry.configured);
        let rules = configured.filter_map(|(id, entry)| {
            let service = sticky.get(entry.name.as_str())?;
            let offered = self.offered(*id).into_iter();
            let servers = offered.map(|(server, _)| server).collect();
            Some((*id, StickyRule::new(service, servers)))
        });
        StickyRules::new(rules.collect())
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

    pub(crate) fn current_tenure(&mut self, given: Epoch) -> Result<&mut Tenure, Refusal> {
        let current = self.tenure.as_ref().map_or(Epoch(0), |tenure| tenure.epoch);
        self.tenure
            .as_mut()
            .filter(|tenure| tenure.epoch == given && !tenure.ended)
            .ok_or(Refusal::StaleEpoch { given, current })
    }

    /// The ATM of this tenure speaks from now on.
    fn active(&mut self, epoch: Epoch, at_ms: u64) -> Result<Response, Refusal> {
        let name = self.current_tenure(epoch)?.name.clone();
        let text = format!("{name}, epoch {epoch}");
        self.health
            .events
            .add(at_ms, EventKind::Active, ("", ""), text);
        Ok(Response::Noted(true))
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
}
