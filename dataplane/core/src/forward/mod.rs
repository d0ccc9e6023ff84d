//! The forwarder: the state of one interface's packet path, and the decision on each frame.
//!
//! `receive` is the packet path; `control` has what comes from the replicated state and from the clock.

mod control;
mod tcp;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::time::Duration;

use model::Instant;
use model::ids::{ServerId, VirtualServiceId};
use model::planted::{self, Bug};

use crate::connections::{Connections, Flow};
use crate::counters::{Counters, Event};
use crate::frame::Offload;
use crate::gate::{Gate, Voice};
use crate::limiter::Limiter;
use crate::neighbours::Neighbours;
use crate::rewrite::{self, Plan, Refusal, Route};
use crate::routes::Routes;
use crate::speaker::{self, Speaker};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::{Icmp, Quote};
use crate::wire::ipv4::{self, Ipv4};
use crate::{DropReason, Frame, Interface, Limits, MacAddr, Sink, Verdict, answers};
use model::conf::ForwardingMethod;

/// A frame for a VIP that waited longer than this in the socket is thrown away. A running engine takes a frame within
/// a few milliseconds; one that waited 100 ms tells of a stopped process, and its TCP sends it again anyway (at 200 ms
/// at the soonest), perhaps through a successor that must not be contradicted by old packets.
pub const FRAME_AGE_MAX: Duration = Duration::from_millis(100);

/// Fragmentation-needed: the sustained rate is 100 a second, for a router must limit its errors (RFC 1812 §4.3.2.8);
/// the burst lets as many clients learn the MTU at once.
const ICMP_INTERVAL: Duration = Duration::from_millis(10);
const ICMP_BURST: u32 = 100;

/// Which virtual service and server a frame concerned, as far as its decision found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct About {
    /// The virtual service it was for, or about.
    pub service: Option<VirtualServiceId>,
    /// The server it went to, would have gone to, or came from.
    pub server: Option<ServerId>,
}

/// Decides the fate of every frame of one interface.
///
/// Owned by one thread. Emits only through the [`Sink`] of the call, and speaks for a VIP only while the lease is held
/// at the `now` of the call (P1).
#[derive(Debug)]
pub struct Forwarder {
    interface: Interface,
    gate: Gate,
    routes: Routes,
    connections: Connections,
    neighbours: Neighbours,
    speaker: Speaker,
    icmp_limit: Limiter,
    /// The last identification we gave to a header of our own (RFC 791 §3.1; unique enough, RFC 6864 §4.1).
    identification: u16,
    about: About,
    counters: Counters,
}

impl Forwarder {
    /// A forwarder with an empty table and no lease: until both are given every frame is the host's.
    pub fn new(interface: Interface, limits: Limits) -> Self {
        Self {
            interface,
            gate: Gate::default(),
            routes: Routes::default(),
            connections: Connections::new(&limits),
            neighbours: Neighbours::default(),
            speaker: Speaker::default(),
            icmp_limit: Limiter::new(ICMP_INTERVAL, ICMP_BURST),
            identification: 0,
            about: About::default(),
            counters: Counters::default(),
        }
    }

    /// Decides one frame's fate and acts on it. `waited`: how long the frame sat in the socket.
    ///
    /// The frame's bytes may be changed (a partial checksum is finished, an echo is turned round), also when the
    /// verdict is a drop.
    pub fn receive(
        &mut self,
        frame: Frame<'_>,
        waited: Duration,
        now: Instant,
        out: &mut impl Sink,
    ) -> Verdict {
        self.about = About::default();
        let verdict = self.decide(frame, waited, now, out);
        self.counters.count(verdict);
        verdict
    }

    /// What the frame of the last [`receive`](Self::receive) was about.
    pub const fn about(&self) -> About {
        self.about
    }

    /// What happened so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Entries in the connection table, waiting ones included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connections that wait for their record, each with one held frame.
    pub const fn pending(&self) -> usize {
        self.connections.pending()
    }

    fn decide(
        &mut self,
        frame: Frame<'_>,
        waited: Duration,
        now: Instant,
        out: &mut impl Sink,
    ) -> Verdict {
        let Some((link, packet)) = Ethernet::split(frame.bytes) else {
            return Verdict::Host;
        };
        match link.ethertype {
            ethernet::IPV4 => {
                let for_vip = ipv4::destination(packet)
                    .is_some_and(|destination| self.routes.is_vip(destination));
                if !for_vip
                    || !(link.destination == self.interface.mac || link.destination.is_group())
                {
                    return Verdict::Host;
                }
                self.vip_packet(link, packet, frame.offload, waited, now, out)
                    .unwrap_or_else(Verdict::Drop)
            }
            ethernet::ARP => self
                .arp(link, packet, waited, now, out)
                .unwrap_or_else(Verdict::Drop),
            _ => Verdict::Host,
        }
    }

    fn arp<S: Sink>(
        &mut self,
        link: Ethernet,
        packet: &[u8],
        waited: Duration,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let Some((sender, target)) = arp::addresses(packet) else {
            return Ok(Verdict::Host);
        };
        let (claims, asks) = (self.routes.is_vip(sender), self.routes.is_vip(target));
        if !claims && !asks {
            if let Ok(arp) = Arp::parse(packet)
                && arp.sender_mac != self.interface.mac
            {
                self.neighbours.learn(sender, arp.sender_mac, now);
            }
            return Ok(Verdict::Host);
        }
        let arp = Arp::parse(packet).map_err(DropReason::Malformed)?;
        if arp.sender_mac == self.interface.mac {
            return Ok(Verdict::Host);
        }
        if claims {
            // To a backup this is the active ATM's announcement, and its own kernel may learn from it.
            let Ok(Voice { .. }) = self.gate.voice(now, out) else {
                return Ok(Verdict::Host);
            };
            self.counters.note(Event::ForeignClaim);
            self.speaker.defend(now);
            return Err(DropReason::ForeignClaim);
        }
        self.neighbours.learn(sender, arp.sender_mac, now);
        let to_us =
            link.destination == self.interface.mac || link.destination == MacAddr::BROADCAST;
        if arp.operation == Operation::Reply || !to_us {
            return Ok(Verdict::Host);
        }
        let mut voice = self.gate.voice(now, out)?;
        if is_stale(waited) {
            return Err(DropReason::Stale);
        }
        speaker::answer(self.interface.mac, &arp, &mut voice);
        Ok(Verdict::Answered)
    }

    fn vip_packet<S: Sink>(
        &mut self,
        link: Ethernet,
        packet: &mut [u8],
        offload: Offload,
        waited: Duration,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let mut voice = self.gate.voice(now, out)?;
        if is_stale(waited) {
            return Err(DropReason::Stale);
        }
        if link.destination.is_group() {
            return Err(DropReason::LinkBroadcast);
        }
        let mut packet = Ipv4::parse_mut(packet).map_err(DropReason::Malformed)?;
        if self.is_martian(packet.source()) {
            return Err(DropReason::Martian);
        }
        if packet.is_fragment() {
            return Err(DropReason::Fragment);
        }
        match packet.protocol() {
            ipv4::TCP => self.tcp(link, &mut packet, offload, now, &mut voice),
            ipv4::ICMP => match Icmp::parse(packet.payload()).map_err(DropReason::Malformed)? {
                Icmp::EchoRequest => {
                    rewrite::finish(&mut packet, offload)?;
                    let (ours, asker) = (self.interface.mac, link.source);
                    answers::echo(
                        &mut packet,
                        ours,
                        asker,
                        &mut self.identification,
                        &mut voice,
                    );
                    Ok(Verdict::Answered)
                }
                Icmp::Error(quote) => self.icmp_error(&quote, &mut packet, offload, &mut voice),
                Icmp::Other => Err(DropReason::UnsupportedIcmp),
            },
            _ => Err(DropReason::UnsupportedProtocol),
        }
    }

    /// An error about what a server sent to a client goes to that server.
    fn icmp_error<S: Sink>(
        &mut self,
        quote: &Quote,
        packet: &mut Ipv4<&mut [u8]>,
        offload: Offload,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        if quote.protocol != ipv4::TCP || quote.source != packet.destination() {
            return Err(DropReason::UnsupportedIcmp);
        }
        let service = self.routes.tcp(quote.source, quote.source_port)?;
        let service = self.routes.service(service)?.id;
        self.about.service = Some(service);
        let flow = Flow::new(quote.destination, quote.destination_port, service);
        let id = self
            .connections
            .find(flow)
            .ok_or(DropReason::NoConnection)?;
        let route = self.route(self.connections.server(id)?)?;
        let plan = match rewrite::plan(packet, offload, &route) {
            Ok(plan) => plan,
            Err(Refusal::Drop(reason)) => return Err(reason),
            // No error is sent about an error (RFC 1812 §4.3.2.7).
            Err(Refusal::TooBig) => return Err(DropReason::PathTooNarrow),
        };
        self.send(packet, plan, offload, &route, voice)?;
        Ok(Verdict::Transmit)
    }

    /// The way to a server.
    fn route(&mut self, server: ServerId) -> Result<Route, DropReason> {
        self.about.server = Some(server);
        let server = self.routes.server(server)?;
        let (tunnel, mtu) = match server.method {
            ForwardingMethod::Tunnel => (
                Some((self.interface.address, server.address)),
                self.interface.mtu.saturating_sub(rewrite::TUNNEL_LEN),
            ),
            ForwardingMethod::Direct => (None, self.interface.mtu),
            ForwardingMethod::Nat => return Err(DropReason::UnsupportedMethod),
        };
        let neighbour = server.neighbour.ok_or(DropReason::NoNeighbour)?;
        let Some(next_hop) = self.neighbours.mac(neighbour) else {
            self.neighbours.want(neighbour);
            return Err(DropReason::NoNeighbour);
        };
        Ok(Route {
            source: self.interface.mac,
            next_hop,
            tunnel,
            mtu,
        })
    }

    fn send<S: Sink>(
        &mut self,
        packet: &mut Ipv4<&mut [u8]>,
        plan: Plan,
        offload: Offload,
        route: &Route,
        voice: &mut Voice<'_, S>,
    ) -> Result<(), DropReason> {
        if !matches!(plan, Plan::Segments(_)) {
            rewrite::finish(packet, offload)?;
        }
        rewrite::send(packet, plan, route, &mut self.identification, voice);
        Ok(())
    }

    fn too_big<B: Deref<Target = [u8]>, S: Sink>(
        &mut self,
        packet: &Ipv4<B>,
        mtu: u16,
        sender: MacAddr,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        if !self.icmp_limit.take(now) {
            return Err(DropReason::IcmpLimited);
        }
        let ours = self.interface.mac;
        answers::fragmentation_needed(packet, mtu, ours, sender, &mut self.identification, voice);
        Ok(Verdict::FragmentationNeeded)
    }

    /// RFC 1812 §5.3.7: sources that no host has. A VIP sends nothing to a VIP through us.
    fn is_martian(&self, source: Ipv4Addr) -> bool {
        let [first, ..] = source.octets();
        first == 0 || source.is_loopback() || first >= 224 || self.routes.is_vip(source)
    }
}

/// Whether a frame that waited this long in the socket is thrown away.
fn is_stale(waited: Duration) -> bool {
    waited > FRAME_AGE_MAX && !planted::is(Bug::StaleFramesAfterPause)
}
