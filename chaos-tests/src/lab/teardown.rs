//! Ending labs: one's own, one found by its directory, and those whose owner is dead.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::network;
use super::process::{Identity, Signal, members};
use super::record::{Record, boot_id, registered};

/// How long killed processes may take to go: SIGKILL ends one as soon as it leaves the kernel, and the first process of a machine ends
/// last of all that ran there. Where one of them was the last that used a mounted NFS, it takes the client's leave of the NFS server
/// with it: some 50 s in user-mode-linux.
const DEATH_WAIT: Duration = Duration::from_secs(180);

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

/// Kills the recorded processes and what they started, waits until all of it is gone, and removes namespaces, records and a temporary
/// directory.
///
/// `reap` is called while waiting, so that the owner can collect its children.
pub(crate) fn end(record: &Record, mut reap: impl FnMut()) {
    // Pids and namespaces of an earlier boot belong to somebody else by now.
    if record.boot == boot_id() {
        let recorded: Vec<Identity> = record.processes.iter().map(|p| p.identity).collect();
        let inodes = record.namespace_inodes.iter().copied().collect();
        let survivors = end_sessions(&recorded, &inodes, &mut reap);
        if !survivors.is_empty() {
            let pids: Vec<u32> = survivors.iter().map(|process| process.pid).collect();
            eprintln!("lab: killed, and not ended within {DEATH_WAIT:?}: pids {pids:?}");
        }
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

/// Kills `leaders` and the members of their sessions in `namespaces`, and waits until they are dead, at most [`DEATH_WAIT`].
/// Returns those that are not.
pub(crate) fn end_sessions(
    leaders: &[Identity],
    namespaces: &BTreeSet<u64>,
    reap: &mut impl FnMut(),
) -> Vec<Identity> {
    let sessions: BTreeSet<u32> = leaders.iter().map(|leader| leader.pid).collect();
    // Seen before anything is killed: the first process of a machine leaves its network namespace, and then waits for all others there.
    let mut ending = members(&sessions, namespaces);
    ending.extend(leaders);
    let give_up = Instant::now() + DEATH_WAIT;
    loop {
        for process in &ending {
            process.signal(Signal::KILL);
        }
        reap();
        ending.retain(|process| process.is_alive());
        // One that forks while it is being killed leaves others.
        for member in members(&sessions, namespaces) {
            if !ending.contains(&member) {
                ending.push(member);
            }
        }
        if ending.is_empty() || Instant::now() > give_up {
            return ending;
        }
        thread::sleep(DEATH_POLL);
    }
}

/// An error unless all that was killed on `host` is dead.
///
/// # Errors
/// [`LabError::Survived`].
pub(crate) fn survived(host: &str, survivors: &[Identity]) -> Result<(), LabError> {
    if survivors.is_empty() {
        return Ok(());
    }
    Err(LabError::Survived {
        host: host.to_owned(),
        pids: survivors.iter().map(|process| process.pid).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_killed_and_is_still_there_is_an_error_with_its_pid() {
        survived("atm1", &[]).unwrap();
        let own = Identity::own();
        let error = survived("atm1", &[own]).unwrap_err();
        let told = matches!(&error, LabError::Survived { host, pids } if host == "atm1" && *pids == [own.pid]);
        assert!(told, "{error}");
    }
}
