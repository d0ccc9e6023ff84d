//! Control groups of both versions: less processor time, less memory, or none of either for one process.
//!
//! A group carries the lab's prefix and the host's name. It is removed when its fault ends; what a killed harness left behind is
//! removed by the next that makes one.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::EquipmentError;

/// Begins the name of every group of a lab.
const NAME: &str = "atm-lab-";

/// Microseconds in which a share of processor time is measured: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// How long the kernel may take to freeze a process that is in a system call.
const FREEZE_MAX: Duration = Duration::from_secs(5);

/// What a group limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Everything: frozen processes do not run.
    Freezer,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Freezer => "freezer",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Cpu => "a control group for processor time",
            Self::Memory => "a control group for memory",
            Self::Freezer => "a control group that freezes",
        }
    }
}

/// Where a controller is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// cgroup-v1: a hierarchy of its own.
    One(PathBuf),
    /// cgroup-v2.
    Two(PathBuf),
}

/// A group with one process in it.
#[derive(Debug)]
pub struct Group {
    hierarchy: Hierarchy,
    dir: PathBuf,
}

/// Whether groups of this controller can be made.
///
/// # Errors
/// [`EquipmentError::Unavailable`] with what is missing.
pub fn group_available(controller: Controller) -> Result<(), EquipmentError> {
    Group::make(controller, &format!("probe{}", std::process::id())).map(drop)
}

impl Group {
    /// Makes the group `name` of a lab and moves the process `pid` into it, with all of its threads.
    ///
    /// # Errors
    /// [`EquipmentError::Unavailable`], or the process is gone.
    pub fn of(controller: Controller, name: &str, pid: u32) -> Result<Self, EquipmentError> {
        let group = Self::make(controller, name)?;
        group.write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    fn make(controller: Controller, name: &str) -> Result<Self, EquipmentError> {
        let unavailable = |why: String| EquipmentError::Unavailable {
            what: controller.what(),
            why,
        };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let controllers = |dir: &Path| {
            let path = dir.join("cgroup.controllers");
            fs::read_to_string(path).unwrap_or_default()
        };
        let hierarchy = find(&mounts, controller.name(), controllers).ok_or_else(|| {
            unavailable(format!(
                "no hierarchy with the controller {} is mounted",
                controller.name()
            ))
        })?;
        let root = match &hierarchy {
            Hierarchy::One(root) => root,
            Hierarchy::Two(root) => {
                if controller != Controller::Freezer {
                    let file = root.join("cgroup.subtree_control");
                    fs::write(&file, format!("+{}", controller.name()))
                        .map_err(|error| unavailable(format!("{}: {error}", file.display())))?;
                }
                root
            }
        };
        sweep(root);
        let dir = root.join(format!("{NAME}{name}-{}", controller.name()));
        fs::create_dir_all(&dir)
            .map_err(|error| unavailable(format!("{}: {error}", dir.display())))?;
        Ok(Self { hierarchy, dir })
    }

    /// Gives it so many thousandths of one processor, at least 10.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_cpu(&self, thousandths: u32) -> Result<(), EquipmentError> {
        let quota = PERIOD_US * u64::from(thousandths.max(10)) / 1000;
        match &self.hierarchy {
            Hierarchy::One(_) => {
                self.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.write("cpu.cfs_quota_us", &quota.to_string())
            }
            Hierarchy::Two(_) => self.write("cpu.max", &format!("{quota} {PERIOD_US}")),
        }
    }

    /// How often it wanted more processor time than it had.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn throttled(&self) -> Result<u64, EquipmentError> {
        let text = self.read("cpu.stat")?;
        let line = text.lines().find_map(|l| l.strip_prefix("nr_throttled "));
        Ok(line.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Lets it have so much memory, which the kernel enforces by reclaiming, then by killing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_memory(&self, bytes: u64) -> Result<(), EquipmentError> {
        match &self.hierarchy {
            Hierarchy::One(_) => self.write("memory.limit_in_bytes", &bytes.to_string()),
            Hierarchy::Two(_) => {
                // Where there is swap it would only be slow.
                let _ = self.write("memory.swap.max", "0");
                self.write("memory.max", &bytes.to_string())
            }
        }
    }

    /// How often the limit of memory stood in its way.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn memory_refusals(&self) -> Result<u64, EquipmentError> {
        let number = |text: &str| text.trim().parse().unwrap_or(0);
        match &self.hierarchy {
            Hierarchy::One(_) => self.read("memory.failcnt").map(|text| number(&text)),
            Hierarchy::Two(_) => {
                let text = self.read("memory.events")?;
                let line = text.lines().find_map(|line| line.strip_prefix("max "));
                Ok(line.map_or(0, number))
            }
        }
    }

    /// Stops every process in it, without a signal that they could see; returns once they stand still.
    ///
    /// # Errors
    /// The kernel refuses, or takes longer than five seconds.
    pub fn freeze(&self) -> Result<(), EquipmentError> {
        let (file, frozen) = match &self.hierarchy {
            Hierarchy::One(_) => {
                self.write("freezer.state", "FROZEN")?;
                ("freezer.state", "FROZEN")
            }
            Hierarchy::Two(_) => {
                self.write("cgroup.freeze", "1")?;
                ("cgroup.events", "frozen 1")
            }
        };
        let by = Instant::now() + FREEZE_MAX;
        while !self.read(file)?.lines().any(|line| line == frozen) {
            if Instant::now() >= by {
                return Err(EquipmentError::Late {
                    what: format!("{} frozen", self.dir.display()),
                    limit_ms: FREEZE_MAX.as_millis(),
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn thaw(&self) -> Result<(), EquipmentError> {
        match &self.hierarchy {
            Hierarchy::One(_) => self.write("freezer.state", "THAWED"),
            Hierarchy::Two(_) => self.write("cgroup.freeze", "0"),
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<(), EquipmentError> {
        let path = self.dir.join(file);
        let what = EquipmentError::io(format!("write {text} to {}", path.display()));
        fs::write(&path, text).map_err(what)
    }

    fn read(&self, file: &str) -> Result<String, EquipmentError> {
        let path = self.dir.join(file);
        fs::read_to_string(&path).map_err(EquipmentError::io(format!("read {}", path.display())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        dissolve(&self.hierarchy, &self.dir);
    }
}

/// Lets its processes go, free of every limit, and removes the group.
fn dissolve(hierarchy: &Hierarchy, dir: &Path) {
    let (Hierarchy::One(root) | Hierarchy::Two(root)) = hierarchy;
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    if let Hierarchy::Two(_) = hierarchy {
        let _ = fs::write(dir.join("cgroup.freeze"), "0");
    }
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines() {
        // One that has ended meanwhile is no longer there to be moved.
        let _ = fs::write(root.join("cgroup.procs"), pid);
    }
    let _ = fs::remove_dir(dir);
}

/// Removes what harnesses that were killed have left: groups of a lab without a process. Others' stay.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(NAME);
        let age = entry.metadata().and_then(|m| m.modified()).ok();
        // A group that somebody makes right now is still empty.
        let old = age
            .and_then(|time| time.elapsed().ok())
            .is_some_and(|age| age > Duration::from_secs(60));
        if ours && old {
            // The kernel refuses to remove one that has processes.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The first mounted hierarchy that has this controller. `two` reads the controllers of a cgroup-v2 mount.
fn find(mounts: &str, controller: &str, two: impl Fn(&Path) -> String) -> Option<Hierarchy> {
    let mut second = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let place = PathBuf::from(place);
        match kind {
            "cgroup" if options.split(',').any(|option| option == controller) => {
                return Some(Hierarchy::One(place));
            }
            "cgroup2" => {
                let has = controller == "freezer"
                    || two(&place).split_whitespace().any(|c| c == controller);
                if has {
                    second = Some(Hierarchy::Two(place));
                }
            }
            _ => {}
        }
    }
    second
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
                       cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0\n";
    const TWO: &str = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";

    #[test]
    fn both_versions_are_found() {
        let both = format!("{TWO}{ONE}");
        let none = |_: &Path| "hugetlb".to_owned();
        let all = |_: &Path| "cpu memory io".to_owned();
        let one = |place: &str| Some(Hierarchy::One(place.into()));
        let two = Some(Hierarchy::Two("/sys/fs/cgroup/unified".into()));
        assert_eq!(find(&both, "cpu", none), one("/sys/fs/cgroup/cpu"));
        assert_eq!(find(&both, "freezer", none), one("/sys/fs/cgroup/freezer"));
        assert_eq!(find(&both, "memory", none), None);
        assert_eq!(find(TWO, "memory", all), two);
        assert_eq!(find(TWO, "freezer", none), two, "every cgroup-v2 has it");
        assert_eq!(find("", "cpu", all), None);
    }
}
