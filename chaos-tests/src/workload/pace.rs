//! When a client does its next operation, and which: by chance, from a seed.

use std::time::Duration;

/// A client's own chance and rhythm.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    chance: Chance,
    mean: Duration,
}

impl Pace {
    /// One operation every `mean` or so.
    pub(crate) fn new(seed: u64, mean: Duration) -> Self {
        Self {
            chance: Chance::new(seed),
            mean,
        }
    }

    /// Waits between half of the mean and one and a half of it.
    pub(crate) async fn wait(&mut self) {
        let permille = u32::try_from(500 + self.chance.below(1000)).unwrap_or(1000);
        tokio::time::sleep(self.mean * permille / 1000).await;
    }

    /// Steps aside for one that came first.
    pub(crate) async fn wait_a_little(&mut self) {
        tokio::time::sleep(Duration::from_millis(2 + self.chance.below(20))).await;
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.chance.below(n) == 0
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and in every version.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The row of numbers that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `limit`, which is at least 1; even enough for limits far below 2^64.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_algorithm() {
        let mut chance = Chance::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| chance.draw()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
