//! Maglev's lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! §3.4): a client's hash is a place in it, and the server there is the pick. When servers come and go, few places that
//! could stay change hands.
//!
//! A table depends on nothing but the servers' numbers and weights, so all ATMs have the same one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use model::ids::ServerId;

use super::hash;

/// Places of a table: the smaller of the two primes of the paper (§5.3), far more than there are servers in one pool, so
/// that shares are exact to 1/65537. One more than there are numbers of servers: each weight gets its place.
const PLACES: u32 = 65_537;

/// Streams of the hash: where a server's walk begins, and its step.
const OFFSET: u64 = 1;
const SKIP: u64 = 2;

/// Server and weight: 1..=65535, in the order of the numbers.
type Share = [(ServerId, u16)];

/// One table: 128 KiB, shared by all services with the same servers and weights.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    share: Arc<Share>,
    /// Empty when there is no server; else `PLACES` of them.
    places: Arc<[ServerId]>,
}

impl Lookup {
    fn new(share: Arc<Share>) -> Self {
        Self {
            places: fill(&share),
            share,
        }
    }

    /// The server of a hash; `None` when none has a weight.
    pub(super) fn pick(&self, hash: u64) -> Option<ServerId> {
        self.places.get(hash::below(hash, PLACES) as usize).copied()
    }
}

/// The tables of one forwarding table: one for each set of servers and weights that a service has. Those of the
/// forwarding table before are taken over, for filling one takes milliseconds, and meanwhile no frame is forwarded.
#[derive(Debug, Default)]
pub(crate) struct Tables(BTreeMap<Arc<Share>, Lookup>);

impl Tables {
    pub(super) fn keep(&mut self, lookup: &Lookup) {
        self.0.insert(Arc::clone(&lookup.share), lookup.clone());
    }

    /// The table over the servers that have a weight.
    pub(super) fn get(&mut self, share: &Share) -> Lookup {
        let mut share: Vec<_> = share.iter().copied().filter(|&(_, w)| w > 0).collect();
        share.sort_unstable();
        let share: Arc<Share> = share.into();
        self.0
            .entry(Arc::clone(&share))
            .or_insert_with(|| Lookup::new(share))
            .clone()
    }
}

/// Has the servers take places by turns, each its next free one on its own walk over all places (the paper's
/// "Pseudocode 1"). With weights the turns are those of the method of Webster and Sainte-Laguë: next is who has most
/// weight per (places + 1/2), after everybody has one. Such a division of places has no paradox: when a server leaves, no other one
/// loses a place by count.
///
/// At worst each server walks over all places once; on average all walks together are `PLACES x ln PLACES`, 730,000
/// steps. Measured (optimised): 1 ms for 3 servers, 2 ms for 10, 3 ms for 100, 4 ms for 1000, 6 ms for 10,000.
fn fill(share: &Share) -> Arc<[ServerId]> {
    let mut turns: BinaryHeap<Turn> = share.iter().copied().map(Turn::new).collect();
    let mut places = vec![ServerId(0); PLACES as usize];
    // A bit for each place that is taken: 8 KiB, which stay in the processor's first cache while the walks jump about.
    let mut taken = vec![0_u64; places.len().div_ceil(64)];
    for _ in 0..PLACES {
        let Some(mut turn) = turns.peek_mut() else {
            return Arc::new([]);
        };
        while taken[turn.at as usize / 64] & 1 << (turn.at % 64) != 0 {
            turn.step();
        }
        taken[turn.at as usize / 64] |= 1 << (turn.at % 64);
        places[turn.at as usize] = turn.server;
        turn.places += 1;
    }
    places.into()
}

/// A server's walk, and its claim to the next turn.
#[derive(Debug)]
struct Turn {
    server: ServerId,
    weight: u64,
    /// Places that it has.
    places: u64,
    /// Where it looks next, below `PLACES`.
    at: u32,
    /// `1..PLACES`: as `PLACES` is prime, every step leads over all places.
    skip: u32,
}

impl Turn {
    fn new((server, weight): (ServerId, u16)) -> Self {
        let id = u64::from(server.0);
        Self {
            server,
            weight: u64::from(weight),
            places: 0,
            at: hash::below(hash::word(OFFSET, id), PLACES),
            skip: 1 + hash::below(hash::word(SKIP, id), PLACES - 1),
        }
    }

    const fn step(&mut self) {
        self.at += self.skip;
        if self.at >= PLACES {
            self.at -= PLACES;
        }
    }

    /// Twice what its weight is divided by; 0 makes its claim infinite.
    const fn divisor(&self) -> u64 {
        if self.places == 0 {
            0
        } else {
            2 * self.places + 1
        }
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (self.weight * other.divisor(), other.weight * self.divisor());
        ours.cmp(&theirs)
            .then_with(|| other.server.cmp(&self.server))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(weights: &[u16]) -> Vec<(ServerId, u16)> {
        (1..).map(ServerId).zip(weights.iter().copied()).collect()
    }

    fn lookup(share: &Share) -> Lookup {
        Tables::default().get(share)
    }

    fn places(lookup: &Lookup, server: ServerId) -> u64 {
        lookup.places.iter().filter(|&&at| at == server).count() as u64
    }

    /// Places that change hands although their server is in both tables, in 1/10,000 of all.
    fn needlessly_moved(before: &Lookup, after: &Lookup) -> usize {
        let in_both = |server: &ServerId| {
            let has = |lookup: &Lookup| lookup.share.iter().any(|(known, _)| known == server);
            has(before) && has(after)
        };
        let moved = before
            .places
            .iter()
            .zip(after.places.iter())
            .filter(|(old, new)| old != new && in_both(old) && in_both(new))
            .count();
        moved * 10_000 / PLACES as usize
    }

    #[test]
    fn nobody_with_a_weight_means_nobody() {
        assert_eq!(lookup(&[]).pick(7), None);
        assert_eq!(lookup(&share(&[0, 0])).pick(7), None);
    }

    #[test]
    fn one_server_has_all_places() {
        let lookup = lookup(&share(&[0, 3]));
        assert_eq!(places(&lookup, ServerId(2)), u64::from(PLACES));
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter() {
        let mut turned = share(&[5, 3, 0, 9]);
        turned.reverse();
        assert_eq!(lookup(&turned).places, lookup(&share(&[5, 3, 0, 9])).places);
    }

    /// Two ATMs of different versions have the same table.
    #[test]
    fn stays_what_it_is() {
        let lookup = lookup(&share(&[5, 3, 1]));
        let digest = lookup
            .places
            .iter()
            .fold(0, |digest, server| hash::word(digest, u64::from(server.0)));
        assert_eq!(digest, 16_704_283_471_927_964_433);
    }

    #[test]
    fn the_lightest_of_many_has_a_place() {
        let mut weights = vec![u16::MAX; 999];
        weights.push(1);
        let lookup = lookup(&share(&weights));
        assert_eq!(places(&lookup, ServerId(1000)), 1);
    }

    #[test]
    fn as_many_servers_as_there_are_numbers_have_a_place_each() {
        let lookup = lookup(
            &(0..=u16::MAX)
                .map(|id| (ServerId(id), 1))
                .collect::<Vec<_>>(),
        );
        let mut seen: Vec<ServerId> = lookup.places.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 65_536);
    }

    #[test]
    fn a_server_that_leaves_or_joins_moves_little_else() {
        for (name, weights, bound) in [
            ("two", vec![1; 2], 1),
            ("three", vec![1; 3], 10),
            ("ten", vec![1; 10], 50),
            ("hundred", vec![1; 100], 100),
            ("three, weighted", vec![50, 30, 20], 10),
            ("ten, weighted", vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 50),
            ("one heavy", vec![1000, 1, 1, 1, 1], 10),
        ] {
            let all = share(&weights);
            let full = lookup(&all);
            let mut most = 0;
            for gone in 0..all.len() {
                let mut rest = all.clone();
                rest.remove(gone);
                let rest = lookup(&rest);
                most = most.max(needlessly_moved(&full, &rest));
                // Coming back undoes exactly what leaving did, for a table has no history.
                assert_eq!(
                    needlessly_moved(&rest, &full),
                    needlessly_moved(&full, &rest)
                );
            }
            assert!(most <= bound, "{name}: {most} of 10,000 places moved");
        }
    }

    #[test]
    fn the_same_servers_and_weights_are_one_table() {
        let mut tables = Tables::default();
        let one = tables.get(&share(&[5, 3, 0]));
        let two = tables.get(&share(&[5, 3]));
        assert!(Arc::ptr_eq(&one.places, &two.places));
        let mut next = Tables::default();
        next.keep(&two);
        assert!(Arc::ptr_eq(&next.get(&share(&[5, 3])).places, &one.places));
        assert!(!Arc::ptr_eq(&next.get(&share(&[5, 2])).places, &one.places));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Places are the weights' share, rounded, but for what the lightest ones get beyond theirs.
        #[test]
        fn places_are_as_the_weights(weights in proptest::collection::vec(prop_oneof![0u16..20, any::<u16>()], 1..40)) {
            let share = share(&weights);
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            prop_assume!(total > 0);
            let lookup = lookup(&share);
            for (server, weight) in share {
                let has = places(&lookup, server);
                let due = u64::from(weight) * u64::from(PLACES) / total;
                prop_assert_eq!(has == 0, weight == 0);
                prop_assert!(has.abs_diff(due) <= 1 + weights.len() as u64, "{} has {}, due {}", server, has, due);
            }
        }

        /// No paradox: who stays has at least as many places as before.
        #[test]
        fn nobody_loses_by_another_ones_leaving(weights in proptest::collection::vec(1u16.., 2..20)) {
            let all = share(&weights);
            let (before, after) = (lookup(&all), lookup(&all[1..]));
            for &(server, _) in &all[1..] {
                prop_assert!(places(&after, server) >= places(&before, server));
            }
        }
    }
}
