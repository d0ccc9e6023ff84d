//! The page through which a test steers the preloaded library and hears what it did.
//!
//! A file of one page, mapped by the library and written by the test, which includes this very file. Each word is a native
//! `u64` that is read and written whole; [`word::MODE`] is written last, so that a fault begins with its parameters in place.

/// Names the control page to the library; without it every operation passes.
pub const ENV_CONTROL: &str = "FAULTY_DISK_CONTROL";

/// Names the directory whose files are concerned, as `/proc/self/fd` shows it.
pub const ENV_PREFIX: &str = "FAULTY_DISK_PREFIX";

/// Names a directory for what unsynced writes have replaced; without it nothing is kept.
pub const ENV_UNDO: &str = "FAULTY_DISK_UNDO";

/// Length of the page's file.
pub const PAGE: usize = 4096;

/// In word 0 of a page that is one.
pub const MAGIC: u64 = 0x4154_4d44_4953_4b31;

/// Word of the seed of all jitter.
pub const SEED: usize = 1;

/// Words from here on hold a text: only files whose path contains it are concerned. Empty: all below the directory.
pub const NAME: usize = 64;

/// Bytes of that text at most, with the zero that ends it.
pub const NAME_MAX: usize = 256;

/// What kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// fsync, fdatasync, `sync_file_range`, syncfs.
    Sync,
    /// write, pwrite, writev, pwritev.
    Write,
    /// rename, opening for writing, truncating, allocating, removing.
    Change,
}

/// A word of one class.
pub mod word {
    /// What is done, a number of [`super::Mode`].
    pub const MODE: usize = 0;
    /// The errno of a failure.
    pub const ERRNO: usize = 1;
    /// Nanoseconds of a delay.
    pub const DELAY: usize = 2;
    /// At most so many nanoseconds more, by the seed and the number of the operation.
    pub const JITTER: usize = 3;
    /// So many operations pass first.
    pub const SKIP: usize = 4;
    /// So many operations are struck, then they pass again; 0: without end.
    pub const TIMES: usize = 5;
    /// Of a torn write this many thousandths are written.
    pub const KEEP: usize = 6;
    /// Counted by the library: operations since the process started.
    pub const SEEN: usize = 8;
    /// Counted by the library: those that were struck.
    pub const STRUCK: usize = 9;
    /// Operations that hang at the moment.
    pub const HANGING: usize = 10;
    /// Counted by the library since the fault began; set to 0 by the test.
    pub const TURN: usize = 11;
}

impl Class {
    /// Index of one of its words in the page.
    #[must_use]
    pub const fn word(self, word: usize) -> usize {
        let begin = match self {
            Self::Sync => 16,
            Self::Write => 32,
            Self::Change => 48,
        };
        begin + word
    }
}

/// What is done to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass = 0,
    /// It is done after the delay.
    Slow = 1,
    /// It is done when the mode is another one.
    Hang = 2,
    /// It is not done and fails.
    Fail = 3,
    /// It is not done and succeeds.
    Lie = 4,
    /// A part of it is done, and it fails.
    Torn = 5,
    /// A part of it is done, and the process is killed.
    Kill = 6,
}

impl Mode {
    /// The mode of this number; another number passes.
    #[must_use]
    pub const fn of(number: u64) -> Self {
        match number {
            1 => Self::Slow,
            2 => Self::Hang,
            3 => Self::Fail,
            4 => Self::Lie,
            5 => Self::Torn,
            6 => Self::Kill,
            _ => Self::Pass,
        }
    }
}
