//! Sticky clients: which server the next connection of a client goes to.
//!
//! A client belongs to the server of its latest connection, from that connection's `Open` until `persist=` has passed
//! since its last one, or until the server or the service is gone. Nothing is replicated but what connections say anyway,
//! and the end ([`Unstick`](crate::connections::ConnectionChange::Unstick)).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::conf::{PERSIST_DEFAULT, Service};
use crate::connections::{count_down, wide};
use crate::ids::{ServerId, VirtualServiceId};
use crate::sharded::{Fnv, ShardKey, Sharded};

/// Who is sticky to what: all clients of one service that agree in the leading bits of `mask=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StickyKey {
    /// The virtual service.
    pub service: VirtualServiceId,
    /// The client's address, masked.
    pub client: IpAddr,
}

impl ShardKey for StickyKey {
    fn feed(&self, hash: Fnv) -> Fnv {
        hash.bytes(&self.service.0.to_be_bytes())
            .bytes(&wide(self.client))
    }
}

/// How much of a client's address counts: leading bits, 1 to 128, of an IPv4 address at most 32 (`mask=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientMask(u8);

impl ClientMask {
    /// The mask of a service; by default the whole address counts.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        Self(service.mask.unwrap_or(128))
    }

    /// The address with the bits that do not count set to zero. An IPv4 address in IPv6 form is taken for what it is.
    #[must_use]
    pub fn apply(self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V4(v4) => {
                let dropped = 32_u32.saturating_sub(self.0.into());
                let mask = u32::MAX.checked_shl(dropped).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let dropped = 128_u32.saturating_sub(self.0.into());
                let mask = u128::MAX.checked_shl(dropped).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }
}

/// What the current configuration says about the clients of one sticky virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyRule {
    /// Who counts as one client.
    pub mask: ClientMask,
    /// How long a client keeps its server after its last connection.
    pub persist: Duration,
    /// The servers that a client can belong to: all that offer the service, also with weight 0 and also while down.
    pub servers: BTreeSet<ServerId>,
}

impl StickyRule {
    pub(crate) fn new(service: &Service, servers: BTreeSet<ServerId>) -> Self {
        Self {
            mask: ClientMask::of(service),
            persist: service.persist.unwrap_or(PERSIST_DEFAULT),
            servers,
        }
    }
}

/// The rules of all sticky virtual services, compiled from one version of the configuration. Cloning is one reference
/// count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StickyRules(Arc<BTreeMap<VirtualServiceId, StickyRule>>);

impl StickyRules {
    pub(crate) fn new(rules: BTreeMap<VirtualServiceId, StickyRule>) -> Self {
        Self(Arc::new(rules))
    }

    /// The rule of a service; `None`: it is not sticky.
    #[must_use]
    pub fn get(&self, service: VirtualServiceId) -> Option<&StickyRule> {
        self.0.get(&service)
    }

    /// The entry that a connection of this client sets and follows; `None`: the service is not sticky.
    #[must_use]
    pub fn key(&self, service: VirtualServiceId, client: IpAddr) -> Option<StickyKey> {
        let client = self.get(service)?.mask.apply(client);
        Some(StickyKey { service, client })
    }

    /// Whether a client of this service can belong to this server.
    #[must_use]
    pub fn allows(&self, service: VirtualServiceId, server: ServerId) -> bool {
        self.get(service)
            .is_some_and(|rule| rule.servers.contains(&server))
    }

    /// Whether clients that belong to this server under the rules `before` still do under these: the service is still
    /// sticky by the same mask, and the server still offers it.
    #[must_use]
    pub fn keeps(&self, before: &Self, service: VirtualServiceId, server: ServerId) -> bool {
        let mask = |rules: &Self| rules.get(service).map(|rule| rule.mask);
        self.allows(service, server) && mask(self) == mask(before)
    }
}

/// The replicated table of sticky clients. Cloning is cheap, as it is of the connection table.
#[derive(Clone, Debug, Default)]
pub struct StickyTable {
    servers: Sharded<StickyKey, ServerId>,
    /// Clients by service and server; no zero entries.
    counts: BTreeMap<(VirtualServiceId, ServerId), u64>,
}

impl StickyTable {
    /// Number of clients that belong to a server.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The server a client belongs to.
    pub fn get(&self, key: &StickyKey) -> Option<ServerId> {
        self.servers.get(key)
    }

    /// All of them, in an order that depends on their keys alone.
    pub fn iter(&self) -> impl Iterator<Item = (StickyKey, ServerId)> + '_ {
        self.servers.iter()
    }

    /// Clients by service and server.
    pub fn counts(&self) -> &BTreeMap<(VirtualServiceId, ServerId), u64> {
        &self.counts
    }

    /// The client belongs to this server from here on.
    pub(crate) fn set(&mut self, key: StickyKey, server: ServerId) {
        if let Some(old) = self.servers.insert(key, server) {
            count_down(&mut self.counts, (key.service, old));
        }
        *self.counts.entry((key.service, server)).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, key: &StickyKey) {
        if let Some(server) = self.servers.remove(key) {
            count_down(&mut self.counts, (key.service, server));
        }
    }

    /// Keeps the clients of these pairs of service and server, and walks over them only if another is there.
    pub(crate) fn retain(&mut self, keep: impl Fn(VirtualServiceId, ServerId) -> bool) {
        let all = self.counts.len();
        self.counts
            .retain(|(service, server), _| keep(*service, *server));
        if self.counts.len() < all {
            self.servers.retain(|key, server| keep(key.service, server));
        }
    }
}

impl PartialEq for StickyTable {
    fn eq(&self, other: &Self) -> bool {
        self.servers == other.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cut_addresses() {
        for (bits, client, masked) in [
            (24, "192.0.2.77", "192.0.2.0"),
            (32, "192.0.2.77", "192.0.2.77"),
            (128, "192.0.2.77", "192.0.2.77"),
            (64, "192.0.2.77", "192.0.2.77"),
            (1, "192.0.2.77", "128.0.0.0"),
            (64, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            (24, "2001:db8::1", "2001:d00::"),
            (1, "8001::1", "8000::"),
            (128, "2001:db8::1", "2001:db8::1"),
            (24, "::ffff:192.0.2.77", "192.0.2.0"),
            (0, "192.0.2.77", "0.0.0.0"),
            (0, "2001:db8::1", "::"),
        ] {
            let found = ClientMask(bits).apply(client.parse().unwrap());
            assert_eq!(found, masked.parse::<IpAddr>().unwrap(), "{client}/{bits}");
            assert_eq!(
                ClientMask(bits).apply(found),
                found,
                "{client}/{bits} twice"
            );
        }
    }

    #[test]
    fn the_latest_server_counts() {
        let key = |last| StickyKey {
            service: VirtualServiceId(1),
            client: [192, 0, 2, last].into(),
        };
        let pair = |server| (VirtualServiceId(1), ServerId(server));
        let mut table = StickyTable::default();
        table.set(key(1), ServerId(1));
        table.set(key(2), ServerId(1));
        let before = table.clone();
        table.set(key(1), ServerId(2));
        assert_eq!((table.len(), table.get(&key(1))), (2, Some(ServerId(2))));
        assert_eq!(
            table.counts(),
            &BTreeMap::from([(pair(1), 1), (pair(2), 1)])
        );
        table.retain(|_, server| server == ServerId(1));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(key(2), ServerId(1))]);
        table.remove(&key(2));
        table.remove(&key(2));
        assert!(table.is_empty() && table.counts().is_empty());
        assert_eq!(before.counts(), &BTreeMap::from([(pair(1), 2)]));
    }
}
