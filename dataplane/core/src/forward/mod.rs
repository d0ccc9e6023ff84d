//! The forwarder: the state of one interface's packet path, and the decision on each frame.
//!
//! `receive` is the packet path; `control` has what comes from the replicated state and from the clock.
//!
//! On the packet path what is larger than a word is taken out of a `Result` by reference, or its maker is inlined. A copy is read in
//! other pieces than it was just written in, and then a processor cannot forward what it stored to who loads it, and waits (Intel 64 and
//! IA-32 Optimization Reference Manual §3.6.4; of AMD the same is true): a dozen such copies were a third of a decision's time.

mod answers_of_servers;
mod claims;
mod control;
mod errors;
mod fragments;
mod held;
mod path_mtu;
mod segment;
mod straggler;
#[cfg(test)]
mod tests;
mod way;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use model::Instant;
use model::ids::{ServerId, VirtualServiceId};
use model::planted::{self, Bug};

use crate::conflicts::Conflicts;
use crate::connections::{Connections, Flow};
use crate::counters::Counters;
use crate::fragments::{Bounds, Fragments};
use crate::frame::Offload;
use crate::gate::{Gate, Voice};
use crate::group::Group;
use crate::limiter::Limiter;
use crate::neighbours::Neighbours;
use crate::path_mtus::PathMtus;
use crate::rewrite;
use crate::routes::Routes;
use crate::speaker::{self, Speaker};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::{self, Icmp, Quote};
use crate::wire::ip::Ip;
use crate::wire::ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::nd::{self, Neighbour};
use crate::{DropReason, Frame, Interface, Limits, MacAddr, Sink, Verdict, answers};
use model::conf::Protocol;
use segment::Segment;

/// A frame for a VIP that waited longer than this in the socket is thrown away. A running engine takes a frame within
/// a few milliseconds; one that waited 100 ms tells of a stopped process, and its TCP sends it again anyway (at 200 ms
/// at the soonest), perhaps through a successor that must not be contradicted by old packets.
pub const FRAME_AGE_MAX: Duration = Duration::from_millis(100);

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
    fragments: Fragments<Flow>,
    neighbours: Neighbours,
    path_mtus: PathMtus,
    speaker: Speaker,
    icmp_limit: Limiter,
    group: Group,
    conflicts: Conflicts,
    relay_limit: Limiter,
    /// The last identification we gave to a header of our own: all of it to an IPv6 fragment, half of it to an IPv4 header (RFC 791 §3.1;
    /// unique enough, RFC 6864 §4.1).
    identification: u32,
    /// The last port that full NAT gave out.
    next_port: u16,
    /// Where a held packet is changed on its way out.
    scratch: Vec<u8>,
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
            fragments: Fragments::new(Bounds::default()),
            neighbours: Neighbours::default(),
            path_mtus: PathMtus::default(),
            speaker: Speaker::default(),
            icmp_limit: Limiter::new(errors::INTERVAL, errors::BURST),
            group: Group::default(),
            conflicts: Conflicts::default(),
            relay_limit: Limiter::new(straggler::RELAY_INTERVAL, straggler::RELAY_BURST),
            identification: 0,
            next_port: 0,
            scratch: Vec::new(),
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
        self.counters.count(verdict, self.about);
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

    #[cfg(test)]
    fn sticky_clients(&self) -> usize {
        self.connections.sticky.len()
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
        let (source, destination) = match link.ethertype {
            ethernet::IPV4 => (
                ipv4::source(packet).map(IpAddr::V4),
                ipv4::destination(packet).map(IpAddr::V4),
            ),
            ethernet::IPV6 if nd::is_message(packet) => {
                return self
                    .neighbour(link, packet, waited, now, out)
                    .unwrap_or_else(Verdict::Drop);
            }
            ethernet::IPV6 => (
                ipv6::source(packet).map(IpAddr::V6),
                ipv6::destination(packet).map(IpAddr::V6),
            ),
            ethernet::ARP => {
                return self
                    .arp(link, packet, waited, now, out)
                    .unwrap_or_else(Verdict::Drop);
            }
            _ => return Verdict::Host,
        };
        let for_vip = destination.is_some_and(|destination| self.routes.is_vip(destination));
        let to_us = link.destination == self.interface.mac;
        let frame = Received {
            link,
            offload: frame.offload,
            waited,
        };
        if to_us
            && self.may_be_of_server(source, packet)
            && let Ok(mut packet) = Ip::parse_mut(packet)
            && let Some(answered) = self.answer(frame, &mut packet, now, out)
        {
            return answered.unwrap_or_else(Verdict::Drop);
        }
        if !for_vip || !(to_us || link.destination.is_group()) {
            if to_us {
                self.watch_path(source, destination, packet, now);
            }
            return Verdict::Host;
        }
        let decided = match self.gate.voice(now, out).map(|Voice { .. }| ()) {
            Ok(()) => self.vip_packet(frame, packet, now, out),
            Err(silent) => self.straggler(frame, packet, silent, now, out),
        };
        decided.unwrap_or_else(Verdict::Drop)
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
        let (claims, asks) = (
            self.routes.is_vip(sender.into()),
            self.routes.is_vip(target.into()),
        );
        if !claims && !asks {
            if let Ok(arp) = Arp::parse(packet)
                && arp.sender_mac != self.interface.mac
            {
                self.learn(sender.into(), arp.sender_mac, now);
            }
            return Ok(Verdict::Host);
        }
        let arp = Arp::parse(packet).map_err(DropReason::Malformed)?;
        if arp.sender_mac == self.interface.mac {
            return Ok(Verdict::Host);
        }
        if claims {
            return self.foreign_claim(sender.into(), arp.sender_mac, now, out);
        }
        if sender.is_unspecified() {
            // Somebody wants to take the VIP, and looks whether it is free (RFC 5227 §2.1.1).
            self.watch_claim(target.into(), arp.sender_mac, now, out);
        }
        self.learn(sender.into(), arp.sender_mac, now);
        if arp.operation == Operation::Reply || !self.is_to_us(link) {
            return Ok(Verdict::Host);
        }
        let mut voice = self.gate.voice(now, out)?;
        if is_stale(waited) {
            return Err(DropReason::Stale);
        }
        speaker::answer(self.interface.mac, &arp, &mut voice);
        Ok(Verdict::Answered)
    }

    /// A neighbour solicitation or advertisement: ARP's part in IPv6.
    fn neighbour<S: Sink>(
        &mut self,
        link: Ethernet,
        packet: &[u8],
        waited: Duration,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let is_vip =
            |address: Option<Ipv6Addr>| address.is_some_and(|v6| self.routes.is_vip(v6.into()));
        let concerns_vip = is_vip(nd::target(packet)) || is_vip(ipv6::source(packet));
        let parsed = Ipv6::parse(packet).and_then(|packet| Neighbour::parse(&packet));
        let neighbour = match parsed {
            Ok(neighbour) if link.source != self.interface.mac => neighbour,
            Err(malformed) if concerns_vip => return Err(DropReason::Malformed(malformed)),
            Ok(_) | Err(_) => return Ok(Verdict::Host),
        };
        let asks = neighbour.kind == nd::Kind::Solicitation;
        let speaker = if asks {
            neighbour.source
        } else {
            neighbour.target
        };
        let claimed = [neighbour.source, speaker].map(IpAddr::from);
        if let Some(vip) = claimed
            .into_iter()
            .find(|claimed| self.routes.is_vip(*claimed))
        {
            let mac = neighbour.link.unwrap_or(link.source);
            return self.foreign_claim(vip, mac, now, out);
        }
        if let Some(mac) = neighbour.link {
            self.learn(speaker.into(), mac, now);
        }
        if asks && neighbour.source.is_unspecified() && concerns_vip {
            // Somebody wants to take the VIP (RFC 4862 §5.4.2).
            self.watch_claim(neighbour.target.into(), link.source, now, out);
        }
        if !asks || !concerns_vip || !(self.is_to_us(link) || link.destination.is_group()) {
            return Ok(Verdict::Host);
        }
        let mut voice = self.gate.voice(now, out)?;
        if is_stale(waited) {
            return Err(DropReason::Stale);
        }
        let asker = if neighbour.source.is_unspecified() {
            None
        } else {
            Some((neighbour.link.unwrap_or(link.source), neighbour.source))
        };
        let (ours, target) = (self.interface.mac, neighbour.target);
        let router = self.routes.is_gateway(target.into());
        speaker::advertise(ours, target, router, asker, &mut voice);
        Ok(Verdict::Answered)
    }

    fn is_to_us(&self, link: Ethernet) -> bool {
        link.destination == self.interface.mac || link.destination == MacAddr::BROADCAST
    }

    fn vip_packet<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut [u8],
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let mut voice = self.gate.voice(now, out)?;
        if is_stale(frame.waited) {
            return Err(DropReason::Stale);
        }
        if frame.link.destination.is_group() {
            return Err(DropReason::LinkBroadcast);
        }
        let mut packet = Ip::parse_mut(packet);
        let packet = packet
            .as_mut()
            .map_err(|malformed| DropReason::Malformed(*malformed))?;
        if self.is_martian(packet.source()) {
            return Err(DropReason::Martian);
        }
        if let Ip::V6(v6) = packet
            && v6.is_source_routed()
        {
            return Err(DropReason::SourceRoute);
        }
        if let Some(part) = packet.part() {
            let verdict = self.fragment(frame, packet, part, now, &mut voice);
            self.count_parts();
            return verdict;
        }
        if packet.protocol() != icmp::protocol(packet) {
            let segment = Segment::of(packet)?;
            return self.segment(frame, packet, &segment, now, &mut voice);
        }
        match Icmp::parse(packet).map_err(DropReason::Malformed)? {
            Icmp::EchoRequest => {
                rewrite::finish(packet, frame.offload)?;
                let (ours, asker) = (self.interface.mac, frame.link.source);
                let identification = &mut self.identification;
                answers::echo(packet, ours, asker, identification, &mut voice);
                Ok(Verdict::Answered)
            }
            Icmp::Error(quote) => self.icmp_error(&quote, packet, frame, &mut voice),
            Icmp::Other => Err(DropReason::UnsupportedIcmp),
        }
    }

    /// An error about what a server sent to a client goes to that server.
    fn icmp_error<S: Sink>(
        &mut self,
        quote: &Quote,
        packet: &mut Ip<&mut [u8]>,
        frame: Received,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        if quote.source != packet.destination() {
            return Err(DropReason::UnsupportedIcmp);
        }
        let protocol = protocol(quote.protocol).ok_or(DropReason::UnsupportedIcmp)?;
        let service = self.routes.at(quote.source, protocol, quote.source_port)?;
        let service = self.routes.service(service)?.id;
        self.about.service = Some(service);
        let flow = Flow::new(quote.destination, quote.destination_port, service);
        let id = self
            .connections
            .find(flow)
            .ok_or(DropReason::NoConnection)?;
        let way = self.way(flow, self.connections.pin(id)?)?;
        let translation = way
            .translation
            .map(|to| (to.without_source(), to.reversed()));
        self.send_error(quote, packet, frame, way.route, translation, voice)
    }

    /// RFC 1812 §5.3.7, RFC 4291 §2.5 and §2.7: sources that no host has. A VIP sends nothing to a VIP through us.
    fn is_martian(&self, source: IpAddr) -> bool {
        let never = match source {
            IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_loopback() || v4.octets()[0] >= 224,
            IpAddr::V6(v6) => {
                v6.is_unspecified()
                    || v6.is_loopback()
                    || v6.is_multicast()
                    || v6.to_ipv4_mapped().is_some()
            }
        };
        never || self.routes.is_vip(source)
    }
}

/// What is known of a frame besides its packet.
#[derive(Clone, Copy, Debug)]
struct Received {
    link: Ethernet,
    offload: Offload,
    waited: Duration,
}

/// The protocol of virtual services with this number.
fn protocol(number: u8) -> Option<Protocol> {
    match number {
        ipv4::TCP => Some(Protocol::Tcp),
        ipv4::UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// Whether a frame that waited this long in the socket is thrown away.
fn is_stale(waited: Duration) -> bool {
    waited > FRAME_AGE_MAX && !planted::is(Bug::StaleFramesAfterPause)
}
