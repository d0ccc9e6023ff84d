//! ICMP errors of our own: who sent a packet hears what is wrong with it, and not too often.

use std::ops::Deref;
use std::time::Duration;

use model::Instant;

use super::Forwarder;
use crate::answers::{self, Problem};
use crate::gate::Voice;
use crate::wire::ip::Ip;
use crate::wire::ipv6;
use crate::{DropReason, MacAddr, Sink, Verdict};

/// All of them together: the sustained rate is 100 a second, for a router must limit its errors (RFC 1812 §4.3.2.8);
/// the burst lets as many clients learn an MTU at once.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
pub(super) const BURST: u32 = 100;

impl Forwarder {
    pub(super) fn too_big<B: Deref<Target = [u8]>, S: Sink>(
        &mut self,
        packet: &Ip<B>,
        mtu: u16,
        sender: MacAddr,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        // Less than this is nothing that an IPv6 host would do (RFC 8200 §5).
        if matches!(packet, Ip::V6(_)) && mtu < ipv6::MTU_MIN {
            return Err(DropReason::PathTooNarrow);
        }
        if !self.icmp_limit.take(now) {
            return Err(DropReason::IcmpLimited);
        }
        if self.complain(packet, Problem::TooBig { mtu }, sender, voice) {
            Ok(Verdict::FragmentationNeeded)
        } else {
            Err(DropReason::PathTooNarrow)
        }
    }

    /// Tells who sent a packet what is wrong with it: a client in the name of the VIP it wrote to, a server behind NAT in that of its
    /// gateway, as a router would (RFC 1812 §4.3.2.4), or of the address of full NAT that it answers to. `false`: there is no such
    /// gateway, and nobody speaks in a client's name.
    fn complain<B: Deref<Target = [u8]>, S: Sink>(
        &mut self,
        packet: &Ip<B>,
        problem: Problem,
        sender: MacAddr,
        voice: &mut Voice<'_, S>,
    ) -> bool {
        let to = packet.destination();
        let name = if self.routes.is_vip(to) {
            Some(to)
        } else {
            self.routes.gateway_of(to)
        };
        let Some(name) = name else { return false };
        let link = (self.interface.mac, sender);
        let identification = &mut self.identification;
        answers::error(packet, problem, name, link, identification, voice);
        true
    }

    /// A packet between a client and a server behind NAT has passed as many routers as it may.
    pub(super) fn time_exceeded<B: Deref<Target = [u8]>, S: Sink>(
        &mut self,
        packet: &Ip<B>,
        sender: MacAddr,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        if !self.icmp_limit.take(now) {
            return Err(DropReason::IcmpLimited);
        }
        if self.complain(packet, Problem::TimeExceeded, sender, voice) {
            Ok(Verdict::TimeExceeded)
        } else {
            Err(DropReason::TtlExpired)
        }
    }
}
