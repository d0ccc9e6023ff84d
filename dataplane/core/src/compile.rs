//! From the replicated state to the forwarding table of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::conf::ForwardingMethod;
use model::state::State;

use crate::{ForwardingTable, NextHop, Real, VirtualService};

impl ForwardingTable {
    /// What the replicated state at `index` means for the packet path of this interface. `next_hop` says where frames to a server
    /// go: to itself, to a router, or (`None`) nowhere. `ours`: whether an address is one of this host's own.
    pub fn compile(
        state: &State,
        index: u64,
        next_hop: NextHop,
        ours: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let Some(current) = state.current() else {
            return Self::default();
        };
        let pool = &current.config.atm_pool;
        let mut vips = BTreeSet::new();
        let mut services = Vec::new();
        for (id, entry) in state.services() {
            vips.insert(entry.vip);
            let settings = current
                .config
                .services
                .iter()
                .find(|service| service.name == entry.name);
            services.push(VirtualService {
                id: *id,
                vip: entry.vip,
                protocol: entry.protocol,
                port: entry.port,
                scheduler: settings
                    .map(|service| service.scheduler)
                    .unwrap_or_default(),
                replication: settings
                    .map(|service| service.replication)
                    .unwrap_or_default(),
                share: state.share(*id),
                reset: state.reset(*id),
            });
        }
        let servers = state.servers().iter().map(|(id, entry)| {
            let here = ours(entry.address);
            Real {
                id: *id,
                address: entry.address,
                // Nobody asks the wire for an address of his own: the question would be a claim (RFC 5227 §1.1).
                next_hop: next_hop.of(entry.address).filter(|_| !here),
                here,
                method: current.reached_by(entry.method, entry.address),
                source: entry.source,
            }
        });
        let servers: Vec<Real> = servers.collect();
        vips.extend(servers.iter().filter_map(|server| server.source));
        let needs_gateway =
            |server: &Real| server.method == ForwardingMethod::Nat && server.source.is_none();
        let gateways: BTreeSet<IpAddr> = match &current.config.nat {
            Some(nat) => servers
                .iter()
                .filter(|server| needs_gateway(server))
                .filter_map(|server| nat.gateway_of(server.address))
                .collect(),
            None => BTreeSet::new(),
        };
        vips.extend(&gateways);
        Self {
            applied_index: index,
            next_hop,
            sticky: state.sticky_rules().clone(),
            vips: vips.into_iter().collect(),
            gateways: gateways.into_iter().collect(),
            services,
            servers,
            connections_max: pool.num_connections as usize,
            connection_timeout: pool.connection_timeout,
            send_arp_delay: pool.send_arp_delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use model::command::{Command, Control, Response};

    use super::*;

    const CONFIG: &str = "\
        NetworkMask 255.255.255.0\n\
        Services\n  Service web tcp:80 connect\nEndServices\n\
        Servers\n  Server near 10.0.0.11 tunnel\n  Server far 10.9.0.12 tunnel\n  Server lost 10.8.0.13 tunnel\nEndServers\n\
        ServerPool Pool\n  AddServer near web/1\n  AddServer far web/1\n  AddServer lost web/1\nEndServerPool\n\
        AtmPool ATMs\n  AddAtm 10.0.0.1\nEndAtmPool\n\
        VirtualHost www.my.org\n  Address 10.0.0.100\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n";

    fn state(config: &str) -> State {
        let mut state = State::default();
        let applied = state.apply(Command::Control(Control::ApplyConfig {
            source: config.to_owned(),
            hosts: BTreeMap::new(),
            expected: None,
            by: "10.0.0.1".to_owned(),
        }));
        assert!(matches!(applied, Response::Applied(_)), "{applied:?}");
        state
    }

    #[test]
    fn gateways_are_spoken_for_where_a_server_has_them_as_its_router() {
        let nat = "NAT\n  Gateway 10.0.0.99\n  Gateway 2001:db8::99\nEndNAT\n";
        let vips = "  Address 10.0.0.100\n  Address 2001:db8::100\n";
        for (servers, gateways) in [
            ("Server near 10.0.0.11 nat", &["10.0.0.99"][..]),
            ("Server near 2001:db8::11 nat", &["2001:db8::99"]),
            ("Server near 10.0.0.11 nat source=10.0.0.98", &[]),
            ("Server near 10.0.0.11 tunnel", &[]),
        ] {
            let own = if servers.contains(':') {
                "2001:db8::100"
            } else {
                "10.0.0.100"
            };
            let vip = vips.lines().find(|line| line.ends_with(own)).unwrap();
            let config = nat.to_owned()
                + &CONFIG
                    .replace("Server near 10.0.0.11 tunnel", servers)
                    .replace("  Address 10.0.0.100", vip);
            let table = ForwardingTable::compile(&state(&config), 7, NextHop::default(), |_| false);
            let expected: Vec<IpAddr> = gateways.iter().map(|g| g.parse().unwrap()).collect();
            assert_eq!(table.gateways, expected, "{servers}");
            for gateway in ["10.0.0.99", "2001:db8::99"].map(|g| g.parse::<IpAddr>().unwrap()) {
                let spoken_for = table.vips.contains(&gateway);
                assert_eq!(
                    spoken_for,
                    expected.contains(&gateway),
                    "{servers} {gateway}"
                );
            }
        }
    }

    #[test]
    fn a_server_on_an_atm_is_reached_by_tunnel_and_has_no_next_hop_on_that_atm() {
        let config = CONFIG
            .replace("near 10.0.0.11 tunnel", "near 10.0.0.1 direct")
            .replace("far 10.9.0.12 tunnel", "far 10.0.0.2 direct")
            .replace("lost 10.8.0.13 tunnel", "lost 10.0.0.13 direct")
            .replace("AddAtm 10.0.0.1", "AddAtm 10.0.0.1\n  AddAtm 10.0.0.2");
        let own = IpAddr::from([10, 0, 0, 1]);
        let table =
            ForwardingTable::compile(&state(&config), 7, NextHop::default(), |to| to == own);
        let ways: Vec<_> = table
            .servers
            .iter()
            .map(|server| (server.here, server.method, server.next_hop))
            .collect();
        let [other_atm, server] = [[10, 0, 0, 2], [10, 0, 0, 13]].map(IpAddr::from);
        assert_eq!(
            ways,
            [
                (true, ForwardingMethod::Tunnel, None),
                (false, ForwardingMethod::Tunnel, Some(other_atm)),
                (false, ForwardingMethod::Direct, Some(server)),
            ]
        );
    }

    #[test]
    fn a_server_is_reached_by_the_next_hop_that_it_is_given() {
        let state = state(CONFIG);
        let router = Ipv4Addr::new(10, 0, 0, 254);
        let table = ForwardingTable::compile(
            &state,
            7,
            NextHop::new(move |to| match to {
                IpAddr::V4(v4) => match v4.octets() {
                    [10, 0, ..] => Some(to),
                    [10, 9, ..] => Some(router.into()),
                    _ => None,
                },
                IpAddr::V6(_) => None,
            }),
            |_| false,
        );
        let next_hops: Vec<_> = table
            .servers
            .iter()
            .map(|server| (server.address, server.next_hop))
            .collect();
        let [near, far, lost] = [[10, 0, 0, 11], [10, 9, 0, 12], [10, 8, 0, 13]].map(IpAddr::from);
        let router = IpAddr::from(router);
        assert_eq!(
            next_hops,
            [(near, Some(near)), (far, Some(router)), (lost, None)]
        );
        assert_eq!(table.applied_index, 7);
    }
}
