//! Hosts that are machines of their own: what they see, what they keep over a power cut, what is left of them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::path::{Path, PathBuf};

use chaos_tests::cluster::{SETTLE_MAX, wait_until};
use chaos_tests::lab::{
    Host, Identity, Lab, LabError, MachineSpec, Privileges, available, ready, skipped,
};

/// A lab whose ATM is a machine; `None` where owners and mounts cannot be had.
fn lab(spec: &MachineSpec) -> Option<Lab> {
    if !ready() {
        return None;
    }
    if available().unwrap() != Privileges::Root {
        skipped("a machine of its own needs root");
        return None;
    }
    let lab = Lab::builder().atms(1).servers(1).without_daemons();
    let lab = lab.start().unwrap();
    lab.start_machine("atm1", spec).unwrap();
    Some(lab)
}

fn spec() -> MachineSpec {
    MachineSpec {
        hostname: "first.my.org".to_owned(),
        binds: Vec::new(),
        setup: "echo once >> /etc/lab-machine-starts".to_owned(),
    }
}

fn said(host: &Host<'_>, script: &str) -> String {
    let said = host.said(["sh", "-c", script]).unwrap();
    said.trim().to_owned()
}

#[test]
fn a_machine_has_its_own_files_processes_and_name() {
    let Some(lab) = lab(&spec()) else {
        return;
    };
    let host = lab.host("atm1").unwrap();
    assert_eq!(said(&host, "hostname"), "first.my.org");
    assert_eq!(
        said(&host, "cat /proc/1/cmdline | tr '\\0' ' ' | cut -d' ' -f1"),
        "sh"
    );
    // Its network is that of its host, and it knows the others by name.
    assert!(said(&host, "ip -br addr show eth0").contains("10.1.0.1/24"));
    assert_eq!(
        said(&host, "getent hosts serv1 | cut -d' ' -f1"),
        "10.1.0.11"
    );
    // What it writes nobody else sees: not this machine, not another host.
    assert_eq!(said(&host, "cat /etc/lab-machine-starts"), "once");
    assert!(!Path::new("/etc/lab-machine-starts").exists());
    let other = lab.host("serv1").unwrap();
    assert_eq!(
        said(&other, "ls /etc/lab-machine-starts 2>&1 || true")
            .lines()
            .count(),
        1
    );
}

#[test]
fn a_power_cut_ends_everything_and_keeps_the_disk() {
    let shared = tempfile::tempdir().unwrap();
    let spec = MachineSpec {
        binds: vec![(shared.path().to_owned(), PathBuf::from("/srv/shared"))],
        ..spec()
    };
    let Some(lab) = lab(&spec) else {
        return;
    };
    let host = lab.host("atm1").unwrap();
    // A process that has left every session that the lab knows of.
    said(
        &host,
        "echo kept > /root/kept; echo too > /srv/shared/file; setsid sleep 600 >/dev/null 2>&1 &",
    );
    let sleep = sleeper(host.namespace());
    lab.power_off("atm1").unwrap();
    assert!(!sleep.is_alive());

    lab.start_machine("atm1", &spec).unwrap();
    assert_eq!(said(&host, "cat /root/kept /srv/shared/file"), "kept\ntoo");
    assert_eq!(said(&host, "wc -l < /etc/lab-machine-starts"), "2");
    assert!(
        said(&host, "ps ax")
            .lines()
            .all(|line| !line.contains("sleep 600"))
    );

    // The end of the lab is its end, too.
    said(&host, "setsid sleep 600 >/dev/null 2>&1 &");
    let sleep = sleeper(host.namespace());
    drop(host);
    lab.down();
    assert!(!sleep.is_alive());
}

#[test]
fn a_set_up_that_fails_is_told_with_its_last_words() {
    let Some(lab) = lab(&spec()) else {
        return;
    };
    let wrong = MachineSpec {
        hostname: "second.my.org".to_owned(),
        binds: Vec::new(),
        setup: "echo nothing works here; exit 3".to_owned(),
    };
    let error = lab.start_machine("serv1", &wrong).unwrap_err();
    assert!(matches!(error, LabError::NoMachine { .. }), "{error}");
    assert!(error.to_string().contains("nothing works here"), "{error}");
    let twice = lab.start_machine("atm1", &spec()).unwrap_err();
    assert!(matches!(twice, LabError::AlreadyRunning { .. }), "{twice}");
}

/// The processes `sleep 600` in a network namespace.
/// The one process called sleep there: its shell may end before it has got its name.
fn sleeper(namespace: &str) -> Identity {
    let one = wait_until("one sleep", SETTLE_MAX, || {
        let found = sleepers(namespace);
        match found[..] {
            [one] => Ok(one),
            _ => Err(format!("{found:?}")),
        }
    });
    one.unwrap()
}

fn sleepers(namespace: &str) -> Vec<Identity> {
    let pids = std::process::Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
        .unwrap();
    let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
    let pids = pids
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok());
    let of = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command == b"sleep\x00600\x00"
    };
    pids.filter(of).filter_map(Identity::of).collect()
}
