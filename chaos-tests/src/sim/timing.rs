//! The intervals of consensus and of the lease, as the daemon makes them of HeartBeatDelay and MaxLostHeartbeats.

use std::time::Duration;

/// MaxLostHeartbeats of every simulated configuration.
pub(crate) const MAX_LOST: u32 = 3;

/// What the daemon adds to the detection time.
const ALLOWANCE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) heartbeat: Duration,
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
    pub(crate) lease: Duration,
    pub(crate) disk_patience: Duration,
}

impl Timing {
    pub(crate) fn of(heartbeat: Duration) -> Self {
        let lost = heartbeat * MAX_LOST;
        let detection = lost + ALLOWANCE;
        let election_min = (detection * 2 / 5).max(heartbeat + Duration::from_millis(5));
        Self {
            heartbeat,
            election_min,
            election_max: (detection - detection * 2 / 5)
                .max(election_min + Duration::from_millis(10)),
            lease: lost * 9 / 10,
            disk_patience: (detection / 2).max(Duration::from_millis(500)),
        }
    }
}
