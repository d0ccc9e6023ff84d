//! P2: a client that got its SYN-ACK keeps its server, and every line of its connection, through the loss of the active ATM.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::collections::BTreeMap;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, Trouble, wait_until};
use chaos_tests::lab::ready;
use chaos_tests::lines::Churn;

const CONNECTIONS: usize = 60;

/// New connections a second while the fault strikes, and how many lines (2 ms apart) each of them lives: at the moment of
/// the fault there are some of every age, from SYN to FIN.
const OPENINGS: u32 = 150;
const LINES: u64 = 150;

/// Short connections opened before the fault, and after it.
const CHURNED: u64 = 100;

fn nothing_is_lost_under(trouble: Trouble) {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let lines = cluster.lines(CONNECTIONS).unwrap();
    let (active, _) = cluster.active().unwrap();
    let before = cluster.connections(&active).unwrap();
    assert_eq!(before.len(), CONNECTIONS, "{before:?}");
    let mut welcomed = BTreeMap::new();
    for server in before.values() {
        *welcomed.entry(server.clone()).or_insert(0) += 1;
    }
    assert_eq!(
        welcomed,
        lines.snapshot().servers,
        "the table and the servers' own names"
    );

    let churn = cluster.churn(OPENINGS, LINES).unwrap();
    wait_for_openings(&churn, CHURNED);
    let blow = cluster.strike(trouble).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    cluster.mend(&blow).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    wait_for_openings(&churn, churn.snapshot().opened + CHURNED);

    let churned = churn.finish();
    let broken = (
        churned.refused,
        churned.talks_broken,
        churned.talks_unanswered,
    );
    assert_eq!(broken, (0, 0, 0), "{churned:?}");
    assert_eq!(churned.talks_ok, churned.opened, "{churned:?}");

    let after = cluster.connections(&blow.after).unwrap();
    for (client, server) in &before {
        assert_eq!(after.get(client), Some(server), "{client}");
    }
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    assert_eq!((report.alive, report.unacknowledged), (CONNECTIONS, 0));
    println!(
        "{trouble:?}: {} connections opened meanwhile, longest stall {} ms",
        churned.opened, report.longest_stall_ms
    );
}

fn wait_for_openings(churn: &Churn, number: u64) {
    wait_until("short connections", SETTLE_MAX, || match churn.snapshot() {
        report if report.opened >= number => Ok(()),
        report => Err(format!("{report:?}")),
    })
    .unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_when_the_active_atm_is_killed_and_returns() {
    nothing_is_lost_under(Trouble::Kill);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_active_atm_is_stopped_and_continued() {
    nothing_is_lost_under(Trouble::Stop);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_active_atm_is_cut_off_from_the_others() {
    nothing_is_lost_under(Trouble::CutPeers);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_active_atm_is_cut_off_from_everybody() {
    nothing_is_lost_under(Trouble::Cut);
}

#[test]
fn nothing_acknowledged_is_lost_at_a_planned_hand_over() {
    nothing_is_lost_under(Trouble::Failover);
}
