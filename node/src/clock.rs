//! The clock of leases: CLOCK_BOOTTIME, which counts suspend and which nobody can step.

use model::Instant;

/// Now, on this host's boot-time clock.
pub(crate) fn now() -> Instant {
    dataplane::boottime()
}
