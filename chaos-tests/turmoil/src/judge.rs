//! The promises, each looked at after every simulated millisecond.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use model::ids::Epoch;
use model::lease::Lease;
use serde::Serialize;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// When, in milliseconds of simulated time.
    pub at_ms: u64,
    /// What it saw.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms: {}: {}", self.at_ms, self.checker, self.what)
    }
}

/// Two leases at once (P1).
pub(crate) const LEASES: &str = "leases";
/// Epochs that go back, or have two holders.
pub(crate) const EPOCHS: &str = "epochs";
/// Same index, other state (P4).
pub(crate) const DIGESTS: &str = "digests";
/// A lease before everything up to the beginning of its tenure was applied (P3).
pub(crate) const CLAIM_GATE: &str = "claim-gate";
/// A voice without a lease (P1).
pub(crate) const VOICE: &str = "voice";
/// An acknowledged connection that the active ATM does not know, or sends elsewhere (P2, P3).
pub(crate) const CONNECTIONS: &str = "connections";
/// A register that is not one (P7).
pub(crate) const REGISTER: &str = "register";
/// After healing the cluster does not come back.
pub(crate) const LIVENESS: &str = "liveness";
/// Code of a host panicked.
pub(crate) const PANIC: &str = "panic";
/// The simulation could not go on.
pub(crate) const ENDED: &str = "ended";

/// What was seen of leases and digests so far.
#[derive(Default)]
pub(crate) struct Judge {
    /// Found so far; the run ends at the first.
    pub(crate) found: Vec<Violation>,
    holders: BTreeMap<u64, usize>,
    newest: u64,
    digests: BTreeMap<u64, ([u8; 32], usize)>,
    /// Tenures that were seen to begin.
    pub(crate) tenures: u64,
}

impl Judge {
    /// Notes a violation.
    pub(crate) fn note(&mut self, checker: &'static str, now: Duration, what: String) {
        self.found.push(Violation {
            checker,
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            what,
        });
    }

    /// The leases that are held now: by index of the ATM, with the true time at which each runs out.
    pub(crate) fn leases(&mut self, now: Duration, held: &[(usize, Lease, Duration)]) {
        if let [first, second, ..] = held {
            let what = format!(
                "atm{} holds epoch {} until {:?}, atm{} holds epoch {} until {:?}",
                first.0 + 1,
                first.1.epoch.0,
                first.2,
                second.0 + 1,
                second.1.epoch.0,
                second.2
            );
            self.note(LEASES, now, what);
        }
        for (atm, lease, _) in held {
            let Epoch(epoch) = lease.epoch;
            match self.holders.get(&epoch) {
                Some(holder) if holder != atm => {
                    let what = format!("epoch {epoch} of atm{} and of atm{}", holder + 1, atm + 1);
                    self.note(EPOCHS, now, what);
                }
                Some(_) => {}
                None => {
                    if epoch < self.newest {
                        let what = format!("epoch {epoch} begins after {}", self.newest);
                        self.note(EPOCHS, now, what);
                    }
                    self.newest = self.newest.max(epoch);
                    self.tenures += 1;
                    self.holders.insert(epoch, *atm);
                }
            }
        }
    }

    /// The states that an ATM went through.
    pub(crate) fn digests(&mut self, now: Duration, atm: usize, seen: BTreeMap<u64, [u8; 32]>) {
        for (index, digest) in seen {
            let (known, whose) = *self.digests.entry(index).or_insert((digest, atm));
            if known != digest {
                let what = format!(
                    "atm{} and atm{} differ at index {index}",
                    whose + 1,
                    atm + 1
                );
                self.note(DIGESTS, now, what);
            }
        }
    }
}
