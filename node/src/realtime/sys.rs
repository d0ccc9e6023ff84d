//! The one system call of real-time scheduling, which no safe wrapper offers.
#![expect(
    unsafe_code,
    reason = "sched_setscheduler has no safe wrapper; the block says why it holds"
)]

use std::io;

use rustix::process::Pid;

/// Gives a thread of this process SCHED_RR at `priority`. What it starts, threads and programs, has ordinary scheduling
/// (SCHED_RESET_ON_FORK, sched(7)).
pub(super) fn use_round_robin(thread: Pid, priority: u8) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: i32::from(priority),
    };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` is a whole sched_param that outlives the call, and the kernel only reads it.
    let answer = unsafe {
        libc::sched_setscheduler(thread.as_raw_nonzero().get(), policy, &raw const param)
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
