//! For tests: namespaces here, in a user namespace, or a word that the test was skipped; and programs of a test's own.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use super::privileges::{Privileges, available, left_out, user_namespace_command};

/// Says that something is not tested here, past the test harness: a test that passes shows it as well.
pub fn skipped(reason: impl Display) {
    let _ = writeln!(io::stderr(), "skipped: {reason}");
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

/// Makes an executable file with this content, which can be run at once.
///
/// Another process writes it. Whatever this one has open for writing is open in a child, too, that another thread has just forked,
/// until that child runs its own program; and a file that somebody has open for writing cannot be run (ETXTBSY, execve(2)).
///
/// # Errors
/// If it cannot be written; with what `install` said of it.
pub fn write_program(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut install = Command::new("install")
        .args(["--mode=755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let written = install
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(content));
    let ended = install.wait_with_output()?;
    if !ended.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&ended.stderr).into_owned(),
        ));
    }
    written
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
