//! The page through which a test sets the clocks of one process. A file of one page, mapped by the library and written by the
//! test, which includes this very file. Each word is a native 64-bit number.

/// Names the page to the library; without it the clocks are the machine's.
pub const ENV_CONTROL: &str = "FAULTY_CLOCK_CONTROL";

/// Length of the page's file.
pub const PAGE: usize = 4096;

/// In word 0 of a page that is one.
pub const MAGIC: u64 = 0x4154_4d43_4c4f_4331;

/// Word that says which of the two settings is in force: 0 or 1. Written last.
pub const IN_FORCE: usize = 1;

/// Word that counts the times the library has answered from a setting that fakes something.
pub const FAKED: usize = 2;

/// In this word the library says 1 when the vDSO's entries are replaced, 2 when they could not be.
pub const REPLACED: usize = 3;

/// A clock with a setting of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// CLOCK_MONOTONIC and its kin.
    Monotonic = 0,
    /// CLOCK_BOOTTIME.
    Boottime = 1,
    /// CLOCK_REALTIME.
    Realtime = 2,
}

impl Clock {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Monotonic, Self::Boottime, Self::Realtime];
}

/// Words of a clock's setting.
pub mod word {
    /// The machine's clock when this setting came into force, in ns.
    pub const SINCE: usize = 0;
    /// What is added from then on, in ns, signed.
    pub const AHEAD: usize = 1;
    /// How much faster it runs, in millionths, signed.
    pub const RATE: usize = 2;
}

/// Index of a word of a clock in one of the two settings.
#[must_use]
pub const fn index(setting: u64, clock: Clock, word: usize) -> usize {
    let begin = if setting == 0 { 8 } else { 24 };
    begin + 4 * (clock as usize) + word
}
