//! What is left after kill -9: of all ATMs at once, of one that returns, of the server role.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;

use chaos_tests::cluster::{Applied, Cluster, SETTLE_MAX, fast_configuration, wait_until};
use chaos_tests::lab::{Fault, OBSERVER_INTERFACE, Signal, ready};

#[test]
fn nothing_committed_is_lost_when_all_atms_are_killed_at_once() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let lines = cluster.lines(40).unwrap();
    let (active, status) = cluster.active().unwrap();
    let file = cluster.lab().dir().join("second.conf");
    let second = format!(
        "# the second version\n{}",
        fast_configuration(3, 3).unwrap()
    );
    fs::write(&file, &second).unwrap();
    let answer = cluster
        .atmctl(&active, &["config", "apply", file.to_str().unwrap()])
        .unwrap();
    let applied: Applied = answer.json().unwrap();
    assert_eq!(applied.version, Some(status.config_version + 1));
    let before = cluster.connections(&active).unwrap();
    assert_eq!(before.len(), 40);

    let atms = cluster.atms();
    for atm in &atms {
        cluster
            .lab()
            .host(atm)
            .unwrap()
            .signal(Signal::KILL)
            .unwrap();
    }
    for atm in &atms {
        cluster.lab().fault(Fault::Restart, atm).unwrap();
    }
    let hosts: Vec<&str> = atms.iter().map(String::as_str).collect();
    let after = cluster
        .wait_for(
            "an active ATM and backups that caught up",
            &hosts,
            SETTLE_MAX,
            |status| status.active.is_some() && status.all_caught_up(),
        )
        .unwrap();
    assert_eq!(Some(after.config_version), applied.version);
    assert!(after.epoch > status.epoch, "{after:?}");
    assert!(after.applied_index > status.applied_index, "{after:?}");
    for atm in &atms {
        assert_eq!(cluster.connections(atm).unwrap(), before, "{atm}");
    }
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

#[test]
fn an_atm_that_missed_much_catches_up_and_preempts_nobody() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (active, status) = cluster.active().unwrap();
    let absent = cluster.others(&active).remove(0);
    cluster.lab().fault(Fault::Kill, &absent).unwrap();
    let lines = cluster.lines(40).unwrap();
    let known = cluster.connections(&active).unwrap();
    cluster.lab().fault(Fault::Restart, &absent).unwrap();
    let after = cluster
        .wait_for("the absent ATM is back", &[&active], SETTLE_MAX, |status| {
            status.all_caught_up()
        })
        .unwrap();
    assert_eq!(
        (after.active, after.epoch),
        (status.active, status.epoch),
        "preempted"
    );
    assert_eq!(cluster.connections(&absent).unwrap(), known);

    // It is as good as any other: it takes over without breaking a connection it was absent for.
    let name = cluster.name_of(&absent).unwrap();
    let answer = cluster
        .atmctl(&active, &["failover", "--to", &name])
        .unwrap();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    assert_eq!(cluster.active().unwrap().0, absent);
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

/// Addresses, links and sysctls of a host.
const SETTINGS: &str = "ip -o -4 addr show | sed 's/ valid_lft.*//'; ip -o link show | cut -d: -f2 | cut -d@ -f1; \
                        cd /proc/sys/net/ipv4/conf && grep . */arp_ignore */arp_announce */rp_filter */accept_local";

/// Its packet filters.
const RULES: &str = "nft list ruleset";

fn state_of(cluster: &Cluster, host: &str, script: &str) -> String {
    let output = cluster
        .lab()
        .host(host)
        .unwrap()
        .exec(["sh", "-c", script])
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `serv1` has these settings and rules.
fn wait_for_state(cluster: &Cluster, what: &str, [settings, rules]: [&str; 2]) {
    wait_until(what, SETTLE_MAX, || {
        let now = [SETTINGS, RULES].map(|script| state_of(cluster, "serv1", script));
        if now == [settings, rules] {
            Ok(())
        } else {
            Err(format!("{now:#?}\ninstead of\n{settings}\n{rules}"))
        }
    })
    .unwrap();
}

#[test]
fn a_server_role_that_was_killed_is_cleaned_up_by_the_next_start_and_by_its_orderly_end() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let vip = cluster.vip().to_string();
    let running = [SETTINGS, RULES].map(|script| state_of(&cluster, "serv1", script));
    let running = running.each_ref().map(String::as_str);
    assert!(running[0].contains(&format!("{vip}/32")), "{running:#?}");

    cluster.lab().fault(Fault::Kill, "serv1").unwrap();
    cluster.lab().fault(Fault::Restart, "serv1").unwrap();
    wait_for_state(&cluster, "the server role as it was", running);
    let lines = cluster.lines(30).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    assert_eq!(
        lines.snapshot().servers.get("serv1"),
        Some(&10),
        "{:?}",
        lines.snapshot().servers
    );
    drop(lines);

    // Killed once more, so that the orderly end has to undo what another process did.
    cluster.lab().fault(Fault::Kill, "serv1").unwrap();
    cluster.lab().fault(Fault::Restart, "serv1").unwrap();
    wait_for_state(&cluster, "the server role once more", running);
    cluster
        .lab()
        .host("serv1")
        .unwrap()
        .signal(Signal::TERM)
        .unwrap();
    // The client's host has the same kernel and never had the role; it only has an address and an interface of its own.
    let client = cluster.lab().host("client").unwrap().address().to_string();
    let server = cluster.lab().host("serv1").unwrap().address().to_string();
    let fresh = state_of(&cluster, "client", SETTINGS);
    let fresh = fresh
        .lines()
        .filter(|line| !line.contains(OBSERVER_INTERFACE));
    let fresh: String = fresh
        .map(|line| format!("{}\n", line.replace(&client, &server)))
        .collect();
    wait_for_state(&cluster, "a clean host", [&fresh, ""]);
}
