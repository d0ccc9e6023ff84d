//! The lease as the node writes it and the engine reads it: two words of memory, so that silence needs no message.
//!
//! Invariant: a deadline is only ever seen together with the epoch it was granted to. Readers never wait.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dataplane_core::Lease;
use model::Instant;
use model::ids::Epoch;

use crate::offload::EgressGate;

/// No deadline: no lease.
const NONE: u64 = 0;

/// How often a reader looks again when a grant came in between. Grants are elections apart, so one retry is already
/// unheard of; after the last one the answer is "no lease", which is safe.
const READS_MAX: usize = 4;

/// A lease shared between the node, which writes it, and the engine, which checks it on every batch.
///
/// # Why a torn read can only shorten a lease
/// A grant of a newer epoch stores `until = 0`, then the epoch, then the new deadline; each store is a release and each
/// load an acquire. A reader loads epoch, deadline, epoch:
/// - it sees deadline 0: no lease, whatever the epochs are;
/// - it sees the old deadline and twice the old epoch: the lease as it was before the grant;
/// - it sees the new deadline: that load acquired everything stored before it, so its second load of the epoch gives
///   the new one (or a later one). The reader answers only when both loads agree, and epochs grow, so the epoch it
///   names is the deadline's own;
/// - it sees the old deadline and the new epoch first: impossible, since loading the new epoch acquired `until = 0`.
///
/// So what comes out is a pair that was granted, or nothing.
/// Writers exclude one another with a mutex that no reader takes: an extension belongs to the epoch that was checked.
#[derive(Debug, Default)]
pub struct LeaseCell {
    epoch: AtomicU64,
    until: AtomicU64,
    /// Whether the present epoch was revoked: nothing extends it any more.
    writer: Mutex<Revoked>,
    /// Wakes the engine, so that a new active ATM speaks at once.
    waker: OnceLock<Arc<OwnedFd>>,
    /// The same deadline where the kernel sees it.
    gate: OnceLock<Arc<EgressGate>>,
}

#[derive(Debug)]
struct Revoked(bool);

impl Default for Revoked {
    /// Before the first grant there is nothing to extend.
    fn default() -> Self {
        Self(true)
    }
}

impl LeaseCell {
    /// A cell without a lease.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the tenure of `epoch`, held until just before `until`, and wakes the engine.
    ///
    /// `false`, and nothing changes, when `epoch` is not newer than every epoch granted here before: epochs are never
    /// reused, and the first is 1.
    pub fn grant(&self, epoch: Epoch, until: Instant) -> bool {
        let mut revoked = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch.0 <= self.epoch.load(Ordering::Relaxed) {
            return false;
        }
        self.until.store(NONE, Ordering::Release);
        self.epoch.store(epoch.0, Ordering::Release);
        self.until.store(until.as_nanos(), Ordering::Release);
        self.tell_gate(until.as_nanos());
        revoked.0 = false;
        drop(revoked);
        self.wake();
        true
    }

    /// Moves the deadline of `epoch` to `until`.
    ///
    /// `false`, and nothing changes, when another epoch is in the cell, when it was revoked, or when `until` is not later.
    pub fn extend(&self, epoch: Epoch, until: Instant) -> bool {
        let revoked = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = !revoked.0
            && epoch.0 == self.epoch.load(Ordering::Relaxed)
            && until.as_nanos() > self.until.load(Ordering::Relaxed);
        if allowed {
            self.until.store(until.as_nanos(), Ordering::Release);
            self.tell_gate(until.as_nanos());
        }
        allowed
    }

    /// Ends the present tenure: nothing extends it again. Takes effect with the engine's next look, which is before its next send.
    pub fn revoke(&self) {
        let mut revoked = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.0 = true;
        self.until.store(NONE, Ordering::Release);
        self.tell_gate(NONE);
        drop(revoked);
        self.wake();
    }

    /// The lease as last written, held or run out. Never waits.
    pub fn read(&self) -> Option<Lease> {
        for _ in 0..READS_MAX {
            let before = self.epoch.load(Ordering::Acquire);
            let until = self.until.load(Ordering::Acquire);
            let after = self.epoch.load(Ordering::Acquire);
            if until == NONE {
                return None;
            }
            if before == after {
                return Some(Lease {
                    epoch: Epoch(before),
                    until: Instant::from_nanos(until),
                });
            }
        }
        None
    }

    /// From now on every deadline is written for the kernel's gate, too.
    pub(crate) fn guard_with(&self, gate: Arc<EgressGate>) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        gate.set_deadline(self.until.load(Ordering::Relaxed));
        // A cell serves one engine, and that has one gate.
        let _first = self.gate.set(gate);
    }

    fn tell_gate(&self, until: u64) {
        if let Some(gate) = self.gate.get() {
            gate.set_deadline(until);
        }
    }

    /// Names the engine to be woken by a grant. A cell serves one engine; a second one is refused.
    pub(crate) fn attach(&self, waker: Arc<OwnedFd>) -> bool {
        self.waker.set(waker).is_ok()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            crate::wake::ring(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_tenure_from_grant_to_revoke() {
        let cell = LeaseCell::new();
        assert_eq!(cell.read(), None);
        assert!(!cell.extend(Epoch(1), at(5)), "nothing was granted");
        assert!(cell.grant(Epoch(1), at(10)));
        assert!(cell.extend(Epoch(1), at(20)));
        assert!(!cell.extend(Epoch(1), at(15)), "earlier");
        assert!(!cell.extend(Epoch(2), at(30)), "another epoch");
        assert_eq!(
            cell.read(),
            Some(Lease {
                epoch: Epoch(1),
                until: at(20)
            })
        );
        cell.revoke();
        assert_eq!(cell.read(), None);
        assert!(!cell.extend(Epoch(1), at(40)), "revoked");
        assert!(!cell.grant(Epoch(1), at(40)), "an epoch is never reused");
        assert!(
            cell.grant(Epoch(2), at(12)),
            "a later tenure may end earlier"
        );
        assert_eq!(
            cell.read(),
            Some(Lease {
                epoch: Epoch(2),
                until: at(12)
            })
        );
    }

    /// Every deadline names its epoch in its upper bits: a reader that mixes two tenures is caught at once.
    #[test]
    fn a_reader_never_mixes_two_tenures() {
        const EPOCHS: u64 = 100_000;
        let cell = LeaseCell::new();
        let done = AtomicBool::new(false);
        let deadline = |epoch: u64, step: u64| at((epoch << 8) | step);
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut seen, mut newest) = (0_u64, 0);
                        while !done.load(Ordering::Relaxed) {
                            if let Some(lease) = cell.read() {
                                assert_eq!(lease.until.as_nanos() >> 8, lease.epoch.0);
                                assert!(lease.epoch.0 >= newest, "a tenure came back");
                                newest = lease.epoch.0;
                                seen += 1;
                            }
                        }
                        seen
                    })
                })
                .collect();
            // A second writer extends whatever epoch it last saw, late as metrics are.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if let Some(lease) = cell.read() {
                        cell.extend(lease.epoch, deadline(lease.epoch.0, 200));
                    }
                }
            });
            for epoch in 1..=EPOCHS {
                assert!(cell.grant(Epoch(epoch), deadline(epoch, 1)));
                cell.extend(Epoch(epoch - 1), deadline(epoch - 1, 255));
                if epoch % 3 == 0 {
                    cell.revoke();
                }
            }
            // The readers must have had their turn, also on one core.
            assert!(cell.grant(Epoch(EPOCHS + 1), deadline(EPOCHS + 1, 1)));
            thread::sleep(std::time::Duration::from_millis(50));
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > 0);
            }
        });
    }
}
