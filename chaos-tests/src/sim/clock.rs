//! A host's clocks: true time seen at a rate that is off by up to 5 %, and a wall clock that also steps.

use model::Instant;
use model::lease::CLOCK_RATE_ERROR_PERCENT;

use super::chance::Chance;

/// True time in nanoseconds since the start of the run. No process ever sees it.
pub(crate) type True = u64;

pub(crate) const MS: True = 1_000_000;
pub(crate) const US: True = 1_000;

const MILLION: u64 = 1_000_000;
/// The largest error of a rate, in millionths.
const ERROR: u64 = CLOCK_RATE_ERROR_PERCENT as u64 * MILLION / 100;
/// What the wall clock is ahead of the boot-time clock before it steps.
const WALL: u64 = 1 << 60;

#[derive(Debug)]
pub(crate) struct Clock {
    since: True,
    read_then: u64,
    /// Local nanoseconds per million true ones.
    rate: u64,
    wall: u64,
}

impl Clock {
    /// A host that booted long before the run.
    pub(crate) fn new(chance: &mut Chance) -> Self {
        Self {
            since: 0,
            read_then: chance.between(1000 * MS, 1_000_000 * MS),
            rate: rate(chance),
            wall: WALL,
        }
    }

    /// From now on the clock runs at another rate; what it has counted stays.
    pub(crate) fn drift(&mut self, chance: &mut Chance, now: True) {
        self.read_then = self.read(now).as_nanos();
        self.since = now;
        self.rate = rate(chance);
    }

    /// The wall clock is set.
    pub(crate) fn step_wall(&mut self, ms: i64) {
        let by = ms.saturating_mul(1_000_000);
        self.wall = self.wall.saturating_add_signed(by);
    }

    /// `CLOCK_BOOTTIME`.
    pub(crate) fn read(&self, now: True) -> Instant {
        Instant::from_nanos(self.read_then + (now - self.since) * self.rate / MILLION)
    }

    /// `CLOCK_REALTIME` in nanoseconds.
    pub(crate) fn wall(&self, now: True) -> u64 {
        self.wall.saturating_add(self.read(now).as_nanos())
    }

    /// The first true instant at which the clock reads `at` or more, if its rate stays what it is; not before `now`.
    pub(crate) fn when(&self, at: Instant, now: True) -> True {
        let ahead = at.as_nanos().saturating_sub(self.read_then);
        let ahead = u128::from(ahead) * u128::from(MILLION);
        let ahead = ahead.div_ceil(u128::from(self.rate));
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        self.since.saturating_add(ahead).max(now)
    }
}

/// The extremes often: that is where the factor of the wait-out is tight.
fn rate(chance: &mut Chance) -> u64 {
    match chance.below(3) {
        0 => MILLION - ERROR,
        1 => MILLION + ERROR,
        _ => MILLION - ERROR + chance.below(2 * ERROR + 1),
    }
}
