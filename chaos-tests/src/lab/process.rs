//! Processes of a lab, told apart for certain: by pid and start time, and their descendants by session and namespace.
//!
//! Invariant: no signal is sent to a process that the lab did not start. A pid may be reused; a pid together with its start
//! time may not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

/// One process of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// Its start in clock ticks since boot (proc(5), stat field 22).
    pub start: u64,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It runs or sleeps.
    Running,
    /// It is stopped by a signal.
    Stopped,
    /// It has ended; perhaps its parent has not asked yet.
    Dead,
}

impl Identity {
    /// The identity of the process that has `pid` at the moment; `None` if there is none.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self {
            pid,
            start: stat.start,
        })
    }

    /// The calling process.
    #[must_use]
    pub fn own() -> Self {
        // Its own entry is missing only where /proc is not mounted; start 0 then matches no process ever.
        Self::of(std::process::id()).unwrap_or(Self {
            pid: std::process::id(),
            start: 0,
        })
    }

    /// What this very process is doing; another process with the same pid counts as [`Condition::Dead`].
    #[must_use]
    pub fn condition(self) -> Condition {
        match Stat::read(self.pid) {
            Some(stat) if stat.start == self.start => match stat.state {
                // The first thread is a zombie as long as another one still has to end; until then its sockets are open.
                'Z' if stat.threads > 1 => Condition::Running,
                'Z' | 'X' | 'x' => Condition::Dead,
                'T' | 't' => Condition::Stopped,
                _ => Condition::Running,
            },
            Some(_) | None => Condition::Dead,
        }
    }

    /// Whether it runs or is stopped.
    #[must_use]
    pub fn is_alive(self) -> bool {
        self.condition() != Condition::Dead
    }

    /// Sends `signal` to this very process. Returns whether it was alive to get it.
    pub fn signal(self, signal: Signal) -> bool {
        if !self.is_alive() {
            return false;
        }
        i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}

/// The living members of the sessions that recorded processes lead, inside one of the lab's network namespaces.
///
/// Each process of a lab leads a session of its own, so a session named after a recorded pid *and* a network namespace
/// of the lab belong to nobody else.
pub(crate) fn members(recorded: &BTreeSet<u32>, namespaces: &BTreeSet<u64>) -> Vec<Identity> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for pid in entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok()) {
        let Some(stat) = Stat::read(pid) else {
            continue;
        };
        if !recorded.contains(&stat.session) {
            continue;
        }
        let inside = fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|m| namespaces.contains(&m.ino()));
        let start = stat.start;
        let member = Identity { pid, start };
        if inside && member.is_alive() {
            found.push(member);
        }
    }
    found
}

/// The fields of `/proc/<pid>/stat` the lab needs.
struct Stat {
    state: char,
    session: u32,
    threads: u32,
    start: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The command name stands in parentheses and may itself hold blanks and parentheses: the last ")" ends it.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?; // field 3
        let session = fields.nth(2)?.parse().ok()?; // field 6
        let threads = fields.nth(13)?.parse().ok()?; // field 20
        let start = fields.nth(1)?.parse().ok()?; // field 22
        Some(Self {
            state,
            session,
            threads,
            start,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_an_ugly_command_name() {
        let text = "4242 (a) b (c) S 1 4242 777 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.session), ('S', 777));
        assert_eq!((stat.threads, stat.start), (1, 987_654));
        assert!(Stat::parse("4242 (x S 1").is_none());
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Identity::own();
        assert_eq!(own.condition(), Condition::Running);
        let reused = Identity {
            pid: own.pid,
            start: own.start + 1,
        };
        assert_eq!(reused.condition(), Condition::Dead);
        assert!(!reused.signal(Signal::KILL), "would have killed this test");
    }
}
