//! Random histories of a cluster: configurations, tenures, connections, and commands that come too late.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use model::command::{Command, Control};
use model::connections::{ConnectionChange, ConnectionKey};
use model::ids::{ConfigNumber, Epoch, NodeId, ServerId, VirtualServiceId};
use model::state::State;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// One event. References are relative to the state it meets, so that most of them make sense.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Config {
        shape: Shape,
        expected: Option<u64>,
    },
    BadConfig(String),
    Restore {
        version: prop::sample::Index,
    },
    Begin {
        node: u64,
        term: u64,
        lease_ms: u64,
    },
    End {
        behind: u64,
    },
    Register {
        node: u64,
        incarnation: u8,
    },
    Health {
        server: u16,
        service: usize,
        healthy: bool,
    },
    Connections {
        behind: u64,
        changes: Vec<ConnectionChange>,
    },
}

/// What a configuration says: servers with the last byte of their address and how they are reached, and what they offer.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    servers: Vec<(u8, bool, bool)>,
    services: usize,
    vip: u8,
    num_connections: u32,
    other_member: bool,
}

const SERVICES: [(&str, &str); 3] = [("smtp", "tcp:25"), ("imap", "tcp:143"), ("dns", "udp:53")];

impl Shape {
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("Services\n");
        for (name, port) in &SERVICES[..self.services] {
            text += &format!("  Service {name} {port} connect\n");
        }
        text.push_str("EndServices\nServers\n");
        for (at, (address, tunnel, _)) in self.servers.iter().enumerate() {
            let method = if *tunnel { "tunnel" } else { "direct" };
            text += &format!("  Server serv{at} 10.1.{at}.{address} {method}\n");
        }
        text.push_str("EndServers\nServerPool Pool\n");
        for (at, (_, _, everything)) in self.servers.iter().enumerate() {
            let offered = if *everything { self.services } else { 1 };
            let offers: Vec<_> = SERVICES[..offered]
                .iter()
                .map(|(name, _)| format!("{name}/{}", at + 1))
                .collect();
            text += &format!("  AddServer serv{at} {}\n", offers.join(" "));
        }
        let member = if self.other_member { 9 } else { 1 };
        text += &format!(
            "EndServerPool\nAtmPool ATMs\n  AddAtm 10.0.0.{member}\n  NumConnections {}\nEndAtmPool\n\
             VirtualHost vip.my.org\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n",
            self.num_connections
        );
        text
    }

    fn hosts(&self) -> BTreeMap<String, IpAddr> {
        BTreeMap::from([(
            "vip.my.org".into(),
            Ipv4Addr::new(10, 0, 0, 100 + self.vip).into(),
        )])
    }
}

impl Step {
    /// The command that this step comes to in this state.
    pub(crate) fn command(&self, state: &State) -> Command {
        let epoch = |behind: u64| {
            Epoch(
                state
                    .tenure()
                    .map_or(0, |tenure| tenure.epoch.0)
                    .saturating_sub(behind),
            )
        };
        Command::Control(match self {
            Self::Connections { behind, changes } => {
                return Command::Connections {
                    epoch: epoch(*behind),
                    changes: changes.clone(),
                };
            }
            Self::Config { shape, expected } => Control::ApplyConfig {
                source: shape.text(),
                hosts: shape.hosts(),
                expected: expected
                    .map(|behind| ConfigNumber(state.config_number().0.saturating_sub(behind))),
                by: "atm1".into(),
            },
            Self::BadConfig(source) => Control::ApplyConfig {
                source: source.clone(),
                hosts: BTreeMap::new(),
                expected: None,
                by: "atm2".into(),
            },
            Self::Restore { version } => {
                let kept: Vec<_> = state.versions().values().collect();
                match kept.is_empty() {
                    true => Control::EndEpoch { epoch: epoch(0) },
                    false => {
                        let version = version.get(&kept);
                        Control::ApplyConfig {
                            source: version.source.clone(),
                            hosts: version.hosts.clone(),
                            expected: Some(state.config_number()),
                            by: "atm3".into(),
                        }
                    }
                }
            }
            Self::Begin {
                node,
                term,
                lease_ms,
            } => Control::BeginEpoch {
                node: NodeId(*node),
                name: format!("atm{node}"),
                // One less than the last tenure's at times.
                term: (state.tenure().map_or(1, |tenure| tenure.term) + term).saturating_sub(1),
                lease: Duration::from_millis(*lease_ms),
            },
            Self::End { behind } => Control::EndEpoch {
                epoch: epoch(*behind),
            },
            Self::Health {
                server,
                service,
                healthy,
            } => Control::Health {
                server: ServerId(*server),
                service: SERVICES[*service].0.into(),
                healthy: *healthy,
            },
            Self::Register { node, incarnation } => Control::Register {
                node: NodeId(*node),
                incarnation: incarnation.to_string(),
            },
        })
    }
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    (
        vec((1..4_u8, prop::bool::weighted(0.8), any::<bool>()), 1..5),
        1..=SERVICES.len(),
        0..2_u8,
        prop_oneof![Just(3_u32), Just(8), Just(100)],
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |(servers, services, vip, num_connections, other_member)| Shape {
                servers,
                services,
                vip,
                num_connections,
                other_member,
            },
        )
}

/// Mostly clients that come again: a small world meets its own past.
pub(crate) fn change() -> impl Strategy<Value = ConnectionChange> {
    let client = prop_oneof![
        8 => (1..4_u8).prop_map(|last| IpAddr::from([192, 0, 2, last])),
        1 => Just(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
    ];
    let key = (client, 1..6_u16, 1..5_u16).prop_map(|(client, port, service)| ConnectionKey {
        client,
        port,
        service: VirtualServiceId(service),
    });
    (key, 1..6_u16, prop::bool::weighted(0.75)).prop_map(|(key, server, opens)| {
        if opens {
            ConnectionChange::Open(key, ServerId(server))
        } else {
            ConnectionChange::Close(key)
        }
    })
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let late = || prop_oneof![4 => Just(0_u64), 1 => 1..3_u64];
    prop_oneof![
        5 => (shape(), option::weighted(0.5, late())).prop_map(|(shape, expected)| Step::Config { shape, expected }),
        1 => prop_oneof![".{0,40}", Just("AtmPool A\nEndAtmPool\n".to_owned())].prop_map(Step::BadConfig),
        2 => any::<prop::sample::Index>().prop_map(|version| Step::Restore { version }),
        4 => (1..4_u64, 0..4_u64, 50..200_u64)
            .prop_map(|(node, term, lease_ms)| Step::Begin { node, term, lease_ms }),
        2 => late().prop_map(|behind| Step::End { behind }),
        1 => (1..3_u64, 0..2_u8).prop_map(|(node, incarnation)| Step::Register { node, incarnation }),
        3 => (1..6_u16, 0..SERVICES.len(), any::<bool>())
            .prop_map(|(server, service, healthy)| Step::Health { server, service, healthy }),
        9 => (late(), vec(change(), 0..8)).prop_map(|(behind, changes)| Step::Connections { behind, changes }),
    ]
}

/// A history that has a configuration and a tenure early on.
pub(crate) fn history(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let first = (shape(), 50..200_u64).prop_map(|(mut shape, lease_ms)| {
        shape.other_member = false;
        vec![
            Step::Config {
                shape,
                expected: None,
            },
            Step::Begin {
                node: 1,
                term: 1,
                lease_ms,
            },
        ]
    });
    (first, vec(step(), 0..most)).prop_map(|(mut steps, rest)| {
        steps.extend(rest);
        steps
    })
}
