//! Whatever is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use model::command::{Command, Control, Refusal, Response};
use model::conf::{ForwardingMethod, Protocol};
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::health::HOST;
use model::ids::{ConfigNumber, Epoch, ServerId, VirtualServiceId};
use model::source_ports::ServerTuple;
use model::state::{State, VERSIONS_MAX};
use model::sticky::StickyKey;
use proptest::prelude::*;

use crate::script::{Step, history, shape, step};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// P4, also when one of them was restored from a snapshot on the way.
    #[test]
    fn two_replicas_of_one_log_have_the_same_bytes(steps in history(40), restored in any::<[prop::sample::Index; 2]>()) {
        let (mut one, mut other) = (State::default(), State::default());
        let restored = restored.map(|index| index.index(steps.len()));
        for (at, step) in steps.iter().enumerate() {
            let command = step.command(&one);
            if restored.contains(&at) {
                other = State::decode(&other.encode()).unwrap();
            }
            // The other one reads the command from its log.
            let stored = Command::decode(&command.encode()).unwrap();
            prop_assert_eq!(&stored, &command);
            prop_assert_eq!(one.apply(command), other.apply(stored));
            prop_assert_eq!(one.encode(), other.encode());
        }
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(&one, &other);
    }

    /// P6, P7, P8 and the fencing of epochs, after every step of any history.
    #[test]
    fn every_step_keeps_the_promises(steps in history(60)) {
        let mut state = State::default();
        for step in &steps {
            let before = state.clone();
            let command = step.command(&state);
            let response = state.apply(command.clone());
            prop_assert_eq!(state.violations(), []);
            nothing_changes_when_refused(&before, &state, &response)?;
            traffic_is_left_alone(&before, &state, &command)?;
            tables_are_bounded(&before, &state, &response)?;
            no_port_is_given_out_twice(&state)?;
            clients_stick(&before, &state, &response)?;
            tenures_only_grow(&before, &state, &command, &response)?;
            numbers_keep_their_meaning(&before, &state)?;
            health_is_of_the_server(&before, &state, &command)?;
            versions_only_grow(&before, &state, &response)?;
        }
    }

    /// P7: whatever is kept can be put back in force, as a version of its own.
    #[test]
    fn every_kept_version_can_be_restored(shapes in prop::collection::vec(shape(), 1..VERSIONS_MAX + 20)) {
        let mut state = State::default();
        for shape in shapes {
            state.apply(Step::Config { shape, expected: None }.command(&state));
            prop_assert!(state.versions().len() <= VERSIONS_MAX);
        }
        let kept: Vec<_> = state.versions().values().cloned().collect();
        for version in kept {
            let number = state.config_number();
            let response = state.apply(Command::Control(Control::ApplyConfig {
                source: version.source.clone(),
                hosts: version.hosts.clone(),
                expected: Some(number),
                by: version.by.clone(),
            }));
            prop_assert_eq!(response, Response::Applied(ConfigNumber(number.0 + 1)));
            prop_assert_eq!(&state.versions()[&state.config_number()], &version);
        }
    }

    /// A batch comes to the same as its changes one by one.
    #[test]
    fn a_batch_is_its_changes_in_order(steps in history(30), last in step()) {
        let mut state = State::default();
        for step in &steps {
            state.apply(step.command(&state));
        }
        if let Command::Connections { epoch, changes } = last.command(&state) {
            let mut one_by_one = state.clone();
            for change in &changes {
                one_by_one.apply(Command::Connections { epoch, changes: vec![*change] });
            }
            state.apply(Command::Connections { epoch, changes });
            prop_assert_eq!(state.encode(), one_by_one.encode());
        }
    }
}

/// No version gives a number of the version before to another thing: records on their way still mean what they meant.
fn numbers_keep_their_meaning(before: &State, after: &State) -> Checked {
    for (id, entry) in after.servers() {
        let same = before.servers().get(id).is_none_or(|known| {
            (&known.name, known.address, known.method, known.source)
                == (&entry.name, entry.address, entry.method, entry.source)
        });
        prop_assert!(same, "server {} became {:?}", id, entry);
    }
    for (id, entry) in after.services() {
        let same = before.services().get(id).is_none_or(|known| {
            (known.vip, known.protocol, known.port) == (entry.vip, entry.protocol, entry.port)
        });
        prop_assert!(same, "service {} became {:?}", id, entry);
    }
    Ok(())
}

/// A server whose number belonged to another one before is as good as new: nothing that was found of the other holds for it.
fn health_is_of_the_server(before: &State, after: &State, command: &Command) -> Checked {
    for (id, entry) in after.servers() {
        for service in ["smtp", "imap", "dns"] {
            if after.is_healthy(*id, service) {
                continue;
            }
            let found = matches!(command, Command::Control(Control::Health { server, service: of, healthy: false })
                if server == id && of == service);
            let judged = matches!(command, Command::Control(Control::Verdict { subject: (server, of), healthy: false, .. })
                if server == id && (of == service || of == HOST));
            let was = before.servers().get(id).is_some_and(|known| {
                (&known.name, known.address, known.method, known.source)
                    == (&entry.name, entry.address, entry.method, entry.source)
            });
            prop_assert!(
                found || judged || was && !before.is_healthy(*id, service),
                "{} of {:?} was never found down",
                service,
                entry
            );
        }
    }
    Ok(())
}

type Checked = Result<(), TestCaseError>;

fn nothing_changes_when_refused(before: &State, after: &State, response: &Response) -> Checked {
    if let Response::Refused(refusal) = response {
        prop_assert_eq!(before.encode(), after.encode(), "{}", refusal);
    }
    Ok(())
}

/// A server and how it is reached; the port and address that packets come from; VIP, protocol and port.
type Route = (
    (ServerId, IpAddr, ForwardingMethod),
    (Option<IpAddr>, Option<NonZeroU16>),
    (IpAddr, Protocol, u16),
);

/// Where every connection's packets go: what must not change while it lives.
fn routes(state: &State) -> BTreeMap<ConnectionKey, Route> {
    let route = |(key, pin): (ConnectionKey, Pin)| {
        let id = pin.server;
        let (server, service) = (&state.servers()[&id], &state.services()[&key.service]);
        (
            key,
            (
                (id, server.address, server.method),
                (server.source, pin.source_port),
                (service.vip, service.protocol, service.port),
            ),
        )
    };
    state.connections().iter().map(route).collect()
}

/// P8: no configuration moves, breaks or drops a connection; nothing but its own `Close` ends it.
fn traffic_is_left_alone(before: &State, after: &State, command: &Command) -> Checked {
    let (old, new) = (routes(before), routes(after));
    match command {
        Command::Control(_) => prop_assert_eq!(old, new),
        Command::Connections { changes, .. } | Command::ConnectionsBeforeSticky { changes, .. } => {
            let closed = |key: &ConnectionKey| changes.contains(&ConnectionChange::Close(*key));
            for (key, route) in &old {
                prop_assert!(
                    new.get(key) == Some(route) || closed(key),
                    "{:?} lost its server",
                    key
                );
            }
        }
    }
    Ok(())
}

/// P6: full is a refusal, and a smaller limit evicts nobody.
fn tables_are_bounded(before: &State, after: &State, response: &Response) -> Checked {
    let len = after.connections().len();
    prop_assert!(len <= after.connections_max().max(before.connections().len()));
    prop_assert_eq!(after.connections().iter().count(), len);
    if !matches!(response, Response::Applied(_)) {
        prop_assert_eq!(
            (before.servers(), before.services()),
            (after.servers(), after.services())
        );
        return Ok(());
    }
    for (id, entry) in after.servers() {
        let is_used = after.connections().iter().any(|(_, pin)| pin.server == *id);
        prop_assert!(
            entry.configured || is_used,
            "server {} is kept for nothing",
            id
        );
    }
    for (id, entry) in after.services() {
        let is_used = after
            .connections()
            .iter()
            .any(|(key, _)| key.service == *id);
        prop_assert!(
            entry.configured || is_used,
            "service {} is kept for nothing",
            id
        );
    }
    Ok(())
}

/// The servers tell their connections apart: no two have the same five-tuple, and a source port is where one is needed.
fn no_port_is_given_out_twice(state: &State) -> Checked {
    let mut taken = BTreeSet::new();
    for (key, pin) in state.connections().iter() {
        let (server, service) = (
            &state.servers()[&pin.server],
            &state.services()[&key.service],
        );
        prop_assert_eq!(server.source.is_some(), pin.source_port.is_some());
        if let (Some(source), Some(source_port)) = (server.source, pin.source_port) {
            let tuple = ServerTuple {
                source,
                source_port,
                server: server.address,
                protocol: service.protocol,
                port: service.port,
            };
            prop_assert!(taken.insert(tuple), "{:?} is given out twice", tuple);
            prop_assert!(state.source_ports().is_taken(&tuple));
        }
    }
    prop_assert_eq!(taken.len(), state.source_ports().len());
    Ok(())
}

/// What a packet path that carries out what was accepted comes to is what is replicated; a configuration only takes
/// away, and only what it no longer has; and the table is bounded.
fn clients_stick(before: &State, after: &State, response: &Response) -> Checked {
    let (old, new) = (sticky(before), sticky(after));
    prop_assert!(new.len() <= after.connections_max().max(old.len()));
    prop_assert_eq!(after.sticky().len(), new.len());
    let mut expected = old;
    if let Response::Connections {
        accepted,
        not_stuck,
        ..
    } = response
    {
        for change in accepted {
            match change {
                ConnectionChange::Open(key, pin) => {
                    if let Some(client) = after.sticky_key(key.service, key.client) {
                        expected.insert(client, pin.server);
                    }
                }
                ConnectionChange::Unstick(client) => {
                    expected.remove(client);
                }
                ConnectionChange::Close(_) => {}
            }
        }
        prop_assert!(*not_stuck as usize <= accepted.len());
    } else {
        expected.retain(|client, server| {
            mask(before, client.service) == mask(after, client.service)
                && same_server(before, after, *server)
                && offered(after, client.service).contains(server)
        });
    }
    prop_assert_eq!(expected, new);
    Ok(())
}

fn sticky(state: &State) -> BTreeMap<StickyKey, ServerId> {
    state.sticky().iter().collect()
}

fn same_server(before: &State, after: &State, id: ServerId) -> bool {
    before.servers()[&id].name == after.servers().get(&id).map_or("", |entry| &entry.name)
}

fn offered(state: &State, service: VirtualServiceId) -> Vec<ServerId> {
    let offered = state.offered(service).into_iter();
    offered.map(|(server, _)| server).collect()
}

/// `mask=` as it is written, of a service that is configured and sticky.
fn mask(state: &State, service: VirtualServiceId) -> Option<Option<u8>> {
    let entry = state.services().get(&service)?;
    let services = &state.current()?.config.services;
    let settings = services
        .iter()
        .find(|settings| settings.name == entry.name)?;
    (entry.configured && settings.sticky).then_some(settings.mask)
}

fn tenures_only_grow(
    before: &State,
    after: &State,
    command: &Command,
    response: &Response,
) -> Checked {
    let epoch = |state: &State| state.tenure().map_or(Epoch(0), |tenure| tenure.epoch);
    let (old, new) = (epoch(before), epoch(after));
    let is_open = before.tenure().is_some_and(|tenure| !tenure.ended);
    match (command, response) {
        (
            Command::Control(Control::BeginEpoch { .. }),
            Response::EpochBegun {
                epoch,
                longest_older_lease,
            },
        ) => {
            prop_assert_eq!(*epoch, Epoch(old.0 + 1));
            prop_assert_eq!(new, *epoch);
            prop_assert!(after.tenure().is_some_and(|tenure| !tenure.ended));
            // Nothing to wait for only if the last tenure ended in order, or never was.
            let owed = before
                .tenure()
                .filter(|_| is_open)
                .map(|tenure| tenure.lease.max(tenure.longest_older_lease));
            prop_assert_eq!(*longest_older_lease, owed.unwrap_or_default());
        }
        (Command::Control(Control::BeginEpoch { term, .. }), _) => {
            let current = before.tenure().map_or(0, |tenure| tenure.term);
            prop_assert_eq!(
                response,
                &Response::Refused(Refusal::StaleTerm {
                    given: *term,
                    current
                })
            );
            prop_assert!(*term < current);
        }
        (
            Command::Control(Control::EndEpoch { epoch: given })
            | Command::Connections { epoch: given, .. }
            | Command::ConnectionsBeforeSticky { epoch: given, .. },
            _,
        ) => {
            prop_assert_eq!(new, old);
            let refused = response
                == &Response::Refused(Refusal::StaleEpoch {
                    given: *given,
                    current: old,
                });
            prop_assert_eq!(
                refused,
                *given != old || !is_open,
                "{:?} in epoch {} came to {:?}",
                command,
                old,
                response
            );
        }
        (Command::Control(_), _) => prop_assert_eq!(before.tenure(), after.tenure()),
    }
    Ok(())
}

fn versions_only_grow(before: &State, after: &State, response: &Response) -> Checked {
    prop_assert!(after.versions().len() <= VERSIONS_MAX);
    if let Response::Applied(number) = response {
        prop_assert_eq!(number.0, before.config_number().0 + 1);
        prop_assert_eq!(after.config_number(), *number);
    } else {
        prop_assert_eq!(before.versions(), after.versions());
    }
    Ok(())
}

#[test]
fn the_table_is_full_at_num_connections() {
    let text = crate::stored::LARGEST_TABLE;
    let mut state = State::default();
    state.apply(crate::stored::config(text));
    state.apply(crate::stored::begin());
    let open = |port| {
        let key = ConnectionKey {
            client: [192, 0, 2, 1].into(),
            port,
            service: VirtualServiceId(1),
        };
        ConnectionChange::Open(key, ServerId(1).into())
    };
    let response = state.apply(Command::Connections {
        epoch: Epoch(1),
        changes: (1..=6).map(open).collect(),
    });
    let Response::Connections {
        accepted, refused, ..
    } = response
    else {
        panic!("{response:?}")
    };
    assert_eq!(accepted, (1..=4).map(open).collect::<Vec<_>>());
    let full = |port| (*open(port).key().unwrap(), Refusal::TableFull);
    assert_eq!(refused, [full(5), full(6)]);
    // What is there already is no new connection.
    let again = state.apply(Command::Connections {
        epoch: Epoch(1),
        changes: vec![open(2)],
    });
    assert_eq!(
        again,
        Response::Connections {
            accepted: vec![open(2)],
            refused: vec![],
            not_stuck: 0,
        }
    );
}
