//! A host's clock: true time seen at a rate that is off by up to 5 %.

use model::Instant;
use model::lease::CLOCK_RATE_ERROR_PERCENT;

use crate::chance::Chance;

/// True time in nanoseconds since the start of the run. No process ever sees it.
pub(crate) type True = u64;

pub(crate) const MS: True = 1_000_000;

const MILLION: u64 = 1_000_000;
/// The largest error of a rate, in millionths.
const ERROR: u64 = CLOCK_RATE_ERROR_PERCENT as u64 * MILLION / 100;

pub(crate) struct Clock {
    since: True,
    read_then: u64,
    /// Local nanoseconds per million true ones.
    rate: u64,
}

impl Clock {
    /// A host that booted at `now`, or long before.
    pub(crate) fn boot(chance: &mut Chance, now: True, just_now: bool) -> Self {
        let read_then = if just_now {
            chance.below(5 * MS)
        } else {
            chance.below(1_000_000 * MS)
        };
        Self {
            since: now,
            read_then,
            rate: rate(chance),
        }
    }

    /// From now on the clock runs at another rate; what it has counted stays.
    pub(crate) fn drift(&mut self, chance: &mut Chance, now: True) {
        self.read_then = self.read(now).as_nanos();
        self.since = now;
        self.rate = rate(chance);
    }

    pub(crate) fn read(&self, now: True) -> Instant {
        Instant::from_nanos(self.read_then + (now - self.since) * self.rate / MILLION)
    }

    /// The first true instant at which the clock reads `at` or more, if its rate stays what it is; not before `now`.
    pub(crate) fn when(&self, at: Instant, now: True) -> True {
        let ahead = at.as_nanos().saturating_sub(self.read_then);
        (self.since + (ahead * MILLION).div_ceil(self.rate)).max(now)
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
