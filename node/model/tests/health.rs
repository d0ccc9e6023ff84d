//! Health as the ATMs agree on it: verdicts, orders, the sorry server, events and scripts.

#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use model::command::{Command, Control, Refusal, Response};
use model::health::{EventKind, HOST, Mode, Order, OverrideKey, RUNS_MAX, ScriptStep};
use model::ids::{Epoch, NodeId, ServerId, VirtualServiceId};
use model::state::State;

const FILE: &str = "\
UserCheck mail\n  Check /usr/bin/smtpAgent\n  Up /etc/up\n  Down /etc/down\nEndUserCheck\n\
Services\n  Service smtp tcp:25 mail fallback=sorry on-down=reset\n  Service imap tcp:143 connect\nEndServices\n\
Servers\n  Server s1 10.0.0.11 tunnel\n  Server s2 10.0.0.12 tunnel noping\n  Server sorry 10.0.0.13 tunnel\nEndServers\n\
ServerPool p rise=2 fall=3\n  AddServer s1 smtp/2 imap/1\n  AddServer s2 smtp/1\n  CheckPortFrequency 7\n  CheckPortTimeout 3\nEndServerPool\n\
AtmPool a\n  AddAtm 10.0.0.1\n  AddAtm 10.0.0.2\nEndAtmPool\n\
VirtualHost 10.0.0.100\n  AddAtmPool a\n  AddServerPool p\nEndVirtualHost\n";

const SMTP: VirtualServiceId = VirtualServiceId(1);
const IMAP: VirtualServiceId = VirtualServiceId(2);
const S1: ServerId = ServerId(1);
const S2: ServerId = ServerId(2);
const SORRY: ServerId = ServerId(3);

fn apply(state: &mut State, control: Control) -> Response {
    let response = state.apply(Command::Control(control));
    assert_eq!(State::decode(&state.encode()).unwrap(), *state, "stored");
    response
}

fn config(state: &mut State, source: &str) {
    let applied = apply(
        state,
        Control::ApplyConfig {
            source: source.to_owned(),
            hosts: BTreeMap::new(),
            expected: None,
            by: "10.0.0.1".to_owned(),
        },
    );
    assert!(matches!(applied, Response::Applied(_)), "{applied:?}");
}

fn begin(state: &mut State, node: u64, term: u64) {
    let begun = apply(
        state,
        Control::BeginEpoch {
            node: NodeId(node),
            name: format!("10.0.0.{node}"),
            term,
            lease: Duration::from_millis(100),
        },
    );
    assert!(matches!(begun, Response::EpochBegun { .. }), "{begun:?}");
}

fn example() -> State {
    let mut state = State::default();
    config(&mut state, FILE);
    begin(&mut state, 1, 1);
    state
}

fn verdict(state: &mut State, server: ServerId, service: &str, healthy: bool) -> Response {
    let epoch = state.tenure().unwrap().epoch;
    apply(
        state,
        Control::Verdict {
            epoch,
            subject: (server, service.to_owned()),
            healthy,
            at_ms: 1_000,
            reason: "said so".to_owned(),
        },
    )
}

fn order(state: &mut State, server: &str, service: &str, order: Order) -> Response {
    apply(
        state,
        Control::Order {
            key: OverrideKey {
                server: server.to_owned(),
                service: service.to_owned(),
            },
            order,
            by: "10.0.0.2".to_owned(),
            at_ms: 2_000,
        },
    )
}

fn script(state: &mut State, run: u64, step: ScriptStep) -> Response {
    let epoch = state.tenure().unwrap().epoch;
    let at_ms = 3_000;
    apply(
        state,
        Control::Script {
            epoch,
            run,
            step,
            at_ms,
        },
    )
}

fn kinds(state: &State) -> Vec<EventKind> {
    state.events().since(0).map(|event| event.kind).collect()
}

#[test]
fn a_verdict_takes_out_of_rotation_and_back() {
    let mut state = example();
    assert_eq!(state.share(SMTP), [(S1, 2), (S2, 1)]);
    assert_eq!(
        verdict(&mut state, S1, "smtp", false),
        Response::Health(true)
    );
    assert_eq!(
        verdict(&mut state, S1, "smtp", false),
        Response::Health(false)
    );
    assert_eq!(state.share(SMTP), [(S2, 1)]);
    assert_eq!(state.share(IMAP), [(S1, 1)], "another service of it");
    let found = state.finding(S1, "smtp").unwrap();
    assert_eq!((found.since_ms, found.reason.as_str()), (1_000, "said so"));
    assert_eq!(
        verdict(&mut state, S1, "smtp", true),
        Response::Health(true)
    );
    assert_eq!(state.share(SMTP), [(S1, 2), (S2, 1)]);
    assert_eq!(
        kinds(&state),
        [EventKind::ServiceDown, EventKind::ServiceUp]
    );
}

#[test]
fn a_server_that_answers_no_ping_is_down_with_all_its_services() {
    let mut state = example();
    assert_eq!(verdict(&mut state, S1, HOST, false), Response::Health(true));
    assert_eq!(state.share(SMTP), [(S2, 1)]);
    assert_eq!(state.share(IMAP), []);
    assert_eq!(state.reset(SMTP), [S1], "on-down=reset");
    assert_eq!(state.reset(IMAP), [], "on-down=keep");
    verdict(&mut state, S1, "smtp", false);
    verdict(&mut state, S1, HOST, true);
    assert_eq!(
        state.share(SMTP),
        [(S2, 1)],
        "its service is down by itself"
    );
    assert_eq!(state.share(IMAP), [(S1, 1)]);
}

#[test]
fn what_is_not_checked_gets_no_verdict() {
    let mut state = example();
    for (server, service) in [(S2, HOST), (S2, "imap"), (S1, "pop"), (ServerId(9), "smtp")] {
        let response = verdict(&mut state, server, service, false);
        assert_eq!(
            response,
            Response::Refused(Refusal::Unknown),
            "{server} {service}"
        );
    }
    let late = Control::Verdict {
        epoch: Epoch(9),
        subject: (S1, "smtp".to_owned()),
        healthy: false,
        at_ms: 0,
        reason: String::new(),
    };
    let response = apply(&mut state, late);
    assert!(matches!(
        response,
        Response::Refused(Refusal::StaleEpoch { .. })
    ));
}

#[test]
fn verdicts_end_with_what_is_checked() {
    let mut state = example();
    verdict(&mut state, S1, HOST, false);
    verdict(&mut state, S1, "imap", false);
    verdict(&mut state, S2, "smtp", false);
    config(
        &mut state,
        &FILE.replace("10.0.0.11 tunnel", "10.0.0.11 tunnel noping"),
    );
    assert_eq!(state.share(SMTP), [(S1, 2)], "nobody pings it any more");
    assert_eq!(state.share(IMAP), []);
    config(&mut state, &FILE.replace("tcp:143 connect", "tcp:143 none"));
    assert_eq!(state.share(IMAP), [(S1, 1)], "nobody checks it any more");
}

#[test]
fn the_sorry_server_serves_when_nobody_else_does() {
    let mut state = example();
    verdict(&mut state, S1, "smtp", false);
    assert_eq!(state.share(SMTP), [(S2, 1)]);
    order(&mut state, "s2", HOST, Order::Drain { sticky: true });
    assert_eq!(state.share(SMTP), [(S2, 0), (SORRY, 1)]);
    order(&mut state, "s2", HOST, Order::Disable);
    assert_eq!(state.share(SMTP), [(SORRY, 1)]);
    assert_eq!(
        verdict(&mut state, SORRY, "smtp", false),
        Response::Health(true)
    );
    assert_eq!(state.share(SMTP), []);
    verdict(&mut state, S1, "smtp", true);
    assert_eq!(state.share(SMTP), [(S1, 2)]);
}

#[test]
fn orders_are_about_servers_and_services_and_the_narrower_counts() {
    let mut state = example();
    let drain = Order::Drain { sticky: true };
    assert_eq!(order(&mut state, "s1", HOST, drain), Response::Health(true));
    assert_eq!(
        order(&mut state, "s1", HOST, drain),
        Response::Health(false)
    );
    assert_eq!(state.share(SMTP), [(S1, 0), (S2, 1)]);
    order(&mut state, "s1", "imap", Order::Enable);
    assert_eq!(state.share(IMAP), [(S1, 1)]);
    assert_eq!(
        state.ordered("s1", "smtp").0,
        Mode::Draining { sticky: true }
    );
    order(&mut state, "s1", "smtp", Order::Weight(Some(7)));
    assert_eq!(state.share(SMTP), [(S1, 0), (S2, 1)], "drained is drained");
    order(&mut state, "s1", HOST, Order::Enable);
    assert_eq!(state.share(SMTP), [(S1, 7), (S2, 1)]);
    order(&mut state, "s1", "smtp", Order::Weight(None));
    assert_eq!(state.share(SMTP), [(S1, 2), (S2, 1)]);
    assert!(state.overrides().is_empty());
    order(&mut state, "s2", HOST, Order::Drain { sticky: false });
    assert_eq!(state.share(SMTP), [(S1, 2)], "sticky clients go, too");
}

#[test]
fn nobody_can_be_ordered_who_is_not_there() {
    let mut state = example();
    for (server, service, name) in [
        ("s9", HOST, "s9"),
        ("s2", "imap", "s2 with service imap"),
        ("sorry", "imap", "sorry with service imap"),
    ] {
        let response = order(&mut state, server, service, Order::Disable);
        let refusal = Refusal::UnknownServer(name.to_owned());
        assert_eq!(response, Response::Refused(refusal));
    }
    assert_eq!(
        order(&mut state, "sorry", "smtp", Order::Disable),
        Response::Health(true)
    );
    assert_eq!(
        order(&mut state, "s2", "smtp", Order::Disable),
        Response::Health(true)
    );
    config(&mut state, &FILE.replace(" fallback=sorry", ""));
    assert_eq!(state.overrides().len(), 1);
    let last = state.events().since(0).last().unwrap();
    assert_eq!(
        (last.kind, last.server.as_str()),
        (EventKind::OrderDropped, "sorry")
    );
}

#[test]
fn each_change_of_a_service_runs_its_script_once() {
    let mut state = example();
    verdict(&mut state, S1, HOST, false);
    verdict(&mut state, S1, "smtp", false);
    verdict(&mut state, S1, HOST, true);
    assert_eq!(
        state.script_runs().len(),
        1,
        "smtp of s1 went down once, and imap has no script"
    );
    verdict(&mut state, S1, "smtp", true);
    let runs: Vec<_> = state.script_runs().values().cloned().collect();
    let told: Vec<_> = runs
        .iter()
        .map(|run| {
            (
                run.program.as_str(),
                run.up,
                run.address.to_string(),
                run.port,
            )
        })
        .collect();
    let address = || "10.0.0.11".to_owned();
    assert_eq!(
        told,
        [
            ("/etc/down", false, address(), 25),
            ("/etc/up", true, address(), 25)
        ]
    );
    assert_eq!(
        script(&mut state, 1, ScriptStep::Begin),
        Response::Noted(true)
    );
    assert_eq!(
        script(&mut state, 1, ScriptStep::Begin),
        Response::Noted(false)
    );
    let end = ScriptStep::End("exit status 0".to_owned());
    assert_eq!(script(&mut state, 1, end.clone()), Response::Noted(true));
    assert_eq!(script(&mut state, 1, end), Response::Noted(false));
    assert_eq!(state.script_runs().keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_script_that_may_have_run_runs_again_and_says_so() {
    let mut state = example();
    verdict(&mut state, S1, "smtp", false);
    verdict(&mut state, S2, "smtp", false);
    script(&mut state, 1, ScriptStep::Begin);
    begin(&mut state, 2, 2);
    assert_eq!(
        script(&mut state, 1, ScriptStep::Begin),
        Response::Noted(true)
    );
    assert_eq!(
        script(&mut state, 2, ScriptStep::Begin),
        Response::Noted(true)
    );
    let events: Vec<_> = state.events().since(2).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let expected = [
        EventKind::ScriptBegun,
        EventKind::ScriptAgain,
        EventKind::ScriptBegun,
    ];
    assert_eq!(kinds, expected);
    assert!(
        events[1].text.contains("nobody can know"),
        "{}",
        events[1].text
    );
    let begun = state.script_runs()[&1].begun.unwrap();
    assert_eq!((begun.epoch, begun.node), (Epoch(2), NodeId(2)));
}

#[test]
fn scripts_that_wait_are_bounded() {
    let mut state = example();
    for n in 0..=RUNS_MAX {
        verdict(&mut state, S1, "smtp", n % 2 == 1);
    }
    assert_eq!(state.script_runs().len(), RUNS_MAX);
    assert_eq!(kinds(&state).last(), Some(&EventKind::ScriptRefused));
}

#[test]
fn everything_is_checked_as_its_pool_says() {
    let state = example();
    let targets = state.targets();
    let subjects: Vec<_> = targets
        .keys()
        .map(|(id, name)| (id.0, name.as_str()))
        .collect();
    assert_eq!(
        subjects,
        [
            (1, ""),
            (1, "imap"),
            (1, "smtp"),
            (2, "smtp"),
            (3, ""),
            (3, "smtp")
        ]
    );
    let smtp = &targets[&(S1, "smtp".to_owned())];
    assert_eq!(
        (
            smtp.frequency.as_secs(),
            smtp.timeout.as_secs(),
            smtp.rise,
            smtp.fall
        ),
        (7, 3, 2, 3)
    );
    assert_eq!(smtp.fresh_for().as_secs(), 17);
}

#[test]
fn snapshots_from_before_there_was_health_are_read() {
    let state = example();
    let bytes = state.encode();
    // Format, length of the head, head, records. The health of this state is empty: six zeros at the head's end.
    let len = u64::from_be_bytes(bytes[1..9].try_into().unwrap());
    let end = 9 + usize::try_from(len).unwrap();
    assert_eq!(bytes[end - 6..end], [0; 6]);
    let mut old = vec![2];
    old.extend((len - 6).to_be_bytes());
    old.extend(&bytes[9..end - 6]);
    old.extend(&bytes[end..]);
    assert_eq!(State::decode(&old).unwrap(), state);
}
