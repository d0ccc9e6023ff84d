//! What needs no ATM: the version, completions, and wrong usage.

use serde_json::json;

use crate::run::{atmctl, command, outcome};

#[test]
fn the_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        atmctl(&["version"]).done().stdout,
        format!("atmctl {version}\n")
    );
    assert_eq!(
        atmctl(&["--version"]).done().stdout,
        format!("atmctl {version}\n")
    );
    let json = atmctl(&["version", "--output", "json"]).done().json();
    assert_eq!(json, json!({"version": version}));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = atmctl(&["completions", shell]).done().stdout;
        for word in ["failover", "connections", "endpoint"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn wrong_usage() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["drain"], "drain"),
        (&["config"], "Usage"),
        (&["config", "check"], "<FILE>"),
        (&["connections", "--limit", "0"], "--limit"),
        (&["connections", "--limit", "many"], "--limit"),
        (&["connections", "--limit", "1000001"], "--limit"),
        (&["config", "show", "--version", "0"], "--version"),
        (&["config", "apply", "x", "--expect-version", "-1"], "'-1'"),
        (&["failover", "atm2"], "atm2"),
        (&["failover", "--to"], "--to"),
        (&["status", "--output", "xml"], "--output"),
        (&["status", "--color", "pink"], "--color"),
        (&["status", "--timeout", "0"], "more than 0"),
        (&["status", "--timeout", "3601"], "at most 3600"),
        (&["status", "--timeout", "soon"], "not a number of seconds"),
        (&["status", "--endpoint", "atm1"], "write HOST:PORT"),
        (&["status", "--endpoint", "atm1:0"], "not a port"),
        (
            &["status", "--endpoint", "a b:1"],
            "neither a host name nor an address",
        ),
        (&["status", "--endpoint", "::1"], "in brackets"),
        (&["status", "--endpoint", ""], "write HOST:PORT"),
        (&["completions", "dos"], "dos"),
    ];
    for (arguments, word) in cases {
        let outcome = atmctl(arguments).failed(2);
        assert!(
            outcome.stderr.contains(word),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn a_bad_endpoint_in_the_environment_is_wrong_usage() {
    let output = command(&["status"])
        .env("ATMCTL_ENDPOINT", "nowhere")
        .output();
    let outcome = outcome(output.unwrap()).failed(2);
    assert!(outcome.stderr.contains("write HOST:PORT"), "{outcome:?}");
}
