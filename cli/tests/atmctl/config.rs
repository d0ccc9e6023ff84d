use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use proto::v1;
use proto::v1::problem::Severity;
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::{asking, atmctl, command, outcome};

const GOOD: &str = "\
# our mail
Services
  Service smtp tcp:25 smtpAgent
EndServices
Servers
  Server serv1 10.0.0.11 tunnel
EndServers
ServerPool Mail
  AddServer serv1 smtp/1
EndServerPool
AtmPool ATMs
  AddAtm 10.0.0.1
EndAtmPool
VirtualHost 10.0.0.100
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Two errors, an unknown method at 6:26 and a service that does not exist at 9:19, and a warning in their wake.
fn bad() -> String {
    GOOD.replace("tunnel", "tunel").replace("smtp/1", "smpt/1")
}

#[test]
fn checking_a_good_file() {
    let files = Files::new();
    let file = files.write("good.conf", GOOD);
    assert_eq!(
        atmctl(&["config", "check", &file]).done().stdout,
        format!("{file}: no problems\n")
    );
    assert_eq!(
        atmctl(&["config", "check", &file, "--output", "json"])
            .done()
            .json(),
        json!([])
    );
}

#[test]
fn checking_a_file_with_a_warning() {
    let files = Files::new();
    let unused = "EndServices\n".to_owned();
    let file = files.write(
        "warning.conf",
        GOOD.replace(
            &unused,
            &format!("  Service telnet tcp:23 connect\n{unused}"),
        ),
    );
    let outcome = atmctl(&["config", "check", &file]).done();
    assert!(outcome.stdout.contains("warning"), "{outcome:?}");
    assert!(outcome.stdout.contains("telnet"), "{outcome:?}");
    let json = atmctl(&["config", "check", &file, "--output", "json"])
        .done()
        .json();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(
        (&json[0]["severity"], &json[0]["line"]),
        (&json!("warning"), &json!(4))
    );
    assert_eq!(json[0]["code"], json!("service-not-offered"));
}

#[test]
fn checking_a_bad_file_shows_every_problem_at_its_place() {
    let files = Files::new();
    let file = files.write("bad.conf", bad());
    let outcome = atmctl(&["config", "check", &file]);
    assert_eq!(outcome.code, 1);
    for part in [
        format!("{file}:6:26"),
        format!("{file}:9:19"),
        "^^^^^".to_owned(),
        "did you mean `tunnel`?".to_owned(),
        "did you mean `smtp`?".to_owned(),
    ] {
        assert!(outcome.stdout.contains(&part), "{part}: {}", outcome.stdout);
    }
    assert_eq!(
        outcome.stderr,
        format!("error: {file}: the configuration is invalid\n")
    );
    assert!(!outcome.stdout.contains('\x1b'));
    let coloured = atmctl(&["config", "check", &file, "--color", "always"]);
    assert!(coloured.stdout.contains('\x1b'));

    let outcome = atmctl(&["config", "check", &file, "--output", "json"]);
    assert_eq!(outcome.code, 1);
    let json = outcome.json();
    let errors: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .filter(|problem| problem["severity"] == "error")
        .collect();
    assert_eq!(errors.len(), 2, "{json}");
    assert_eq!(errors[0]["code"], "unknown-method");
    assert_eq!(errors[0]["file"], file.as_str());
    assert_eq!(
        (&errors[0]["line"], &errors[0]["column"]),
        (&json!(6), &json!(26))
    );
    assert_eq!(errors[0]["hint"], "did you mean `tunnel`?");
    assert!(errors[0]["message"].as_str().unwrap().contains("tunel"));
    assert_eq!(
        (&errors[1]["line"], &errors[1]["column"]),
        (&json!(9), &json!(19))
    );
}

#[test]
fn checking_what_is_no_text() {
    let files = Files::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let file = files.write("binary.conf", bytes);
    let outcome = atmctl(&["config", "check", &file]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stdout.contains("not UTF-8"), "{outcome:?}");
    assert!(
        !outcome.stdout.contains('\x1b'),
        "no escape of the file reaches the terminal"
    );
    let outcome = atmctl(&["config", "check", &file, "--output", "json"]);
    assert_eq!(outcome.code, 1);
    let json = outcome.json();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .any(|problem| problem["code"] == "invalid-utf8")
    );
}

#[test]
fn checking_a_file_without_end() {
    let outcome = atmctl(&["config", "check", "/dev/zero", "--output", "json"]);
    assert_eq!(outcome.code, 1);
    let json = outcome.json();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .any(|problem| problem["code"] == "file-too-large")
    );
}

#[test]
fn files_that_cannot_be_read() {
    let files = Files::new();
    let directory = files.0.path().to_str().unwrap();
    let missing = format!("{directory}/missing.conf");
    for command in ["check", "apply"] {
        for file in [&*missing, directory] {
            let outcome = atmctl(&["config", command, file]).failed(2);
            let start = format!("error: cannot read {file}: ");
            assert!(outcome.stderr.starts_with(&start), "{outcome:?}");
        }
    }
}

#[test]
fn a_dash_is_stdin() {
    let mut child = command(&["config", "check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(GOOD.as_bytes())
        .unwrap();
    let outcome = outcome(child.wait_with_output().unwrap()).done();
    assert_eq!(outcome.stdout, "stdin: no problems\n");
}

fn showing(source: &str) -> Double {
    Double::start(Script {
        shown: v1::ShowConfigReply {
            version: 3,
            source: source.into(),
            applied_by: "atm1".into(),
            hosts: vec![v1::HostAddress {
                name: "mail.example".into(),
                address: "10.0.0.11".into(),
            }],
            versions: vec![1, 2, 3],
        },
        ..Script::default()
    })
}

#[test]
fn showing_prints_the_source_as_it_was_applied() {
    let source = "# ours\n\tServices   # two blanks  \nEndServices";
    let double = showing(source);
    let outcome = asking(&double, &["config", "show"]).done();
    assert_eq!(outcome.stdout, source);
    assert_eq!(
        outcome.stderr,
        "version 3, applied by atm1; versions that can be shown: 1 2 3\n"
    );

    let outcome = asking(&double, &["config", "show", "--version", "3", "--resolved"]).done();
    let addresses = "\n# addresses in version 3:\n#   mail.example 10.0.0.11\n";
    assert_eq!(outcome.stdout, format!("{source}{addresses}"));
    let shown = |version| Asked::Show(v1::ShowConfigRequest { version });
    assert_eq!(double.asked(), [shown(0), shown(3)]);
}

#[test]
fn what_is_shown_can_be_checked() {
    let files = Files::new();
    let shown = asking(&showing(GOOD), &["config", "show", "--resolved"]).done();
    let file = files.write("shown.conf", shown.stdout);
    atmctl(&["config", "check", &file]).done();
}

#[test]
fn showing_as_json() {
    let outcome = asking(&showing(GOOD), &["config", "show", "--output", "json"]).done();
    assert_eq!(
        outcome.json(),
        json!({
            "version": 3,
            "applied_by": "atm1",
            "versions": [1, 2, 3],
            "hosts": [{"name": "mail.example", "address": "10.0.0.11"}],
            "source": GOOD,
        })
    );
}

#[test]
fn showing_a_version_that_is_not_there() {
    let double = Double::start(Script::refusing(Code::NotFound, "no version 9"));
    let outcome = asking(&double, &["config", "show", "--version", "9"]).failed(1);
    assert_eq!(outcome.stderr, "error: refused: no version 9\n");
}

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
