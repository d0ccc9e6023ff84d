//! The `clusterserver.conf` of a scenario.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::scenario::{Family, Method, Path, Scenario, Vips};
use crate::lab::{LINES_PORT, Network, twin};

/// Ports of the services, besides `lines`.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

impl Ports {
    /// HTTP, with bulk content.
    pub const HTTP: u16 = 80;
    /// Mail is sent here,
    pub const SMTP: u16 = 25;
    /// and read here.
    pub const POP3: u16 = 110;
    /// UDP echo.
    pub const ECHO: u16 = 7007;
    /// DNS over UDP.
    pub const DNS: u16 = 53;
}

/// Networks of the scenario: ATMs, VIPs and most servers; NAT servers; servers behind a router.
const CLUSTER: Network = Network([10, 1, 0]);
const PRIVATE: Network = Network([192, 168, 7]);
const BEYOND: Network = Network([10, 5, 0]);

/// Host parts: the VIP, what full NAT puts in the client's place, the gateway of NAT servers, the first server.
const VIP: u8 = 100;
const SOURCE: u8 = 90;
const GATEWAY: u8 = 1;
const FIRST_SERVER: u8 = 11;

/// Text of the configuration; `udp`: with the services over UDP.
#[must_use]
pub fn configuration(scenario: &Scenario, udp: bool) -> String {
    let mut text = String::new();
    let family = scenario.family;
    if scenario.has(Method::Nat) {
        let gateway = address(family, PRIVATE.host(GATEWAY));
        let [v4, v6] = PRIVATE.prefixes();
        let subnet = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        let _ = write!(text, "NAT\n Subnet {subnet}\n Gateway {gateway}\nEndNAT\n");
    }
    let mut services = vec![
        ("lines", "tcp", LINES_PORT),
        ("http", "tcp", Ports::HTTP),
        ("smtp", "tcp", Ports::SMTP),
        ("pop-3", "tcp", Ports::POP3),
    ];
    if udp {
        services.extend([("echo", "udp", Ports::ECHO), ("dns", "udp", Ports::DNS)]);
    }
    text += "Services\n";
    for (name, protocol, port) in &services {
        let agent = if *protocol == "tcp" {
            "connect"
        } else {
            "none"
        };
        let _ = writeln!(text, " Service {name} {protocol}:{port} {agent}");
    }
    text += "EndServices\nServers\n";
    for (n, method) in (0..).zip(scenario.servers) {
        let own = address(
            family,
            server_network(scenario, *method).host(FIRST_SERVER + n),
        );
        let _ = write!(text, " Server serv{} {own} {}", n + 1, method.words());
        if *method == Method::NatSource {
            let _ = write!(text, "{}", address(family, CLUSTER.host(SOURCE)));
        }
        text.push('\n');
    }
    text += "EndServers\nServerPool pool\n";
    for n in 1..=scenario.servers.len() {
        let _ = write!(text, " AddServer serv{n}");
        for (name, _, _) in &services {
            let _ = write!(text, " {name}/1");
        }
        text.push('\n');
    }
    text += "EndServerPool\nAtmPool ATMs\n";
    for atm in 1..=3 {
        let _ = writeln!(text, " AddAtm {}", CLUSTER.host(atm));
    }
    text += " HeartBeatDelay 50ms\n MaxLostHeartbeats 3\nEndAtmPool\nVirtualHost vip\n";
    let families = match scenario.vips {
        Vips::V4 => &[Family::V4][..],
        Vips::V6 => &[Family::V6],
        Vips::Both => &[Family::V4, Family::V6],
    };
    for family in families {
        let _ = writeln!(text, " Address {}", address(*family, CLUSTER.host(VIP)));
    }
    text + " AddAtmPool ATMs\n AddServerPool pool\nEndVirtualHost\n"
}

fn server_network(scenario: &Scenario, method: Method) -> Network {
    match (method, scenario.path) {
        (Method::Nat, _) => PRIVATE,
        (Method::Tunnel | Method::Direct | Method::NatSource, Path::ServerRouter) => BEYOND,
        (Method::Tunnel | Method::Direct | Method::NatSource, Path::Flat | Path::ClientRouter) => {
            CLUSTER
        }
    }
}

fn address(family: Family, v4: Ipv4Addr) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => twin(v4).into(),
    }
}
