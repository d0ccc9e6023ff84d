//! Which server each client of a sticky service belongs to, as far as this ATM knows: what the replicated state says, and
//! on the active ATM also what it has just decided.
//!
//! Idle times are local, as they are of connections: only the active ATM says when a client is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::Instant;
use model::ids::ServerId;
use model::sticky::{StickyKey, StickyRules};

use super::Flow;

/// After asking for the end to be recorded, wait this long before asking again: several elections.
const RETRY: Duration = Duration::from_secs(5);

/// The clients.
#[derive(Debug)]
pub(crate) struct Sticky {
    rules: StickyRules,
    /// Asked only for first packets, so an ordered map is quick enough.
    clients: BTreeMap<StickyKey, Client>,
    /// When each client is to be looked at: one entry for each.
    looks: BTreeSet<(Instant, StickyKey)>,
    /// Bound of `clients`.
    max: usize,
    tenure_began: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    server: ServerId,
    /// Its entries in the connection table.
    live: u32,
    /// When the last of them came or went.
    since: Instant,
    /// The replicated state has it.
    recorded: bool,
    look: Instant,
}

/// A client whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) key: StickyKey,
    /// Others know of it.
    pub(crate) recorded: bool,
}

impl Sticky {
    pub(super) fn new(max: usize) -> Self {
        Self {
            rules: StickyRules::default(),
            clients: BTreeMap::new(),
            looks: BTreeSet::new(),
            max,
            tenure_began: Instant::BOOT,
        }
    }

    /// Whether these are its rules already.
    pub(super) fn has_rules(&self, rules: &StickyRules) -> bool {
        self.rules == *rules
    }

    /// Takes the rules of a new table; `flows` are all connections. Clients that do not belong to their server under the new
    /// rules are forgotten, as the replicated state forgets them.
    pub(super) fn set_rules(
        &mut self,
        rules: StickyRules,
        flows: impl Iterator<Item = Flow>,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self.rules, rules);
        let rules = &self.rules;
        self.clients
            .retain(|key, client| rules.keeps(&before, key.service, client.server));
        for client in self.clients.values_mut() {
            client.live = 0;
        }
        for flow in flows {
            if let Some(client) = self
                .rules
                .key(flow.service(), flow.client())
                .and_then(|key| self.clients.get_mut(&key))
            {
                client.live += 1;
            }
        }
        let clients = &self.clients;
        self.looks.retain(|(_, key)| clients.contains_key(key));
        let keys: Vec<_> = self.looks.iter().map(|(_, key)| *key).collect();
        for key in keys {
            self.look_at(key, now);
        }
    }

    /// The server that the client of a new connection belongs to.
    pub(crate) fn server(&self, flow: Flow) -> Option<ServerId> {
        let key = self.rules.key(flow.service(), flow.client())?;
        self.clients.get(&key).map(|client| client.server)
    }

    /// A connection of the client came into the table.
    pub(super) fn came(&mut self, flow: Flow, now: Instant) {
        self.count(flow, now, |live| live + 1);
    }

    /// One went.
    pub(super) fn went(&mut self, flow: Flow, now: Instant) {
        self.count(flow, now, |live| live.saturating_sub(1));
    }

    /// The client belongs to this server from here on. `in_table`: the connection that says so has an entry.
    pub(crate) fn set(
        &mut self,
        flow: Flow,
        server: ServerId,
        recorded: bool,
        in_table: bool,
        now: Instant,
    ) {
        let Some(key) = self.rules.key(flow.service(), flow.client()) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(&key) {
            client.server = server;
            client.recorded |= recorded;
            client.since = now;
        } else if self.clients.len() < self.max {
            let client = Client {
                server,
                live: u32::from(in_table),
                since: now,
                recorded,
                look: now,
            };
            self.clients.insert(key, client);
            self.looks.insert((now, key));
            self.look_at(key, now);
        }
    }

    /// The replicated state has forgotten the client. One that has connections here whose records are on their way stays.
    pub(crate) fn unstick(&mut self, key: StickyKey) {
        match self.clients.get_mut(&key) {
            Some(client) if client.live > 0 => client.recorded = false,
            Some(_) => self.forget(key),
            None => {}
        }
    }

    /// Takes the whole replicated table, after a snapshot.
    pub(super) fn replace(
        &mut self,
        all: impl Iterator<Item = (StickyKey, ServerId)>,
        flows: impl Iterator<Item = Flow>,
        now: Instant,
    ) {
        self.clients.clear();
        self.looks.clear();
        for (key, server) in all.take(self.max) {
            let client = Client {
                server,
                live: 0,
                since: now,
                recorded: true,
                look: now,
            };
            self.clients.insert(key, client);
        }
        for flow in flows {
            if let Some(client) = self
                .rules
                .key(flow.service(), flow.client())
                .and_then(|key| self.clients.get_mut(&key))
            {
                client.live += 1;
            }
        }
        let keys: Vec<_> = self.clients.keys().copied().collect();
        for key in keys {
            self.looks.insert((now, key));
            self.look_at(key, now);
        }
    }

    /// Everybody has the full time again.
    pub(super) const fn begin_tenure(&mut self, now: Instant) {
        self.tenure_began = now;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// The next client whose time is over, at most `budget` looks (counted down). The caller says what becomes of it, by
    /// [`forget`](Self::forget) or [`ask_again`](Self::ask_again); until then it is not told again.
    pub(crate) fn next_due(&mut self, now: Instant, budget: &mut usize) -> Option<Forgotten> {
        while *budget > 0 {
            let (at, key) = *self.looks.first()?;
            if at > now {
                return None;
            }
            *budget -= 1;
            let Some(client) = self.clients.get(&key) else {
                self.looks.remove(&(at, key));
                continue;
            };
            let end = self.end(key, client);
            let busy = client.live > 0;
            let recorded = client.recorded;
            if busy || end > now {
                // A client with connections is looked at again when its time would be over had they just ended.
                let persist = self.persist(key);
                self.schedule(key, if busy { now + persist } else { end });
                continue;
            }
            self.schedule(key, now + RETRY);
            return Some(Forgotten { key, recorded });
        }
        None
    }

    /// Nobody needs to be told.
    pub(crate) fn forget(&mut self, key: StickyKey) {
        if let Some(client) = self.clients.remove(&key) {
            self.looks.remove(&(client.look, key));
        }
    }

    /// Its end was asked for, or cannot be asked for now; it is told again after a while.
    pub(crate) fn ask_again(&mut self, key: StickyKey, after: Duration, now: Instant) {
        self.schedule(key, now + after.max(RETRY));
    }

    /// How long a client of this service keeps its server.
    pub(crate) fn persist(&self, key: StickyKey) -> Duration {
        self.rules
            .get(key.service)
            .map_or(RETRY, |rule| rule.persist)
    }

    /// Clients that are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    fn count(&mut self, flow: Flow, now: Instant, change: impl FnOnce(u32) -> u32) {
        if let Some(client) = self
            .rules
            .key(flow.service(), flow.client())
            .and_then(|key| self.clients.get_mut(&key))
        {
            client.live = change(client.live);
            client.since = now;
        }
    }

    fn end(&self, key: StickyKey, client: &Client) -> Instant {
        client.since.max(self.tenure_began) + self.persist(key)
    }

    fn look_at(&mut self, key: StickyKey, now: Instant) {
        if let Some(client) = self.clients.get(&key) {
            let end = self.end(key, client).max(now);
            self.schedule(key, end);
        }
    }

    fn schedule(&mut self, key: StickyKey, at: Instant) {
        if let Some(client) = self.clients.get_mut(&key) {
            self.looks.remove(&(client.look, key));
            client.look = at;
            self.looks.insert((at, key));
        }
    }
}
