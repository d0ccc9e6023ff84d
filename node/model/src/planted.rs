//! Known bugs, planted to test the testers; without the feature `planted` there are none, and the compiler knows it.
//!
//! A test of a safety property is worth something only if it fails when the property is broken. Each [`Bug`] breaks one
//! thing that the design rests on, where the sound code does it. `chaos bugs` runs each until a checker finds it.
//!
//! Never ships: the feature is in no default set, and the only daemon that reads a bug's name is an example
//! (`atmd-planted`), which no installation contains. The one place of this crate with a state of its own.

use std::fmt;
use std::str::FromStr;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bug {
    /// Every look at the lease says that it is held, once it was.
    LeaseOff = 1,
    /// A new leader speaks as soon as it is elected: before it has applied what was committed before it.
    ClaimBeforeApply,
    /// A new leader does not wait until older leases have run out.
    NoWaitOut,
    /// A voter notes an append when Raft has answered it, not when it arrives: its votes look older than they are.
    LateStamp,
    /// Votes and log entries are acknowledged before they are synced.
    LogNotSynced,
    /// The configuration is read from the ATM that was asked, whatever the others have committed since.
    StaleRead,
    /// The first packet of a connection goes out before its record is committed, and the record is never written.
    ConnectionNotReplicated,
    /// A backup lets connections expire by its own clock, though it does not see their packets.
    ExpiryByLocalClock,
    /// Snapshots leave out the last connection.
    SnapshotMissingAnEntry,
    /// What was received before a pause is judged by the clock of before the pause, and sent.
    StaleFramesAfterPause,
}

impl Bug {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::LeaseOff,
        Self::ClaimBeforeApply,
        Self::NoWaitOut,
        Self::LateStamp,
        Self::LogNotSynced,
        Self::StaleRead,
        Self::ConnectionNotReplicated,
        Self::ExpiryByLocalClock,
        Self::SnapshotMissingAnEntry,
        Self::StaleFramesAfterPause,
    ];

    /// Its name, as `chaos bugs` and the environment variable `ATM_PLANTED` of `atmd-planted` write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeaseOff => "lease-off",
            Self::ClaimBeforeApply => "claim-before-apply",
            Self::NoWaitOut => "no-wait-out",
            Self::LateStamp => "late-stamp",
            Self::LogNotSynced => "log-not-synced",
            Self::StaleRead => "stale-read",
            Self::ConnectionNotReplicated => "connection-not-replicated",
            Self::ExpiryByLocalClock => "expiry-by-local-clock",
            Self::SnapshotMissingAnEntry => "snapshot-missing-an-entry",
            Self::StaleFramesAfterPause => "stale-frames-after-pause",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No bug has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no planted bug is called {0:?}; there are: {all}", all = Bug::ALL.map(Bug::name).join(", "))]
pub struct UnknownBug(pub String);

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, UnknownBug> {
        Self::ALL
            .into_iter()
            .find(|bug| bug.name() == name)
            .ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

/// Whether this bug is planted here and now.
#[cfg(not(feature = "planted"))]
#[inline]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use garden::{Planted, is, on_this_thread, plant};

#[cfg(feature = "planted")]
mod garden {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static EVERYWHERE: AtomicU8 = AtomicU8::new(0);

    thread_local! {
        static HERE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted here and now.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        EVERYWHERE.load(Ordering::Relaxed) == bug as u8 || HERE.get() == Some(bug)
    }

    /// Plants `bug`, or none, in the whole process, in place of what was planted there.
    pub fn plant(bug: Option<Bug>) {
        EVERYWHERE.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }

    /// Plants `bug` on this thread until the guard is dropped.
    #[must_use]
    pub fn on_this_thread(bug: Bug) -> Planted {
        HERE.set(Some(bug));
        Planted(())
    }

    /// A bug that is planted on this thread.
    #[derive(Debug)]
    pub struct Planted(());

    impl Drop for Planted {
        fn drop(&mut self) {
            HERE.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_bugs() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(bug));
        }
        let error = "none".parse::<Bug>().unwrap_err();
        assert!(
            error.to_string().contains("there are: lease-off,"),
            "{error}"
        );
    }

    #[test]
    fn nothing_is_planted_by_itself() {
        assert!(Bug::ALL.into_iter().all(|bug| !is(bug)));
    }

    #[cfg(feature = "planted")]
    #[test]
    fn a_bug_goes_with_its_guard() {
        let planted = on_this_thread(Bug::StaleRead);
        assert!(is(Bug::StaleRead) && !is(Bug::LeaseOff));
        drop(planted);
        assert!(!is(Bug::StaleRead));
    }
}
