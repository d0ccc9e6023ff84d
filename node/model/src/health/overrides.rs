//! What operators order of servers, kept apart from the file: `atmctl server drain|enable|disable|weight`.
//!
//! An order names a server, or one service of it; the narrower one counts. It lasts until another one, or until the
//! configuration has its server or service no more.

use serde::{Deserialize, Serialize};

use super::{EventKind, HOST};
use crate::command::{Refusal, Response};
use crate::state::State;

/// Whom an order is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OverrideKey {
    /// The server's name in the configuration.
    pub server: String,
    /// The service's, or [`HOST`] for all services of the server.
    pub service: String,
}

/// Whether a server may get connections, by order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It may. Stored where a service is an exception to its server.
    Enabled,
    /// No new connections, but those of sticky clients if so ordered.
    Draining {
        /// Clients that belong to the server still come.
        sticky: bool,
    },
    /// No new connections at all.
    Disabled,
}

/// What is in force of an operator's orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// `None`: as the server, or the file, says.
    pub mode: Option<Mode>,
    /// Instead of the file's weight.
    pub weight: Option<u16>,
    /// The ATM that took the order.
    pub by: String,
    /// When: milliseconds since 1970 by its wall clock.
    pub at_ms: u64,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Ends [`Drain`](Self::Drain) and [`Disable`](Self::Disable).
    Enable,
    /// No new connections, see [`Mode::Draining`].
    Drain {
        /// Clients that belong to the server still come.
        sticky: bool,
    },
    /// No new connections at all.
    Disable,
    /// This weight, or the file's.
    Weight(Option<u16>),
}

impl Order {
    fn words(self) -> String {
        match self {
            Self::Enable => "enable".to_owned(),
            Self::Drain { sticky: true } => "drain, sticky clients stay".to_owned(),
            Self::Drain { sticky: false } => "drain, sticky clients move".to_owned(),
            Self::Disable => "disable".to_owned(),
            Self::Weight(Some(weight)) => format!("weight {weight}"),
            Self::Weight(None) => "weight as in the file".to_owned(),
        }
    }
}

impl State {
    /// What operators ordered, by server and service.
    pub fn overrides(&self) -> &std::collections::BTreeMap<OverrideKey, Override> {
        &self.health.overrides
    }

    /// The mode of one service of a server, and its weight if an operator gave one.
    #[must_use]
    pub fn ordered(&self, server: &str, service: &str) -> (Mode, Option<u16>) {
        let of = |service: &str| {
            self.health.overrides.get(&OverrideKey {
                server: server.to_owned(),
                service: service.to_owned(),
            })
        };
        let both = [of(service), of(HOST)];
        let mut found = both.iter().flatten();
        let mode = found.clone().find_map(|order| order.mode);
        (
            mode.unwrap_or(Mode::Enabled),
            found.find_map(|order| order.weight),
        )
    }

    pub(crate) fn order(
        &mut self,
        key: OverrideKey,
        order: Order,
        by: String,
        at_ms: u64,
    ) -> Result<Response, Refusal> {
        if !self.may_be_ordered(&key) {
            return Err(Refusal::UnknownServer(match key.service.as_str() {
                HOST => key.server,
                service => format!("{} with service {service}", key.server),
            }));
        }
        let before = self.health.overrides.clone();
        if order == Order::Enable && key.service == HOST {
            // Enabled is enabled: orders about single services of it end, too.
            for (other, present) in &mut self.health.overrides {
                if other.server == key.server {
                    present.mode = None;
                }
            }
        } else {
            let of_server = OverrideKey {
                server: key.server.clone(),
                service: HOST.to_owned(),
            };
            let exception = self
                .health
                .overrides
                .get(&of_server)
                .is_some_and(|present| present.mode.is_some());
            let present = self.health.overrides.entry(key.clone()).or_default();
            match order {
                Order::Enable => present.mode = exception.then_some(Mode::Enabled),
                Order::Drain { sticky } => present.mode = Some(Mode::Draining { sticky }),
                Order::Disable => present.mode = Some(Mode::Disabled),
                Order::Weight(weight) => present.weight = weight,
            }
            if self.health.overrides.get(&key) != before.get(&key)
                && let Some(present) = self.health.overrides.get_mut(&key)
            {
                present.by.clone_from(&by);
                present.at_ms = at_ms;
            }
        }
        self.health
            .overrides
            .retain(|_, present| present.mode.is_some() || present.weight.is_some());
        let changed = self.health.overrides != before;
        if changed {
            let text = format!("{}, by {by}", order.words());
            let about = (key.server.as_str(), key.service.as_str());
            self.health
                .events
                .add(at_ms, EventKind::Ordered, about, text);
        }
        Ok(Response::Health(changed))
    }

    /// Orders end with what they are about.
    pub(crate) fn drop_stale_orders(&mut self) {
        let number = self.config_number();
        let stale: Vec<OverrideKey> = self
            .health
            .overrides
            .keys()
            .filter(|key| !self.may_be_ordered(key))
            .cloned()
            .collect();
        for key in stale {
            self.health.overrides.remove(&key);
            let about = (key.server.as_str(), key.service.as_str());
            let text = format!("version {number} has it no more");
            self.health
                .events
                .add(0, EventKind::OrderDropped, about, text);
        }
    }

    /// The configuration has the server, with the service if one is named.
    fn may_be_ordered(&self, key: &OverrideKey) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let config = &current.config;
        let known = config
            .servers
            .iter()
            .any(|server| server.name == key.server);
        let offers = |service: &str| {
            let pools = config.server_pools.iter().flat_map(|pool| &pool.servers);
            let mut offers = pools
                .filter(|added| added.server == key.server)
                .flat_map(|added| &added.offers);
            offers.any(|offer| offer.service == service)
                || config.services.iter().any(|known| {
                    known.name == service && known.fallback.as_deref() == Some(&key.server)
                })
        };
        known && (key.service == HOST || offers(&key.service))
    }
}
