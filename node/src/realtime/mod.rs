//! Real-time scheduling and locked memory, as `realtime` and `lock_memory` of atmd.toml ask for them.
//!
//! Raised: the threads whose delay looks like a failure to the other ATMs or to clients. The rest keeps the ordinary
//! scheduling, so that nothing long (a snapshot, a compaction of the log, a child process) ever runs ahead of the host.

mod sys;

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::settings::{RealtimePriority, Settings};

/// Threads of the runtime: those that run tasks (consensus, lease, replication, API), all there from its start, and those
/// that wait for files or compute long, which come when needed and, but for some of the start, are not raised.
const RUNTIME: &str = "atmd-runtime";
/// The thread that writes and syncs the log.
const LOG_WRITER: &str = "log-writer";
/// The packet engines, one thread per port.
const ENGINE_PREFIX: &str = "dp-";

/// An ordinary thread may wait some ten milliseconds for a busy processor; three heartbeats of this forgive a hundred.
const ORDINARY_HEARTBEAT_MIN: Duration = Duration::from_millis(50);

/// What the system refuses of `realtime` and `lock_memory`. Exit code 77 (EX_NOPERM).
#[derive(Debug, thiserror::Error)]
pub(crate) enum RealtimeError {
    /// No real-time scheduling for this process.
    #[error(
        "realtime = {priority}: the system refuses real-time scheduling: it needs CAP_SYS_NICE (or LimitRTPRIO={}), and where \
         the kernel shares real-time out to groups a cgroup with a budget (cpu.rt_runtime_us); without realtime in atmd.toml \
         HeartBeatDelay should be 50ms at least",
        priority + 1
    )]
    Scheduling {
        /// The setting.
        priority: u8,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The threads cannot be listed.
    #[error("realtime: the threads of this process cannot be listed in /proc/self/task")]
    Threads(#[source] io::Error),
    /// Memory may not be locked, or not all that may come to be.
    #[error(
        "lock_memory: the system refuses to lock this process in memory: it needs CAP_IPC_LOCK, or no limit on \
         locked memory (LimitMEMLOCK=infinity)"
    )]
    Memory(#[source] io::Error),
}

/// A runtime whose threads can be raised by their name when atmd.toml asks for it.
///
/// # Errors
/// The system has no room for its threads.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(RUNTIME)
        .build()
}

/// Does what the settings ask for; before anything on the host is changed, and after the threads are there.
pub(crate) fn apply(settings: &Settings) -> Result<(), RealtimeError> {
    if settings.lock_memory {
        lock_memory().map_err(RealtimeError::Memory)?;
        info!("memory locked");
    }
    if let Some(priority) = settings.realtime {
        let raised = raise(Path::new("/proc/self/task"), priority)?;
        info!(
            priority = priority.get(),
            threads = raised,
            "real-time scheduling"
        );
    }
    Ok(())
}

/// Says so when heartbeats are too short for ordinary scheduling: other programs alone can then cost an ATM its role.
pub(crate) fn advise(settings: &Settings, heartbeat: Duration) {
    if settings.realtime.is_none() && heartbeat < ORDINARY_HEARTBEAT_MIN {
        warn!(
            heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
            "HeartBeatDelay is below 50ms and atmd.toml has no realtime: other programs on this host can cause takeovers"
        );
    }
}

/// Locks what is mapped and what ever will be. With a limit left a later allocation would end the process, so there is none
/// or nothing is locked.
fn lock_memory() -> io::Result<()> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_some() && setrlimit(Resource::Memlock, unlimited).is_err() {
        // For CAP_IPC_LOCK there is no limit, and at a limit of zero it alone lets mlockall pass (mlock(2)).
        let zero = Rlimit {
            current: Some(0),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Memlock, zero)?;
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
    Ok(())
}

/// Raises the threads of this process by their names, and says how many.
fn raise(tasks: &Path, priority: RealtimePriority) -> Result<usize, RealtimeError> {
    let mut raised = 0;
    for task in std::fs::read_dir(tasks).map_err(RealtimeError::Threads)? {
        let task = task.map_err(RealtimeError::Threads)?;
        let id = task
            .file_name()
            .to_str()
            .and_then(|name| Pid::from_raw(name.parse().ok()?));
        // A thread that has ended meanwhile needs nothing.
        let (Some(id), Ok(name)) = (id, std::fs::read_to_string(task.path().join("comm"))) else {
            continue;
        };
        let Some(wanted) = priority_of(name.trim_end(), priority) else {
            continue;
        };
        match sys::use_round_robin(id, wanted) {
            Ok(()) => raised += 1,
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            Err(source) => {
                return Err(RealtimeError::Scheduling {
                    priority: priority.get(),
                    source,
                });
            }
        }
    }
    Ok(raised)
}

/// Consensus goes before packets: a flood of frames may cost frames, never the lease. The log writer goes with consensus:
/// every commit waits for it, and it mostly waits for the disk.
fn priority_of(thread: &str, priority: RealtimePriority) -> Option<u8> {
    if thread == RUNTIME || thread == LOG_WRITER {
        Some(priority.get() + 1)
    } else if thread.starts_with(ENGINE_PREFIX) {
        Some(priority.get())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consensus_goes_before_packets_and_nothing_else_is_raised() {
        let ten = RealtimePriority::try_from(10).unwrap();
        for (thread, wanted) in [
            (RUNTIME, Some(11)),
            (LOG_WRITER, Some(11)),
            ("dp-eth0", Some(10)),
            ("atmd", None),
            ("fjall:worker", None),
        ] {
            assert_eq!(priority_of(thread, ten), wanted, "{thread}");
        }
    }

    #[test]
    fn names_fit_into_what_the_kernel_keeps() {
        // TASK_COMM_LEN is 16 with the terminating zero (linux/sched.h).
        for name in [RUNTIME, LOG_WRITER] {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn the_threads_that_run_tasks_are_known_by_name() {
        let name = runtime().unwrap().block_on(async {
            let task = tokio::spawn(async { std::thread::current().name().map(str::to_owned) });
            task.await.unwrap()
        });
        assert_eq!(name.as_deref(), Some(RUNTIME));
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let refused = || io::Error::from_raw_os_error(1);
        let scheduling = RealtimeError::Scheduling {
            priority: 10,
            source: refused(),
        };
        let text = scheduling.to_string();
        for named in ["realtime = 10", "CAP_SYS_NICE", "LimitRTPRIO=11"] {
            assert!(text.contains(named), "{text}");
        }
        let text = RealtimeError::Memory(refused()).to_string();
        for named in ["lock_memory", "CAP_IPC_LOCK", "LimitMEMLOCK"] {
            assert!(text.contains(named), "{text}");
        }
    }
}
