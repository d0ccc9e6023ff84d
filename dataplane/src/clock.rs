//! The two clocks of the shell. Read once per batch, never per frame.

#[cfg(not(atm_sim))]
use model::Instant;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The clock of every rule: nanoseconds of `CLOCK_BOOTTIME` (monotonic, counts suspend).
#[cfg(not(atm_sim))]
pub fn boottime() -> Instant {
    Instant::from_nanos(nanos(clock_gettime(ClockId::Boottime)))
}

#[cfg(atm_sim)]
pub use crate::simulation::boottime;

/// The clock of the kernel's packet timestamps, `CLOCK_REALTIME`. It can step: use it only to tell how long a frame waited.
pub(crate) fn realtime_nanos() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// Nanoseconds since the clock's zero; a time before it (a wall clock set to before 1970) is zero.
fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_does_not_run_backwards() {
        let first = boottime();
        assert!(first > Instant::BOOT);
        assert!(boottime() >= first);
    }

    #[test]
    fn a_wall_clock_before_1970_is_zero() {
        assert_eq!(
            nanos(Timespec {
                tv_sec: -5,
                tv_nsec: 0
            }),
            0
        );
        assert_eq!(
            nanos(Timespec {
                tv_sec: 2,
                tv_nsec: 7
            }),
            2_000_000_007
        );
    }
}
