//! The page that steers the library `faulty-disk` in one process.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::control::{Class, MAGIC, Mode, NAME, NAME_MAX, PAGE, SEED, word};
use super::error::EquipmentError;

/// Between two looks at a count.
const PAUSE: Duration = Duration::from_millis(2);

/// The disk of one process, as far as it is reached through system calls.
#[derive(Debug)]
pub struct DiskPage {
    path: PathBuf,
    file: File,
}

/// What becomes of the operations of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Which operations.
    pub class: Class,
    /// What is done to them.
    pub mode: Mode,
    /// The errno of what fails.
    pub errno: i32,
    /// A slow operation takes this much longer.
    pub delay: Duration,
    /// And at most this much more, by the seed.
    pub jitter: Duration,
    /// Of the jitter.
    pub seed: u64,
    /// So many operations pass first.
    pub skip: u64,
    /// So many are struck; 0: all.
    pub times: u64,
    /// Of a torn write so many thousandths are written.
    pub keep: u64,
    /// Only files whose path contains this; at most 255 bytes count.
    pub name: String,
}

impl Effect {
    /// `mode` for every operation of `class`, failing with EIO where it fails and half written where it is torn.
    #[must_use]
    pub fn new(class: Class, mode: Mode) -> Self {
        Self {
            class,
            mode,
            errno: rustix::io::Errno::IO.raw_os_error(),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            seed: 0,
            skip: 0,
            times: 0,
            keep: 500,
            name: String::new(),
        }
    }
}

/// What the library has counted of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations, of all processes with this page.
    pub seen: u64,
    /// Those that a fault struck.
    pub struck: u64,
    /// Those that hang now.
    pub hanging: u64,
}

impl DiskPage {
    /// Makes a page on which every operation passes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> Result<Self, EquipmentError> {
        let mut page = vec![0_u8; PAGE];
        page[..8].copy_from_slice(&MAGIC.to_ne_bytes());
        fs::write(path, page).map_err(EquipmentError::io(format!("write {}", path.display())))?;
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

    /// Begins a fault; what was in force for its class ends. The name and the seed are one for all classes.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn set(&self, effect: &Effect) -> Result<(), EquipmentError> {
        let mut name = [0_u8; NAME_MAX];
        let text = effect.name.as_bytes();
        let len = text.len().min(NAME_MAX - 1);
        name[..len].copy_from_slice(&text[..len]);
        self.write(effect.class.word(word::MODE), Mode::Pass as u64)?;
        self.write_bytes(NAME, &name)?;
        self.write(SEED, effect.seed)?;
        for (word, value) in [
            (word::ERRNO, u64::from(effect.errno.unsigned_abs())),
            (word::DELAY, nanos(effect.delay)),
            (word::JITTER, nanos(effect.jitter)),
            (word::SKIP, effect.skip),
            (word::TIMES, effect.times),
            (word::KEEP, effect.keep),
            (word::TURN, 0),
            (word::MODE, effect.mode as u64),
        ] {
            self.write(effect.class.word(word), value)?;
        }
        Ok(())
    }

    /// Lets every operation of this class pass; what hangs goes on.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn clear(&self, class: Class) -> Result<(), EquipmentError> {
        self.write(class.word(word::MODE), Mode::Pass as u64)
    }

    /// Lets everything pass.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn clear_all(&self) -> Result<(), EquipmentError> {
        [Class::Sync, Class::Write, Class::Change]
            .into_iter()
            .try_for_each(|class| self.clear(class))
    }

    /// A process that was killed hangs no more.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn forget_hanging(&self) -> Result<(), EquipmentError> {
        [Class::Sync, Class::Write, Class::Change]
            .into_iter()
            .try_for_each(|class| self.write(class.word(word::HANGING), 0))
    }

    /// What was counted.
    ///
    /// # Errors
    /// The page cannot be read.
    pub fn count(&self, class: Class) -> Result<Count, EquipmentError> {
        Ok(Count {
            seen: self.read(class.word(word::SEEN))?,
            struck: self.read(class.word(word::STRUCK))?,
            hanging: self.read(class.word(word::HANGING))?,
        })
    }

    /// Waits until the count of a class is as `holds` says.
    ///
    /// # Errors
    /// [`EquipmentError::Late`].
    pub fn wait(
        &self,
        class: Class,
        what: &str,
        limit: Duration,
        holds: impl Fn(Count) -> bool,
    ) -> Result<Count, EquipmentError> {
        let by = Instant::now() + limit;
        loop {
            let count = self.count(class)?;
            if holds(count) {
                return Ok(count);
            }
            if Instant::now() >= by {
                return Err(EquipmentError::Late {
                    what: format!("{what}; counted {count:?}"),
                    limit_ms: limit.as_millis(),
                });
            }
            thread::sleep(PAUSE);
        }
    }

    fn write(&self, index: usize, value: u64) -> Result<(), EquipmentError> {
        self.write_bytes(index, &value.to_ne_bytes())
    }

    fn write_bytes(&self, index: usize, bytes: &[u8]) -> Result<(), EquipmentError> {
        let at = u64::try_from(index * 8).unwrap_or(u64::MAX);
        let what = || EquipmentError::io(format!("write {}", self.path.display()));
        self.file.write_all_at(bytes, at).map_err(what())
    }

    fn read(&self, index: usize) -> Result<u64, EquipmentError> {
        let mut bytes = [0; 8];
        let at = u64::try_from(index * 8).unwrap_or(u64::MAX);
        let what = || EquipmentError::io(format!("read {}", self.path.display()));
        self.file.read_exact_at(&mut bytes, at).map_err(what())?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
