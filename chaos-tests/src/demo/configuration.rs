//! The configuration of the demo: the example with three ATMs, made faster.

use std::time::Duration;

use model::conf::print;

use crate::lab::{LabError, default_configuration, read_configuration};

/// ATMs of the demo: the fewest that survive the loss of one.
pub(super) const ATMS: usize = 3;

/// Servers of the demo, those of the tutorial.
pub(super) const SERVERS: usize = 3;

/// The tutorial's 1 s makes a takeover of some 3 s; with this one it is over before anybody looks up.
pub(super) const HEARTBEAT_DELAY: Duration = Duration::from_millis(50);

/// As in the tutorial.
pub(super) const MAX_LOST_HEARTBEATS: u32 = 3;

/// Far longer than the demo runs, so that no connection ends for idleness.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Its text.
///
/// # Errors
/// [`LabError::Plan`] if the example is not valid.
pub(super) fn text() -> Result<String, LabError> {
    let example = default_configuration(ATMS, SERVERS)?;
    let mut config = read_configuration("clusterserver.conf", &example)?;
    let pool = &mut config.atm_pool;
    pool.heartbeat_delay = HEARTBEAT_DELAY;
    pool.max_lost_heartbeats = MAX_LOST_HEARTBEATS;
    pool.connection_timeout = CONNECTION_TIMEOUT;
    Ok(print(&config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_times_differ_from_the_example() {
        let example = default_configuration(ATMS, SERVERS).unwrap();
        let mut expected = read_configuration("example", &example).unwrap();
        let config = read_configuration("demo", &text().unwrap()).unwrap();
        assert_eq!(config.atm_pool.heartbeat_delay, HEARTBEAT_DELAY);
        assert_eq!(config.atm_pool.max_lost_heartbeats, MAX_LOST_HEARTBEATS);
        assert_eq!(config.atm_pool.atms.len(), ATMS);
        expected.atm_pool.heartbeat_delay = HEARTBEAT_DELAY;
        expected.atm_pool.connection_timeout = CONNECTION_TIMEOUT;
        assert_eq!(config.atm_pool, expected.atm_pool);
        assert_eq!(config.server_pools, expected.server_pools);
    }
}
