//! The table of scenarios, and running a check over rows of it.

use std::fmt;

use super::checks::Check;
use super::rig::{Rig, Started};
use crate::lab::skipped;

/// How a server gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// In another IP packet.
    Tunnel,
    /// With another MAC address.
    Direct,
    /// With another destination; answers come back because the cluster is the server's gateway.
    Nat,
    /// With another destination and another source; the server needs no route to clients.
    NatSource,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vips {
    /// One of IPv4.
    V4,
    /// One of IPv6.
    V6,
    /// One of each, of the same virtual host.
    Both,
}

/// What lies between clients, cluster and servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One network.
    Flat,
    /// A router between the client and the cluster.
    ClientRouter,
    /// A router between the cluster and the servers.
    ServerRouter,
}

/// One way through a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// How each server gets its packets; one server each.
    pub servers: &'static [Method],
    /// What clients ask.
    pub vips: Vips,
    /// The servers' addresses.
    pub family: Family,
    /// What lies in between.
    pub path: Path,
}

use Family::{V4, V6};
use Method::{Direct, Nat, NatSource, Tunnel};
use Path::{ClientRouter, Flat, ServerRouter};

/// Every scenario. Pools of one method have two servers, so that it is seen who serves whom.
pub const SCENARIOS: &[Scenario] = &[
    row(&[Tunnel, Tunnel], Vips::V4, V4, Flat),
    row(&[Tunnel, Tunnel], Vips::V6, V6, Flat),
    row(&[Tunnel, Tunnel], Vips::V4, V6, Flat),
    row(&[Tunnel, Tunnel], Vips::V6, V4, Flat),
    row(&[Tunnel, Tunnel], Vips::Both, V4, Flat),
    row(&[Direct, Direct], Vips::V4, V4, Flat),
    row(&[Direct, Direct], Vips::V6, V6, Flat),
    row(&[Nat, Nat], Vips::V4, V4, Flat),
    row(&[Nat, Nat], Vips::V6, V6, Flat),
    row(&[NatSource, NatSource], Vips::V4, V4, Flat),
    row(&[NatSource, NatSource], Vips::V6, V6, Flat),
    row(&[Tunnel, Direct], Vips::V4, V4, Flat),
    row(&[Tunnel, Direct, Nat, NatSource], Vips::V4, V4, Flat),
    row(&[Tunnel, Direct, Nat, NatSource], Vips::V6, V6, Flat),
    row(&[Tunnel, Tunnel], Vips::V4, V4, ClientRouter),
    row(&[Tunnel, Tunnel], Vips::V6, V6, ClientRouter),
    row(&[Direct, Direct], Vips::V4, V4, ClientRouter),
    row(&[Direct, Direct], Vips::V6, V6, ClientRouter),
    row(&[Nat, Nat], Vips::V4, V4, ClientRouter),
    row(&[Nat, Nat], Vips::V6, V6, ClientRouter),
    row(&[NatSource, NatSource], Vips::V4, V4, ClientRouter),
    row(&[NatSource, NatSource], Vips::V6, V6, ClientRouter),
    row(&[Tunnel, Tunnel], Vips::V4, V4, ServerRouter),
    row(&[Tunnel, Tunnel], Vips::V6, V6, ServerRouter),
    row(&[NatSource, NatSource], Vips::V4, V4, ServerRouter),
    row(&[NatSource, NatSource], Vips::V6, V6, ServerRouter),
];

const fn row(servers: &'static [Method], vips: Vips, family: Family, path: Path) -> Scenario {
    Scenario {
        servers,
        vips,
        family,
        path,
    }
}

impl Scenario {
    /// Whether any address of it is one of IPv6.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.family == V6 || self.vips != Vips::V4
    }

    /// Whether any of its servers gets its packets like this.
    #[must_use]
    pub fn has(&self, method: Method) -> bool {
        self.servers.contains(&method)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut methods: Vec<&str> = self.servers.iter().map(|method| method.words()).collect();
        methods.dedup();
        let vips = match self.vips {
            Vips::V4 => "IPv4",
            Vips::V6 => "IPv6",
            Vips::Both => "IPv4 and IPv6",
        };
        write!(f, "{}, {vips}", methods.join(" and "))?;
        match (self.vips, self.family) {
            (Vips::V4, V4) | (Vips::V6, V6) => {}
            (Vips::V6 | Vips::Both, V4) => write!(f, " to IPv4 servers")?,
            (Vips::V4 | Vips::Both, V6) => write!(f, " to IPv6 servers")?,
        }
        match self.path {
            Flat => Ok(()),
            ClientRouter => write!(f, ", client behind a router"),
            ServerRouter => write!(f, ", servers behind a router"),
        }
    }
}

impl Method {
    /// As a `Server` line says it, but for an address.
    pub(super) fn words(self) -> &'static str {
        match self {
            Tunnel => "tunnel",
            Direct => "direct",
            Nat => "nat",
            NatSource => "nat source=",
        }
    }
}

/// Runs `checks` on every scenario that `wanted` picks, and says of each what became of it.
///
/// # Panics
/// If a check fails, after all scenarios were run: with every failure. If no scenario was picked.
pub fn run(wanted: impl Fn(&Scenario) -> bool, checks: &[(&str, Check)]) {
    let mut failures = Vec::new();
    let mut picked = 0;
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario)) {
        picked += 1;
        match Rig::start(scenario) {
            Ok(Started::Running(rig)) => {
                for (name, check) in checks {
                    match check(&rig) {
                        Ok(Some(reason)) => {
                            skipped(format_args!("{scenario}: {name}: {reason}"));
                        }
                        Ok(None) => println!("{scenario}: {name}: holds"),
                        Err(error) => {
                            rig.keep_logs();
                            failures.push(format!("{scenario}: {name}: {error}"));
                        }
                    }
                }
            }
            Ok(Started::Needs(what)) => skipped(format_args!("{scenario}: {what}")),
            Err(error) => failures.push(format!("{scenario}: {error}")),
        }
    }
    assert!(picked > 0, "no scenario was picked");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::configuration;
    use crate::lab::{Plan, Router, Surroundings, read_configuration};

    #[test]
    fn no_scenario_is_there_twice_and_each_has_a_name_of_its_own() {
        let mut names: Vec<String> = SCENARIOS.iter().map(ToString::to_string).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(
            names.contains(&"tunnel, IPv4 to IPv6 servers".to_owned()),
            "{names:#?}"
        );
    }

    #[test]
    fn every_method_is_tried_with_both_ip_versions_alone() {
        for method in [Tunnel, Direct, Nat, NatSource] {
            for (vips, family) in [(Vips::V4, V4), (Vips::V6, V6)] {
                let alone = |row: &&Scenario| {
                    row.servers == [method, method] && row.vips == vips && row.family == family
                };
                for path in [Flat, ClientRouter] {
                    assert!(
                        SCENARIOS.iter().filter(alone).any(|row| row.path == path),
                        "{method:?} {vips:?} {path:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_this_version_can_read_is_laid_out_as_the_scenario_says() {
        let around = Surroundings {
            client: true,
            client_router: Some(Router::default()),
            server_router: Some(Router::default()),
        };
        let mut read = 0;
        for scenario in SCENARIOS {
            for udp in [false, true] {
                let text = configuration(scenario, udp);
                // What a version cannot read yet is for the probe to say.
                let Ok(config) = read_configuration("generated", &text) else {
                    continue;
                };
                read += 1;
                let plan = Plan::within(&config, &around).unwrap();
                let servers = plan.hosts.iter().filter(|host| host.server).count();
                assert_eq!(servers, scenario.servers.len(), "{scenario}\n{text}");
                let both = usize::from(scenario.vips == Vips::Both);
                assert_eq!(plan.virtual_addresses.len(), 1 + both, "{scenario}\n{text}");
                let behind = plan.hosts.iter().any(|host| host.name == "srouter");
                assert_eq!(behind, scenario.path == ServerRouter, "{scenario}\n{text}");
            }
        }
        assert!(read > 0);
    }
}
