//! `config apply`: what is sent, what is not, and what became of it.

use proto::v1;
use proto::v1::problem::Severity;
use serde_json::json;
use tonic::Code;

use crate::config::{Files, GOOD, bad};
use crate::double::{Asked, Double, Script};
use crate::run::{asking, atmctl};

fn applying(applied: v1::ApplyConfigReply) -> Double {
    Double::start(Script {
        applied,
        ..Script::default()
    })
}

fn problem(severity: Severity, code: &str, line: u32, column: u32) -> v1::Problem {
    v1::Problem {
        severity: severity.into(),
        code: code.into(),
        line,
        column,
        message: format!("{code} it is"),
        hint: "do otherwise".into(),
    }
}

#[test]
fn applying_a_good_file() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    let double = applying(v1::ApplyConfigReply {
        version: 4,
        index: 123,
        ..v1::ApplyConfigReply::default()
    });
    let outcome = asking(&double, &["config", "apply", &file]).done();
    assert_eq!(outcome.stdout, "version 4 committed at index 123\n");
    assert_eq!(outcome.stderr, "");
    let arguments = [
        "config",
        "apply",
        &file,
        "--expect-version",
        "3",
        "--output",
        "json",
    ];
    assert_eq!(
        asking(&double, &arguments).done().json(),
        json!({"version": 4, "index": 123, "unchanged": false, "problems": []})
    );
    let asked = |expected_version| {
        Asked::Apply(v1::ApplyConfigRequest {
            source: GOOD.into(),
            file_name: file.clone(),
            expected_version,
        })
    };
    assert_eq!(double.asked(), [asked(0), asked(3)]);
    assert_eq!(
        double.deadlines(),
        [Some("15000000u".to_owned()), Some("15000000u".to_owned())]
    );
}

#[test]
fn applying_what_is_current() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    let double = applying(v1::ApplyConfigReply {
        version: 3,
        unchanged: true,
        ..v1::ApplyConfigReply::default()
    });
    let outcome = asking(&double, &["config", "apply", &file]).done();
    assert_eq!(outcome.stdout, "unchanged: version 3 already says so\n");
    assert_eq!(
        asking(&double, &["config", "apply", &file, "--output", "json"])
            .done()
            .json(),
        json!({"version": 3, "index": null, "unchanged": true, "problems": []})
    );
}

#[test]
fn applying_a_bad_file_asks_nobody() {
    let files = Files::new();
    let file = files.write("bad.conf", bad());
    let double = applying(v1::ApplyConfigReply::default());
    let outcome = asking(&double, &["config", "apply", &file]).failed(1);
    for part in [
        format!("{file}:6:26"),
        format!("{file}:9:19"),
        "the configuration is invalid".to_owned(),
    ] {
        assert!(outcome.stderr.contains(&part), "{part}: {}", outcome.stderr);
    }
    let outcome = asking(&double, &["config", "apply", &file, "--output", "json"]);
    assert_eq!(outcome.code, 1);
    let json = outcome.json();
    assert_eq!(
        (&json["version"], &json["index"]),
        (&json!(null), &json!(null))
    );
    let problems = json["problems"].as_array().unwrap();
    assert!(
        problems
            .iter()
            .any(|problem| problem["code"] == "unknown-method")
    );
    assert_eq!(double.asked(), []);
}

#[test]
fn the_cluster_may_know_more_problems() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    let double = applying(v1::ApplyConfigReply {
        problems: vec![
            problem(Severity::Error, "unresolved-host", 6, 16),
            problem(Severity::Error, "never-heard-of", 3, 3),
            problem(Severity::Warning, "outside-network", 0, 0),
        ],
        ..v1::ApplyConfigReply::default()
    });
    let outcome = asking(&double, &["config", "apply", &file]).failed(1);
    for part in [
        format!("{file}:6:16"),
        "^^^^^^^^^".to_owned(),
        format!("{file}:3:3: error[never-heard-of]: never-heard-of it is (do otherwise)\n"),
        format!("{file}: warning[outside-network]: outside-network it is (do otherwise)\n"),
        format!("error: refused: the cluster does not take {file}\n"),
    ] {
        assert!(outcome.stderr.contains(&part), "{part}: {}", outcome.stderr);
    }
    let outcome = asking(&double, &["config", "apply", &file, "--output", "json"]);
    assert_eq!(outcome.code, 1);
    let problems = &outcome.json()["problems"];
    assert_eq!(
        problems[0],
        json!({"severity": "error", "code": "unresolved-host", "file": file, "line": 6, "column": 16,
               "message": "unresolved-host it is", "hint": "do otherwise"})
    );
    assert_eq!(
        (&problems[2]["line"], &problems[2]["column"]),
        (&json!(null), &json!(null))
    );
}

#[test]
fn a_foreign_problem_cannot_steer_the_terminal() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    let hostile = |code: &str| v1::Problem {
        message: "\x1b[2Jgone".into(),
        hint: "\x1b[2Jdo".into(),
        ..problem(Severity::Error, code, 6, 16)
    };
    let double = applying(v1::ApplyConfigReply {
        problems: vec![hostile("unresolved-host"), hostile("\x1b[2J")],
        ..v1::ApplyConfigReply::default()
    });
    let outcome = asking(&double, &["config", "apply", &file]).failed(1);
    assert!(outcome.stderr.contains("gone"), "{outcome:?}");
    assert!(!outcome.stderr.contains('\x1b'), "{outcome:?}");
}

#[test]
fn applying_shows_a_warning_once() {
    let files = Files::new();
    let unused = "EndServices\n";
    let file = files.write(
        "warning.conf",
        GOOD.replace(unused, "  Service telnet tcp:23 connect\nEndServices\n"),
    );
    let checked = atmctl(&["config", "check", &file, "--output", "json"]).json();
    let column = u32::try_from(checked[0]["column"].as_u64().unwrap()).unwrap();
    let double = applying(v1::ApplyConfigReply {
        version: 4,
        index: 9,
        problems: vec![problem(Severity::Warning, "service-not-offered", 4, column)],
        ..v1::ApplyConfigReply::default()
    });
    let outcome = asking(&double, &["config", "apply", &file]).done();
    assert_eq!(outcome.stdout, "version 4 committed at index 9\n");
    assert_eq!(
        outcome.stderr.matches("service-not-offered").count(),
        1,
        "{outcome:?}"
    );
}

#[test]
fn another_version_than_expected() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    let message = "version 4 is current, not 3";
    let double = Double::start(Script::refusing(Code::Aborted, message));
    let outcome = asking(
        &double,
        &["config", "apply", &file, "--expect-version", "3"],
    )
    .failed(1);
    assert_eq!(outcome.stderr, format!("error: refused: {message}\n"));
}

#[test]
fn an_apply_without_an_answer_may_have_been_done() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    let double = Double::start(Script {
        silent: true,
        ..Script::default()
    });
    let outcome = asking(&double, &["config", "apply", &file, "--timeout", "0.3"]).failed(69);
    assert!(outcome.stderr.contains("may have been done"), "{outcome:?}");
}
