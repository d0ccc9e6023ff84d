//! The intervals of consensus and of the lease, from HeartBeatDelay and MaxLostHeartbeats.

use std::time::Duration;

use model::conf::AtmPool;

/// Added to MaxLostHeartbeats x HeartBeatDelay before a backup suspects the leader: a fifth of a heartbeat, and this at most.
/// What is waited for is the last of the lost heartbeats, and it may be a little late.
const ALLOWANCE_MAX: Duration = Duration::from_millis(50);

/// Left to the backup that stands on suspicion (model::suspicion) before openraft's own election timeouts begin: a quarter of
/// the detection time, within these bounds. Two round trips and two syncs fit in.
const STANDING_MIN: Duration = Duration::from_millis(20);
const STANDING_MAX: Duration = Duration::from_millis(100);

/// Parts of an interval that openraft lets pass between two looks at its timers (`Config::tick_interval`).
const TICK: (u32, u32) = (13, 64);

/// A disk that other programs write to takes 100 to 200 ms for a sync now and then. The others commit without this ATM's
/// sync, so waiting costs nothing, and a hand-over does.
const DISK_PATIENCE_MIN: Duration = Duration::from_millis(500);

/// Intervals of one process. They are fixed at its start: a version that changes them takes effect when atmd is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// HeartBeatDelay.
    pub(crate) heartbeat: Duration,
    /// A leader that has been silent for so long is suspected: MaxLostHeartbeats of them and the allowance.
    pub(crate) detection: Duration,
    /// openraft's `election_timeout_min`.
    election_min: Duration,
    /// openraft's `election_timeout_max`, and how long a voter refuses votes after an append.
    pub(crate) election_max: Duration,
    /// How long a lease lasts after each acknowledged round.
    pub(crate) lease: Duration,
}

impl Timing {
    /// The intervals of a configuration.
    pub(crate) fn of(pool: &AtmPool) -> Self {
        let lost = pool.heartbeat_delay * pool.max_lost_heartbeats;
        let detection = lost + (pool.heartbeat_delay / 5).min(ALLOWANCE_MAX);
        // Without a quorum of suspicions, openraft elects `election_max` plus a random time between `election_min` and
        // `election_max` after the last append. So the two add up to that time, and their difference keeps two candidates
        // apart.
        let patience = detection + (detection / 4).clamp(STANDING_MIN, STANDING_MAX);
        let election_min = (patience * 2 / 5).max(pool.heartbeat_delay + Duration::from_millis(5));
        let election_max =
            (patience - patience * 2 / 5).max(election_min + Duration::from_millis(10));
        Self {
            heartbeat: pool.heartbeat_delay,
            detection,
            election_min,
            election_max,
            // A lease waited out, L x (1 + e)/(1 - e), ends before the first election can: 0.9 x 1.105 < 1. So a
            // takeover after a crash has nothing left to wait.
            lease: lost * 9 / 10,
        }
    }

    /// A sync that takes longer than this gives up the lease: half the detection time, so that an orderly hand-over comes
    /// before an election, but no less than [`DISK_PATIENCE_MIN`].
    pub(crate) fn disk_patience(&self) -> Duration {
        (self.detection / 2).max(DISK_PATIENCE_MIN)
    }

    /// What openraft is told.
    pub(crate) fn raft_config(&self) -> openraft::Config {
        let millis = |duration: Duration| {
            u64::try_from(duration.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
        };
        openraft::Config {
            cluster_name: "atm".into(),
            // openraft sends with the first look at its timers after the interval; this makes it HeartBeatDelay at most.
            heartbeat_interval: millis(self.heartbeat * TICK.1 / (TICK.0 + TICK.1)),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            // The default of 200 ms is far too short for a million connections.
            install_snapshot_timeout: 30_000,
            // Snapshots are asked for by bytes of log, not by entries: entries differ a thousandfold in size.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // A simulation is short; it must see followers that need a snapshot all the same.
            max_in_snapshot_log_to_keep: if cfg!(atm_sim) { 20 } else { 1000 },
            purge_batch_size: 256,
            // An ATM that was cut off must not depose a healthy one when it returns.
            enable_pre_vote: Some(true),
            // A restarted leader has forgotten what it promised: it must be elected again.
            enable_leader_restore: Some(false),
            // With a voter that bridges two others, a shorter interval can live-lock.
            quorum_loss_probe_interval: Some(2 * millis(self.election_max)),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::lease::wait_out;

    #[test]
    fn a_lease_is_waited_out_before_the_first_election() {
        for (heartbeat, lost) in [(10, 2), (50, 3), (1000, 3), (60_000, 100)] {
            let checked = model::conf::check(
                "x",
                &format!(
                    "AtmPool a\nAddAtm 10.0.0.1\nHeartBeatDelay {heartbeat}ms\nMaxLostHeartbeats {lost}\nEndAtmPool\n"
                ),
            );
            let timing = Timing::of(
                &checked
                    .config
                    .unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
                    .atm_pool,
            );
            assert!(wait_out(timing.lease) < timing.detection, "{timing:?}");
            // Whoever stands on suspicion comes before openraft's own timeouts.
            assert!(
                timing.election_min + timing.election_max >= timing.detection + STANDING_MIN,
                "{timing:?}"
            );
            assert!(timing.raft_config().validate().is_ok(), "{timing:?}");
        }
    }
}
