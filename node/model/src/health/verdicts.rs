//! Verdicts, and what follows from them and from orders: which server takes new connections.

use std::collections::BTreeSet;

use super::{EventKind, Events, Finding, HOST, Health, Mode, Subject, bounded};
use crate::command::{Refusal, Response};
use crate::conf::{OnDown, ServerPool, Service};
use crate::ids::{Epoch, ServerId, VirtualServiceId};
use crate::state::{ServiceEntry, State};

/// A verdict of the active ATM.
pub(crate) struct Verdict {
    pub(crate) subject: Subject,
    pub(crate) healthy: bool,
    pub(crate) at_ms: u64,
    pub(crate) reason: String,
}

impl State {
    /// What happened.
    pub fn events(&self) -> &Events {
        &self.health.events
    }

    /// Why a subject is down; `None`: it is up.
    pub fn finding(&self, server: ServerId, service: &str) -> Option<Finding> {
        let subject = (server, service.to_owned());
        let down = self.down.contains(&subject);
        down.then(|| {
            self.health
                .findings
                .get(&subject)
                .cloned()
                .unwrap_or_default()
        })
    }

    /// Whether a service of a server passes its checks, and the server its own; what was never checked does.
    pub fn is_healthy(&self, server: ServerId, service: &str) -> bool {
        // Seldom more than a few are down, and looking for them costs no allocation.
        !self
            .down
            .iter()
            .any(|(down, name)| *down == server && (name == service || name == HOST))
    }

    /// Servers that take new connections of a virtual service with their weights, in configuration order. Those of weight 0
    /// take only the ones of sticky clients.
    pub fn share(&self, service: VirtualServiceId) -> Vec<(ServerId, u16)> {
        let Some(entry) = self.services.get(&service) else {
            return Vec::new();
        };
        let mut share: Vec<_> = self
            .offered(service)
            .into_iter()
            .filter_map(|(server, weight)| self.takes(server, &entry.name, weight))
            .collect();
        if share.iter().all(|(_, weight)| *weight == 0)
            && let Some(fallback) = self.fallback(entry)
            && let Some(taken) = self.takes(fallback, &entry.name, 1)
        {
            share.retain(|(server, _)| *server != fallback);
            share.push(taken);
        }
        share
    }

    /// Servers of a virtual service that are down and whose connections are to be reset, sorted.
    pub fn reset(&self, service: VirtualServiceId) -> Vec<ServerId> {
        let (Some(entry), Some(current)) = (self.services.get(&service), &self.current) else {
            return Vec::new();
        };
        let config = &current.config;
        let resets = config
            .services
            .iter()
            .any(|known| known.name == entry.name && known.on_down == OnDown::Reset);
        if !resets {
            return Vec::new();
        }
        let down = self.down.iter();
        let down = down.filter(|(_, name)| *name == entry.name || name == HOST);
        let servers: BTreeSet<ServerId> = down.map(|(server, _)| *server).collect();
        servers.into_iter().collect()
    }

    /// The server that serves when no other does.
    fn fallback(&self, entry: &ServiceEntry) -> Option<ServerId> {
        let config = &self.current.as_ref().filter(|_| entry.configured)?.config;
        let service = config.services.iter().find(|s| s.name == entry.name)?;
        let name = service.fallback.as_deref()?;
        let mut servers = self.servers.iter();
        servers
            .find(|(_, server)| server.configured && server.name == name)
            .map(|(id, _)| *id)
    }

    /// Whether a server takes connections of a service, and with which weight.
    fn takes(&self, server: ServerId, service: &str, weight: u16) -> Option<(ServerId, u16)> {
        if !self.is_healthy(server, service) {
            return None;
        }
        let name = self.servers.get(&server)?.name.as_str();
        let (mode, ordered) = self.ordered(name, service);
        match mode {
            Mode::Enabled => Some((server, ordered.unwrap_or(weight))),
            Mode::Draining { sticky: true } => Some((server, 0)),
            Mode::Draining { sticky: false } | Mode::Disabled => None,
        }
    }

    /// Names of the services that a server offers, or is the fallback of, for any virtual host.
    pub fn services_of(&self, server: ServerId) -> BTreeSet<String> {
        let (Some(known), Some(current)) = (self.servers.get(&server), &self.current) else {
            return BTreeSet::new();
        };
        if !known.configured {
            return BTreeSet::new();
        }
        let config = &current.config;
        let hosts = &config.virtual_hosts;
        let used = |pool: &&ServerPool| {
            let mut added = hosts.iter().flat_map(|host| &host.server_pools);
            added.any(|name| *name == pool.name)
        };
        let added = || {
            let pools = config.server_pools.iter().filter(used);
            pools.flat_map(|pool| &pool.servers)
        };
        let own = added()
            .filter(|added| added.server == known.name)
            .flat_map(|added| &added.offers)
            .map(|offer| offer.service.clone());
        let is_fallback = |service: &&Service| {
            service.fallback.as_ref() == Some(&known.name)
                && added()
                    .flat_map(|added| &added.offers)
                    .any(|offer| offer.service == service.name)
        };
        let fallbacks = config.services.iter().filter(is_fallback);
        own.chain(fallbacks.map(|service| service.name.clone()))
            .collect()
    }

    /// The verdict of an active ATM.
    pub(crate) fn verdict(&mut self, epoch: Epoch, verdict: Verdict) -> Result<Response, Refusal> {
        self.current_tenure(epoch)?;
        let Verdict {
            subject,
            healthy,
            at_ms,
            reason,
        } = verdict;
        let (server, service) = (subject.0, subject.1.clone());
        if !self.targets_of(server).contains_key(&subject) {
            return Err(Refusal::Unknown);
        }
        let services = self.services_of(server);
        let health = |state: &Self| -> Vec<(String, bool)> {
            let healthy = |name: &String| state.is_healthy(server, name);
            let all = services.iter();
            all.map(|name| (name.clone(), healthy(name))).collect()
        };
        let before = health(self);
        if !self.set_down(subject.clone(), !healthy) {
            return Ok(Response::Health(false));
        }
        let reason = bounded(reason);
        let kind = match (service.as_str(), healthy) {
            (HOST, true) => EventKind::ServerUp,
            (HOST, false) => EventKind::ServerDown,
            (_, true) => EventKind::ServiceUp,
            (_, false) => EventKind::ServiceDown,
        };
        let name = self.servers.get(&server).map_or("", |known| &known.name);
        let about = (name, service.as_str());
        self.health.events.add(at_ms, kind, about, reason.clone());
        if !healthy {
            let since_ms = at_ms;
            self.health
                .findings
                .insert(subject, Finding { since_ms, reason });
        }
        for ((name, was), (_, is)) in before.into_iter().zip(health(self)) {
            if was != is {
                self.want_script(server, &name, is, at_ms);
            }
        }
        Ok(Response::Health(true))
    }

    /// A verdict as it was stored before there were reasons and scripts.
    pub(crate) fn set_health(
        &mut self,
        server: ServerId,
        service: String,
        healthy: bool,
    ) -> Result<Response, Refusal> {
        if !self.services_of(server).contains(&service) {
            return Err(Refusal::Unknown);
        }
        let changed = self.set_down((server, service), !healthy);
        Ok(Response::Health(changed))
    }

    fn set_down(&mut self, subject: Subject, down: bool) -> bool {
        if down {
            self.down.insert(subject)
        } else {
            self.health.findings.remove(&subject);
            self.down.remove(&subject)
        }
    }

    /// Verdicts outlive a version only for what the next one still has checked.
    pub(crate) fn drop_stale_verdicts(&mut self) {
        let mut stale = self.down.clone();
        stale.retain(|subject| !self.targets_of(subject.0).contains_key(subject));
        for subject in stale {
            self.set_down(subject, false);
        }
        let Self { down, health, .. } = self;
        let Health { findings, .. } = health;
        findings.retain(|subject, _| down.contains(subject));
    }
}
