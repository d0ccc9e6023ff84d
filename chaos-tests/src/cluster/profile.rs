//! Named ways to run a cluster: what goes into `clusterserver.conf`, and what into every host's `atmd.toml`.

use std::time::Duration;

use crate::lab::{Builder, Lab, LabError, default_configuration, read_configuration};

/// HeartBeatDelay of [`fast_profile`].
pub const FAST_HEARTBEAT: Duration = Duration::from_millis(20);

/// MaxLostHeartbeats of [`fast_profile`].
pub const FAST_LOST: u32 = 4;

/// What [`fast_profile`] adds to every `atmd.toml`.
pub const FAST_SETTINGS: &str = "realtime = 20\nlock_memory = true\n";

/// Both files of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Text of `clusterserver.conf`.
    pub conf: String,
    /// Lines for `atmd.toml` of every host, besides what the lab writes.
    pub settings: String,
}

impl Profile {
    /// A cluster with these heartbeats; `realtime`: with real-time scheduling and locked memory.
    ///
    /// # Errors
    /// Those of [`default_configuration`].
    pub fn new(
        atms: usize,
        servers: usize,
        heartbeat: Duration,
        lost: u32,
        realtime: bool,
    ) -> Result<Self, LabError> {
        let text = default_configuration(atms, servers)?;
        let mut config = read_configuration("generated", &text)?;
        config.atm_pool.heartbeat_delay = heartbeat;
        config.atm_pool.max_lost_heartbeats = lost;
        let settings = if realtime { FAST_SETTINGS } else { "" };
        Ok(Self {
            conf: model::conf::print(&config),
            settings: settings.to_owned(),
        })
    }

    /// A lab of this profile.
    #[must_use]
    pub fn builder(&self) -> Builder {
        Lab::builder()
            .conf(self.conf.clone())
            .settings(self.settings.clone())
    }
}

/// The fast profile of docs/OPERATIONS.md: [`FAST_HEARTBEAT`] x [`FAST_LOST`], real-time scheduling, locked memory. Its daemons
/// start only with root's rights on the machine: a user namespace has no real-time scheduling.
///
/// # Errors
/// Those of [`default_configuration`].
pub fn fast_profile(atms: usize, servers: usize) -> Result<Profile, LabError> {
    Profile::new(atms, servers, FAST_HEARTBEAT, FAST_LOST, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_profile_says_in_both_files_what_it_promises() {
        let profile = fast_profile(3, 2).unwrap();
        let config = read_configuration("fast", &profile.conf).unwrap();
        assert_eq!(config.atm_pool.heartbeat_delay, FAST_HEARTBEAT);
        assert_eq!(config.atm_pool.max_lost_heartbeats, FAST_LOST);
        assert!(profile.settings.contains("realtime = "));
        assert!(profile.settings.contains("lock_memory = true"));
    }
}
