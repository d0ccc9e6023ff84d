//! The lease, and the only way out (P1).
//!
//! Invariant: this file has the only calls of [`Sink::transmit`], [`Sink::open`], [`Sink::close`] and [`Sink::unstick`]. What speaks for a
//! VIP needs a [`Voice`], and a voice exists only inside one call whose `now` lies before the lease's deadline. The one
//! thing a backup may send is a question for its next hops in the name of its own address ([`ask`]).

use std::net::IpAddr;

use model::Instant;
use model::connections::{ConnectionKey, Pin};
use model::ids::Epoch;
use model::lease::Lease;
use model::planted::{self, Bug};
use model::sticky::StickyKey;

use crate::wire::arp::{Arp, Operation};
use crate::wire::nd;
use crate::{DropReason, Interface, MacAddr, Sink};

/// What changed when a lease was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The same tenure, or still none.
    None,
    /// The first lease of a newer epoch.
    NewEpoch,
    /// There was one, there is none.
    Gone,
}

/// Holds the lease.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    lease: Option<Lease>,
    /// The newest epoch seen: a lease of an older one is never held again.
    newest: Option<Epoch>,
}

impl Gate {
    /// Takes the lease as it is known now.
    pub(crate) fn set(&mut self, lease: Option<Lease>) -> Change {
        let lease = lease.filter(|lease| self.newest.is_none_or(|newest| lease.epoch >= newest));
        let Some(lease) = lease else {
            if planted::is(Bug::LeaseOff) {
                return Change::None;
            }
            return if self.lease.take().is_some() {
                Change::Gone
            } else {
                Change::None
            };
        };
        self.lease = Some(lease);
        if self.newest.replace(lease.epoch) == Some(lease.epoch) {
            Change::None
        } else {
            Change::NewEpoch
        }
    }

    /// The lease that was set last, held or not.
    pub(crate) const fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// A voice for the duration of one call, or why this ATM is silent.
    pub(crate) fn voice<'a, S: Sink>(
        &self,
        now: Instant,
        out: &'a mut S,
    ) -> Result<Voice<'a, S>, DropReason> {
        let lease = self.lease.ok_or(DropReason::NotActive)?;
        if now < lease.until || planted::is(Bug::LeaseOff) {
            Ok(Voice { out })
        } else {
            Err(DropReason::LeaseExpired)
        }
    }
}

/// Proof that the lease is held at the `now` of this call.
#[derive(Debug)]
pub(crate) struct Voice<'a, S> {
    out: &'a mut S,
}

impl<S: Sink> Voice<'_, S> {
    pub(crate) fn transmit(&mut self, head: &[u8], body: &[u8]) {
        self.out.transmit(head, body);
    }

    #[must_use]
    pub(crate) fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool {
        self.out.open(key, pin)
    }

    #[must_use]
    pub(crate) fn close(&mut self, key: ConnectionKey) -> bool {
        self.out.close(key)
    }

    #[must_use]
    pub(crate) fn unstick(&mut self, key: StickyKey) -> bool {
        self.out.unstick(key)
    }
}

/// Asks who has `target`, in the name of our own address: allowed without a lease, since it claims no VIP. `known`: only asks
/// whether that one still has it. `false`: we have no address of that family to ask with.
pub(crate) fn ask<S: Sink>(
    interface: &Interface,
    target: IpAddr,
    known: Option<MacAddr>,
    out: &mut S,
) -> bool {
    match target {
        IpAddr::V4(target) => {
            let request = Arp {
                operation: Operation::Request,
                sender_mac: interface.mac,
                sender: interface.address,
                target_mac: MacAddr::ZERO,
                target,
            };
            out.transmit(&request.frame(known.unwrap_or(MacAddr::BROADCAST)), &[]);
        }
        IpAddr::V6(target) => {
            let Some(source) = interface.link_local.or(interface.address6) else {
                return false;
            };
            let question = nd::solicitation(interface.mac, source, target, known);
            out.transmit(&question, &[]);
        }
    }
    true
}
