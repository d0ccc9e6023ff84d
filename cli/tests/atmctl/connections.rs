use std::time::Instant;

use proto::v1;
use serde_json::json;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn connection(client: &str, service: &str) -> v1::Connection {
    v1::Connection {
        protocol: "tcp".into(),
        client: client.into(),
        vip: "10.0.0.100:25".into(),
        service: service.into(),
        server: "serv1".into(),
    }
}

fn list(connections: Vec<v1::Connection>) -> v1::ConnectionList {
    v1::ConnectionList {
        connections,
        total: 5,
    }
}

fn example() -> Script {
    Script {
        connections: vec![
            list(vec![connection("192.0.2.1:40000", "smtp")]),
            list(vec![connection("[2001:db8::1]:40001", "submission")]),
        ],
        ..Script::default()
    }
}

#[test]
fn the_table() {
    let double = Double::start(example());
    let outcome = asking(&double, &["connections"]).done();
    assert_eq!(
        outcome.stdout,
        "\
PROTOCOL  CLIENT               VIP            SERVICE     SERVER
tcp       192.0.2.1:40000      10.0.0.100:25  smtp        serv1
tcp       [2001:db8::1]:40001  10.0.0.100:25  submission  serv1
"
    );
    assert_eq!(outcome.stderr, "2 shown, 5 in all\n");
    assert_eq!(
        double.asked(),
        [Asked::Connections(v1::ListConnectionsRequest::default())]
    );
}

#[test]
fn the_json() {
    let double = Double::start(example());
    let outcome = asking(&double, &["connections", "--output", "json"]).done();
    assert_eq!(
        outcome.json(),
        json!({
            "total": 5,
            "connections": [
                {"protocol": "tcp", "client": "192.0.2.1:40000", "vip": "10.0.0.100:25",
                 "service": "smtp", "server": "serv1"},
                {"protocol": "tcp", "client": "[2001:db8::1]:40001", "vip": "10.0.0.100:25",
                 "service": "submission", "server": "serv1"},
            ],
        })
    );
    assert_eq!(outcome.stderr, "");
}

#[test]
fn filters_are_passed_on_and_the_limit_holds_whatever_comes() {
    let double = Double::start(Script {
        endless: true,
        ..example()
    });
    let arguments = [
        "connections",
        "--service",
        "smtp",
        "--server",
        "serv1",
        "--limit",
        "1",
    ];
    let outcome = asking(&double, &arguments).done();
    assert_eq!(outcome.stdout.lines().count(), 2);
    assert_eq!(outcome.stderr, "1 shown, 5 in all\n");
    assert_eq!(
        double.asked(),
        [Asked::Connections(v1::ListConnectionsRequest {
            service: "smtp".into(),
            server: "serv1".into(),
            limit: 1,
        })]
    );
}

#[test]
fn a_list_longer_than_the_limit_is_cut() {
    let double = Double::start(Script {
        connections: vec![list(vec![connection("192.0.2.1:40000", "smtp"); 4])],
        ..Script::default()
    });
    let outcome = asking(&double, &["connections", "--limit", "3"]).done();
    assert_eq!(outcome.stderr, "3 shown, 5 in all\n");
    assert_eq!(outcome.stdout.lines().count(), 1 + 3);
}

#[test]
fn a_list_that_never_ends_meets_the_deadline() {
    let double = Double::start(Script {
        endless: true,
        ..example()
    });
    let start = Instant::now();
    let outcome = asking(&double, &["connections", "--timeout", "0.3"]).failed(69);
    assert!(start.elapsed().as_secs() < 3);
    assert!(
        outcome.stderr.contains("no answer within 300ms"),
        "{outcome:?}"
    );
}

#[test]
fn a_closed_stdout_is_no_error() {
    use std::process::Stdio;
    let many = vec![connection("192.0.2.1:40000", "smtp"); 10_000];
    let double = Double::start(Script {
        connections: vec![list(many)],
        ..Script::default()
    });
    for format in ["table", "json"] {
        let endpoint = double.address.to_string();
        let mut child = crate::run::command(&["--endpoint", &endpoint, "connections"])
            .args(["--output", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let outcome = crate::run::outcome(child.wait_with_output().unwrap()).done();
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        assert!(!outcome.stderr.contains("error"), "{outcome:?}");
    }
}

#[test]
fn a_closed_stderr_is_no_error() {
    use std::process::Stdio;
    let mut child = crate::run::command(&["--endpoint", "127.0.0.1:1", "status"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let outcome = crate::run::outcome(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, 69, "{outcome:?}");
}

#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let double = Double::start(example());
    let endpoint = double.address.to_string();
    let output = crate::run::command(&["--endpoint", &endpoint, "connections"])
        .stdout(full)
        .output()
        .unwrap();
    let outcome = crate::run::outcome(output).failed(74);
    assert!(
        outcome
            .stderr
            .starts_with("error: cannot write the answer: "),
        "{outcome:?}"
    );
}
