//! Random histories of a cluster: configurations, tenures, connections, and commands that come too late.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use model::command::{Command, Control};
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::health::{HOST, Order, OverrideKey, ScriptStep};
use model::ids::{ConfigNumber, Epoch, NodeId, ServerId, VirtualServiceId};
use model::state::State;
use model::sticky::StickyKey;
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
    /// The current version with another `mask=` of every service that has one.
    Remask,
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
    Verdict {
        behind: u64,
        server: u16,
        /// Beyond the services: the server itself.
        service: usize,
        healthy: bool,
    },
    Order {
        server: usize,
        service: usize,
        order: Order,
    },
    Script {
        behind: u64,
        run: u64,
        step: ScriptStep,
    },
    Active {
        behind: u64,
    },
    Connections {
        behind: u64,
        changes: Vec<ConnectionChange>,
        /// Stored by a version before source ports and sticky clients.
        old: bool,
    },
}

/// What a configuration says: servers with the last byte of their address and how they are reached, and what they offer.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    servers: Vec<(u8, usize, bool)>,
    /// Of each service: its `mask=`, if it is sticky; 0 for none.
    services: Vec<Option<u8>>,
    vip: u8,
    num_connections: u32,
    other_member: bool,
}

/// Servers share the source addresses of full NAT.
const METHODS: [&str; 4] = [
    "tunnel",
    "direct",
    "nat source=10.9.0.1",
    "nat source=10.9.0.2",
];

const SERVICES: [(&str, &str); 3] = [("smtp", "tcp:25"), ("imap", "tcp:143"), ("dns", "udp:53")];

impl Shape {
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("Services\n");
        for ((name, port), sticky) in SERVICES.iter().zip(&self.services) {
            let sticky = match sticky {
                None => String::new(),
                Some(0) => " sticky".to_owned(),
                Some(mask) => format!(" sticky mask={mask}"),
            };
            text += &format!("  Service {name} {port} connect{sticky}\n");
        }
        text.push_str("EndServices\nServers\n");
        for (at, (address, method, _)) in self.servers.iter().enumerate() {
            let method = METHODS[*method];
            text += &format!("  Server serv{at} 10.1.{at}.{address} {method}\n");
        }
        text.push_str("EndServers\nServerPool Pool\n");
        for (at, (_, _, everything)) in self.servers.iter().enumerate() {
            let offered = if *everything { self.services.len() } else { 1 };
            let offers: Vec<_> = SERVICES[..offered]
                .iter()
                .map(|(name, _)| format!("{name}/{at}"))
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
            Self::Connections {
                behind,
                changes,
                old: false,
            } => {
                return Command::Connections {
                    epoch: epoch(*behind),
                    changes: changes.clone(),
                };
            }
            Self::Connections {
                behind,
                changes,
                old: true,
            } => {
                return Command::ConnectionsBeforeSticky {
                    epoch: epoch(*behind),
                    changes: changes.iter().filter_map(before_sticky).collect(),
                };
            }
            Self::Config { shape, expected } => Control::ApplyConfig {
                source: shape.text(),
                hosts: shape.hosts(),
                expected: expected
                    .map(|behind| ConfigNumber(state.config_number().0.saturating_sub(behind))),
                by: "atm1".into(),
            },
            Self::Remask => {
                let current = state.versions().last_key_value();
                let Some((_, version)) = current else {
                    return Command::Control(Control::EndEpoch { epoch: epoch(0) });
                };
                Control::ApplyConfig {
                    source: version
                        .source
                        .replace("mask=24", "mask=25")
                        .replace("mask=31", "mask=24"),
                    hosts: version.hosts.clone(),
                    expected: None,
                    by: "atm1".into(),
                }
            }
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
            Self::Verdict {
                behind,
                server,
                service,
                healthy,
            } => Control::Verdict {
                epoch: epoch(*behind),
                subject: (ServerId(*server), service_name(*service)),
                healthy: *healthy,
                at_ms: 7,
                reason: "refused".into(),
            },
            Self::Order {
                server,
                service,
                order,
            } => {
                let names: Vec<_> = state.servers().values().map(|known| &known.name).collect();
                let name = names.get(*server).map_or("banana", |name| name.as_str());
                Control::Order {
                    key: OverrideKey {
                        server: name.into(),
                        service: service_name(*service),
                    },
                    order: *order,
                    by: "atm1".into(),
                    at_ms: 8,
                }
            }
            Self::Script { behind, run, step } => Control::Script {
                epoch: epoch(*behind),
                run: *run,
                step: step.clone(),
                at_ms: 9,
            },
            Self::Active { behind } => Control::Active {
                epoch: epoch(*behind),
                at_ms: 10,
            },
            Self::Register { node, incarnation } => Control::Register {
                node: NodeId(*node),
                incarnation: incarnation.to_string(),
            },
        })
    }
}

fn service_name(service: usize) -> String {
    let known = SERVICES.get(service);
    known.map_or(HOST, |(name, _)| name).to_owned()
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        Just(Order::Enable),
        any::<bool>().prop_map(|sticky| Order::Drain { sticky }),
        Just(Order::Disable),
        option::of(0..3_u16).prop_map(Order::Weight),
    ]
}

fn script_step() -> impl Strategy<Value = ScriptStep> {
    prop_oneof![
        Just(ScriptStep::Begin),
        Just(ScriptStep::End("exit status 0".to_owned())),
    ]
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    (
        vec((1..4_u8, 0..METHODS.len(), any::<bool>()), 1..5),
        vec(
            option::weighted(0.7, prop::sample::select(vec![0, 24, 31, 64])),
            1..=SERVICES.len(),
        ),
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

/// The change as a version could have stored it that knew neither source ports nor sticky clients.
fn before_sticky(change: &ConnectionChange) -> Option<ConnectionChange> {
    match *change {
        ConnectionChange::Open(key, pin) => Some(ConnectionChange::Open(key, pin.server.into())),
        ConnectionChange::Close(_) => Some(*change),
        ConnectionChange::Unstick(_) => None,
    }
}

/// Mostly clients that come again: a small world meets its own past.
pub(crate) fn change() -> impl Strategy<Value = ConnectionChange> {
    let client = || {
        prop_oneof![
            8 => (0..4_u8).prop_map(|last| IpAddr::from([192, 0, 2, last])),
            1 => Just(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
            1 => Just(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0])),
        ]
    };
    let service = || (1..5_u16).prop_map(VirtualServiceId);
    let key = (client(), 1..6_u16, service()).prop_map(|(client, port, service)| ConnectionKey {
        client,
        port,
        service,
    });
    let pin = (1..6_u16, option::of(1..4_u16)).prop_map(|(server, port)| Pin {
        server: ServerId(server),
        source_port: port.and_then(NonZeroU16::new),
    });
    let unstuck = (service(), client()).prop_map(|(service, client)| StickyKey { service, client });
    prop_oneof![
        12 => (key.clone(), pin).prop_map(|(key, pin)| ConnectionChange::Open(key, pin)),
        4 => key.prop_map(ConnectionChange::Close),
        1 => unstuck.prop_map(ConnectionChange::Unstick),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let late = || prop_oneof![4 => Just(0_u64), 1 => 1..3_u64];
    prop_oneof![
        5 => (shape(), option::weighted(0.5, late())).prop_map(|(shape, expected)| Step::Config { shape, expected }),
        1 => prop_oneof![".{0,40}", Just("AtmPool A\nEndAtmPool\n".to_owned())].prop_map(Step::BadConfig),
        2 => Just(Step::Remask),
        2 => any::<prop::sample::Index>().prop_map(|version| Step::Restore { version }),
        4 => (1..4_u64, 0..4_u64, 50..200_u64)
            .prop_map(|(node, term, lease_ms)| Step::Begin { node, term, lease_ms }),
        2 => late().prop_map(|behind| Step::End { behind }),
        1 => (1..3_u64, 0..2_u8).prop_map(|(node, incarnation)| Step::Register { node, incarnation }),
        3 => (1..6_u16, 0..SERVICES.len(), any::<bool>())
            .prop_map(|(server, service, healthy)| Step::Health { server, service, healthy }),
        4 => (late(), 1..6_u16, 0..=SERVICES.len(), any::<bool>())
            .prop_map(|(behind, server, service, healthy)| Step::Verdict { behind, server, service, healthy }),
        3 => (0..5_usize, 0..=SERVICES.len(), order())
            .prop_map(|(server, service, order)| Step::Order { server, service, order }),
        2 => (late(), 1..6_u64, script_step())
            .prop_map(|(behind, run, step)| Step::Script { behind, run, step }),
        1 => late().prop_map(|behind| Step::Active { behind }),
        9 => (late(), vec(change(), 0..8), prop::bool::weighted(0.1))
            .prop_map(|(behind, changes, old)| Step::Connections { behind, changes, old }),
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
