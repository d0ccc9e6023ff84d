//! What is to be checked, how, and how often, as the configuration in force says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{HOST, Subject};
use crate::conf::{Agent, CheckTls, Protocol, ServerPool};
use crate::ids::ServerId;
use crate::state::State;

/// How a subject is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// ICMP echo.
    Ping,
    /// A transaction with a service.
    Agent {
        /// The agent; never [`Agent::None`].
        agent: Agent,
        /// `Check` of its `UserCheck` block, if it has one.
        program: Option<String>,
        /// How the check encrypts; `None`: as the port is assigned.
        tls: Option<CheckTls>,
        /// Of the service.
        protocol: Protocol,
        /// Of the service.
        port: u16,
    },
}

/// One subject's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is done.
    pub check: Check,
    /// With which address.
    pub address: IpAddr,
    /// From the begin of a check to that of the next.
    pub frequency: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Successes in a row that make it up.
    pub rise: u32,
    /// Failures in a row that make it down.
    pub fall: u32,
}

impl Target {
    /// How long an ATM's report about it counts: until one check was missed and the next had its time.
    #[must_use]
    pub fn fresh_for(&self) -> Duration {
        self.frequency * 2 + self.timeout
    }
}

impl State {
    /// Everything that is checked.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<Subject, Target> {
        let servers = self.servers.keys();
        servers.flat_map(|id| self.targets_of(*id)).collect()
    }

    /// What is checked of one server. One in several pools is checked as the first of them says.
    pub(crate) fn targets_of(&self, id: ServerId) -> BTreeMap<Subject, Target> {
        let mut found = BTreeMap::new();
        let known = self.servers.get(&id).filter(|known| known.configured);
        let (Some(known), Some(current)) = (known, &self.current) else {
            return found;
        };
        let config = &current.config;
        let services = self.services_of(id);
        let is_in = |pool: &&ServerPool| {
            let servers = &pool.servers;
            servers.iter().any(|added| added.server == known.name)
        };
        // A fallback need not be in a pool: it is checked as those whose place it takes.
        let offers = |pool: &&ServerPool| {
            let mut offers = pool.servers.iter().flat_map(|added| &added.offers);
            offers.any(|offer| services.contains(&offer.service))
        };
        let pools = &config.server_pools;
        let Some(pool) = pools
            .iter()
            .find(is_in)
            .or_else(|| pools.iter().find(offers))
        else {
            return found;
        };
        let mut servers = config.servers.iter();
        let pings = servers.any(|server| server.name == known.name && !server.noping);
        if pings && !services.is_empty() {
            let target = Target {
                check: Check::Ping,
                address: known.address,
                frequency: pool.check_server_frequency,
                timeout: pool.check_server_timeout,
                rise: pool.rise,
                fall: pool.fall,
            };
            found.insert((id, HOST.to_owned()), target);
        }
        let checked = config
            .services
            .iter()
            .filter(|service| services.contains(&service.name) && service.agent != Agent::None);
        for service in checked {
            let program = match &service.agent {
                Agent::User(name) => {
                    let mut programs = config.user_checks.iter();
                    programs.find(|program| program.name == *name)
                }
                Agent::Http | Agent::Connect | Agent::None => None,
            };
            let target = Target {
                check: Check::Agent {
                    agent: service.agent.clone(),
                    program: program.map(|program| program.check.clone()),
                    tls: service.tls,
                    protocol: service.protocol,
                    port: service.port,
                },
                address: known.address,
                frequency: pool.check_port_frequency,
                timeout: pool.check_port_timeout,
                rise: pool.rise,
                fall: pool.fall,
            };
            found.insert((id, service.name.clone()), target);
        }
        found
    }
}
