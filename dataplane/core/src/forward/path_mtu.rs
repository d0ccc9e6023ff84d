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

    /// The largest packet of a client that fits into a tunnel with this much of its own, in bytes.
    ///
    /// No IPv6 client sends smaller packets than 1280 bytes (RFC 8200 §5): where the path is said to be narrower they go all the same, as
    /// far as the link carries them, or whoever forges such a message cuts clients off.
    pub(super) fn mtu_through(&self, server: IpAddr, overhead: u16, client: IpAddr) -> u16 {
        let link = self.interface.mtu;
        let path = self.path_mtus.to(server, link).saturating_sub(overhead);
        match client {
            IpAddr::V4(_) => path,
            IpAddr::V6(_) => path.max(ipv6::MTU_MIN.min(link.saturating_sub(overhead))),
        }
    }
}
