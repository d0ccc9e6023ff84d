//! The lease, and the only way out (P1).
//!
//! Invariant: this file has the only calls of [`Sink::transmit`], [`Sink::deliver`], [`Sink::relay`], [`Sink::open`], [`Sink::close`]
//! and [`Sink::unstick`]. What speaks for a
//! VIP needs a [`Voice`], and a voice exists only inside one call whose `now` lies before the lease's deadline. What a
//! backup may send is a question for its next hops in the name of its own address ([`ask`]), and a client's packet that it passes
//! to another ATM ([`relay`]).

use std::net::IpAddr;

use model::Instant;
use model::connections::{ConnectionKey, Pin};
use model::ids::Epoch;
use model::lease::Lease;
use model::planted::{self, Bug};
use model::sticky::StickyKey;

use crate::wire::arp::{Arp, Operation};
use crate::wire::{ethernet, nd, word};
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

    pub(crate) fn deliver(&mut self, head: &[u8], body: &[u8]) {
        self.out.deliver(head, body);
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

/// Has `send` pass a client's packet, or a server's answer, to the ATM at `atm`, from `ours`: allowed without a lease, since it says nothing to a client
/// and gives nothing to a server. The voice it gets reaches that ATM alone, and asks for no records.
pub(crate) fn relay<S: Sink, T>(
    ours: MacAddr,
    atm: MacAddr,
    out: &mut S,
    send: impl FnOnce(&mut Voice<'_, ToAtm<'_, S>>) -> T,
) -> T {
    let link = ethernet_addresses(atm, ours);
    let mut to_atm = ToAtm { link, out };
    send(&mut Voice { out: &mut to_atm })
}

/// The way to another ATM and nowhere else.
#[derive(Debug)]
pub(crate) struct ToAtm<'a, S> {
    link: [u8; 12],
    out: &'a mut S,
}

impl<S: Sink> Sink for ToAtm<'_, S> {
    /// What is addressed to anybody else, or is no IP packet, goes nowhere.
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        let Some(link) = head.first_chunk::<{ ethernet::HEADER_LEN }>() else {
            return;
        };
        let is_ip = [ethernet::IPV4, ethernet::IPV6].contains(&word(link, 12));
        if link[..12] == self.link && is_ip {
            self.out.relay(head, body);
        }
    }

    fn relay(&mut self, head: &[u8], body: &[u8]) {
        self.transmit(head, body);
    }

    /// The host's own stack is no other ATM.
    fn deliver(&mut self, _head: &[u8], _body: &[u8]) {}

    fn open(&mut self, _key: ConnectionKey, _pin: Pin) -> bool {
        false
    }

    fn close(&mut self, _key: ConnectionKey) -> bool {
        false
    }

    fn unstick(&mut self, _key: StickyKey) -> bool {
        false
    }
}

fn ethernet_addresses(destination: MacAddr, source: MacAddr) -> [u8; 12] {
    let mut addresses = [0; 12];
    addresses[..6].copy_from_slice(&destination.0);
    addresses[6..].copy_from_slice(&source.0);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Recorder;

    #[test]
    fn a_relay_reaches_another_atm_alone() {
        let [ours, atm, other] = [1, 2, 3].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
        let frame = |destination: MacAddr, source: MacAddr, kind: [u8; 2]| {
            [&destination.0[..], &source.0, &kind, b"packet"].concat()
        };
        let mut out = Recorder::default();
        relay(ours, atm, &mut out, |voice| {
            for bytes in [
                frame(other, ours, [8, 0]),
                frame(MacAddr::BROADCAST, ours, [8, 0]),
                frame(atm, other, [8, 0]),
                frame(atm, ours, [8, 6]),
                vec![2; 13],
            ] {
                voice.transmit(&bytes, b"");
            }
            voice.deliver(&frame(atm, ours, [8, 0]), b"s data");
            voice.transmit(&frame(atm, ours, [8, 0]), b"s data");
        });
        assert!(out.frames.is_empty() && out.delivered.is_empty());
        assert_eq!(
            out.relayed,
            [frame(atm, ours, [8, 0])
                .iter()
                .chain(b"s data")
                .copied()
                .collect::<Vec<_>>()]
        );
    }
}
