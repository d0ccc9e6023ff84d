//! Chance with a seed.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): small, stable for ever, and every seed gives a different sequence.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the product is below 2^-32 for every bound that a schedule has.
        let scaled = (u128::from(self.bits()) * u128::from(bound)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }

    /// A number in `low..=high`; `low` if they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True in `parts` of a million cases.
    pub fn per_million(&mut self, parts: u32) -> bool {
        self.below(1_000_000) < u64::from(parts)
    }

    /// One of `values`; `None` of none.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> Option<&'a T> {
        let index = self.below(u64::try_from(values.len()).ok()?);
        values.get(usize::try_from(index).ok()?)
    }

    /// A sequence of its own that `label` sets apart from every other one of this seed.
    #[must_use]
    pub fn branch(&self, label: u64) -> Self {
        let mut mixed = Self(self.0 ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(mixed.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_paper() {
        let mut chance = Chance::new(0);
        assert_eq!(chance.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(chance.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_them() {
        let mut chance = Chance::new(7);
        let drawn: Vec<u64> = (0..1000).map(|_| chance.between(3, 5)).collect();
        for value in 3..=5 {
            assert!(drawn.contains(&value), "{value}");
        }
        assert!(drawn.iter().all(|value| (3..=5).contains(value)));
        assert_eq!(chance.below(0), 0);
        assert_eq!(chance.between(9, 2), 9);
        assert_eq!(chance.pick::<u8>(&[]), None);
        let hits = (0..10_000).filter(|_| chance.percent(30)).count();
        assert!((2_700..3_300).contains(&hits), "{hits} of 10000 at 30 %");
    }

    #[test]
    fn branches_are_apart() {
        let root = Chance::new(1);
        assert_ne!(root.branch(1).bits(), root.branch(2).bits());
        assert_eq!(root.branch(1).bits(), root.branch(1).bits());
    }
}
