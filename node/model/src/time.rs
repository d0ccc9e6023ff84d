//! The one clock of the cluster's rules: nanoseconds of CLOCK_BOOTTIME, read by the shell and passed in.

use std::time::Duration;

/// An instant on this host's boot-time clock (Linux `CLOCK_BOOTTIME`: monotonic, counts suspend), in nanoseconds.
///
/// Instants of two hosts are never compared; only durations travel between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The boot of the host: earlier than any instant that can be read.
    pub const BOOT: Self = Self(0);

    /// An instant from nanoseconds since boot, as the kernel counts them.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long before `self` `earlier` was; zero when it was not before.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self - duration`, not before boot.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// A duration in nanoseconds, saturating at 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
