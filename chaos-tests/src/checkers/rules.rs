//! How strict the checkers are.

use std::time::Duration;

use super::linearizability::Limits;
use crate::observer;

/// How strict the checkers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of the observer's judgement.
    pub voices: observer::Rules,
    /// How far instants of the observer and of an ATM may differ for the same moment: the kernel stamps a frame by the wall clock, which a
    /// time server may slew by 0.5 ms per second between two measurements of its offset.
    pub clock_tolerance: Duration,
    /// Bounds of the search for a linear order.
    pub limits: Limits,
    /// How long after the end of a fault a gap still counts as its outage, unless another fault begins earlier.
    pub settle: Duration,
    /// The longest outage that is no violation; `None`: every length is only reported.
    pub outage_max: Option<Duration>,
    /// After the last fault the service must answer again within this time.
    pub recovery_max: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            voices: observer::Rules::default(),
            clock_tolerance: Duration::from_millis(1),
            limits: Limits::default(),
            settle: Duration::from_secs(5),
            outage_max: None,
            recovery_max: Duration::from_secs(30),
        }
    }
}

/// `duration` in nanoseconds; anything longer than 584 years is that long.
pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
