//! P7 and P8: a configuration is committed at one index on all ATMs or rejected whole, and live connections stay untouched.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::path::PathBuf;

use chaos_tests::cluster::{Answer, Applied, Cluster, SETTLE_MAX, fast_configuration, wait_until};
use chaos_tests::lab::{Lab, ready};

/// Writes a file and applies it through the ATM on `host`.
fn apply(cluster: &Cluster, host: &str, text: &str, further: &[&str]) -> Answer {
    let file: PathBuf = cluster.lab().dir().join("applied.conf");
    fs::write(&file, text).unwrap();
    let args = [&["config", "apply", file.to_str().unwrap()], further].concat();
    cluster.atmctl(host, &args).unwrap()
}

/// The text in force and its version, as the ATM on `host` has it.
fn shown(cluster: &Cluster, host: &str) -> (u64, String) {
    let shown: serde_json::Value = cluster
        .atmctl(host, &["config", "show"])
        .unwrap()
        .json()
        .unwrap();
    (
        shown["version"].as_u64().unwrap(),
        shown["source"].as_str().unwrap().to_owned(),
    )
}

/// Without every line that has `word` in it.
fn without(text: &str, word: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains(word));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_version_is_in_force_everywhere_and_live_connections_stay_where_they_are() {
    if !ready() {
        return;
    }
    // Four servers exist; the first version knows three of them.
    let four = fast_configuration(3, 4).unwrap();
    let cluster = Cluster::start_with(Lab::builder().conf(four.clone())).unwrap();
    let (active, status) = cluster.active().unwrap();
    let three = without(&four, "serv4");
    let applied: Applied = apply(&cluster, &active, &three, &[]).json().unwrap();
    assert_eq!(
        (applied.version, applied.unchanged),
        (Some(status.config_version + 1), false)
    );
    let lines = cluster.lines(60).unwrap();
    let before = cluster.connections(&active).unwrap();
    assert!(before.values().any(|server| server == "serv1"));
    assert!(!before.values().any(|server| server == "serv4"));

    // One server leaves the file and another one comes, through a backup.
    let backup = cluster.others(&active).remove(0);
    let changed = without(&four, "serv1");
    let applied: Applied = apply(&cluster, &backup, &changed, &[]).json().unwrap();
    let version = status.config_version + 2;
    assert_eq!(applied.version, Some(version));
    assert!(applied.index.is_some());
    for atm in cluster.atms() {
        wait_until("the version on every ATM", SETTLE_MAX, || {
            match shown(&cluster, &atm) {
                (number, text) if number == version && text == changed => Ok(()),
                (number, _) => Err(format!("version {number} on {atm}")),
            }
        })
        .unwrap();
    }
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    assert_eq!(
        cluster.connections(&active).unwrap(),
        before,
        "moved or lost"
    );

    let newer = cluster.lines(30).unwrap();
    let servers = newer.snapshot().servers;
    assert_eq!(servers.get("serv1"), None, "{servers:?}");
    assert_eq!(servers.get("serv4"), Some(&10), "{servers:?}");
    for client in [lines, newer] {
        let report = client.finish(SETTLE_MAX);
        assert!(report.is_unbroken(), "{report:#?}");
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (active, status) = cluster.active().unwrap();
    let backup = cluster.others(&active).remove(0);
    let sound = fast_configuration(3, 3).unwrap();
    let before = shown(&cluster, &active);

    // Every problem at once, each at its place.
    let broken =
        format!("{sound}\nNonsense\nServers\n  Server serv9 10.1.0.19 teleport\nEndServers\n");
    let line = |word: &str| broken.lines().position(|l| l.contains(word)).unwrap() as u64 + 1;
    for host in [&active, &backup] {
        let answer = apply(&cluster, host, &broken, &[]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        let refused: Applied = answer.json_of_any().unwrap();
        assert_eq!((refused.version, refused.index), (None, None));
        for word in ["Nonsense", "teleport"] {
            let named = refused
                .problems
                .iter()
                .any(|p| p.line == Some(line(word)) && p.severity == "error");
            assert!(named, "{word}: {refused:#?}");
            assert!(answer.stderr.contains(word), "{}", answer.stderr);
        }
    }

    // A name that nobody knows; only the cluster can find that out.
    let unknown = sound.replace("10.1.0.13", "nobody.example.invalid");
    let answer = apply(&cluster, &active, &unknown, &[]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(
        answer.stderr.contains("nobody.example.invalid"),
        "{}",
        answer.stderr
    );

    // Somebody else was faster.
    let commented = format!("# mine\n{sound}");
    let wrong = (status.config_version + 1).to_string();
    for host in [&active, &backup] {
        let answer = apply(&cluster, host, &commented, &["--expect-version", &wrong]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(&wrong), "{}", answer.stderr);
    }
    for atm in cluster.atms() {
        assert_eq!(shown(&cluster, &atm), before, "{atm}");
    }

    let right = status.config_version.to_string();
    let applied: Applied = apply(&cluster, &backup, &commented, &["--expect-version", &right])
        .json()
        .unwrap();
    assert_eq!(applied.version, Some(status.config_version + 1));
    let again: Applied = apply(&cluster, &backup, &commented, &[]).json().unwrap();
    assert!(
        again.unchanged && again.version == applied.version && again.index.is_none(),
        "{again:?}"
    );
}
