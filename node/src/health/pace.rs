//! Work that many things call for, done once for all of them.

use std::time::Duration;

use tokio::time::Instant;

/// Between two beginnings: of a thousand servers that go down together one report tells of many. Short beside a check.
const PACE: Duration = Duration::from_millis(100);

/// Work that is due or not, and begins no sooner than [`PACE`] after it began last.
#[derive(Debug)]
pub(super) struct Paced {
    is_due: bool,
    not_before: Instant,
}

impl Paced {
    /// Nothing is due; the first time may be `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            is_due: false,
            not_before: now,
        }
    }

    /// Calls for it.
    pub(super) const fn call(&mut self) {
        self.is_due = true;
    }

    /// Whether it is to be done now. Who is told so does it.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.is_due && now >= self.not_before;
        if begins {
            (self.is_due, self.not_before) = (false, now + PACE);
        }
        begins
    }

    /// Returns when it [begins](Self::begins).
    pub(super) async fn its_time(&self) {
        if self.is_due {
            tokio::time::sleep_until(self.not_before).await;
        } else {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_calls_are_answered_at_once_and_then_once_for_all() {
        let mut paced = Paced::new(Instant::now());
        assert!(!paced.begins(Instant::now()), "nobody has called");
        paced.call();
        let began = Instant::now();
        assert!(paced.begins(began));
        assert!(!paced.begins(began + PACE), "nobody has called again");
        let waits = tokio::time::timeout(2 * PACE, paced.its_time()).await;
        assert!(waits.is_err(), "there is nothing to wait for");
        for _ in 0..3 {
            paced.call();
        }
        paced.not_before = Instant::now() + PACE;
        assert!(!paced.begins(Instant::now()));
        paced.its_time().await;
        assert!(paced.begins(Instant::now()));
        assert!(!paced.begins(Instant::now() + PACE), "once for all of them");
    }
}
