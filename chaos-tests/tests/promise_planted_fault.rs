//! The observer is itself tested: with a daemon whose lease check is switched off it must hear two voices.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, Trouble, fast_configuration, wait_until};
use chaos_tests::lab::{Lab, program, ready};
use chaos_tests::observer::{Observer, Prober, Rules, Verdict, overlaps};

const PLANTED: &str = "atmd-planted";

const PROBE_INTERVAL: Duration = Duration::from_millis(2);

/// Builds the daemon with the fault, beside the sound one and never in its place: as an example of its crate.
fn planted_daemon() -> PathBuf {
    let sound = program("atmd").unwrap();
    let directory = sound.parent().unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args([
        "build",
        "--quiet",
        "--offline",
        "--workspace",
        "--example",
        PLANTED,
    ]);
    cargo.args(["--features", "node/planted", "--target-dir"]);
    cargo.arg(directory.parent().unwrap());
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().unwrap();
    assert!(status.success(), "{cargo:?}: {status}");
    directory.join("examples").join(PLANTED)
}

fn two_voices_under(trouble: Trouble) {
    if !ready() {
        return;
    }
    let daemon = planted_daemon();
    let builder = Lab::builder().conf(fast_configuration(3, 3).unwrap());
    let cluster = Cluster::start_running(
        builder,
        &daemon,
        &[("ATM_PLANTED".into(), "lease-off".into())],
    )
    .unwrap();
    let observer = Observer::start(cluster.lab()).unwrap();
    let prober = Prober::start(cluster.lab(), cluster.vip(), PROBE_INTERVAL).unwrap();
    let lines = cluster.lines(20).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let blow = cluster.strike(trouble).unwrap();
    if trouble == Trouble::Stop {
        cluster.resume(&blow).unwrap();
    }
    // Found while it happens, or the wait says what was heard instead.
    wait_until("two voices", SETTLE_MAX, || {
        let heard = observer.events_from(0);
        if overlaps(&heard, &Rules::default()).is_empty() {
            return Err(format!("one voice in {} frames", heard.len()));
        }
        Ok(())
    })
    .unwrap();
    drop(prober);
    let verdict = observer.stop().verdict(&Rules::default());
    let Verdict::TwoVoices(found) = verdict else {
        panic!("{verdict:?}")
    };
    let mac = |host: &str| cluster.lab().host(host).unwrap().mac();
    let pair = [mac(&blow.before), mac(&blow.after)];
    assert!(
        found
            .iter()
            .any(|two| pair.contains(&two.holder) && pair.contains(&two.other)),
        "{found:#?}"
    );
}

#[test]
fn without_the_lease_a_cut_makes_two_voices() {
    two_voices_under(Trouble::CutPeers);
}

#[test]
fn without_the_lease_a_stopped_atm_that_continues_is_a_second_voice() {
    two_voices_under(Trouble::Stop);
}
