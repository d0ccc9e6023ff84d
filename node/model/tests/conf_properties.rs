//! What holds of every configuration, and of every file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use model::conf::{
    AddAtm, AddServer, Agent, AtmPool, CheckTls, Checked, Code, Config, ForwardingMethod, Host,
    Nat, Network6, Offer, OnDown, PrefixLength, Protocol, Replication, Scheduler, Server,
    ServerPool, Service, Severity, UserCheck, VirtualHost, check, check_bytes, print, render,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const TUTORIAL: &[u8] = include_bytes!("data/tutorial.conf");

/// How a thing with the given number is called; names differ if their numbers do.
fn numbered(stem: &str, number: usize) -> String {
    let endings = ["", "_x", "-1", ".org", "+y"];
    format!("{stem}{number}{}", endings[number % endings.len()])
}

fn host(prefix: [u8; 2], number: usize, named: bool, v6: bool) -> Host {
    let number = u16::try_from(number + 1).expect("a small number");
    let [high, low] = number.to_be_bytes();
    match (named, v6) {
        (true, _) => Host::Name(format!("h{number}.net{}.my.org", prefix[1])),
        (false, false) => Host::Address(IpAddr::V4(Ipv4Addr::new(prefix[0], prefix[1], high, low))),
        (false, true) => {
            let net = u16::from(prefix[1]);
            Host::Address(IpAddr::V6(Ipv6Addr::new(
                0x2001, 0xdb8, net, 0, 0, 0, 0, number,
            )))
        }
    }
}

fn milliseconds(range: Range<u64>) -> impl Strategy<Value = Duration> {
    // Round numbers too, which are printed with a unit.
    let end = range.end;
    let start = range.start;
    (
        range,
        prop::sample::select(vec![1, 1_000, 60_000, 3_600_000]),
    )
        .prop_map(move |(n, unit)| {
            let round = n.div_ceil(unit) * unit;
            Duration::from_millis(if round < end { round.max(start) } else { n })
        })
}

prop_compose! {
    fn service()(
        udp in any::<bool>(),
        agent in 0..12_usize,
        sticky in any::<bool>(),
        scheduler in prop::sample::select(Scheduler::NAMES.to_vec()),
        replication in prop::sample::select(Replication::NAMES.to_vec()),
        persist in option::of(milliseconds(1_000..604_800_001)),
        mask in option::of(1..=128_u8),
        on_down in prop::sample::select(OnDown::NAMES.to_vec()),
        tls in option::of(prop::sample::select(CheckTls::NAMES.to_vec())),
    ) -> Service {
        let agent = match agent {
            0 => Agent::Http,
            1 => Agent::Connect,
            2 => Agent::None,
            3 => Agent::User("mine".to_owned()),
            n => Agent::User(Agent::KNOWN_PROGRAMS[n - 4].to_owned()),
        };
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let (name, port) = (String::new(), 0);
        let (scheduler, replication) = (scheduler.1, replication.1);
        let (on_down, tls) = (on_down.1, tls.map(|tls| tls.1));
        Service {
            name, protocol, port, agent, sticky, scheduler, replication, persist, mask, on_down, tls, fallback: None,
        }
    }
}

prop_compose! {
    fn server_pool()(
        server_frequency in milliseconds(100..86_400_001),
        server_timeout in milliseconds(10..86_400_001),
        port_frequency in milliseconds(100..86_400_001),
        port_timeout in milliseconds(10..86_400_001),
        rise in 1..=100_u32,
        fall in 1..=100_u32,
    ) -> ServerPool {
        ServerPool {
            check_server_frequency: server_frequency,
            check_server_timeout: server_timeout,
            check_port_frequency: port_frequency,
            check_port_timeout: port_timeout,
            rise,
            fall,
            ..ServerPool::named("")
        }
    }
}

prop_compose! {
    fn atm_pool()(
        atms in vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..=7),
        send_arp_delay in milliseconds(100..3_600_001),
        heartbeat_delay in milliseconds(10..60_001),
        max_lost_heartbeats in 2..=100_u32,
        num_connections in 1..=4_000_000_u32,
        num_servers in 20..=65_535_u32,
        num_services in 20..=65_535_u32,
        connection_timeout in milliseconds(100..604_800_001),
    ) -> AtmPool {
        let atms = atms.into_iter().enumerate().map(|(i, (named, v6, witness))| AddAtm {
            host: host([10, 3], i, named, v6),
            witness: witness && i > 0,
        });
        AtmPool {
            name: "ATMs".to_owned(),
            atms: atms.collect(),
            send_arp_delay,
            heartbeat_delay,
            max_lost_heartbeats,
            num_connections,
            num_servers,
            num_services,
            connection_timeout,
        }
    }
}

/// A server: its method, whether it has a name, is not pinged, and which services it offers with what weight.
type RawServer = (usize, bool, bool, bool, Vec<(usize, u16)>);

prop_compose! {
    /// Valid configurations with every directive, option and kind of host.
    fn config()(
        network_mask in option::of(0..=32_u8),
        nat in option::of((option::of((any::<u32>(), 0..=32_u8)), option::of((any::<u128>(), 0..=128_u8)), any::<[bool; 2]>())),
        user_checks in vec((any::<bool>(), any::<bool>()), 0..3),
        services in vec(service(), 0..8),
        servers in vec((0..4_usize, any::<bool>(), any::<bool>(), any::<bool>(), vec((0..8_usize, any::<u16>()), 1..6)), 0..8),
        pools in vec(server_pool(), 1..4),
        atm_pool in atm_pool(),
        hosts in vec((any::<bool>(), 0..3_usize, vec(0..4_usize, 1..4)), 0..4),
        v6 in any::<bool>(),
    ) -> Config {
        let network = |(address, length)| {
            let length = PrefixLength(length);
            (length.network(Ipv4Addr::from_bits(address)), length)
        };
        let network6 = |(address, length)| Network6::of(Ipv6Addr::from_bits(address), length);
        let nat = nat.map(|(subnet, subnet6, [gateway, gateway6])| Nat {
            subnet: subnet.map(network),
            subnet6: subnet6.map(network6),
            gateway: gateway.then_some(Ipv4Addr::new(10, 1, 0, 254)),
            gateway6: gateway6.then_some(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe)),
        });
        let has_gateway = nat.as_ref().is_some_and(|nat| nat.gateway.is_some());
        let user_checks = std::iter::once((true, false)).chain(user_checks).enumerate().map(|(i, (up, down))| UserCheck {
            name: if i == 0 { "mine".to_owned() } else { numbered("agent", i) },
            check: format!("/usr/lib/agents/ä={i}"),
            up: up.then(|| "/up".to_owned()),
            down: down.then(|| "/down".to_owned()),
        });
        let services: Vec<Service> = services.into_iter().enumerate().map(|(i, service)| {
            let port = u16::try_from(65_535 - i * 1000).expect("a port");
            Service { name: numbered("service", i), port, ..service }
        }).collect();
        let methods = |method: usize| match method {
            // Only the tunnel bridges the two versions of IP.
            1 if !v6 => ForwardingMethod::Direct,
            2 if !v6 && has_gateway => ForwardingMethod::Nat,
            3 if !v6 => ForwardingMethod::Nat,
            _ => ForwardingMethod::Tunnel,
        };
        let offers = |server: &RawServer| -> Vec<Offer> {
            let mut offers: Vec<Offer> = Vec::new();
            for (service, weight) in &server.4 {
                let Some(service) = services.get(*service) else { continue };
                if offers.iter().all(|offer| offer.service != service.name) {
                    offers.push(Offer { service: service.name.clone(), weight: *weight });
                }
            }
            offers
        };
        // Each server is in one pool, so that no virtual host has it twice.
        let count = pools.len();
        let server_pools: Vec<ServerPool> = pools.into_iter().enumerate().map(|(p, pool)| {
            let added = servers.iter().enumerate().filter(|(s, _)| s % count == p).map(|(s, server)| AddServer {
                server: numbered("server", s),
                offers: offers(server),
            });
            let servers = added.filter(|added| !added.offers.is_empty()).collect();
            ServerPool { name: numbered("Pool", p), servers, ..pool }
        }).collect();
        let virtual_hosts = hosts.into_iter().enumerate().map(|(h, (named, addresses, pools))| {
            let mut server_pools: Vec<String> = pools.into_iter().map(|p| numbered("Pool", p % count)).collect();
            server_pools.sort();
            server_pools.dedup();
            let addresses = (0..addresses).filter_map(|a| match host([10, 5], h * 3 + a, false, v6) {
                Host::Address(address) => Some(address),
                Host::Name(_) => None,
            });
            VirtualHost {
                host: host([10, 4], h, named, v6),
                addresses: addresses.collect(),
                atm_pool: "ATMs".to_owned(),
                server_pools,
            }
        });
        let servers = servers.iter().enumerate().map(|(i, (method, named, noping, v6_server, _))| {
            let has_source = *method == 3 && !v6;
            let method = methods(*method);
            Server {
                name: numbered("server", i),
                host: host([10, 2], i, *named, *v6_server && method == ForwardingMethod::Tunnel),
                method,
                // A few, which servers share.
                source: has_source.then(|| Ipv4Addr::new(10, 6, 0, u8::from(i % 3 == 0)).into()),
                noping: *noping,
            }
        });
        Config {
            network_mask: network_mask.map(PrefixLength),
            nat,
            user_checks: user_checks.collect(),
            servers: servers.collect(),
            virtual_hosts: virtual_hosts.collect(),
            services,
            server_pools,
            atm_pool,
        }
    }
}

/// One change of a file: cut a range, and put bytes in its place.
fn mutation() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    let pieces = [
        "\n",
        " ",
        "#",
        "End",
        "/",
        "=",
        ":",
        "0",
        "AtmPool x\n",
        "EndServers\n",
        "\u{202e}",
        "\r",
        "999",
    ];
    let piece = prop::sample::select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec());
    (
        any::<usize>(),
        0..40_usize,
        prop_oneof![piece, vec(any::<u8>(), 0..5)],
    )
}

fn mutated(mutations: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = TUTORIAL.to_vec();
    for (at, length, piece) in mutations {
        let start = at % (bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, piece.iter().copied());
    }
    bytes
}

/// What holds of every file: no configuration without an error named, and every place can be shown.
fn sound(bytes: &[u8]) -> Checked {
    let checked = check_bytes("any", bytes);
    let errors = checked
        .diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error);
    assert_eq!(checked.config.is_none(), errors);
    let text = String::from_utf8_lossy(bytes);
    for found in &checked.diagnostics {
        assert!(text.get(found.span.clone()).is_some(), "{found:?}");
        assert!(found.line >= 1 && found.column >= 1, "{found:?}");
    }
    let shown = render(&checked.diagnostics, "any", &text, false);
    assert_eq!(shown.is_empty(), checked.diagnostics.is_empty());
    // A shorter text than the one that was checked has no place for the spans.
    let half = &text[..text.floor_char_boundary(text.len() / 2)];
    assert_eq!(
        render(&checked.diagnostics, "any", half, true).is_empty(),
        shown.is_empty()
    );
    if let Some(config) = &checked.config {
        assert_eq!(
            check("printed", &print(config)).config.as_ref(),
            Some(config)
        );
    }
    checked
}

proptest! {
    #[test]
    fn what_is_printed_is_read_as_the_same(config in config()) {
        let text = print(&config);
        let checked = check("printed", &text);
        let errors: Vec<_> = checked.diagnostics.iter().filter(|found| found.severity == Severity::Error).collect();
        prop_assert!(errors.is_empty(), "{text}\n{errors:#?}");
        prop_assert_eq!(checked.config, Some(config));
    }

    #[test]
    fn printing_is_canonical(config in config()) {
        let text = print(&config);
        let again = check("printed", &text).config.map(|config| print(&config));
        prop_assert_eq!(again, Some(text));
    }

    #[test]
    fn a_config_with_every_name_resolved_apart_has_no_unresolved_host(config in config()) {
        let names = config.host_names().into_iter().enumerate();
        let hosts = names.map(|(i, name)| {
            let address = Ipv4Addr::new(10, 9, 0, u8::try_from(i + 1).expect("few names"));
            (name.to_owned(), IpAddr::V4(address))
        }).collect();
        let problems = config.problems(&hosts);
        prop_assert!(problems.iter().all(|problem| problem.code != Code::UnresolvedHost));
        let unresolved = config.problems(&std::collections::BTreeMap::new());
        let unresolved = unresolved.iter().filter(|problem| problem.code == Code::UnresolvedHost).count();
        prop_assert!(unresolved >= config.host_names().len());
        // With or without positions the verdict is the same.
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let found = config.check_resolved(&hosts);
        prop_assert_eq!(found.iter().filter(|found| found.severity == Severity::Error).count(), errors);
        // What needs no addresses has been said by the check, and is not said again.
        let checked = check("clusterserver.conf", &print(&config));
        prop_assert!(found.iter().all(|found| !checked.diagnostics.contains(found)));
    }

    #[test]
    fn no_change_of_the_tutorials_file_is_too_much(mutations in vec(mutation(), 0..12)) {
        sound(&mutated(&mutations));
    }

    #[test]
    fn any_order_of_keywords_is_sound(words in vec((prop::sample::select(
        model::conf::keywords().chain(model::conf::options()).chain(["10.1.0.1", "a", "b/1", "tcp:1", "\n", "\n", "\n"]).collect::<Vec<_>>()
    ), prop::sample::select(vec![" ", "\n"])), 0..60)) {
        let text: String = words.into_iter().flat_map(|(word, blank)| [word, blank]).collect();
        sound(text.as_bytes());
    }
}

/// Bytes that a coverage-guided fuzzer may drive; without one they are random.
#[test]
fn no_bytes_are_too_much() {
    bolero::check!().for_each(|bytes: &[u8]| {
        sound(bytes);
        let at = bytes.first().map_or(0, |first| usize::from(*first) * 7);
        sound(&mutated(&[(at, bytes.len(), bytes.to_vec())]));
    });
}
