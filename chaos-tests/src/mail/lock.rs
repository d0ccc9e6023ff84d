//! The lock of a mailbox: a file that only one server can create, on any shared storage.
//!
//! Every rename and removal of a mail and every change of the UID list happens under it, so a directory read
//! under it is complete (a plain `readdir` may miss a file that is renamed meanwhile). Deliveries need no lock.
//! A holder that was killed leaves the file behind; whoever sees the very same lock for [`STALE_AFTER`] on its
//! own clock removes it. A holder commits only within half of that, so a stopped and resumed one commits nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::maildir::unique;

/// A lock this old is abandoned. Work under it takes milliseconds, seconds on a stalled disk.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// How long to wait for the lock: two abandoned ones and some queueing.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two attempts: a few times the usual holding time.
const RETRY_EVERY: Duration = Duration::from_millis(3);

const LOCK: &str = "uidlist.lock";
/// Serialises, where the storage has `flock`, those that remove an abandoned lock.
const GUARD: &str = "uidlist.guard";

/// The held lock of one mailbox; given back on drop.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    identity: Identity,
    since: Instant,
}

/// What tells one lock file from the next.
type Identity = (u64, i64, i64, String);

impl Lock {
    /// Takes the lock of the mailbox in `directory`, or fails with `TimedOut` after ten seconds.
    pub(crate) fn acquire(directory: &Path, server: &str) -> io::Result<Self> {
        let path = directory.join(LOCK);
        let begun = Instant::now();
        let mut seen: Option<(Identity, Instant)> = None;
        loop {
            let since = Instant::now();
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(unique(server).as_bytes())?;
                    let Some(identity) = identity(&path)? else {
                        continue;
                    };
                    return Ok(Self {
                        path,
                        identity,
                        since,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if begun.elapsed() > WAIT_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the mailbox stays locked",
                ));
            }
            let now = identity(&path)?;
            match (now, &seen) {
                (Some(now), Some((before, first))) if now == *before => {
                    if first.elapsed() > STALE_AFTER {
                        remove_abandoned(directory, &now, server)?;
                        seen = None;
                    }
                }
                (Some(now), _) => seen = Some((now, Instant::now())),
                (None, _) => seen = None,
            }
            thread::sleep(RETRY_EVERY);
        }
    }

    /// Says whether a change may still be committed under this lock.
    pub(crate) fn confirm(&self) -> io::Result<()> {
        let young = self.since.elapsed() < STALE_AFTER / 2;
        if young && identity(&self.path)?.as_ref() == Some(&self.identity) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the lock of the mailbox was held too long",
        ))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if identity(&self.path).ok().flatten().as_ref() == Some(&self.identity) {
            // Failure leaves an abandoned lock, which the next server removes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<Option<Identity>> {
    let read = || -> io::Result<Identity> {
        let about = fs::metadata(path)?;
        Ok((
            about.ino(),
            about.mtime(),
            about.mtime_nsec(),
            fs::read_to_string(path)?,
        ))
    };
    match read() {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_abandoned(directory: &Path, abandoned: &Identity, server: &str) -> io::Result<()> {
    let guard = File::create(directory.join(GUARD))?;
    // Without flock the check below still makes a wrong removal very unlikely, and `confirm` a harmless one.
    let _ = guard.lock();
    let path = directory.join(LOCK);
    if identity(&path)?.as_ref() != Some(abandoned) {
        return Ok(());
    }
    let aside = directory.join(format!("{LOCK}.{}", unique(server)));
    fs::rename(&path, &aside)?;
    if identity(&aside)?.is_some_and(|taken| taken.3 != abandoned.3) {
        // The holder was alive after all and somebody else had the lock by then: put it back.
        let _ = fs::hard_link(&aside, &path);
    }
    fs::remove_file(&aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let lock = Lock::acquire(directory.path(), "serv1").unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        lock.confirm().unwrap();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_lock_of_a_dead_holder_is_removed_and_its_late_commit_refused() {
        let directory = tempfile::tempdir().unwrap();
        let stopped = Lock::acquire(directory.path(), "serv1").unwrap();
        let begun = Instant::now();
        let next = Lock::acquire(directory.path(), "serv2").unwrap();
        assert!(begun.elapsed() >= STALE_AFTER);
        assert!(stopped.confirm().is_err());
        drop(stopped);
        next.confirm().unwrap();
    }
}
