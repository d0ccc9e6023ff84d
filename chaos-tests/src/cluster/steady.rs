//! A cluster that nothing happens to but load: every takeover is a false one.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::ClusterError;
use super::fault::SETTLE_MAX;
use super::profile::Profile;
use super::running::Cluster;

/// Between two looks at the epoch.
const LOOK: Duration = Duration::from_secs(1);

/// Connections that stay, and short ones a second: the log is written and synced all the while.
const LINES: usize = 20;
const OPENINGS: u32 = 20;

/// What the load is.
#[derive(Clone, Debug)]
pub struct Steady {
    /// How long.
    pub time: Duration,
    /// Busy loops, each of which takes a whole processor if it gets it.
    pub load: usize,
    /// Their niceness, 0 to 19.
    pub nice: u8,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SteadyReport {
    /// How long it was watched.
    pub seconds: u64,
    /// Busy loops, and their niceness.
    pub load: usize,
    /// Their niceness.
    pub nice: u8,
    /// Tenures that began: none should.
    pub takeovers: u64,
    /// How often a backup suspected the active ATM; a quorum of it would have been a takeover.
    pub suspicions: usize,
    /// The longest time between two messages of the active ATM, as a backup received them. Of the last leader only.
    pub silence_us_max: u64,
    /// Frames for the VIP that the active ATM did not forward for want of a lease.
    pub lease_expired: u64,
    /// Whether every numbered line of every connection arrived once and in order.
    pub lines_unbroken: bool,
}

/// Watches a cluster of this profile.
///
/// # Errors
/// The cluster does not start, or does not answer.
pub fn steady(profile: &Profile, steady: &Steady) -> Result<SteadyReport, ClusterError> {
    let cluster = Cluster::start_with(profile.builder())?;
    let client = cluster.lab().host("client")?;
    for n in 0..steady.load {
        let nice = steady.nice.to_string();
        let busy = ["nice", "-n", &nice, "sh", "-c", "while :; do :; done"];
        client.spawn(&format!("busy{n}"), busy, &[])?;
    }
    let lines = cluster.lines(LINES)?;
    let churn = cluster.churn(OPENINGS, 1)?;
    let (active, before) = cluster.active()?;
    let mut epoch = before.epoch;
    let begun = Instant::now();
    while begun.elapsed() < steady.time {
        std::thread::sleep(LOOK.min(steady.time.saturating_sub(begun.elapsed())));
        // Whoever does not answer in time under this load is asked again.
        if let Ok(status) = cluster.status(&active) {
            epoch = epoch.max(status.epoch);
        }
    }
    let seconds = begun.elapsed().as_secs();
    let (active, after) = cluster.active()?;
    let mut silence_us_max = 0;
    let mut suspicions = 0;
    for host in cluster.atms() {
        if host != active {
            silence_us_max = silence_us_max.max(cluster.counter(&host, "leader-silence-max-us")?);
        }
        suspicions += cluster
            .log(&host)?
            .matches("the leader is suspected")
            .count();
    }
    let lease_expired = cluster.counter(&active, "lease-expired")?;
    drop(churn);
    Ok(SteadyReport {
        seconds,
        load: steady.load,
        nice: steady.nice,
        takeovers: epoch.max(after.epoch) - before.epoch,
        suspicions,
        silence_us_max,
        lease_expired,
        lines_unbroken: lines.finish(SETTLE_MAX).is_unbroken(),
    })
}
