use proto::v1;
use proto::v1::atm_status::Role;
use proto::v1::conflict::Claimant;
use serde_json::{Value, json};

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn atm(name: &str, node: u64, role: i32, applied_index: u64, reachable: bool) -> v1::AtmStatus {
    v1::AtmStatus {
        name: name.into(),
        role,
        applied_index,
        lag: 1200 - applied_index,
        reachable,
        node,
        address: format!("10.0.0.{node}"),
        suspected: node == 4,
    }
}

fn example() -> v1::StatusReply {
    v1::StatusReply {
        answered_by: "atm2".into(),
        active: Some("atm1".into()),
        epoch: 7,
        lease_left_ms: 143,
        config_version: 3,
        applied_index: 1199,
        atms: vec![
            atm("atm1", 1, Role::Active.into(), 1200, true),
            atm("atm2", 2, Role::Backup.into(), 1199, true),
            atm("atm3", 3, Role::Witness.into(), 0, false),
            atm("atm4", 4, Role::Claiming.into(), 1200, true),
            atm("atm5", 5, 99, 1200, true),
        ],
        virtual_hosts: vec![
            v1::VirtualHostStatus {
                name: "mail".into(),
                addresses: vec!["10.0.0.100".into(), "fd00::100".into()],
                services: vec![v1::VirtualServiceStatus {
                    name: "smtp".into(),
                    protocol: "tcp".into(),
                    port: 25,
                    connections: 12,
                    scheduler: "wrr".into(),
                    replication: "quorum".into(),
                    fallback: "idle".into(),
                    on_down: "reset".into(),
                }],
            },
            v1::VirtualHostStatus {
                name: "empty".into(),
                addresses: vec!["10.0.0.101".into()],
                services: vec![],
            },
        ],
        servers: vec![
            v1::ServerStatus {
                name: "serv1".into(),
                address: "10.0.0.11".into(),
                method: "tunnel".into(),
                services: vec![
                    v1::ServerServiceStatus {
                        name: "smtp".into(),
                        healthy: true,
                        weight: 10,
                        connections: 12,
                        mode: "draining".into(),
                        weight_configured: 2,
                        ..Default::default()
                    },
                    v1::ServerServiceStatus {
                        name: "imap".into(),
                        healthy: false,
                        weight: 1,
                        connections: 0,
                        mode: "draining".into(),
                        weight_configured: 1,
                        down: Some(v1::Finding {
                            since_unix_ms: 1_700_000_000_123,
                            reason: "connection refused (2 of 3 ATMs)".into(),
                        }),
                        ..Default::default()
                    },
                ],
                order: Some(v1::Order {
                    mode: "draining".into(),
                    weight: Some(10),
                    by: "atm2".into(),
                    at_unix_ms: 1_700_000_000_000,
                }),
                report: Some(v1::ServerReport {
                    age_ms: 2_100,
                    config_version: 3,
                    load_1m: Some(0.4249),
                    connections: Some(11),
                    counters: vec![v1::Counter {
                        name: "delivered".into(),
                        value: 99,
                    }],
                    ..v1::ServerReport::default()
                }),
                ..Default::default()
            },
            v1::ServerStatus {
                name: "idle".into(),
                address: "10.0.0.12".into(),
                method: "direct".into(),
                ..Default::default()
            },
        ],
        connections: 12,
        connections_max: 100_000,
        replication_debt: 2,
        notices: vec!["atm3 has \x1b[2Janother file".into()],
        tenure: Some(v1::Tenure {
            epoch: 7,
            leader_at_ns: 1,
            begun_at_ns: 2,
            table_at_ns: 3,
            wait_until_ns: 4,
            claimed_at_ns: 5,
            first_arp_at_ns: 6,
            first_forward_at_ns: 0,
            now_ns: 8,
            now_unix_ns: 9,
            last_heard_at_ns: 10,
        }),
        conflicts: vec![
            v1::Conflict {
                vip: "10.0.0.100".into(),
                mac: "02:00:00:00:09:09".into(),
                claimant: Claimant::Foreign.into(),
                atm: String::new(),
                first_ms_ago: 200_000,
                last_ms_ago: 4_000,
                claims: 17,
                heard_by: "atm1".into(),
            },
            v1::Conflict {
                vip: "10.0.0.101".into(),
                mac: "02:00:00:00:00:02".into(),
                claimant: Claimant::Atm.into(),
                atm: "10.0.0.2".into(),
                first_ms_ago: 1_000,
                last_ms_ago: 1_000,
                claims: 1,
                heard_by: "atm2".into(),
            },
        ],
    }
}

fn double(status: v1::StatusReply) -> Double {
    Double::start(Script {
        status,
        ..Script::default()
    })
}

#[test]
fn the_table() {
    let double = double(example());
    let outcome = asking(&double, &["status"]).done();
    assert_eq!(
        outcome.stdout,
        "\
Active:           atm1
Epoch:            7
Lease left:       143 ms
Configuration:    version 3
Connections:      12 of 100000
Replication debt: 2
Answered by:      atm2

ATM   ROLE      APPLIED   LAG  REACHABLE  ADDRESS
atm1  active       1200     0  yes        10.0.0.1
atm2  backup       1199     1  yes        10.0.0.2
atm3  witness         0  1200  no         10.0.0.3
atm4  claiming     1200     0  suspected  10.0.0.4
atm5  unknown      1200     0  yes        10.0.0.5

VIRTUAL HOST  ADDRESS               SERVICE  PORT    SCHEDULER  REPLICATION  CONNECTIONS
mail          10.0.0.100,fd00::100  smtp     tcp:25  wrr        quorum                12
empty         10.0.0.101            -        -       -          -                      -

SERVER  ADDRESS    METHOD  SERVICE  STATE     WEIGHT  CONNECTIONS
serv1   10.0.0.11  tunnel  smtp     draining      10           12
serv1   10.0.0.11  tunnel  imap     down           1            0
idle    10.0.0.12  direct  -        -              -            -

DOWN   SERVICE  SINCE                     REASON
serv1  imap     2023-11-14T22:13:20.123Z  connection refused (2 of 3 ATMs)

ORDERED  SERVICE  MODE      WEIGHT  SINCE                     BY
serv1    -        draining  10      2023-11-14T22:13:20.000Z  atm2

REPORT-OF  REPORTED   VERSION  LOAD  CONNECTIONS  STATE
serv1      2s         3        0.42           11  in-force
idle       no-report  -           -            -  -

CLAIMED     BY                 WHO           SINCE  LAST  CLAIMS  HEARD-BY
10.0.0.100  02:00:00:00:09:09  foreign-host  3m20s  4s        17  atm1
10.0.0.101  02:00:00:00:00:02  atm:10.0.0.2  1s     1s         1  atm2

Notices:
  atm3 has \u{fffd}[2Janother file
"
    );
    assert_eq!(outcome.stderr, "");
    assert_eq!(double.asked(), [Asked::Status]);
}

#[test]
fn the_table_of_a_cluster_without_an_active_atm() {
    let double = double(v1::StatusReply {
        active: None,
        lease_left_ms: 0,
        ..v1::StatusReply::default()
    });
    let outcome = asking(&double, &["status"]).done();
    assert!(outcome.stdout.starts_with("Active:           none\n"));
    assert!(outcome.stdout.contains("Lease left:       none\n"));
    assert_eq!(outcome.stdout.lines().count(), 7);
}

#[test]
fn the_json() {
    let double = double(example());
    let outcome = asking(&double, &["status", "--output", "json"]).done();
    assert_eq!(
        outcome.json(),
        json!({
            "answered_by": "atm2",
            "active": "atm1",
            "epoch": 7,
            "lease_left_ms": 143,
            "config_version": 3,
            "applied_index": 1199,
            "connections": 12,
            "connections_max": 100_000,
            "replication_debt": 2,
            "atms": [
                {"name": "atm1", "node": 1, "address": "10.0.0.1", "role": "active",
                 "applied_index": 1200, "lag": 0, "reachable": true, "suspected": false},
                {"name": "atm2", "node": 2, "address": "10.0.0.2", "role": "backup",
                 "applied_index": 1199, "lag": 1, "reachable": true, "suspected": false},
                {"name": "atm3", "node": 3, "address": "10.0.0.3", "role": "witness",
                 "applied_index": 0, "lag": 1200, "reachable": false, "suspected": false},
                {"name": "atm4", "node": 4, "address": "10.0.0.4", "role": "claiming",
                 "applied_index": 1200, "lag": 0, "reachable": true, "suspected": true},
                {"name": "atm5", "node": 5, "address": "10.0.0.5", "role": "unknown",
                 "applied_index": 1200, "lag": 0, "reachable": true, "suspected": false},
            ],
            "virtual_hosts": [
                {"name": "mail", "addresses": ["10.0.0.100", "fd00::100"], "services": [
                    {"name": "smtp", "protocol": "tcp", "port": 25, "connections": 12,
                     "scheduler": "wrr", "replication": "quorum", "fallback": "idle", "on_down": "reset"},
                ]},
                {"name": "empty", "addresses": ["10.0.0.101"], "services": []},
            ],
            "servers": [
                {"name": "serv1", "address": "10.0.0.11", "method": "tunnel", "services": [
                    {"name": "smtp", "healthy": true, "weight": 10, "connections": 12, "down": null, "order": null,
                     "mode": "draining", "weight_configured": 2, "fallback": false},
                    {"name": "imap", "healthy": false, "weight": 1, "connections": 0, "order": null,
                     "down": {"since_unix_ms": 1_700_000_000_123_u64, "reason": "connection refused (2 of 3 ATMs)"},
                     "mode": "draining", "weight_configured": 1, "fallback": false},
                 ], "down": null,
                 "order": {"mode": "draining", "weight": 10, "by": "atm2", "at_unix_ms": 1_700_000_000_000_u64},
                 "report": {
                    "age_ms": 2_100, "stale": false, "config_version": 3, "error": null,
                    "load_1m": 0.4249, "connections": 11, "counters": {"delivered": 99},
                }},
                {"name": "idle", "address": "10.0.0.12", "method": "direct", "services": [], "down": null,
                 "order": null, "report": null},
            ],
            "notices": ["atm3 has \u{1b}[2Janother file"],
            "tenure": {
                "epoch": 7, "leader_at_ns": 1, "begun_at_ns": 2, "table_at_ns": 3,
                "wait_until_ns": 4, "claimed_at_ns": 5, "first_arp_at_ns": 6,
                "first_forward_at_ns": 0, "now_ns": 8, "now_unix_ns": 9, "last_heard_at_ns": 10,
            },
            "conflicts": [
                {"vip": "10.0.0.100", "mac": "02:00:00:00:09:09", "claimant": "foreign", "atm": null,
                 "first_ms_ago": 200_000, "last_ms_ago": 4_000, "claims": 17, "heard_by": "atm1"},
                {"vip": "10.0.0.101", "mac": "02:00:00:00:00:02", "claimant": "atm", "atm": "10.0.0.2",
                 "first_ms_ago": 1_000, "last_ms_ago": 1_000, "claims": 1, "heard_by": "atm2"},
            ],
        })
    );
}

#[test]
fn the_manual_names_every_field() {
    fn missing(json: &Value, manual: &str, fields: &mut Vec<String>) {
        match json {
            Value::Array(elements) => {
                for element in elements {
                    missing(element, manual, fields);
                }
            }
            Value::Object(object) => {
                for (name, value) in object {
                    if !manual.contains(&format!("`{name}`")) {
                        fields.push(name.clone());
                    }
                    // Each counter has a name of its own.
                    if name != "counters" {
                        missing(value, manual, fields);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/atmctl.md");
    let manual = std::fs::read_to_string(path).unwrap();
    // The rows of `status` and of what is in it, up to the next command.
    let (_, rows) = manual.split_once("\n| `status` |").unwrap();
    let (rows, _) = rows.split_once("\n| `connections` |").unwrap();
    let double = double(example());
    let json = asking(&double, &["status", "--output", "json"]).json();
    let mut fields = Vec::new();
    missing(&json, rows, &mut fields);
    assert_eq!(fields, Vec::<String>::new());
}

#[test]
fn the_json_of_a_cluster_without_an_active_atm_has_nulls() {
    let double = double(v1::StatusReply::default());
    let json = asking(&double, &["--output", "json", "status"])
        .done()
        .json();
    assert_eq!(
        (&json["active"], &json["tenure"]),
        (&json!(null), &json!(null))
    );
    assert_eq!((&json["atms"], &json["notices"]), (&json!([]), &json!([])));
}

#[test]
fn reports_tell_who_is_silent_who_failed_and_who_is_elsewhere() {
    let server = |name: &str, report: v1::ServerReport| v1::ServerStatus {
        name: name.into(),
        report: Some(v1::ServerReport {
            age_ms: 100,
            ..report
        }),
        ..v1::ServerStatus::default()
    };
    let version = |config_version| v1::ServerReport {
        config_version,
        ..v1::ServerReport::default()
    };
    let double = double(v1::StatusReply {
        config_version: 5,
        servers: vec![
            server(
                "gone",
                v1::ServerReport {
                    stale: true,
                    ..version(5)
                },
            ),
            server(
                "stuck",
                v1::ServerReport {
                    error: "no room".into(),
                    ..version(4)
                },
            ),
            server("late", version(4)),
            server(
                "fresh",
                v1::ServerReport {
                    from_file: true,
                    ..version(0)
                },
            ),
        ],
        ..v1::StatusReply::default()
    });
    let outcome = asking(&double, &["status"]).done();
    assert!(
        outcome.stdout.ends_with(
            "\
REPORT-OF  REPORTED  VERSION  LOAD  CONNECTIONS  STATE
gone       0s        5           -            -  silent
stuck      0s        4           -            -  failed
late       0s        4           -            -  other-version
fresh      0s        file        -            -  other-version
"
        ),
        "{}",
        outcome.stdout
    );
    let json = asking(&double, &["--output", "json", "status"])
        .done()
        .json();
    assert_eq!(json["servers"][1]["report"]["error"], json!("no room"));
    assert_eq!(json["servers"][3]["report"]["config_version"], json!(null));
}

#[test]
fn colours_only_when_wanted() {
    let double = double(example());
    for (choice, coloured) in [("always", true), ("never", false), ("auto", false)] {
        let outcome = asking(&double, &["status", "--color", choice]).done();
        assert_eq!(outcome.stdout.contains('\x1b'), coloured, "{choice}");
    }
    let json = asking(
        &double,
        &["status", "--color", "always", "--output", "json"],
    );
    assert!(!json.stdout.contains('\x1b'));
}
