//! Weighted least connections: the server with the fewest live connections per weight, as IPVS has it
//! (`ip_vs_wlc_schedule`), compared crosswise and so without fractions.
//!
//! Two deviations. Every live connection counts as one; IPVS counts one that is not established as 1/256, so that a server
//! which refuses everything draws everything. And of several equals IPVS takes the first, so that a service with little
//! traffic has one server; here they take turns by weight.

use model::ids::ServerId;

use super::wrr::Wrr;

/// Whose turn it is among equals.
#[derive(Debug)]
pub(crate) struct Wlc {
    turns: Wrr,
}

impl Wlc {
    /// Over the servers with a weight; those that `previous` knew keep their place in the turns.
    pub(super) fn new(share: &[(ServerId, u16)], previous: Option<&Self>) -> Self {
        Self {
            turns: Wrr::new(share, previous.map(|wlc| &wlc.turns)),
        }
    }

    /// The next server; `None` when none has a weight. `load`: live connections.
    pub(super) fn pick(&mut self, load: impl Fn(ServerId) -> u32) -> Option<ServerId> {
        let load = |server, weight| Load {
            connections: i64::from(load(server)),
            weight,
        };
        let least = self
            .turns
            .weights()
            .map(|(server, weight)| load(server, weight))
            .reduce(|least, other| if other.is_less(least) { other } else { least })?;
        self.turns
            .pick_among(|server, weight| !least.is_less(load(server, weight)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Load {
    connections: i64,
    /// 1..=65535.
    weight: i64,
}

impl Load {
    /// Fewer connections per weight. The products stay below 2^48.
    const fn is_less(self, other: Self) -> bool {
        self.connections * other.weight < other.connections * self.weight
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn share(weights: &[u16]) -> Vec<(ServerId, u16)> {
        (1..).map(ServerId).zip(weights.iter().copied()).collect()
    }

    /// Picks with these loads of servers 1, 2, ...
    fn pick(wlc: &mut Wlc, loads: &[u32]) -> Option<u16> {
        wlc.pick(|server| loads[usize::from(server.0) - 1])
            .map(|server| server.0)
    }

    #[test]
    fn the_least_connections_per_weight() {
        for (weights, loads, server) in [
            (vec![1, 1, 1], vec![2, 1, 3], 2),
            (vec![4, 1], vec![3, 1], 1),
            (vec![4, 1], vec![5, 1], 2),
            (vec![0, 1], vec![0, 9], 2),
            (vec![65_535, 65_534], vec![u32::MAX, u32::MAX], 1),
            (vec![65_534, 65_535], vec![u32::MAX, u32::MAX], 2),
            (vec![1, 65_535], vec![1, 65_534], 2),
            (vec![1, 65_535], vec![1, 65_536], 1),
        ] {
            let mut wlc = Wlc::new(&share(&weights), None);
            assert_eq!(
                pick(&mut wlc, &loads),
                Some(server),
                "{weights:?} {loads:?}"
            );
        }
    }

    #[test]
    fn nobody_with_a_weight_means_nobody() {
        assert_eq!(pick(&mut Wlc::new(&[], None), &[]), None);
        assert_eq!(pick(&mut Wlc::new(&share(&[0, 0]), None), &[0, 0]), None);
    }

    #[test]
    fn idle_servers_take_turns_by_weight() {
        let mut wlc = Wlc::new(&share(&[5, 1, 1]), None);
        let picks: Vec<_> = (0..7).filter_map(|_| pick(&mut wlc, &[0; 3])).collect();
        assert_eq!(picks, [1, 1, 2, 1, 3, 1, 1]);
        // Who is loaded is left out of the turns.
        let picks: Vec<_> = (0..4).filter_map(|_| pick(&mut wlc, &[9, 0, 0])).collect();
        assert_eq!(picks, [2, 3, 2, 3]);
    }

    #[test]
    fn a_swap_in_the_middle_keeps_the_turn() {
        let mut wlc = Wlc::new(&share(&[1, 1]), None);
        assert_eq!(pick(&mut wlc, &[0, 0]), Some(1));
        let mut wlc = Wlc::new(&share(&[1, 1]), Some(&wlc));
        assert_eq!(pick(&mut wlc, &[0, 0]), Some(2));
    }

    proptest! {
        /// Connections that stay: each server has its weight's share of them at any time, to within one.
        #[test]
        fn fills_by_weight(weights in proptest::collection::vec(0u16..50, 1..8), count in 1u32..400) {
            let share = share(&weights);
            let total: u32 = weights.iter().copied().map(u32::from).sum();
            prop_assume!(total > 0);
            let mut wlc = Wlc::new(&share, None);
            let mut loads = vec![0; weights.len()];
            for _ in 0..count {
                let server = pick(&mut wlc, &loads).unwrap();
                loads[usize::from(server) - 1] += 1;
            }
            for (load, weight) in loads.iter().zip(&weights) {
                // One server's load per weight exceeds another's by no more than one connection of the heavier part.
                for (other, others) in loads.iter().zip(&weights) {
                    prop_assert!(
                        i64::from(load * u32::from(*others)) - i64::from(other * u32::from(*weight)) <= i64::from(*others),
                        "{loads:?} {weights:?}"
                    );
                }
            }
        }

        /// Turns among equals owe nobody anything for long, whoever was among the equals before.
        #[test]
        fn any_past_is_forgotten_within_a_few_cycles(
            weights in proptest::collection::vec(1u16..8, 1..6),
            past in proptest::collection::vec(proptest::collection::vec(0u32..3, 6), 0..300),
        ) {
            let mut wlc = Wlc::new(&share(&weights), None);
            for loads in past {
                let _ = pick(&mut wlc, &loads);
            }
            let total: usize = weights.iter().copied().map(usize::from).sum();
            let mut seen = BTreeMap::new();
            for _ in 0..total * 12 {
                *seen.entry(pick(&mut wlc, &[0; 6]).unwrap()).or_insert(0) += 1;
            }
            for (server, _) in share(&weights) {
                prop_assert!(seen.contains_key(&server.0), "{server} starves: {seen:?}");
            }
        }
    }
}
