//! What unsynced writes have replaced: one file of records for each inode, emptied when the inode is synced.
//!
//! A record is complete before its write is done, so after a `kill -9` the records taken back from the last to the first give
//! the file as it was synced last. Layout of a record, native words: offset, length of what was written, size of the file
//! before, length of the bytes that stood there, then these bytes.

use std::sync::{Mutex, PoisonError};

use crate::hooks::sys;

/// Words in front of each record's bytes.
const WORDS: usize = 4;

/// What a truncation throws away is kept up to here: far more than any log file of a test holds beyond its zeros.
const KEPT_MAX: u64 = 128 << 20;

/// One writer or syncer at a time; no system call of the process itself happens under it.
static LOCK: Mutex<()> = Mutex::new(());

/// Keeps what a write of `len` bytes at `offset` will replace.
pub(crate) fn keep(directory: i32, file: i32, offset: u64, len: u64) {
    let Some((inode, size)) = sys::inode_and_size(file) else {
        return;
    };
    let existing = size.saturating_sub(offset).min(len).min(KEPT_MAX);
    let mut old = vec![0; usize::try_from(existing).unwrap_or(0)];
    let read = sys::read_at(file, &mut old, offset);
    old.truncate(read);
    record(directory, inode, [offset, len, size], &old);
}

/// Keeps what cutting the file to `len` bytes will throw away.
pub(crate) fn keep_cut(directory: i32, file: i32, len: u64) {
    let Some((_, size)) = sys::inode_and_size(file) else {
        return;
    };
    keep(directory, file, len, size.saturating_sub(len));
}

fn record(directory: i32, inode: u64, words: [u64; 3], old: &[u8]) {
    let mut bytes = Vec::with_capacity(8 * WORDS + old.len());
    for word in words.into_iter().chain([old.len() as u64]) {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(old);
    let _held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(journal) = sys::open_in(directory, inode) {
        let end = sys::inode_and_size(journal).map_or(0, |(_, size)| size);
        sys::write_at(journal, &bytes, end);
        sys::close(journal);
    }
}

/// How much is kept of this file when a sync begins: so much of it will be durable.
pub(crate) fn begin_sync(directory: i32, file: i32) -> Option<(u64, u64)> {
    let (inode, _) = sys::inode_and_size(file)?;
    let _held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let journal = sys::open_in(directory, inode)?;
    let len = sys::inode_and_size(journal).map_or(0, |(_, size)| size);
    sys::close(journal);
    Some((inode, len))
}

/// Forgets what was kept before the sync; what was written meanwhile stays.
pub(crate) fn end_sync(directory: i32, (inode, synced): (u64, u64)) {
    let _held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(journal) = sys::open_in(directory, inode) else {
        return;
    };
    let len = sys::inode_and_size(journal).map_or(0, |(_, size)| size);
    let mut rest = vec![0; usize::try_from(len.saturating_sub(synced)).unwrap_or(0)];
    let read = sys::read_at(journal, &mut rest, synced);
    sys::cut(journal, 0);
    sys::write_at(journal, &rest[..read], 0);
    sys::close(journal);
}
