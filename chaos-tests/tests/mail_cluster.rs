//! The clustered mail server with postfix and dovecot, used by public clients while ATMs and servers fail: `lab mail-demo` as a
//! test. On one computer for each role, and on three computers that are ATM and server at once.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use chaos_tests::demo::Output;
use chaos_tests::lab::{PortKind, ready, skipped};
use chaos_tests::mail_cluster::{MailDemoArgs, Way, play, quiet_screen, table};

fn every_check_holds(combined: bool) {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let args = MailDemoArgs {
        dir: None,
        combined,
        heartbeat_ms: 200,
        method: Way::Tunnel,
        slow: 1,
        senders: 20,
        port: PortKind::Ring,
        output: Output::Json,
    };
    let outcome = match play(&args, &dir.path().join("lab"), &mut quiet_screen()) {
        Ok(outcome) => outcome,
        Err(error) if error.is_unavailable() => {
            skipped(error);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let table = table(&outcome);
    if !outcome.holds() {
        // The logs are what one wants to see after a failed test.
        let kept = dir.keep();
        panic!("{table}\nlogs: {}", kept.display());
    }
    println!("{table}");
}

#[test]
fn real_mail_daemons_lose_nothing_behind_the_vip() {
    every_check_holds(false);
}

#[test]
fn three_computers_that_are_atm_and_server_at_once_do_the_same() {
    every_check_holds(true);
}
