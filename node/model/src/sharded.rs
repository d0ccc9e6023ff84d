//! A map in shards: clones share them until one of the clones changes one.
//!
//! Invariant: the order of iteration depends on the keys alone, the same on every machine (P4).

use std::collections::BTreeMap;
use std::sync::Arc;

/// Shards of a map; a power of two. With a million entries each holds some 250: small to copy when a
/// snapshot shares it, and few enough that cloning the map is 4096 reference counts.
const SHARDS: usize = 4096;

/// A key that says which of its bytes tell in which shard it is. Not [`std::hash::Hash`], whose bytes differ from
/// machine to machine.
pub(crate) trait ShardKey: Copy + Ord {
    fn feed(&self, hash: Fnv) -> Fnv;
}

/// FNV-1a, 32 bits.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u32);

impl Fnv {
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        }))
    }
}

/// The map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sharded<K, V> {
    shards: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS],
            len: 0,
        }
    }
}

impl<K: ShardKey, V: Copy> Sharded<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.shards[shard(key)].get(key).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> + '_ {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter().map(|(key, value)| (*key, *value)))
    }

    /// Returns what the key had before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = Arc::make_mut(&mut self.shards[shard(&key)]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Returns what the key had.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = &mut self.shards[shard(key)];
        if !slot.contains_key(key) {
            // Nothing changes, so nothing is copied.
            return None;
        }
        let old = Arc::make_mut(slot).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Removes what is not to be kept; shards that keep everything stay shared.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, V) -> bool) {
        for slot in &mut self.shards {
            if slot.iter().all(|(key, value)| keep(key, *value)) {
                continue;
            }
            let slot = Arc::make_mut(slot);
            let before = slot.len();
            slot.retain(|key, value| keep(key, *value));
            self.len -= before - slot.len();
        }
    }
}

fn shard<K: ShardKey>(key: &K) -> usize {
    let Fnv(hash) = key.feed(Fnv(0x811c_9dc5));
    // The upper half is mixed in: FNV's low bits alone spread addresses poorly.
    (hash ^ (hash >> 16)) as usize & (SHARDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::ConnectionKey;
    use crate::ids::VirtualServiceId;

    impl ShardKey for u16 {
        fn feed(&self, hash: Fnv) -> Fnv {
            hash.bytes(&self.to_be_bytes())
        }
    }

    #[test]
    fn it_is_a_map() {
        let mut map = Sharded::default();
        let mut known = BTreeMap::new();
        for step in 0..20_000_u32 {
            let key = u16::try_from(step * 7919 % 3001).unwrap();
            if step % 3 == 0 {
                assert_eq!(map.remove(&key), known.remove(&key));
            } else {
                assert_eq!(map.insert(key, step), known.insert(key, step));
            }
            assert_eq!(map.get(&key), known.get(&key).copied());
        }
        let shared = map.clone();
        map.retain(|key, _| key % 5 == 0);
        known.retain(|key, _| key % 5 == 0);
        assert_eq!(map.len(), known.len());
        assert_eq!(map.iter().collect::<BTreeMap<_, _>>(), known);
        assert!(shared.len() > map.len());
        assert_eq!(shared.iter().count(), shared.len());
    }

    #[test]
    fn shards_are_used_evenly() {
        let mut map = Sharded::default();
        for port in 0..40_960 {
            let key = ConnectionKey {
                client: [192, 0, 2, 7].into(),
                port,
                service: VirtualServiceId(1),
            };
            map.insert(key, ());
        }
        let fullest = map.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(fullest < 60, "{fullest} of 40960 in one of 4096 shards");
    }
}
