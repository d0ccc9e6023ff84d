//! For tests that need namespaces: run here, run in a user namespace, or say that they were skipped.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;

use super::privileges::{Privileges, available, left_out, user_namespace_command};

/// Says that something is not tested here, past the test harness: a test that passes shows it as well.
pub fn skipped(reason: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Whether the calling test can build a lab right here.
///
/// Without root it runs the test once more inside a user namespace and returns `false` after that has passed. Where there
/// are no namespaces it prints `skipped: no namespaces: <reason>` and returns `false`.
///
/// # Panics
/// If the run inside the user namespace failed: the test has failed.
#[must_use]
pub fn ready() -> bool {
    match available() {
        Ok(Privileges::Root | Privileges::UserNamespace) => true,
        Ok(Privileges::NeedsUserNamespace) => {
            run_inside();
            false
        }
        Err(reason) => {
            skipped(format_args!("no namespaces: {reason}"));
            false
        }
    }
}

fn run_inside() {
    // libtest names the thread of a test after it; with --test-threads=1 it is the main thread and the name is lost.
    let current = thread::current();
    let Some(name) = current.name().filter(|n| *n != "main") else {
        skipped("without root the tests need more than one test thread");
        return;
    };
    println!(
        "without root, in a user namespace: {}",
        left_out().join("; ")
    );
    let args = ["--exact", name, "--nocapture"].map(OsString::from);
    let passed = user_namespace_command(&args)
        .and_then(|mut command| {
            command
                .env_remove("RUST_TEST_THREADS")
                .stdin(Stdio::null())
                .status()
        })
        .is_ok_and(|status| status.success());
    assert!(
        passed,
        "{name} failed inside a user namespace ({})",
        env::args().next().unwrap_or_default()
    );
}
