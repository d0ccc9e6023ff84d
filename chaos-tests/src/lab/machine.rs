//! A host that is a machine of its own: besides its network it has its own files, processes and host name.
//!
//! Its first process lays an overlay over the file system of the real machine: it starts as a copy of it, and what is written
//! there nobody else sees. What was written stays in the host's directory, so [`Lab::power_off`] is a power cut with a disk that
//! survives it, and [`Lab::start_machine`] starts from that disk. Needs root: users and owners are those of the real machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::handle::{Lab, tail};
use super::process::{Condition, Identity};

/// Name of the first process of a machine, as a process of the lab.
pub const MACHINE: &str = "machine";

/// What its first process runs.
const INIT: &str = include_str!("machine.sh");

/// What it says when it is ready.
const READY: &str = "machine ready";

/// Mounting an overlay and running the set-up takes some hundred milliseconds; a loaded computer a multiple.
const START_MAX: Duration = Duration::from_secs(60);

/// Between two looks at its log.
const LOOK: Duration = Duration::from_millis(5);

/// How a machine shall be.
#[derive(Clone, Debug, Default)]
pub struct MachineSpec {
    /// Its host name.
    pub hostname: String,
    /// Directories of the real machine that it sees at another place: what is there, where.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Run by a shell in it each time it starts; it is ready when this has ended well.
    pub setup: String,
}

/// A machine that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// The process that holds its namespaces.
    holder: Identity,
}

impl Machine {
    /// `argv` as a command that runs in it.
    pub(crate) fn command(self, argv: Vec<String>) -> Vec<String> {
        let pid = self.holder.pid;
        let mut words = vec![
            "nsenter".to_owned(),
            format!("--mount=/proc/{pid}/ns/mnt"),
            format!("--uts=/proc/{pid}/ns/uts"),
            // Its own process namespace is the one of its children.
            format!("--pid=/proc/{pid}/ns/pid_for_children"),
            "--".to_owned(),
        ];
        words.extend(argv);
        words
    }
}

impl Lab {
    /// Makes `host` a machine of its own, or switches it on again with the disk it had.
    ///
    /// # Errors
    /// [`LabError::NoMachine`] if it does not become ready, [`LabError::AlreadyRunning`], those of [`Lab::spawn`].
    pub fn start_machine(&self, host: &str, spec: &MachineSpec) -> Result<(), LabError> {
        let record = self.record();
        let dir = record.host_dir(host);
        let log = record.log(host, MACHINE);
        let disk = dir.join("disk");
        fs::create_dir_all(&disk).map_err(LabError::io(format!("create {}", disk.display())))?;
        for (name, text) in [("init.sh", INIT), ("setup.sh", &spec.setup)] {
            let path = disk.join(name);
            fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
        }
        let said_before = fs::read(&log).map_or(0, |bytes| bytes.len());
        let mut argv: Vec<String> = [
            // The kernel ends all of it when this process ends, and this one when the lab's owner does.
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "sh",
        ]
        .map(str::to_owned)
        .to_vec();
        argv.push(path_text(&disk.join("init.sh")));
        argv.push(path_text(&disk));
        argv.push(spec.hostname.clone());
        for (from, to) in &spec.binds {
            argv.push(path_text(from));
            argv.push(path_text(to));
        }
        self.spawn(host, MACHINE, &argv, &[])?;
        let by = Instant::now() + START_MAX;
        loop {
            let said = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(said_before..).unwrap_or_default());
            if said.lines().any(|line| line == READY) {
                return Ok(());
            }
            if self.condition(host, MACHINE)? == Condition::Dead || Instant::now() > by {
                return Err(LabError::NoMachine {
                    host: host.to_owned(),
                    tail: tail(&log),
                    log,
                });
            }
            thread::sleep(LOOK);
        }
    }

    /// `kill -9` of everything that runs on the machine `host`; all of it is gone when this returns, and the disk is as it was.
    ///
    /// # Errors
    /// Those of [`Lab::kill`], [`LabError::Survived`] also where something in it is not gone.
    pub fn power_off(&self, host: &str) -> Result<(), LabError> {
        // Its first process is one that was started, and ends last of all that are in its namespace.
        self.kill_all(host, MACHINE)
    }

    /// The machine that `host` is, if it is one and runs.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub(crate) fn machine(&self, host: &str) -> Result<Option<Machine>, LabError> {
        let record = self.record();
        match record.process(host, MACHINE) {
            Ok(process) if process.identity.is_alive() => Ok(Some(Machine {
                holder: process.identity,
            })),
            Ok(_) | Err(LabError::NoProcess { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
