//! What a message of the kernel's routing socket says of one route. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};

use super::table::{Route, Way};

/// The route, if it is one of the main table that says something of packets on the interface with this index: it
/// leaves there, or it refuses its prefix on every interface.
pub(super) fn route(message: &RouteMessage, interface: u32) -> Option<Route> {
    let RouteHeader {
        address_family,
        destination_prefix_length: prefix_len,
        source_prefix_length: from_len,
        tos,
        table,
        kind,
        flags,
        ..
    } = message.header;
    let mut parts = Parts {
        // A table number above 255 stands in an attribute of its own.
        table: table.into(),
        ..Parts::default()
    };
    parts.take(&message.attributes);
    // Routes for some senders or some kinds of traffic only, and what was learned for one destination, decide nothing here.
    let for_all = tos == 0 && from_len == 0 && !flags.contains(RouteFlags::Cloned);
    if !for_all || parts.table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let everything = if address_family == AddressFamily::Inet {
        IpAddr::from([0; 4])
    } else if address_family == AddressFamily::Inet6 {
        IpAddr::from([0; 16])
    } else {
        return None;
    };
    // Beyond "throw" there are only tables that nobody fills.
    let refusing = [
        RouteType::BlackHole,
        RouteType::Unreachable,
        RouteType::Prohibit,
        RouteType::Throw,
    ];
    let way = if refusing.contains(&kind) {
        Way::Nowhere
    } else if kind == RouteType::Unicast {
        let dead = flags.contains(RouteFlags::Dead);
        parts.way(dead, interface)?
    } else {
        return None;
    };
    Some(Route {
        prefix: parts.prefix.unwrap_or(everything),
        prefix_len,
        metric: parts.metric,
        way,
    })
}

#[derive(Default)]
struct Parts<'a> {
    table: u32,
    prefix: Option<IpAddr>,
    metric: u32,
    leaves_by: Option<u32>,
    router: Option<IpAddr>,
    /// Packets would have to be wrapped first (MPLS, segment routing, ..), which the packet path does not do.
    wrapped: bool,
    hops: &'a [RouteNextHop],
}

impl<'a> Parts<'a> {
    fn take(&mut self, attributes: &'a [RouteAttribute]) {
        for attribute in attributes {
            if let RouteAttribute::Table(table) = attribute {
                self.table = *table;
            } else if let RouteAttribute::Destination(to) = attribute {
                self.prefix = ip(to);
            } else if let RouteAttribute::Priority(metric) = attribute {
                self.metric = *metric;
            } else if let RouteAttribute::Oif(index) = attribute {
                self.leaves_by = Some(*index);
            } else if let RouteAttribute::Gateway(router) = attribute {
                self.router = ip(router);
            } else if let RouteAttribute::Via(RouteVia::Inet(router)) = attribute {
                self.router = Some((*router).into());
            } else if let RouteAttribute::Via(RouteVia::Inet6(router)) = attribute {
                // An IPv4 network behind a router with an IPv6 address (RFC 5549).
                self.router = Some((*router).into());
            } else if let RouteAttribute::EncapType(_) = attribute {
                self.wrapped = true;
            } else if let RouteAttribute::MultiPath(hops) = attribute {
                self.hops = hops;
            }
        }
    }

    /// `None`: the route is another interface's, or dead, and the kernel goes on to the next one.
    fn way(&self, dead: bool, interface: u32) -> Option<Way> {
        if self.hops.is_empty() {
            return self.one(dead, self.leaves_by?, interface);
        }
        let mut ways = self.hops.iter().filter_map(|hop| {
            let mut parts = Parts::default();
            parts.take(&hop.attributes);
            let dead = hop.flags.contains(RouteNextHopFlags::Dead);
            parts.one(dead, hop.interface_index, interface)
        });
        // A server is one way for all its connections: the first that can be used.
        let first = ways.next()?;
        let usable = ways.find(|way| first == Way::Nowhere && *way != Way::Nowhere);
        Some(usable.unwrap_or(first))
    }

    fn one(&self, dead: bool, leaves_by: u32, interface: u32) -> Option<Way> {
        (leaves_by == interface && !dead).then_some(match self.router {
            _ if self.wrapped => Way::Nowhere,
            Some(router) => Way::Via(router),
            None => Way::OnLink,
        })
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some((*v4).into())
    } else if let RouteAddress::Inet6(v6) = address {
        Some((*v6).into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteLwEnCapType;

    use super::*;

    const E0: u32 = 7;
    const E1: u32 = 8;

    fn addr(text: &str) -> RouteAddress {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn message(kind: RouteType, prefix: &str, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let (to, length) = prefix.split_once('/').unwrap();
        let to: IpAddr = to.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = match to {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = length.parse().unwrap();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = kind;
        message.attributes = attributes;
        // The kernel leaves out the destination of a default route.
        if length != "0" {
            message
                .attributes
                .push(RouteAttribute::Destination(to.into()));
        }
        message
    }

    fn unicast(prefix: &str, attributes: Vec<RouteAttribute>) -> RouteMessage {
        message(RouteType::Unicast, prefix, attributes)
    }

    fn gateway(router: &str) -> RouteAttribute {
        RouteAttribute::Gateway(addr(router))
    }

    fn way(message: &RouteMessage) -> Option<Way> {
        route(message, E0).map(|route| route.way)
    }

    fn via(router: &str) -> Option<Way> {
        Some(Way::Via(router.parse().unwrap()))
    }

    #[test]
    fn routes_of_both_families_are_read() {
        let default = unicast(
            "0.0.0.0/0",
            vec![
                RouteAttribute::Oif(E0),
                gateway("10.0.0.254"),
                RouteAttribute::Priority(100),
            ],
        );
        let expected = Route {
            prefix: "0.0.0.0".parse().unwrap(),
            prefix_len: 0,
            metric: 100,
            way: Way::Via("10.0.0.254".parse().unwrap()),
        };
        assert_eq!(route(&default, E0), Some(expected));
        let link = unicast("2001:db8::/64", vec![RouteAttribute::Oif(E0)]);
        let expected = Route {
            prefix: "2001:db8::".parse().unwrap(),
            prefix_len: 64,
            metric: 0,
            way: Way::OnLink,
        };
        assert_eq!(route(&link, E0), Some(expected));
        let mixed = unicast(
            "10.5.0.0/16",
            vec![
                RouteAttribute::Oif(E0),
                RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
            ],
        );
        assert_eq!(way(&mixed), via("fe80::1"));
    }

    #[test]
    fn other_interfaces_tables_and_kinds_decide_nothing() {
        assert_eq!(
            way(&unicast("10.5.0.0/16", vec![RouteAttribute::Oif(E1)])),
            None
        );
        let ours = || vec![RouteAttribute::Oif(E0)];
        let mut other = unicast("10.5.0.0/16", ours());
        other.header.table = 255;
        assert_eq!(way(&other), None);
        let mut far = unicast("10.5.0.0/16", ours());
        far.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(way(&far), None);
        let mut main = unicast("10.5.0.0/16", ours());
        main.header.table = RouteHeader::RT_TABLE_UNSPEC;
        main.attributes.push(RouteAttribute::Table(254));
        assert_eq!(way(&main), Some(Way::OnLink));
        let mut some = unicast("10.5.0.0/16", ours());
        some.header.tos = 8;
        assert_eq!(way(&some), None);
        let mut learned = unicast("10.5.0.1/32", ours());
        learned.header.flags = RouteFlags::Cloned;
        assert_eq!(way(&learned), None);
        for kind in [
            RouteType::Local,
            RouteType::Broadcast,
            RouteType::Multicast,
            RouteType::Anycast,
        ] {
            assert_eq!(way(&message(kind, "10.5.0.0/16", ours())), None, "{kind:?}");
        }
    }

    #[test]
    fn a_refusing_route_counts_on_every_interface() {
        for kind in [
            RouteType::BlackHole,
            RouteType::Unreachable,
            RouteType::Prohibit,
            RouteType::Throw,
        ] {
            let message = message(kind, "2001:db8::/32", vec![RouteAttribute::Oif(1)]);
            assert_eq!(way(&message), Some(Way::Nowhere), "{kind:?}");
        }
    }

    #[test]
    fn of_several_next_hops_the_first_that_can_be_used_counts() {
        let hop = |index: u32, flags, router: &str| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.flags = flags;
            hop.attributes = vec![gateway(router)];
            hop
        };
        let (up, dead) = (RouteNextHopFlags::empty(), RouteNextHopFlags::Dead);
        let several =
            |hops: Vec<RouteNextHop>| unicast("10.5.0.0/16", vec![RouteAttribute::MultiPath(hops)]);
        let (elsewhere, broken) = (hop(E1, up, "10.1.0.1"), hop(E0, dead, "10.0.0.1"));
        let (sound, second) = (hop(E0, up, "10.0.0.2"), hop(E0, up, "10.0.0.3"));
        let all = several(vec![elsewhere.clone(), broken.clone(), sound, second]);
        assert_eq!(way(&all), via("10.0.0.2"));
        assert_eq!(
            way(&several(vec![elsewhere.clone(), broken])),
            None,
            "the kernel goes on to a route with a higher metric"
        );
        let mut labelled = hop(E0, up, "10.0.0.1");
        labelled
            .attributes
            .push(RouteAttribute::EncapType(RouteLwEnCapType::Mpls));
        assert_eq!(way(&several(vec![labelled.clone()])), Some(Way::Nowhere));
        assert_eq!(
            way(&several(vec![labelled, hop(E0, up, "10.0.0.2")])),
            via("10.0.0.2")
        );
        assert_eq!(way(&several(vec![elsewhere])), None);
    }

    #[test]
    fn what_cannot_be_used_is_not_used() {
        let mut dead = unicast(
            "10.5.0.0/16",
            vec![RouteAttribute::Oif(E0), gateway("10.0.0.1")],
        );
        dead.header.flags = RouteFlags::Dead;
        assert_eq!(way(&dead), None);
        let mut labelled = unicast(
            "10.5.0.0/16",
            vec![RouteAttribute::Oif(E0), gateway("10.0.0.1")],
        );
        labelled
            .attributes
            .push(RouteAttribute::EncapType(RouteLwEnCapType::Mpls));
        assert_eq!(way(&labelled), Some(Way::Nowhere));
        // A carrier that is away comes back: the kernel keeps the route, and so do we.
        let mut unplugged = unicast("10.5.0.0/16", vec![RouteAttribute::Oif(E0)]);
        unplugged.header.flags = RouteFlags::Linkdown;
        assert_eq!(way(&unplugged), Some(Way::OnLink));
    }
}
