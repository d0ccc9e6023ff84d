//! The counters of one ATM's packet path.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ClusterError;
use super::running::Cluster;

#[derive(Deserialize)]
struct Counters {
    counters: BTreeMap<String, u64>,
}

impl Cluster {
    /// Value of the counter `name` of the ATM on `host`.
    ///
    /// # Errors
    /// `atmctl` fails, or has no such counter.
    pub fn counter(&self, host: &str, name: &str) -> Result<u64, ClusterError> {
        let answer = self.atmctl(host, &["counters"])?;
        let counters: Counters = answer.json()?;
        counters
            .counters
            .get(name)
            .copied()
            .ok_or_else(|| answer.wrong(format!("there is no counter {name}")))
    }
}
