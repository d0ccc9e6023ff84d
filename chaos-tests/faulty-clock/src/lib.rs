//! Preloaded (`LD_PRELOAD`) into one process, it gives that process clocks of its own: CLOCK_MONOTONIC and CLOCK_BOOTTIME that
//! run too fast or too slow or jump forward, and a CLOCK_REALTIME that steps, all at run time.
//!
//! The first two are read through the vDSO by everybody, with or without the C library (rustix calls it directly), so its
//! entries are replaced: [`control`] says what a test can set, `rules` computes, `hooks` replaces. CLOCK_REALTIME is replaced
//! for callers of the C library only. A caller of the vDSO gets the machine's: it compares it with what the kernel stamps on
//! packets, and on a real host these two step together.
//!
//! Waiting is not faked: a timeout handed to the kernel lasts as long as it says. A process that looks at the clock when
//! it wakes, as all timer wheels do, is early or late by the rate's error.

pub mod control;
mod hooks;
mod rules;
