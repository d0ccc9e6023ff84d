//! A member whose data directory is lost: it never harms the group, and with the operator's word it joins anew.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, wait_until};
use chaos_tests::lab::{Fault, ready};

/// Kills an ATM and removes its directory. No start yet.
fn lose(cluster: &Cluster, host: &str) {
    cluster.lab().fault(Fault::Kill, host).unwrap();
    let dir = cluster.lab().host(host).unwrap().dir().join("data");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_directory_lost_soon_after_the_founding_does_not_stop_the_leader() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (active, before) = cluster.active().unwrap();
    let lost = cluster.others(&active).remove(0);
    let name = cluster.name_of(&lost).unwrap();
    lose(&cluster, &lost);
    // Whether the group knows the lost directory yet decides what becomes of the new one; both are said in its log.
    // A daemon that is refused has ended before the lab looks again, which the lab reports as an error.
    let _ = cluster.lab().fault(Fault::Restart, &lost);
    wait_until("the start is decided", SETTLE_MAX, || {
        let log = cluster.log(&lost).unwrap();
        let decided = ["another data directory", "caught up; this ATM votes"];
        if decided.iter().any(|end| log.contains(end)) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .unwrap();
    let after = cluster.status(&active).unwrap();
    assert_eq!(
        (&after.active, after.epoch),
        (&before.active, before.epoch),
        "{name} lost its directory"
    );
}

#[test]
fn a_forgotten_directory_is_replaced_and_the_atm_votes_again() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (active, before) = cluster.active().unwrap();
    let lost = cluster.others(&active).remove(0);
    let name = cluster.name_of(&lost).unwrap();

    let refused = cluster.atmctl(&active, &["atm", "forget", &name]).unwrap();
    assert_eq!(refused.code, Some(1), "{name} takes part: {refused:?}");

    lose(&cluster, &lost);
    let forgotten = cluster.atmctl(&active, &["atm", "forget", &name]).unwrap();
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    cluster.lab().fault(Fault::Restart, &lost).unwrap();
    wait_until("the vote is regained", SETTLE_MAX, || {
        let log = cluster.log(&lost).unwrap();
        if log.contains("caught up; this ATM votes") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .unwrap();
    let joined = cluster
        .wait_for(
            "the group is whole",
            &[&active],
            SETTLE_MAX,
            chaos_tests::cluster::Status::all_caught_up,
        )
        .unwrap();
    assert_eq!((joined.active, joined.epoch), (before.active, before.epoch));

    // Without the active one, two of three are left: nobody is elected unless the ATM that joined anew votes.
    cluster.lab().fault(Fault::Kill, &active).unwrap();
    let third = cluster
        .others(&active)
        .into_iter()
        .find(|host| *host != lost)
        .unwrap();
    cluster
        .wait_for("a successor", &[&third], SETTLE_MAX, |status| {
            status.active.is_some() && status.epoch > before.epoch
        })
        .unwrap();
}
