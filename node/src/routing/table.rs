//! From the kernel's routes to the next hop of an address. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Prefixes with a route on one interface, or with one that refuses: 64 Ki take 6 MB and are read from the kernel within
/// 100 ms. A host with more carries a good part of the Internet's routes (a million), and not towards servers.
pub(crate) const ROUTES_MAX: usize = 65_536;

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the destination itself.
    OnLink,
    /// To this router.
    Via(IpAddr),
    /// Nowhere: the route says so, or wants of packets what the packet path cannot do.
    Nowhere,
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) prefix: IpAddr,
    /// 0..=32 for IPv4, 0..=128 for IPv6.
    pub(crate) prefix_len: u8,
    /// The lowest wins.
    pub(crate) metric: u32,
    pub(crate) way: Way,
}

/// Routes of both families: the longest prefix that has the address decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteTable {
    by_length: BTreeMap<Reverse<u8>, BTreeMap<IpAddr, (u32, Way)>>,
    len: usize,
}

/// There is no room for another prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl RouteTable {
    /// Adds a route. Of several to one prefix the one with the lowest metric counts, and of those the first.
    pub(crate) fn add(&mut self, route: Route) -> Result<(), Full> {
        let Route {
            prefix,
            prefix_len,
            metric,
            way,
        } = route;
        let Some(prefix) = masked(prefix, prefix_len) else {
            return Ok(());
        };
        let routes = self.by_length.entry(Reverse(prefix_len)).or_default();
        if let Some(known) = routes.get_mut(&prefix) {
            if metric < known.0 {
                *known = (metric, way);
            }
            return Ok(());
        }
        if self.len == ROUTES_MAX {
            return Err(Full);
        }
        self.len += 1;
        routes.insert(prefix, (metric, way));
        Ok(())
    }

    /// Where packets to this address go on the link; `None`: it cannot be reached.
    pub(crate) fn next_hop(&self, to: IpAddr) -> Option<IpAddr> {
        let way = self.by_length.iter().find_map(|(Reverse(length), routes)| {
            let (_, way) = routes.get(&masked(to, *length)?)?;
            Some(*way)
        });
        match way? {
            Way::OnLink => Some(to),
            Way::Via(router) => Some(router),
            Way::Nowhere => None,
        }
    }
}

/// The first `length` bits of an address; `None`: it has fewer.
fn masked(address: IpAddr, length: u8) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => {
            let rest = u32::BITS.checked_sub(length.into())?;
            let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let rest = u128::BITS.checked_sub(length.into())?;
            let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn via(prefix: &str, metric: u32, router: &str) -> Route {
        route(prefix, metric, Way::Via(ip(router)))
    }

    fn route(prefix: &str, metric: u32, way: Way) -> Route {
        let (prefix, length) = prefix.split_once('/').unwrap();
        Route {
            prefix: ip(prefix),
            prefix_len: length.parse().unwrap(),
            metric,
            way,
        }
    }

    fn table(routes: &[Route]) -> RouteTable {
        let mut table = RouteTable::default();
        for route in routes {
            table.add(*route).unwrap();
        }
        table
    }

    #[test]
    fn the_longest_prefix_decides() {
        let table = table(&[
            via("0.0.0.0/0", 0, "10.0.0.254"),
            route("10.0.0.0/24", 0, Way::OnLink),
            via("10.1.0.0/16", 0, "10.0.0.253"),
            via("10.1.2.0/24", 0, "10.0.0.252"),
            route("10.1.2.3/32", 0, Way::OnLink),
            route("10.9.0.0/16", 0, Way::Nowhere),
            via("::/0", 0, "fe80::1"),
            route("2001:db8::/64", 0, Way::OnLink),
            route("2001:db8::1:0/112", 0, Way::Nowhere),
        ]);
        for (to, next_hop) in [
            ("10.0.0.7", Some("10.0.0.7")),
            ("10.1.9.9", Some("10.0.0.253")),
            ("10.1.2.9", Some("10.0.0.252")),
            ("10.1.2.3", Some("10.1.2.3")),
            ("10.9.1.1", None),
            ("192.0.2.1", Some("10.0.0.254")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("2001:db8::1:7", None),
            ("2001:db8:1::7", Some("fe80::1")),
        ] {
            assert_eq!(table.next_hop(ip(to)), next_hop.map(ip), "{to}");
        }
    }

    #[test]
    fn without_a_route_nothing_is_reached_and_families_do_not_mix() {
        let empty = RouteTable::default();
        assert_eq!(empty.next_hop(ip("10.0.0.1")), None);
        let four = table(&[via("0.0.0.0/0", 0, "10.0.0.254")]);
        assert_eq!(four.next_hop(ip("2001:db8::1")), None);
        let six = table(&[route("::/0", 0, Way::OnLink)]);
        assert_eq!(six.next_hop(ip("10.0.0.1")), None);
    }

    #[test]
    fn the_lowest_metric_wins_and_then_the_first() {
        let worse = via("10.1.0.0/16", 200, "10.0.0.2");
        let better = via("10.1.0.0/16", 100, "10.0.0.1");
        let equal = via("10.1.0.0/16", 100, "10.0.0.3");
        let refusing = route("10.1.0.0/16", 4096, Way::Nowhere);
        for routes in [
            [worse, better, equal, refusing],
            [refusing, better, worse, equal],
        ] {
            let table = table(&routes);
            assert_eq!(table.next_hop(ip("10.1.1.1")), Some(ip("10.0.0.1")));
        }
    }

    #[test]
    fn the_table_is_bounded_and_says_so() {
        let mut table = RouteTable::default();
        let number = |number: u32| Route {
            prefix: IpAddr::V4(number.into()),
            prefix_len: 32,
            metric: 0,
            way: Way::OnLink,
        };
        let max = u32::try_from(ROUTES_MAX).unwrap();
        for it in 0..max {
            table.add(number(it)).unwrap();
        }
        assert_eq!(table.add(number(max)), Err(Full));
        // What is known may change.
        let replaced = Route {
            metric: 0,
            way: Way::Nowhere,
            ..number(0)
        };
        assert_eq!(table.add(replaced), Ok(()));
    }

    proptest! {
        /// The table against the definition: among the routes whose prefix has the address, the longest.
        #[test]
        fn agrees_with_a_linear_search(
            routes in prop::collection::vec((any::<u32>(), 0_u8..=32, 0_u32..3, any::<bool>()), 0..40),
            to in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            let routes: Vec<Route> = routes.iter().enumerate().map(|(at, &(prefix, prefix_len, metric, nowhere))| Route {
                // Few distinct high bits, so that prefixes nest.
                prefix: IpAddr::V4((prefix & 0x8181_ffff).into()),
                prefix_len,
                metric,
                way: if nowhere { Way::Nowhere } else { Way::Via(IpAddr::V4(u32::try_from(at).unwrap().into())) },
            }).collect();
            let to = if routes.is_empty() { IpAddr::V4(to.into()) } else { near.get(&routes).prefix };
            let mut best: Option<&Route> = None;
            for route in &routes {
                let has = masked(route.prefix, route.prefix_len) == masked(to, route.prefix_len);
                let better = best.is_none_or(|best| {
                    (Reverse(route.prefix_len), route.metric) < (Reverse(best.prefix_len), best.metric)
                });
                if has && better {
                    best = Some(route);
                }
            }
            let expected = best.and_then(|route| match route.way {
                Way::Via(router) => Some(router),
                Way::OnLink => Some(to),
                Way::Nowhere => None,
            });
            prop_assert_eq!(table(&routes).next_hop(to), expected);
        }
    }
}
