//! What routers on the way to a server by tunnel say of packets that are too large: clients are told the smaller MTU from then on.
//!
//! The frame is only looked at. It is addressed to this host, and its kernel keeps it.

use std::net::IpAddr;

use model::Instant;

use super::Forwarder;
use crate::Event;
use crate::wire::icmp::{self, TooBig};
use crate::wire::ip::Ip;
use crate::wire::{ipv4, ipv6};

impl Forwarder {
    /// A packet that may be about one of our tunnels, in which case its path MTU is learned (RFC 2003 §5.1, RFC 2473 §7.1).
    pub(super) fn watch_path(
        &mut self,
        source: Option<IpAddr>,
        destination: Option<IpAddr>,
        packet: &mut [u8],
        now: Instant,
    ) {
        if !self.routes.has_tunnels()
            || destination.is_none_or(|destination| !self.is_tunnel_source(destination))
            || source.is_none_or(|source| !icmp::may_be(source, packet))
        {
            return;
        }
        let Ok(packet) = Ip::parse_mut(packet) else {
            return;
        };
        if packet.is_fragment() {
            return;
        }
        let Some(TooBig { mtu, quote }) = TooBig::parse(&packet) else {
            return;
        };
        let (server, link) = (quote.destination, self.interface.mtu);
        let is_outer = matches!(quote.protocol, ipv4::IPIP | ipv6::IPV6)
            && quote.source == packet.destination()
            && self.routes.is_tunnel_end(server);
        if is_outer && self.path_mtus.learn(server, mtu, link, now) {
            self.counters.note(Event::PathMtuLearned);
        }
    }

    fn is_tunnel_source(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.interface.address,
            IpAddr::V6(v6) => self.interface.address6 == Some(v6),
        }
    }

    /// The largest packet of a client that goes through a tunnel with this much of its own, in bytes, and the largest packet of the
    /// tunnel that goes in one piece.
    ///
    /// No IPv6 client can be told that less than 1280 bytes fit (RFC 8200 §5). Where the path is narrower, such packets go in fragments of
    /// the tunnel's (RFC 2473 §7.1, RFC 4213 §3.2.1).
    pub(super) fn mtu_through(&self, server: IpAddr, overhead: u16, client: IpAddr) -> (u16, u16) {
        let path = self.path_mtus.to(server, self.interface.mtu);
        let fits = path.saturating_sub(overhead);
        if client.is_ipv6() && fits < ipv6::MTU_MIN {
            (ipv6::MTU_MIN, path)
        } else {
            (fits, u16::MAX)
        }
    }
}
