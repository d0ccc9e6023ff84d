//! Ending labs: one's own, one found by its directory, and those whose owner is dead.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::network;
use super::process::{Identity, Signal, kill_descendants};
use super::record::{Record, boot_id, registered};

/// How long a killed process may take to go; SIGKILL ends it as soon as it leaves the kernel.
const DEATH_WAIT: Duration = Duration::from_secs(5);

/// Between two looks at dying processes.
const DEATH_POLL: Duration = Duration::from_millis(2);

/// Ends every lab whose owner is dead and that was not meant to outlive it. Returns their prefixes.
pub fn end_stale_labs() -> Vec<String> {
    let stale: Vec<_> = registered().into_iter().filter(Record::is_stale).collect();
    for record in &stale {
        end(record, || {});
    }
    stale.into_iter().map(|r| r.prefix).collect()
}

/// Kills the recorded processes, removes namespaces, records and a temporary directory.
///
/// `reap` is called while waiting, so that the owner can collect its children.
pub(crate) fn end(record: &Record, mut reap: impl FnMut()) {
    // Pids and namespaces of an earlier boot belong to somebody else by now.
    if record.boot == boot_id() {
        let recorded: Vec<Identity> = record.processes.iter().map(|p| p.identity).collect();
        for identity in &recorded {
            identity.signal(Signal::KILL);
        }
        let sessions = recorded.iter().map(|i| i.pid).collect::<BTreeSet<_>>();
        let inodes = record
            .namespace_inodes
            .iter()
            .copied()
            .collect::<BTreeSet<_>>();
        // A process that forks while it is being killed may need a second look.
        while kill_descendants(&sessions, &inodes) > 0 {}
        wait_for_death(&recorded, &mut reap);
        network::destroy(record);
    }
    if record.dir_is_temporary {
        let _ = fs::remove_dir_all(&record.dir);
    }
    record.forget();
    if let Some(anchor) = record.anchor.filter(|_| record.boot == boot_id()) {
        anchor.signal(Signal::KILL);
    }
}

/// Waits until all of `processes` are dead, at most [`DEATH_WAIT`]. Returns whether they are.
pub(crate) fn wait_for_death(processes: &[Identity], reap: &mut impl FnMut()) -> bool {
    let give_up = Instant::now() + DEATH_WAIT;
    loop {
        reap();
        if !processes.iter().any(|p| p.is_alive()) {
            return true;
        }
        if Instant::now() > give_up {
            return false;
        }
        thread::sleep(DEATH_POLL);
    }
}
