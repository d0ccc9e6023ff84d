//! The way of a connection's packets to its server, and with NAT back to its client.

use std::net::IpAddr;
use std::num::NonZeroU16;

use model::Instant;
use model::conf::ForwardingMethod;
use model::connections::Pin;
use model::ids::ServerId;

use super::{Forwarder, Received};
use crate::connections::{Flow, Peer};
use crate::frame::Offload;
use crate::gate::Voice;
use crate::rewrite::nat::{self, Translation};
use crate::rewrite::{self, Plan, Refusal, Route, Tunnel};
use crate::routes::Server;
use crate::wire::ip::Ip;
use crate::{DropReason, MacAddr, Sink, Verdict};

/// Headers of IPv4 and TCP, of IPv6 and TCP: what an MSS does not count (RFC 9293 §3.7.1).
const V4_HEADERS: u16 = 40;
const V6_HEADERS: u16 = 60;
/// Ports that full NAT gives out: not those that a service may have of old (RFC 6335 §6), nor 0.
const PORT_MIN: u16 = 1024;
/// Ports looked at for one connection: with a quarter of all of them free, one in 10^127 finds none.
const PORT_TRIES_MAX: u16 = 1024;

/// Where packets go, and what is written over their ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) route: Route,
    pub(super) translation: Option<Translation>,
}

/// What a packet is of its datagram, for who translates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It has its transport header.
    WithHeader,
    /// A later fragment.
    Later,
}

impl Forwarder {
    /// The way of a connection from its client to its server.
    pub(super) fn way(&mut self, flow: Flow, pin: Pin) -> Result<Way, DropReason> {
        self.about.server = Some(pin.server);
        let server = self.routes.server(pin.server)?;
        let translation = if server.method == ForwardingMethod::Nat {
            let service = self.routes.service_of(flow.service())?;
            let source = server
                .source
                .zip(pin.source_port)
                .map(|(source, port)| (source, port.get()));
            Some(Translation {
                source,
                destination: Some((server.address, service.port)),
            })
        } else {
            None
        };
        let tunnel = self.tunnel(server)?;
        let link = self.interface.mtu;
        let (next_hop, (mtu, outer_mtu)) = if server.here {
            // The loopback interface carries what the interface brings and the outer header around it.
            let overhead = tunnel.ok_or(DropReason::NotByTunnel)?.overhead();
            (None, (link.min(u16::MAX - overhead), u16::MAX))
        } else {
            let mtus = tunnel.map_or((link, u16::MAX), |tunnel| {
                self.mtu_through(server.address, tunnel.overhead(), flow.client())
            });
            let neighbour = server.neighbour.ok_or(DropReason::NoNeighbour)?;
            let Some(mac) = self.neighbours.mac(neighbour) else {
                self.neighbours.want(neighbour);
                return Err(DropReason::NoNeighbour);
            };
            (Some(mac), mtus)
        };
        Ok(Way {
            route: Route {
                source: self.interface.mac,
                next_hop,
                tunnel,
                mtu,
                outer_mtu,
            },
            translation,
        })
    }

    /// What is written over what a server behind NAT sends: its client sees the VIP.
    pub(super) fn way_back(&self, flow: Flow, pin: Pin) -> Result<Translation, DropReason> {
        let service = self.routes.service_of(flow.service())?;
        let server = self.routes.server(pin.server)?;
        Ok(Translation {
            source: Some((service.vip, service.port)),
            destination: server.source.map(|_| (flow.client(), flow.port())),
        })
    }

    /// How the server of a connection knows it; `None` where answers do not pass here.
    pub(super) fn peer(&self, flow: Flow, pin: Pin) -> Option<Peer> {
        let server = self.routes.server(pin.server).ok()?;
        if server.method != ForwardingMethod::Nat {
            return None;
        }
        let service = self.routes.service_of(flow.service()).ok()?;
        let (peer, peer_port) = match server.source {
            Some(source) => (source, pin.source_port?.get()),
            None => (flow.client(), flow.port()),
        };
        Some(Peer {
            protocol: service.protocol,
            server: server.address,
            server_port: service.port,
            peer,
            peer_port,
        })
    }

    /// A pin to this server for a new connection: with full NAT with a port of its own, which no other connection has there.
    pub(super) fn pin(&mut self, flow: Flow, server: ServerId) -> Result<Pin, DropReason> {
        let known = self.routes.server(server)?;
        let pin = Pin::from(server);
        if known.source.is_none() {
            let taken = self
                .peer(flow, pin)
                .is_some_and(|peer| self.connections.find_peer(&peer).is_some());
            return if taken {
                Err(DropReason::NatCollision)
            } else {
                Ok(pin)
            };
        }
        for _ in 0..PORT_TRIES_MAX {
            self.next_port = self.next_port.wrapping_add(1).max(PORT_MIN);
            let pin = Pin {
                server,
                source_port: NonZeroU16::new(self.next_port),
            };
            if let Some(peer) = self.peer(flow, pin)
                && self.connections.find_peer(&peer).is_none()
            {
                return Ok(pin);
            }
        }
        Err(DropReason::NatPortsExhausted)
    }

    /// A new tenure begins with another port than the last: what its predecessor gave out last may be open at servers still.
    pub(super) fn begin_ports(&mut self, epoch: u64) {
        // Far from the ports of the epochs before: multiples of the golden ratio, as Fibonacci hashing has them (Knuth 6.4).
        let spread = epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        self.next_port = u16::try_from(spread).unwrap_or(0).max(PORT_MIN);
    }

    /// Keeps the table of what servers know in step with a connection's pin.
    pub(super) fn link(&mut self, id: u32) {
        let Some((flow, pin)) = self
            .connections
            .get(id)
            .map(|entry| (entry.flow, entry.pin))
        else {
            return;
        };
        let peer = self.peer(flow, pin);
        if !self.connections.link(id, peer) {
            self.counters.note(crate::Event::NatCollision);
        }
    }

    /// The tunnel to a server, if that is how it is reached.
    fn tunnel(&self, server: &Server) -> Result<Option<Tunnel>, DropReason> {
        Ok(match (server.method, server.address) {
            (ForwardingMethod::Tunnel, IpAddr::V4(destination)) => Some(Tunnel::V4 {
                source: self.interface.address,
                destination,
            }),
            (ForwardingMethod::Tunnel, IpAddr::V6(destination)) => Some(Tunnel::V6 {
                source: self.interface.address6.ok_or(DropReason::NoOwnAddress)?,
                destination,
            }),
            (ForwardingMethod::Direct | ForwardingMethod::Nat, _) => None,
        })
    }

    /// The way to a client: where its packets come from, else as the kernel's routes say.
    pub(super) fn route_to_client(
        &mut self,
        client: IpAddr,
        way_back: Option<MacAddr>,
        now: Instant,
    ) -> Result<Route, DropReason> {
        let mac = match way_back {
            Some(mac) => Some(mac),
            None => self
                .routes
                .next_hop
                .of(client)
                .and_then(|next_hop| self.neighbours.resolve(next_hop, now)),
        };
        Ok(Route {
            source: self.interface.mac,
            next_hop: Some(mac.ok_or(DropReason::NoNeighbour)?),
            tunnel: None,
            mtu: self.interface.mtu,
            outer_mtu: u16::MAX,
        })
    }

    /// Sends a packet on its way, or tells its sender that it is too big.
    pub(super) fn go<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        way: &Way,
        piece: Piece,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        match rewrite::plan(packet, frame.offload, &way.route) {
            Ok(plan) => {
                self.send(packet, plan, frame.offload, way, piece, voice)?;
                Ok(way.route.verdict())
            }
            Err(Refusal::TooBig) => {
                self.too_big(packet, way.route.mtu, frame.link.source, now, voice)
            }
            Err(Refusal::Drop(reason)) => Err(reason),
        }
    }

    /// Sends a packet as planned.
    pub(super) fn send<S: Sink>(
        &mut self,
        packet: &mut Ip<&mut [u8]>,
        plan: Plan,
        offload: Offload,
        way: &Way,
        piece: Piece,
        voice: &mut Voice<'_, S>,
    ) -> Result<(), DropReason> {
        if let Some(translation) = way.translation {
            if !nat::decrement_ttl(packet) {
                return Err(DropReason::TtlExpired);
            }
            if piece == Piece::WithHeader {
                let headers = match packet {
                    Ip::V4(_) => V4_HEADERS,
                    Ip::V6(_) => V6_HEADERS,
                };
                let mss = way.route.mtu.saturating_sub(headers);
                nat::clamp_mss(packet, mss, offload.checksum);
            }
            let ports = piece == Piece::WithHeader;
            nat::translate(packet, translation, ports, offload.checksum);
        }
        if !matches!(plan, Plan::Segments(_)) {
            rewrite::finish(packet, offload)?;
        }
        rewrite::send(packet, plan, &way.route, &mut self.identification, voice);
        Ok(())
    }
}
