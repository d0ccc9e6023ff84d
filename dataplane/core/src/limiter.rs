//! A token bucket: at most `burst` at once, and one more every `interval`.

use std::time::Duration;

use model::Instant;

/// The bucket.
#[derive(Debug)]
pub(crate) struct Limiter {
    interval: Duration,
    burst: u32,
    tokens: u32,
    /// When the last token that was credited fell due.
    credited: Instant,
}

impl Limiter {
    /// Starts full.
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            burst,
            tokens: burst,
            credited: Instant::BOOT,
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let due = now.saturating_since(self.credited).as_nanos() / self.interval.as_nanos().max(1);
        let room = self.burst - self.tokens;
        match u32::try_from(due) {
            Ok(due) if due < room => {
                self.tokens += due;
                self.credited = self.credited + self.interval * due;
            }
            _ => {
                self.tokens = self.burst;
                self.credited = now;
            }
        }
        let allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limiter = Limiter::new(Duration::from_millis(10), 3);
        let at = |ms: u64| Instant::BOOT + Duration::from_millis(1000 + ms);
        let allowed: Vec<bool> = [0, 0, 0, 0, 9, 10, 11, 20, 1000, 1000, 1000, 1000]
            .map(|ms| limiter.take(at(ms)))
            .into();
        let expected = [
            true, true, true, false, false, true, false, true, true, true, true, false,
        ];
        assert_eq!(allowed, expected);
    }
}
