//! Preloaded (`LD_PRELOAD`) into one process, it stands between that process and its disk: syncs that are slow, hang, fail or
//! lie, writes that fail, are torn or lost, a full or read-only file system, and a power cut that loses what was not synced.
//!
//! [`control`] is the page by which a test steers it, `rules` decides about each operation, `undo` keeps what unsynced writes
//! have replaced, and `hooks` is what the process calls instead of the C library. Concerned are regular files below one
//! directory, whoever opened them; everything else passes untouched.
//!
//! What it does not see: memory-mapped writes, `sendfile`, `copy_file_range`, io_uring, `pwritev2`, and system calls that do
//! not go through the C library. Creating, renaming and removing files is durable at once: only contents can be unsynced.

pub mod control;
mod hooks;
mod rules;
mod undo;
