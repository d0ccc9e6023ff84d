//! Starvation without control groups: others keep every processor busy, and the daemon runs when nobody else wants to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::disk::run;
use super::error::EquipmentError;
use crate::lab::tool;

/// Busy threads at most, whatever the machine has.
const THREADS_MAX: usize = 64;

/// Threads that do nothing, as fast as they can, each on a processor of its own; they end when it is dropped.
#[derive(Debug)]
pub struct Busy {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Keeps every processor busy that this process may use.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start() -> Result<Self, EquipmentError> {
        let allowed = sched_getaffinity(None)
            .map_err(|errno| EquipmentError::io("ask for the processors")(errno.into()))?;
        let mut busy = Self {
            end: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        let processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        for cpu in processors.take(THREADS_MAX) {
            let end = Arc::clone(&busy.end);
            let thread = std::thread::Builder::new()
                .name(format!("busy-{cpu}"))
                .spawn(move || {
                    let mut only = CpuSet::new();
                    only.set(cpu);
                    // Not pinned it is as busy, only somewhere else.
                    let _ = sched_setaffinity(None, &only);
                    while !end.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
                .map_err(EquipmentError::io("start a busy thread"))?;
            busy.threads.push(thread);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Lets all threads of a process run only when nobody else wants to (SCHED_IDLE), or like everybody.
///
/// # Errors
/// [`EquipmentError::Unavailable`]: no `chrt`; or the process is gone.
pub fn set_idle(pid: u32, idle: bool) -> Result<(), EquipmentError> {
    if run(tool("chrt").arg("--version")).is_err() {
        return Err(EquipmentError::Unavailable {
            what: "another scheduling policy for a process",
            why: "no chrt command; install the package util-linux".to_owned(),
        });
    }
    let policy = if idle { "--idle" } else { "--other" };
    run(tool("chrt").args(["--all-tasks", policy, "--pid", "0", &pid.to_string()]))
}
