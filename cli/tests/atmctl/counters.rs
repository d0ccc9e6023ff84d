use proto::v1;
use serde_json::json;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn by_service(vip: &str, server: &str, verdict: &str, value: u64) -> v1::ServiceCounter {
    v1::ServiceCounter {
        service: if vip.is_empty() { "" } else { "web" }.into(),
        vip: vip.into(),
        server: server.into(),
        verdict: verdict.into(),
        value,
    }
}

fn example(rows: Vec<v1::ServiceCounter>) -> Double {
    let counter = |name: &str, value| v1::Counter {
        name: name.into(),
        value,
    };
    Double::start(Script {
        counters: v1::CountersReply {
            atm: "atm1".into(),
            counters: vec![
                counter("transmit", 18_446_744_073_709_551_615),
                counter("drop_lease_expired", 7),
            ],
            by_service: rows,
        },
        ..Script::default()
    })
}

fn rows() -> Vec<v1::ServiceCounter> {
    vec![
        by_service("10.0.0.100:80", "serv1", "transmit", 12),
        by_service("10.0.0.100:80", "", "no-connection", 3),
        by_service("", "serv1", "no-neighbour", 1),
    ]
}

#[test]
fn the_tables() {
    let double = example(rows());
    let outcome = asking(&double, &["counters"]).done();
    assert_eq!(
        outcome.stdout,
        "\
COUNTER                            VALUE
drop_lease_expired                     7
transmit            18446744073709551615

SERVICE  VIP            SERVER  VERDICT        VALUE
web      10.0.0.100:80  serv1   transmit          12
web      10.0.0.100:80  -       no-connection      3
-        -              serv1   no-neighbour       1
"
    );
    assert_eq!(outcome.stderr, "counters of atm1\n");
    assert_eq!(
        double.asked(),
        [Asked::Counters(v1::CountersRequest::default())]
    );
}

#[test]
fn an_atm_that_tells_no_services_apart() {
    let outcome = asking(&example(Vec::new()), &["counters"]).done();
    assert!(outcome.stdout.starts_with("COUNTER "), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 3, "{outcome:?}");
}

#[test]
fn filters_are_passed_on_and_leave_out_the_sums() {
    let double = example(vec![by_service("10.0.0.100:80", "serv1", "transmit", 12)]);
    let arguments = ["counters", "--service", "web", "--server", "serv1"];
    let outcome = asking(&double, &arguments).done();
    assert_eq!(
        outcome.stdout,
        "\
SERVICE  VIP            SERVER  VERDICT   VALUE
web      10.0.0.100:80  serv1   transmit     12
"
    );
    assert_eq!(
        double.asked(),
        [Asked::Counters(v1::CountersRequest {
            service: "web".into(),
            server: "serv1".into(),
        })]
    );
}

#[test]
fn a_name_that_nothing_has_is_refused() {
    let why = "no service named ftp in version 3";
    let double = Double::start(Script::refusing(Code::NotFound, why));
    let outcome = asking(&double, &["counters", "--service", "ftp"]).failed(1);
    assert_eq!(outcome.stderr, format!("error: refused: {why}\n"));
}

#[test]
fn the_json() {
    let outcome = asking(&example(rows()), &["counters", "--output", "json"]).done();
    assert_eq!(
        outcome.json(),
        json!({
            "atm": "atm1",
            "counters": {"drop_lease_expired": 7, "transmit": u64::MAX},
            "by_service": [
                {"service": "web", "vip": "10.0.0.100:80", "server": "serv1",
                 "verdict": "transmit", "value": 12},
                {"service": "web", "vip": "10.0.0.100:80", "server": null,
                 "verdict": "no-connection", "value": 3},
                {"service": null, "vip": null, "server": "serv1",
                 "verdict": "no-neighbour", "value": 1},
            ],
        })
    );
}
