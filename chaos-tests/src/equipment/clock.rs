//! The clocks of one process, by the library `faulty-clock`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::clock_control::{Clock, FAKED, IN_FORCE, MAGIC, PAGE, REPLACED, index, word};
use super::error::EquipmentError;

/// How much faster or slower a clock may run, in millionths: twice what the lease allows for.
pub const RATE_MAX: i64 = 100_000;

/// The clocks of one process.
#[derive(Debug)]
pub struct ClockPage {
    path: PathBuf,
    file: File,
}

/// One clock's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Setting {
    since: u64,
    ahead: i64,
    rate: i64,
}

impl Setting {
    /// What is added at the instant `now` of the machine's clock.
    fn ahead_at(self, now: u64) -> i64 {
        let run = i128::from(now) - i128::from(self.since);
        let ahead = i128::from(self.ahead) + run * i128::from(self.rate) / 1_000_000;
        i64::try_from(ahead).unwrap_or(0)
    }
}

impl ClockPage {
    /// Makes a page on which every clock is the machine's.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> Result<Self, EquipmentError> {
        let mut page = vec![0_u8; PAGE];
        page[..8].copy_from_slice(&MAGIC.to_ne_bytes());
        std::fs::write(path, page)
            .map_err(EquipmentError::io(format!("write {}", path.display())))?;
        Self::open(path)
    }

    /// The page that somebody made.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: &Path) -> Result<Self, EquipmentError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Self {
            path: path.to_owned(),
            file: file.map_err(EquipmentError::io(format!("open {}", path.display())))?,
        })
    }

    /// Has CLOCK_MONOTONIC and CLOCK_BOOTTIME run `rate` millionths faster (slower: below 0) from now on, without a jump; at
    /// most [`RATE_MAX`] either way.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn set_rate(&self, rate: i64) -> Result<(), EquipmentError> {
        let rate = rate.clamp(-RATE_MAX, RATE_MAX);
        self.change(|clock, now, setting| match clock {
            Clock::Realtime => setting,
            Clock::Monotonic | Clock::Boottime => Setting {
                since: now,
                ahead: setting.ahead_at(now),
                rate,
            },
        })
    }

    /// Has CLOCK_BOOTTIME jump ahead, and CLOCK_REALTIME with it, as after a suspend of this length. It stays ahead: no
    /// kernel lets that clock run backwards.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn suspend(&self, by: Duration) -> Result<(), EquipmentError> {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        self.change(|clock, now, setting| match clock {
            Clock::Monotonic => setting,
            Clock::Boottime | Clock::Realtime => Setting {
                since: now,
                ahead: setting.ahead_at(now).saturating_add(by),
                ..setting
            },
        })
    }

    /// Has CLOCK_REALTIME step by so many ms, either way, as an operator or a time server would.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn step_wall(&self, ms: i64) -> Result<(), EquipmentError> {
        self.change(|clock, now, setting| match clock {
            Clock::Realtime => Setting {
                since: now,
                ahead: setting
                    .ahead_at(now)
                    .saturating_add(ms.saturating_mul(1_000_000)),
                ..setting
            },
            Clock::Monotonic | Clock::Boottime => setting,
        })
    }

    /// Whether the process reads CLOCK_BOOTTIME here, whatever way it takes; `None` before it has started.
    ///
    /// # Errors
    /// The page cannot be read.
    pub fn replaces_all(&self) -> Result<Option<bool>, EquipmentError> {
        Ok(match self.read(REPLACED)? {
            0 => None,
            replaced => Some(replaced == 1),
        })
    }

    /// How often the process was told another time than the machine's.
    ///
    /// # Errors
    /// The page cannot be read.
    pub fn faked(&self) -> Result<u64, EquipmentError> {
        self.read(FAKED)
    }

    /// Writes the setting that is not in force, then puts it in force.
    fn change(&self, next: impl Fn(Clock, u64, Setting) -> Setting) -> Result<(), EquipmentError> {
        let in_force = self.read(IN_FORCE)?;
        let other = 1 - in_force.min(1);
        for clock in Clock::ALL {
            let read = |word| self.read(index(in_force, clock, word));
            let setting = Setting {
                since: read(word::SINCE)?,
                ahead: read(word::AHEAD)?.cast_signed(),
                rate: read(word::RATE)?.cast_signed(),
            };
            let setting = next(clock, machine(clock), setting);
            for (word, value) in [
                (word::SINCE, setting.since),
                (word::AHEAD, setting.ahead.cast_unsigned()),
                (word::RATE, setting.rate.cast_unsigned()),
            ] {
                self.write(index(other, clock, word), value)?;
            }
        }
        self.write(IN_FORCE, other)
    }

    fn write(&self, index: usize, value: u64) -> Result<(), EquipmentError> {
        let at = u64::try_from(index * 8).unwrap_or(u64::MAX);
        let what = EquipmentError::io(format!("write {}", self.path.display()));
        self.file
            .write_all_at(&value.to_ne_bytes(), at)
            .map_err(what)
    }

    fn read(&self, index: usize) -> Result<u64, EquipmentError> {
        let mut bytes = [0; 8];
        let at = u64::try_from(index * 8).unwrap_or(u64::MAX);
        let what = EquipmentError::io(format!("read {}", self.path.display()));
        self.file.read_exact_at(&mut bytes, at).map_err(what)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// The machine's clock, in ns.
fn machine(clock: Clock) -> u64 {
    let id = match clock {
        Clock::Monotonic => ClockId::Monotonic,
        Clock::Boottime => ClockId::Boottime,
        Clock::Realtime => ClockId::Realtime,
    };
    let now = clock_gettime(id);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}
