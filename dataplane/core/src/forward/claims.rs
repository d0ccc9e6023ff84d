//! Claims of a VIP by others: watched by every ATM, defended by the active one.

use std::net::IpAddr;

use model::Instant;

use super::Forwarder;
use crate::counters::Event;
use crate::gate::Voice;
use crate::group::Claimant;
use crate::{Conflict, DropReason, MacAddr, OtherAtms, Sink, Verdict};

impl Forwarder {
    /// The other ATMs, and which of them is active, are these from now on.
    pub fn set_other_atms(&mut self, others: OtherAtms, now: Instant) {
        self.group.set(others, now);
    }

    /// Who else claims a VIP, oldest first; bounded.
    pub fn conflicts(&self) -> &[Conflict] {
        self.conflicts.all()
    }

    /// Somebody says in an ARP packet or a neighbour discovery message of any kind that `address` is at `mac`.
    pub(super) fn learn(&mut self, address: IpAddr, mac: MacAddr, now: Instant) {
        self.neighbours.learn(address, mac, now);
        if self.group.learn(address, mac, now) {
            self.conflicts.forget(mac);
        }
    }

    /// Somebody else says that it has `vip`.
    pub(super) fn foreign_claim<S: Sink>(
        &mut self,
        vip: IpAddr,
        mac: MacAddr,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        self.watch_claim(vip, mac, now, out);
        // To a backup this may be the active ATM's announcement, and its own kernel may learn from it.
        let Ok(Voice { .. }) = self.gate.voice(now, out) else {
            return Ok(Verdict::Host);
        };
        self.speaker.defend(now);
        Err(DropReason::ForeignClaim)
    }

    /// Notes that `mac` has `vip`, or is about to take it. While this ATM is the active one, everybody else's claim is a
    /// conflict. To a backup no ATM's is: which of them is the active one it may know a moment later than the wire does.
    pub(super) fn watch_claim<S: Sink>(
        &mut self,
        vip: IpAddr,
        mac: MacAddr,
        now: Instant,
        out: &mut S,
    ) {
        let active = self.gate.voice(now, out).is_ok();
        let claimant = self.group.owner(mac);
        let conflict = match claimant {
            Claimant::Foreign => true,
            Claimant::Atm(_) => active,
            Claimant::Unknown => active || !self.group.has_unknowable(),
        };
        if !conflict {
            return;
        }
        self.counters.note(Event::ForeignClaim);
        if !self.conflicts.heard(vip, mac, claimant, now) {
            self.counters.note(Event::ConflictIgnored);
        }
    }
}
