//! Smooth weighted round robin, nginx's algorithm (`ngx_http_upstream_get_peer`): in each cycle of as many picks as the
//! sum of the weights every server is picked as often as its weight says, and the picks of one server are spread over it.

use model::ids::ServerId;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Wrr {
    turns: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    server: ServerId,
    /// 1..=65535.
    weight: i64,
    /// How far its turn has come. Its magnitude stays below the sum of the weights as long as all are in question.
    current: i64,
}

impl Wrr {
    /// Over the servers with a weight; those that `previous` knew keep their place in the cycle.
    pub(super) fn new(share: &[(ServerId, u16)], previous: Option<&Self>) -> Self {
        let total: i64 = share.iter().map(|&(_, weight)| i64::from(weight)).sum();
        let place = |server| {
            let turn = previous?.turns.iter().find(|turn| turn.server == server)?;
            // Bounded by the new sum, so that one heavy server that left does not distort the cycles after it.
            Some(turn.current.clamp(-total, total))
        };
        let turns = share
            .iter()
            .filter(|&&(_, weight)| weight > 0)
            .map(|&(server, weight)| Turn {
                server,
                weight: i64::from(weight),
                current: place(server).unwrap_or(0),
            })
            .collect();
        Self { turns }
    }

    /// The servers that have a weight, each with it.
    pub(super) fn weights(&self) -> impl Iterator<Item = (ServerId, i64)> {
        self.turns.iter().map(|turn| (turn.server, turn.weight))
    }

    /// The next server; `None` when none has a weight.
    pub(super) fn pick(&mut self) -> Option<ServerId> {
        self.pick_among(|_, _| true)
    }

    /// The next of the servers that are in question; the others lose nothing by being left out.
    pub(super) fn pick_among(
        &mut self,
        is_in_question: impl Fn(ServerId, i64) -> bool,
    ) -> Option<ServerId> {
        let mut total = 0;
        let mut best: Option<&mut Turn> = None;
        for turn in &mut self.turns {
            if !is_in_question(turn.server, turn.weight) {
                continue;
            }
            total += turn.weight;
            turn.current = turn.current.saturating_add(turn.weight);
            // The first of several equals, as in nginx.
            if best.as_ref().is_none_or(|best| turn.current > best.current) {
                best = Some(turn);
            }
        }
        let best = best?;
        best.current = best.current.saturating_sub(total);
        Some(best.server)
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

    fn picks(wrr: &mut Wrr, count: usize) -> Vec<u16> {
        (0..count).map(|_| wrr.pick().unwrap().0).collect()
    }

    #[test]
    fn the_example_of_nginx() {
        let mut wrr = Wrr::new(&share(&[5, 1, 1]), None);
        assert_eq!(picks(&mut wrr, 7), [1, 1, 2, 1, 3, 1, 1]);
    }

    #[test]
    fn nobody_with_a_weight_means_nobody() {
        assert_eq!(Wrr::new(&[], None).pick(), None);
        assert_eq!(Wrr::new(&share(&[0, 0]), None).pick(), None);
    }

    #[test]
    fn a_swap_in_the_middle_keeps_the_turn() {
        let mut wrr = Wrr::new(&share(&[1, 1, 1]), None);
        assert_eq!(picks(&mut wrr, 1), [1]);
        let mut wrr = Wrr::new(&share(&[1, 1, 1]), Some(&wrr));
        assert_eq!(picks(&mut wrr, 3), [2, 3, 1]);
        // The first has just had its turn, the third is owed one.
        let mut wrr = Wrr::new(&share(&[1, 0, 1]), Some(&wrr));
        assert_eq!(picks(&mut wrr, 5), [3, 3, 1, 3, 1]);
    }

    proptest! {
        #[test]
        fn each_cycle_is_exact(weights in proptest::collection::vec(0u16..50, 1..12)) {
            let total: usize = weights.iter().copied().map(usize::from).sum();
            prop_assume!(total > 0);
            let mut wrr = Wrr::new(&share(&weights), None);
            for _ in 0..2 {
                let mut seen = BTreeMap::new();
                for server in picks(&mut wrr, total) {
                    *seen.entry(server).or_insert(0) += 1;
                }
                for (server, weight) in share(&weights) {
                    prop_assert_eq!(seen.get(&server.0).copied().unwrap_or(0), weight);
                }
            }
        }

        #[test]
        fn after_any_swap_a_heavy_past_is_forgotten_within_a_few_cycles(
            before in proptest::collection::vec(0u16..=u16::MAX, 1..6),
            after in proptest::collection::vec(1u16..8, 1..6),
            spent in 0usize..200,
        ) {
            let mut wrr = Wrr::new(&share(&before), None);
            for _ in 0..spent { let _ = wrr.pick(); }
            let mut wrr = Wrr::new(&share(&after), Some(&wrr));
            let total: usize = after.iter().copied().map(usize::from).sum();
            let seen = picks(&mut wrr, total * 12);
            for (server, _) in share(&after) {
                prop_assert!(seen.contains(&server.0), "{server} starves");
            }
        }
    }
}
