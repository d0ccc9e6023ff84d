//! What the demo reads of `atmctl status --output json`.

use serde::Deserialize;

/// The cluster, as one ATM sees it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) active: Option<String>,
    pub(super) epoch: u64,
    pub(super) applied_index: u64,
    pub(super) atms: Vec<Atm>,
    pub(super) tenure: Option<Tenure>,
}

/// One ATM.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Atm {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) applied_index: u64,
    pub(super) reachable: bool,
}

/// Instants of the present tenure by the active ATM's boot-time clock; 0: not yet.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Tenure {
    pub(super) epoch: u64,
    pub(super) last_heard_at_ns: u64,
    pub(super) leader_at_ns: u64,
    pub(super) begun_at_ns: u64,
    pub(super) table_at_ns: u64,
    pub(super) wait_until_ns: u64,
    pub(super) claimed_at_ns: u64,
    pub(super) first_arp_at_ns: u64,
    now_ns: u64,
    now_unix_ns: u64,
}

impl Status {
    /// The ATM that the configuration calls `name`.
    pub(super) fn atm(&self, name: &str) -> Option<&Atm> {
        self.atms.iter().find(|atm| atm.name == name)
    }

    /// One ATM is active, and all others are backups that are reachable and have applied what it has.
    pub(super) fn is_whole(&self) -> bool {
        let Some(active) = self.active.as_deref().and_then(|name| self.atm(name)) else {
            return false;
        };
        let index = active.applied_index;
        let backups = self.atms.iter().filter(|atm| atm.is_backup_at(index));
        active.role == "active" && backups.count() + 1 == self.atms.len()
    }

    /// For a message about what was seen last.
    pub(super) fn summary(&self) -> String {
        let atms = self.atms.iter().map(|atm| {
            let reach = if atm.reachable { "" } else { " unreachable" };
            format!("{} {}{reach} at {}", atm.name, atm.role, atm.applied_index)
        });
        format!(
            "active {}, epoch {}; {}",
            self.active.as_deref().unwrap_or("none"),
            self.epoch,
            atms.collect::<Vec<_>>().join(", ")
        )
    }
}

impl Atm {
    /// A healthy backup that has applied everything up to `index`.
    pub(super) fn is_backup_at(&self, index: u64) -> bool {
        self.reachable && self.role == "backup" && self.applied_index >= index
    }
}

impl Tenure {
    /// `instant` in nanoseconds since 1970; `None`: not yet.
    pub(super) fn wall(&self, instant: u64) -> Option<u64> {
        if instant == 0 {
            return None;
        }
        // The wait may end later than the status was read.
        if instant > self.now_ns {
            return self.now_unix_ns.checked_add(instant - self.now_ns);
        }
        self.now_unix_ns.checked_sub(self.now_ns - instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_become_wall_clock() {
        let text = r#"{"epoch":2,"last_heard_at_ns":1,"leader_at_ns":900,"begun_at_ns":950,"table_at_ns":960,
            "wait_until_ns":1100,"claimed_at_ns":0,"first_arp_at_ns":0,"first_forward_at_ns":0,
            "now_ns":1000,"now_unix_ns":5000}"#;
        let tenure: Tenure = serde_json::from_str(text).unwrap();
        assert_eq!(tenure.wall(tenure.leader_at_ns), Some(4900));
        assert_eq!(tenure.wall(tenure.wait_until_ns), Some(5100));
        assert_eq!(tenure.wall(tenure.claimed_at_ns), None);
    }
}
