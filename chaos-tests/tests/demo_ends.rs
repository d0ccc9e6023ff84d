//! The demo, ended by Ctrl-C in the middle of its acts, leaves nothing behind and says so.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::lab::{Identity, Record, Signal, ready, registered};

/// Far more than everything up to the second act takes.
const BEGUN_MAX: Duration = Duration::from_secs(60);

/// From the signal to the end: closing connections, killing processes, removing namespaces.
const END_MAX: Duration = Duration::from_secs(10);

#[test]
fn ctrl_c_tears_everything_down() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["demo", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let identity = Identity::of(demo.id()).unwrap();
    let mut said = BufReader::new(demo.stdout.take().unwrap()).lines();
    let begun = Instant::now();
    let killing = said.by_ref().map_while(Result::ok).find(|line| {
        assert!(begun.elapsed() < BEGUN_MAX, "the acts do not begin");
        line.contains("who takes over?")
    });
    assert!(killing.is_some(), "the demo ended before its third act");
    let record = of(dir.path()).unwrap();
    assert!(record.processes.iter().any(|p| p.identity.is_alive()));

    assert!(identity.signal(Signal::INT));
    let signalled = Instant::now();
    let rest: Vec<_> = said.map_while(Result::ok).collect();
    assert_eq!(demo.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(signalled.elapsed() < END_MAX);
    assert!(
        rest.last()
            .is_some_and(|line| line.starts_with("interrupted")),
        "{rest:?}"
    );

    assert!(of(dir.path()).is_none(), "the lab is still registered");
    assert!(record.processes.iter().all(|p| !p.identity.is_alive()));
    for namespace in record.namespaces() {
        let path = Path::new("/run/netns").join(&namespace);
        assert!(fs::metadata(&path).is_err(), "{namespace} is still there");
    }
}

fn of(dir: &Path) -> Option<Record> {
    registered().into_iter().find(|record| record.dir == dir)
}
