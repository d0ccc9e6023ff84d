//! What a host's daemon is started with, so that its resources can be made to fail: a disk of its own, libraries between it
//! and its disk and clock, control groups.
//!
//! Nothing here is kept in memory: all of it lies in the host's directory (`HOST/equipment/`) or belongs to processes of the
//! lab, so faults find it from the name of the host alone, and it goes with the lab. What a machine does not have is named as
//! [`EquipmentError::Unavailable`].

mod cgroup;
mod clock;
#[path = "../../faulty-clock/src/control.rs"]
pub mod clock_control;
#[path = "../../faulty-disk/src/control.rs"]
pub mod control;
mod disk;
mod error;
mod page;
mod starvation;
mod unsynced;

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cgroup::{Controller, Group, group_available};
pub use clock::{ClockPage, RATE_MAX};
pub use control::{Class, Mode};
pub use disk::{Disk, DiskKind, HOLDER, image_available};
pub use error::EquipmentError;
pub use page::{Count, DiskPage, Effect};
pub use starvation::{Busy, set_idle};
pub use unsynced::{Tail, lose_unsynced};

use crate::lab::{Host, Lab, program};

/// File of the library that stands between a daemon and its disk.
const FAULTY_DISK: &str = "libfaulty_disk.so";

/// File of the library that gives a daemon clocks of its own.
const FAULTY_CLOCK: &str = "libfaulty_clock.so";

/// Takes what it needs for the kernel's gate from a daemon: the kernel compares frames with the machine's clock, and the daemon
/// would tell it deadlines by its own. On a real host the two are one.
const WITHOUT_GATE: [&str; 4] = [
    "setpriv",
    "--bounding-set=-bpf,-sys_admin",
    "--inh-caps=-bpf,-sys_admin",
    "--",
];

/// What the daemon of a host is started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Equipment {
    /// What its data directory is.
    pub disk: DiskKind,
    /// The library between it and its disk.
    pub faulty_disk: bool,
    /// That library also keeps what unsynced writes replace, for a power cut without a disk image. Slows writes down.
    pub keep_unsynced: bool,
    /// The library that gives it clocks of its own. It then does without the kernel's gate at its interface.
    pub faulty_clock: bool,
}

impl Equipment {
    /// What every fault of a disk needs: an image where this machine can mount one, else records of unsynced writes.
    #[must_use]
    pub fn for_disk_faults() -> Self {
        let image = image_available().is_ok();
        Self {
            disk: if image {
                DiskKind::Image { mib: 192 }
            } else {
                DiskKind::Directory
            },
            faulty_disk: true,
            keep_unsynced: !image,
            faulty_clock: false,
        }
    }

    /// What every fault of a disk or a clock needs.
    #[must_use]
    pub fn for_all_faults() -> Self {
        Self {
            faulty_clock: true,
            ..Self::for_disk_faults()
        }
    }

    /// Puts it in place for `host`, whose daemon does not run yet. The result stands in front of the daemon's command line.
    ///
    /// # Errors
    /// [`EquipmentError::Unavailable`], or a file or program fails.
    pub fn install(&self, lab: &Lab, host: &str) -> Result<Vec<String>, EquipmentError> {
        let place = lab.host(host)?;
        let dir = equipment_dir(&place);
        let make = |dir: &PathBuf| {
            let what = EquipmentError::io(format!("create {}", dir.display()));
            fs::create_dir_all(dir).map_err(what)
        };
        make(&dir)?;
        let mut prefix = Disk::install(lab, host, self.disk)?;
        let mut libraries = Vec::new();
        let mut env = Vec::new();
        if self.faulty_disk || self.keep_unsynced {
            libraries.push(program(FAULTY_DISK)?);
            let page = page_file(&place);
            DiskPage::create(&page)?;
            env.push((control::ENV_CONTROL, page));
            env.push((control::ENV_PREFIX, place.dir().join("data")));
        }
        if self.keep_unsynced {
            make(&undo_dir(&place))?;
            env.push((control::ENV_UNDO, undo_dir(&place)));
        }
        if self.faulty_clock {
            libraries.push(program(FAULTY_CLOCK)?);
            let page = clock_file(&place);
            ClockPage::create(&page)?;
            env.push((clock_control::ENV_CONTROL, page));
            prefix.extend(WITHOUT_GATE.map(str::to_owned));
        }
        if !libraries.is_empty() {
            // Set for the daemon alone, not for what starts it.
            let libraries = libraries
                .iter()
                .map(|library| library.display().to_string());
            let libraries = libraries.collect::<Vec<_>>().join(":");
            prefix.extend(["env".to_owned(), format!("LD_PRELOAD={libraries}")]);
            let env = env
                .iter()
                .map(|(name, value)| format!("{name}={}", value.display()));
            prefix.extend(env);
        }
        Ok(prefix)
    }
}

/// The page of the library between the daemon of `host` and its disk.
///
/// # Errors
/// [`EquipmentError::NotEquipped`].
pub fn disk_page(lab: &Lab, host: &str) -> Result<DiskPage, EquipmentError> {
    let path = page_file(&lab.host(host)?);
    if !path.is_file() {
        return Err(EquipmentError::NotEquipped {
            host: host.to_owned(),
            what: "the library between it and its disk",
        });
    }
    DiskPage::open(&path)
}

/// The clocks of the daemon of `host`.
///
/// # Errors
/// [`EquipmentError::NotEquipped`].
pub fn clock_page(lab: &Lab, host: &str) -> Result<ClockPage, EquipmentError> {
    let path = clock_file(&lab.host(host)?);
    if !path.is_file() {
        return Err(EquipmentError::NotEquipped {
            host: host.to_owned(),
            what: "clocks of its own",
        });
    }
    ClockPage::open(&path)
}

/// Ends every fault of the disk and the clocks of `host`, whoever began it; no error where it has none of either.
///
/// # Errors
/// What it has cannot be restored.
pub fn mend(lab: &Lab, host: &str) -> Result<(), EquipmentError> {
    let place = lab.host(host)?;
    if page_file(&place).is_file() {
        disk_page(lab, host)?.clear_all()?;
    }
    if clock_file(&place).is_file() {
        clock_page(lab, host)?.set_rate(0)?;
    }
    match Disk::at(lab, host)?.make_room() {
        Err(EquipmentError::NotEquipped { .. }) => Ok(()),
        other => other,
    }
}

/// Where a host's equipment lies.
fn equipment_dir(host: &Host<'_>) -> PathBuf {
    host.dir().join("equipment")
}

fn page_file(host: &Host<'_>) -> PathBuf {
    equipment_dir(host).join("disk-page")
}

fn clock_file(host: &Host<'_>) -> PathBuf {
    equipment_dir(host).join("clock-page")
}

fn undo_dir(host: &Host<'_>) -> PathBuf {
    equipment_dir(host).join("unsynced")
}
