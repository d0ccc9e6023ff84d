//! The disk of one host: its data directory, a small file system in memory, or a disk image.
//!
//! A process of the lab (`disk`) holds the file system in a mount namespace of its own, and the daemon is started inside it. So
//! nothing is mounted anywhere else, the file system outlives the daemon, and it goes with the lab, however that ends.
//!
//! A power cut is `kill -9` and a copy of the image: what the kernel has not written to it is not in the copy. The journal of
//! the image commits every ten minutes, so only what was synced is there. The copy is compared once more with the image, so that
//! it is the image of one instant.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, statvfs, syncfs};
use serde::{Deserialize, Serialize};

use super::error::EquipmentError;
use super::unsynced::{Tail, lose_unsynced};
use super::{equipment_dir, undo_dir};
use crate::lab::{ATMD, Condition, Lab, LabError, Privileges, available, tool};

/// Name of the process that holds a file system.
pub const HOLDER: &str = "disk";

/// How long mounting may take on a loaded machine: journal replay of a few hundred MiB at most.
const MOUNT_MAX: Duration = Duration::from_secs(15);

/// How often an image is copied that is being written to.
const COPIES_MAX: usize = 10;

/// File that fills a disk.
const FILLER: &str = "filler";

/// What a data directory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskKind {
    /// A directory of the machine's own file system.
    #[default]
    Directory,
    /// A file system in memory of this size, which can be changed.
    Memory {
        /// MiB, at least 1.
        mib: u32,
    },
    /// ext4 in a file, which forgets what was not synced when its power is cut.
    Image {
        /// MiB, at least 16.
        mib: u32,
    },
}

/// The disk of a host of a lab.
pub struct Disk<'a> {
    lab: &'a Lab,
    host: String,
    dir: PathBuf,
    data: PathBuf,
}

impl<'a> Disk<'a> {
    /// Makes and mounts it. The result stands in front of the daemon's command line.
    pub(super) fn install(
        lab: &'a Lab,
        host: &str,
        kind: DiskKind,
    ) -> Result<Vec<String>, EquipmentError> {
        let disk = Self::at(lab, host)?;
        fs::create_dir_all(&disk.data).map_err(EquipmentError::io(format!(
            "create {}",
            disk.data.display()
        )))?;
        let script = match kind {
            DiskKind::Directory => return Ok(Vec::new()),
            DiskKind::Memory { mib } => {
                let bytes = u64::from(mib.max(1)) << 20;
                fs::write(disk.size_file(), bytes.to_string())
                    .map_err(EquipmentError::io("write the size of a disk"))?;
                format!("mount -t tmpfs -o size={}m tmpfs \"$1\"", mib.max(1))
            }
            DiskKind::Image { mib } => {
                image_available()?;
                disk.make_image(mib.max(16))?;
                disk.image_script()
            }
        };
        disk.hold(&script)?;
        // Through a file, so that the next start finds the next holder.
        let enter = "exec nsenter --target \"$(cat \"$0\")\" --mount -- \"$@\"";
        let holder = disk.holder_file();
        Ok(["sh", "-c", enter, &holder.to_string_lossy()]
            .map(str::to_owned)
            .to_vec())
    }

    /// The disk of `host`.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub fn at(lab: &'a Lab, host: &str) -> Result<Self, EquipmentError> {
        let place = lab.host(host)?;
        Ok(Self {
            lab,
            host: host.to_owned(),
            dir: equipment_dir(&place),
            data: place.dir().join("data"),
        })
    }

    /// The data directory as the harness reaches it; valid until the next power cut.
    ///
    /// # Errors
    /// The process that holds the file system is gone.
    pub fn data(&self) -> Result<PathBuf, EquipmentError> {
        if !self.is_mounted() {
            return Ok(self.data.clone());
        }
        let pid = self.lab.record().process(&self.host, HOLDER)?.identity.pid;
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let inside = self.data.strip_prefix("/").unwrap_or(&self.data);
        Ok(root.join(inside))
    }

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn free_bytes(&self) -> Result<u64, EquipmentError> {
        let data = self.data()?;
        let stat = statvfs(&data).map_err(|e| e.into());
        let stat = stat.map_err(EquipmentError::io(format!("ask {}", data.display())))?;
        Ok(stat.f_bfree.saturating_mul(stat.f_frsize))
    }

    /// Leaves only `left` bytes to be written: a file system in memory is made smaller, an image is filled.
    ///
    /// # Errors
    /// [`EquipmentError::NotEquipped`]: it is a directory of the machine's own file system.
    pub fn fill(&self, left: u64) -> Result<(), EquipmentError> {
        let data = self.data()?;
        if self.is_memory() {
            let stat = statvfs(&data).map_err(|e| e.into());
            let stat = stat.map_err(EquipmentError::io(format!("ask {}", data.display())))?;
            let used = stat.f_blocks.saturating_sub(stat.f_bfree);
            return self.resize(used.saturating_mul(stat.f_frsize).saturating_add(left));
        }
        self.mounted()?;
        let bytes = self.free_bytes()?.saturating_sub(left);
        let path = data.join(FILLER);
        let fill = || -> std::io::Result<()> {
            let file = fs::File::options().create(true).append(true).open(&path)?;
            if bytes > 0 {
                let begin = file.metadata()?.len();
                rustix::fs::fallocate(&file, FallocateFlags::empty(), begin, bytes)?;
            }
            Ok(())
        };
        fill().map_err(EquipmentError::io(format!("fill {}", data.display())))
    }

    /// Undoes [`Self::fill`]; no error where nothing was filled.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn make_room(&self) -> Result<(), EquipmentError> {
        if self.is_memory() {
            let size = fs::read_to_string(self.size_file());
            let size = size.ok().and_then(|text| text.parse().ok());
            return size.map_or(Ok(()), |bytes| self.resize(bytes));
        }
        self.mounted()?;
        let path = self.data()?.join(FILLER);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EquipmentError::io(
                format!("remove {}", path.display()),
            )(error)),
            _ => Ok(()),
        }
    }

    /// The size of a file system in memory, from now on. One that is smaller than what it holds is refused by the kernel.
    fn resize(&self, bytes: u64) -> Result<(), EquipmentError> {
        let pid = self.lab.record().process(&self.host, HOLDER)?.identity.pid;
        let mut command = tool("nsenter");
        command
            .args(["--target", &pid.to_string(), "--mount", "--", "mount", "-o"])
            .arg(format!("remount,size={bytes}"))
            .arg(&self.data);
        run(&mut command)
    }

    /// What a power cut leaves of the disk of a daemon that is dead; it can be started again afterwards.
    ///
    /// # Errors
    /// The daemon runs; [`EquipmentError::NotEquipped`]: neither an image nor records of unsynced writes; or a program fails.
    pub fn cut_power(&self, tail: Tail) -> Result<(), EquipmentError> {
        if self.lab.condition(&self.host, ATMD)? != Condition::Dead {
            return Err(EquipmentError::Late {
                what: format!("the end of {ATMD} on {}", self.host),
                limit_ms: 0,
            });
        }
        let undo = undo_dir(&self.lab.host(&self.host)?);
        if undo.is_dir() {
            return lose_unsynced(&undo, &self.data()?, tail).map(drop);
        }
        if !self.image().is_file() {
            return Err(EquipmentError::NotEquipped {
                host: self.host.clone(),
                what: "a disk image, or records of unsynced writes",
            });
        }
        if let Tail::Torn(_) = tail {
            // What a killed process left half written is written back, as the kernel may do at any moment.
            let data = self.data()?;
            let file = fs::File::open(&data).and_then(|dir| syncfs(&dir).map_err(Into::into));
            file.map_err(EquipmentError::io(format!("sync {}", data.display())))?;
        }
        let copy = self.dir.join("disk.img.copy");
        self.copy_image(&copy)?;
        // The old file system writes the rest into the old image, which nobody can name any more.
        fs::rename(&copy, self.image())
            .map_err(EquipmentError::io(format!("rename {}", copy.display())))?;
        match self.lab.kill(&self.host, HOLDER) {
            Ok(()) | Err(LabError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.hold(&self.image_script())
    }

    fn copy_image(&self, copy: &Path) -> Result<(), EquipmentError> {
        for _ in 0..COPIES_MAX {
            run(Command::new("cp")
                .args(["--sparse=always", "--reflink=never"])
                .arg(self.image())
                .arg(copy))?;
            if run(Command::new("cmp").arg("-s").arg(self.image()).arg(copy)).is_ok() {
                return Ok(());
            }
        }
        Err(EquipmentError::Late {
            what: format!("{} at rest", self.image().display()),
            limit_ms: 0,
        })
    }

    fn make_image(&self, mib: u32) -> Result<(), EquipmentError> {
        let image = self.image();
        fs::File::create(&image)
            .and_then(|file| file.set_len(u64::from(mib) << 20))
            .map_err(EquipmentError::io(format!("create {}", image.display())))?;
        // A small journal, and nothing that the kernel would still have to do in the background.
        run(tool("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-J", "size=4"])
            .args(["-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image))
    }

    fn image_script(&self) -> String {
        "mount -t ext4 -o loop,commit=600,errors=remount-ro \"$2\" \"$1\"".to_owned()
    }

    /// Starts the process that holds what `script` mounts at `$1`, and waits until it is mounted.
    fn hold(&self, script: &str) -> Result<(), EquipmentError> {
        let ready = self.dir.join("disk-ready");
        let _ = fs::remove_file(&ready);
        let script = format!("{script} && : > \"$3\" && exec sleep infinity");
        let image = self.image();
        let [data, image, mark] = [&self.data, &image, &ready].map(|p| p.to_string_lossy());
        let argv = ["sh", "-c", &script, HOLDER, &data, &image, &mark].map(str::to_owned);
        let process = self.lab.spawn(&self.host, HOLDER, &argv, &[])?;
        let by = Instant::now() + MOUNT_MAX;
        while !ready.exists() {
            let dead = self.lab.condition(&self.host, HOLDER)? == Condition::Dead;
            if dead || Instant::now() >= by {
                let log = self.lab.host(&self.host)?.log(HOLDER);
                return Err(EquipmentError::Command {
                    command: script,
                    said: fs::read_to_string(log).unwrap_or_default(),
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
        fs::write(self.holder_file(), process.identity.pid.to_string()).map_err(EquipmentError::io(
            format!("write {}", self.holder_file().display()),
        ))
    }

    fn mounted(&self) -> Result<(), EquipmentError> {
        if self.is_mounted() {
            return Ok(());
        }
        Err(EquipmentError::NotEquipped {
            host: self.host.clone(),
            what: "a disk of its own",
        })
    }

    fn is_mounted(&self) -> bool {
        self.holder_file().is_file()
    }

    fn is_memory(&self) -> bool {
        self.is_mounted() && !self.image().is_file()
    }

    fn image(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// Bytes of a file system in memory, as it was made.
    fn size_file(&self) -> PathBuf {
        self.dir.join("disk-size")
    }

    fn holder_file(&self) -> PathBuf {
        self.dir.join("disk-holder")
    }
}

/// Whether disk images can be mounted.
///
/// # Errors
/// [`EquipmentError::Unavailable`] with what is missing.
pub fn image_available() -> Result<(), EquipmentError> {
    let unavailable = |why: String| EquipmentError::Unavailable {
        what: "a disk image that loses what was not synced",
        why,
    };
    if !matches!(available(), Ok(Privileges::Root)) {
        return Err(unavailable("mounting one needs root of the machine".into()));
    }
    if run(tool("mkfs.ext4").arg("-V")).is_err() {
        return Err(unavailable(
            "no mkfs.ext4 command; install the package e2fsprogs".into(),
        ));
    }
    run(tool("losetup").arg("--find"))
        .map_err(|error| unavailable(format!("no loop device: {error}")))
}

pub(super) fn run(command: &mut Command) -> Result<(), EquipmentError> {
    let line = format!("{command:?}");
    let output = command
        .output()
        .map_err(EquipmentError::io(format!("run {line}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(EquipmentError::Command {
        command: line,
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
