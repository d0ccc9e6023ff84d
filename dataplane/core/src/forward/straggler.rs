//! Stragglers: frames for a VIP, and answers of servers behind NAT, from who has not heard of a takeover yet. A backup passes them to
//! the active ATM.
//!
//! Invariant: what is passed on came from no ATM and goes to one, so it is passed on once (ADR-0010).

use std::time::Duration;

use model::Instant;

use super::way::{Piece, Way};
use super::{Forwarder, Received, is_stale};
use crate::rewrite::{self, Refusal, Route};
use crate::wire::ip::Ip;
use crate::{DropReason, Sink, Verdict, gate};

/// Frames passed on: 100,000 a second, what a router with a stale entry may bring of all clients, and a fraction of what an
/// engine forwards; the burst is that of 10 ms.
pub(super) const RELAY_INTERVAL: Duration = Duration::from_micros(10);
pub(super) const RELAY_BURST: u32 = 1000;

impl Forwarder {
    /// A frame for a VIP while this ATM may not speak, because of `silent`.
    pub(super) fn straggler<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut [u8],
        silent: DropReason,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        if frame.link.destination != self.interface.mac {
            return Err(silent);
        }
        if self.group.relay_to(frame.link.source).is_none() {
            return Err(silent);
        }
        if is_stale(frame.waited) {
            return Err(DropReason::Stale);
        }
        let mut packet = Ip::parse_mut(packet).map_err(DropReason::Malformed)?;
        self.pass_on(frame, &mut packet, silent, now, out)
    }

    /// Passes a packet to the active ATM that was addressed to this one, which may not speak because of `silent`.
    pub(super) fn pass_on<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        silent: DropReason,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let Some(atm) = self.group.relay_to(frame.link.source) else {
            return Err(silent);
        };
        if is_stale(frame.waited) {
            return Err(DropReason::Stale);
        }
        if !self.relay_limit.take(now) {
            return Err(DropReason::RelayLimited);
        }
        let ours = self.interface.mac;
        let route = Route {
            source: ours,
            next_hop: Some(atm),
            tunnel: None,
            mtu: self.interface.mtu,
            outer_mtu: u16::MAX,
        };
        let plan =
            rewrite::plan(packet, frame.offload, &route).map_err(|refusal| match refusal {
                // It came over this very network: only a wrong MTU makes it so, and a backup tells nobody.
                Refusal::TooBig => DropReason::PathTooNarrow,
                Refusal::Drop(reason) => reason,
            })?;
        gate::relay(ours, atm, out, |voice| {
            let way = Way {
                route,
                translation: None,
            };
            let piece = Piece::WithHeader;
            self.send(packet, plan, frame.offload, &way, piece, voice)
        })?;
        Ok(Verdict::Relayed)
    }
}
