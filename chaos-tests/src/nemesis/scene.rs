//! What faults act on: a lab, perhaps with a running cluster in it, and what the faults under way hold in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::lab::Lab;

use super::error::NemesisError;
use super::schedule::FaultId;
use super::target::{Resolved, Roster, Target};

/// How long a fault looks for the active ATM before it gives up: longer than a takeover of the fast configuration.
const ACTIVE_WAIT: Duration = Duration::from_secs(5);

/// Between two rounds of asking.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// Where faults happen.
pub struct Scene<'a> {
    lab: &'a Lab,
    cluster: Option<&'a Cluster>,
    /// Stands in for an answer of the cluster in a bare lab.
    appointed: Option<String>,
    holds: Mutex<Holds>,
}

/// What faults under way keep broken. Two faults may break the same thing; only the end of the last one mends it.
#[derive(Debug, Default)]
pub struct Holds(BTreeMap<String, BTreeSet<FaultId>>);

impl Holds {
    /// Notes that `by` breaks `what` (as `down atm1`). Returns whether nobody did before.
    pub fn hold(&mut self, what: &str, by: FaultId) -> bool {
        let holders = self.0.entry(what.to_owned()).or_default();
        holders.insert(by);
        holders.len() == 1
    }

    /// Notes that `by` does so no more. Returns whether nobody else does; it is no error if `by` never did.
    pub fn release(&mut self, what: &str, by: FaultId) -> bool {
        let Some(holders) = self.0.get_mut(what) else {
            return true;
        };
        holders.remove(&by);
        if holders.is_empty() {
            self.0.remove(what);
        }
        !self.0.contains_key(what)
    }

    /// Whether somebody breaks `what`.
    #[must_use]
    pub fn is_held(&self, what: &str) -> bool {
        self.0.contains_key(what)
    }
}

impl<'a> Scene<'a> {
    /// Faults in a running cluster.
    #[must_use]
    pub fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster: Some(cluster),
            ..Self::of_lab(cluster.lab())
        }
    }

    /// Faults in a bare lab, where nobody is active.
    #[must_use]
    pub fn of_lab(lab: &'a Lab) -> Self {
        Self {
            lab,
            cluster: None,
            appointed: None,
            holds: Mutex::default(),
        }
    }

    /// Takes `host` for the active ATM, without asking anybody.
    #[must_use]
    pub fn with_active(mut self, host: &str) -> Self {
        self.appointed = Some(host.to_owned());
        self
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// The cluster in it; `what` needs it.
    ///
    /// # Errors
    /// [`NemesisError::NeedsCluster`].
    pub fn cluster(&self, what: &'static str) -> Result<&'a Cluster, NemesisError> {
        self.cluster.ok_or(NemesisError::NeedsCluster(what))
    }

    /// What faults hold. Whoever breaks or mends something that another fault may break as well does it under this lock.
    pub fn holds(&self) -> MutexGuard<'_, Holds> {
        // Plain data: what a panicking holder left is still what is held.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts of `targets` at this moment. May take some seconds while nobody is active.
    ///
    /// # Errors
    /// [`NemesisError::Target`].
    pub fn resolve(&self, targets: &[Target]) -> Result<Vec<Resolved>, NemesisError> {
        let mut roster = self.roster();
        if targets.iter().any(Target::needs_active) {
            roster.active = self.active();
        }
        Ok(roster.resolve(targets)?)
    }

    /// Who there is; nobody is asked who is active.
    #[must_use]
    pub fn roster(&self) -> Roster {
        let hosts = self.lab.hosts();
        let named = |filter: &dyn Fn(&crate::lab::Host<'_>) -> bool| {
            let chosen = hosts.iter().filter(|host| filter(host));
            chosen.map(|host| host.name().to_owned()).collect()
        };
        Roster {
            atms: named(&|host| host.is_atm()),
            servers: named(&|host| host.is_server()),
            hosts: named(&|_| true),
            active: None,
        }
    }

    /// The ATM that says of itself that it holds the lease; asked of all at once, for a few seconds.
    #[must_use]
    pub fn active(&self) -> Option<String> {
        if self.appointed.is_some() {
            return self.appointed.clone();
        }
        let cluster = self.cluster?;
        let give_up = Instant::now() + ACTIVE_WAIT;
        loop {
            if let Some(active) = ask_all(cluster) {
                return Some(active);
            }
            if Instant::now() >= give_up {
                return None;
            }
            thread::sleep(ASK_PAUSE);
        }
    }
}

/// The first ATM that answers that it is the active one itself: what others say of it may be old.
fn ask_all(cluster: &Cluster) -> Option<String> {
    let (answers, heard) = mpsc::channel();
    thread::scope(|scope| {
        for host in cluster.atms() {
            let answers = answers.clone();
            scope.spawn(move || {
                let Ok(status) = cluster.status(&host) else {
                    return;
                };
                let itself = status.active.as_ref() == Some(&status.answered_by);
                // A backup relays the question: who answered counts, not who was asked.
                if itself
                    && status.lease_left_ms > 0
                    && let Ok(host) = cluster.host_of(&status.answered_by)
                {
                    let _ = answers.send((status.epoch, host));
                }
            });
        }
        drop(answers);
        // An ATM that is stopped answers nothing for two seconds; nobody waits for it once another one has spoken.
        heard.recv().ok().map(|(_, host)| host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_faults_hold_is_free_after_the_second_end() {
        let mut holds = Holds::default();
        let (one, two) = (FaultId(1), FaultId(2));
        assert!(holds.hold("down atm1", one));
        assert!(!holds.hold("down atm1", two));
        assert!(holds.hold("down atm2", two));
        assert!(!holds.release("down atm1", one));
        assert!(!holds.release("down atm1", one), "again: two holds it");
        assert!(holds.is_held("down atm1"));
        assert!(holds.release("down atm1", two));
        assert!(holds.release("down atm1", two));
        assert!(!holds.is_held("down atm1"));
    }
}
