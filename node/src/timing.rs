//! The intervals of consensus and of the lease, from HeartBeatDelay and MaxLostHeartbeats.

use std::time::Duration;

use model::conf::AtmPool;

/// Intervals of one process. They are fixed at its start: a version that changes them takes effect when atmd is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// HeartBeatDelay.
    pub(crate) heartbeat: Duration,
    /// An election begins no sooner after the last heartbeat: MaxLostHeartbeats of them.
    pub(crate) election_min: Duration,
    /// And no later.
    pub(crate) election_max: Duration,
    /// How long a lease lasts after each acknowledged round.
    pub(crate) lease: Duration,
}

impl Timing {
    /// The intervals of a configuration.
    pub(crate) fn of(pool: &AtmPool) -> Self {
        let election_min = pool.heartbeat_delay * pool.max_lost_heartbeats;
        Self {
            heartbeat: pool.heartbeat_delay,
            election_min,
            // Half a heartbeat, and 20 ms at least, keeps two candidates apart; more would only lengthen every takeover.
            election_max: election_min + (pool.heartbeat_delay / 2).max(Duration::from_millis(20)),
            // A lease waited out, L x (1 + e)/(1 - e), ends before the first election can: 0.9 x 1.105 < 1. So a
            // takeover after a crash has nothing left to wait.
            lease: election_min * 9 / 10,
        }
    }

    /// A sync that takes longer than this gives up the lease: half an election, so that the hand-over comes before one.
    pub(crate) fn disk_patience(&self) -> Duration {
        self.election_min / 2
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
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            // The default of 200 ms is far too short for a million connections.
            install_snapshot_timeout: 30_000,
            // Snapshots are asked for by bytes of log, not by entries: entries differ a thousandfold in size.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 1000,
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
            assert!(wait_out(timing.lease) < timing.election_min, "{timing:?}");
            assert!(timing.raft_config().validate().is_ok(), "{timing:?}");
        }
    }
}
