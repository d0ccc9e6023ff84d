//! `config check` and `config show`.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use proto::v1;
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::{asking, atmctl, command, outcome};

pub(crate) const GOOD: &str = "\
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

/// A directory of configuration files; it goes when dropped.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Two errors, an unknown method at 6:26 and a service that does not exist at 9:19, and a warning in their wake.
pub(crate) fn bad() -> String {
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
    asking(&double, &["config", "show", "--local"]).done();
    let shown = |version, local| Asked::Show(v1::ShowConfigRequest { version, local });
    assert_eq!(
        double.asked(),
        [shown(0, false), shown(3, false), shown(0, true)]
    );
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
