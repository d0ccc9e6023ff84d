//! What servers behind NAT send to clients: it passes here and leaves in the VIP's name.
//!
//! What belongs to no connection is the host's: such servers may have other business, and their gateway is this host's kernel.

use std::net::IpAddr;

use model::Instant;

use super::segment::Segment;
use super::way::{Piece, Way};
use super::{Forwarder, Received, is_stale, protocol};
use crate::connections::{Flow, Peer};
use crate::fragments::part::Place;
use crate::gate::Voice;
use crate::rewrite::nat::{self, Translation};
use crate::rewrite::{self, Refusal};
use crate::wire::icmp::{self, Icmp, Quote};
use crate::wire::ip::Ip;
use crate::{DropReason, Sink, Verdict};

impl Forwarder {
    /// A packet from a server behind NAT, or to a source address of full NAT; `None`: it is of no connection.
    pub(super) fn answer<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        now: Instant,
        out: &mut S,
    ) -> Option<Result<Verdict, DropReason>> {
        if packet.protocol() == icmp::protocol(packet) && !packet.is_fragment() {
            let Ok(Icmp::Error(quote)) = Icmp::parse(packet) else {
                return None;
            };
            let id = self.quoted_peer(&quote)?;
            let answered = self.error_of_server(id, &quote, frame, packet, now, out);
            return Some(self.or_pass_on(answered, frame, packet, now, out));
        }
        let part = packet.part();
        let (id, segment) = match part.map(|(key, part)| (key, part.place())) {
            Some((_, Err(_suspect))) => return None,
            Some((key, Ok(Place::Later))) => {
                let flow = self.fragments.decision(key, now)?;
                let Some(id) = self.connections.find(flow) else {
                    return Some(Err(DropReason::NoConnection));
                };
                (id, None)
            }
            None | Some((_, Ok(Place::Whole | Place::First))) => {
                let segment = Segment::of(packet).ok()?;
                let peer = Peer {
                    protocol: segment.protocol,
                    server: packet.source(),
                    server_port: segment.source_port,
                    peer: packet.destination(),
                    peer_port: segment.destination_port,
                };
                (self.connections.find_peer(&peer)?, Some(segment))
            }
        };
        let flow = self.connections.get(id)?.flow;
        let answered = self.answer_of_server(id, segment, frame, packet, now, out);
        let answered = self.or_pass_on(answered, frame, packet, now, out);
        if let (Some((key, _)), Some(_), Ok(Verdict::Transmit | Verdict::Relayed)) =
            (part, segment, &answered)
        {
            // Only later ones of an answer that passed follow it; those that come before their first are the host's.
            let _early = self.fragments.first(key, flow, false, now);
        }
        self.count_parts();
        Some(answered)
    }

    /// What a server says goes to the active ATM where this one may not speak: its neighbour entry for the gateway is out of date.
    fn or_pass_on<S: Sink>(
        &mut self,
        answered: Result<Verdict, DropReason>,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        match answered {
            // Without a voice the packet is as it came.
            Err(silent @ (DropReason::NotActive | DropReason::LeaseExpired)) => {
                self.pass_on(frame, packet, silent, now, out)
            }
            answered => answered,
        }
    }

    fn answer_of_server<S: Sink>(
        &mut self,
        id: u32,
        segment: Option<Segment>,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let (flow, mut voice) = self.speak_for(id, frame, now, out)?;
        let pin = self.connections.pin(id)?;
        if let Some(segment) = segment {
            self.connections.heard(id, segment.resets(), now);
        }
        let translation = self.way_back(flow, pin)?;
        let way_back = self.connections.way_back(id);
        let route = self.route_to_client(flow.client(), way_back, now)?;
        let way = Way {
            route,
            translation: Some(translation),
        };
        let piece = if segment.is_some() {
            Piece::WithHeader
        } else {
            Piece::Later
        };
        // About later fragments no error is sent (RFC 1812 §4.3.2.7).
        if piece == Piece::WithHeader && packet.ttl() <= 1 {
            return self.time_exceeded(packet, frame.link.source, now, &mut voice);
        }
        self.go(frame, packet, &way, piece, now, &mut voice)
    }

    /// An error about what a client sent to a server behind NAT: it goes to the client, and quotes what the client knows.
    fn error_of_server<S: Sink>(
        &mut self,
        id: u32,
        quote: &Quote,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        now: Instant,
        out: &mut S,
    ) -> Result<Verdict, DropReason> {
        let (flow, mut voice) = self.speak_for(id, frame, now, out)?;
        let pin = self.connections.pin(id)?;
        let answer = self.way_back(flow, pin)?;
        let server = self.routes.server(pin.server)?.address;
        // A router between here and the server speaks for itself.
        let outer = if packet.source() == server {
            answer
        } else {
            answer.without_source()
        };
        let way_back = self.connections.way_back(id);
        let route = self.route_to_client(flow.client(), way_back, now)?;
        let translation = Some((outer, answer.reversed()));
        self.send_error(quote, packet, frame, route, translation, &mut voice)
    }

    /// Sends an ICMP error on; about it no error is sent (RFC 1812 §4.3.2.7). `translation`: what is written over it, and over what it
    /// quotes.
    pub(super) fn send_error<S: Sink>(
        &mut self,
        quote: &Quote,
        packet: &mut Ip<&mut [u8]>,
        frame: Received,
        route: rewrite::Route,
        translation: Option<(Translation, Translation)>,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let plan = match rewrite::plan(packet, frame.offload, &route) {
            Ok(plan) => plan,
            Err(Refusal::Drop(reason)) => return Err(reason),
            Err(Refusal::TooBig) => return Err(DropReason::PathTooNarrow),
        };
        rewrite::finish(packet, frame.offload)?;
        if let Some((outer, inner)) = translation {
            if !nat::decrement_ttl(packet) {
                return Err(DropReason::TtlExpired);
            }
            nat::translate_error(packet, quote, outer, inner);
        }
        rewrite::send(packet, plan, &route, &mut self.identification, voice);
        Ok(route.verdict())
    }

    /// A voice for what a connection's server says, and the connection's flow.
    fn speak_for<'a, S: Sink>(
        &mut self,
        id: u32,
        frame: Received,
        now: Instant,
        out: &'a mut S,
    ) -> Result<(Flow, Voice<'a, S>), DropReason> {
        let entry = self.connections.get(id).ok_or(DropReason::NoConnection)?;
        let flow = entry.flow;
        self.about.service = Some(flow.service());
        self.about.server = Some(entry.pin.server);
        let voice = self.gate.voice(now, out)?;
        if is_stale(frame.waited) {
            return Err(DropReason::Stale);
        }
        Ok((flow, voice))
    }

    /// The connection of a client whose packet to a server is quoted.
    fn quoted_peer(&self, quote: &Quote) -> Option<u32> {
        self.connections.find_peer(&Peer {
            protocol: protocol(quote.protocol)?,
            server: quote.destination,
            server_port: quote.destination_port,
            peer: quote.source,
            peer_port: quote.source_port,
        })
    }

    /// Whether a packet may be of a server behind NAT, or an error of a router on the way to one.
    pub(super) fn may_be_of_server(&self, source: Option<IpAddr>, packet: &[u8]) -> bool {
        self.routes.has_nat()
            && source.is_some_and(|source| {
                self.routes.is_behind_nat(source) || icmp::may_be(source, packet)
            })
    }
}
