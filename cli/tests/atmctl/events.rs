use std::time::{Duration, Instant};

use proto::v1;
use serde_json::{Value, json};

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn event(number: u64, kind: &str, server: &str, service: &str, text: &str) -> v1::Event {
    v1::Event {
        number,
        at_unix_ms: 1_700_000_000_000 + number,
        kind: kind.into(),
        server: server.into(),
        service: service.into(),
        text: text.into(),
    }
}

fn double() -> Double {
    Double::start(script())
}

fn script() -> Script {
    let page = |missed, events| v1::EventsReply { events, missed };
    Script {
        events: vec![
            page(
                2,
                vec![event(4, "service-down", "serv1", "smtp", "421 \x1b[2Jno")],
            ),
            page(0, vec![event(5, "active", "", "", "atm2, epoch 3")]),
        ],
        ..Script::default()
    }
}

#[test]
fn the_lines() {
    let double = double();
    let outcome = asking(&double, &["events", "--after", "1"]).done();
    assert_eq!(
        outcome.stdout,
        "\
-  2 events are not kept any more
NUMBER  TIME                      EVENT           SERVER      SERVICE     TEXT
     4  2023-11-14T22:13:20.004Z  service-down    serv1       smtp        421 \u{fffd}[2Jno
     5  2023-11-14T22:13:20.005Z  active          -           -           atm2, epoch 3
"
    );
    let request = v1::EventsRequest {
        after: 1,
        follow: false,
    };
    assert_eq!(double.asked(), [Asked::Events(request)]);
}

#[test]
fn a_json_object_for_each() {
    let double = double();
    let outcome = asking(&double, &["events", "--output", "json"]).done();
    let lines = outcome.stdout.lines();
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0], json!({"missed": 2}));
    assert_eq!(
        lines[2],
        json!({"number": 5, "at_unix_ms": 1_700_000_000_005_u64, "kind": "active", "server": null,
               "service": null, "text": "atm2, epoch 3"})
    );
}

#[test]
fn an_end_is_no_success_for_who_follows() {
    let outcome = asking(&double(), &["events", "--follow"]);
    assert_eq!(outcome.code, 69);
    assert!(
        outcome.stderr.contains("no more events"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn events_that_never_end_meet_the_deadline() {
    let double = Double::start(Script {
        endless: true,
        ..script()
    });
    let start = Instant::now();
    let outcome = asking(&double, &["events", "--timeout", "0.3"]).failed(69);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(
        outcome.stderr.contains("no answer within 300ms"),
        "{outcome:?}"
    );
}
