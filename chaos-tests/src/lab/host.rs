//! One host of a lab: its identity, commands and processes in it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::process::{Pid, kill_process_group};

use super::error::LabError;
use super::handle::Lab;
use super::netns;
use super::place::twin;
use super::process::Signal;
use super::record::{HostRecord, ProcessRecord};
use super::spawn::{ATMD, Mode, command_in};

/// Longest run of a command given to [`Host::exec`], in seconds: a test that hangs shall say so.
pub const EXEC_SECONDS_MAX: u64 = 120;

/// One host of a lab.
#[derive(Clone)]
pub struct Host<'a> {
    lab: &'a Lab,
    record: HostRecord,
}

impl<'a> Host<'a> {
    pub(crate) fn new(lab: &'a Lab, record: HostRecord) -> Self {
        Self { lab, record }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.record.namespace
    }

    /// Address of `eth0`.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.record.address
    }

    /// IPv6 address of `eth0`, where the kernel has IPv6.
    #[must_use]
    pub fn address6(&self) -> Ipv6Addr {
        twin(self.record.address)
    }

    /// MAC of `eth0`.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.record.mac
    }

    /// Whether it is listed in the ATM pool.
    #[must_use]
    pub fn is_atm(&self) -> bool {
        self.record.atm
    }

    /// Whether it is listed under Servers.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.record.server
    }

    /// Directory of its files and logs.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.lab.dir().join(&self.record.name)
    }

    /// Runs a command to its end, at most [`EXEC_SECONDS_MAX`], and returns its outputs and status. On a host that is a machine
    /// of its own it runs there.
    ///
    /// # Errors
    /// [`LabError::ExecTimeout`], or it cannot be started.
    pub fn exec<S: AsRef<str>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Output, LabError> {
        self.exec_within(Duration::from_secs(EXEC_SECONDS_MAX), argv)
    }

    /// Like [`Self::exec`], at most for `limit`; then the command and what it started in its process group are killed.
    ///
    /// # Errors
    /// [`LabError::ExecTimeout`], or it cannot be started.
    pub fn exec_within<S: AsRef<str>>(
        &self,
        limit: Duration,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Output, LabError> {
        let argv: Vec<String> = argv.into_iter().map(|s| s.as_ref().to_owned()).collect();
        let line = argv.join(" ");
        let cannot = || LabError::io(format!("run {line} on {}", self.name()));
        let record = self.lab.record();
        let argv = self.inside(argv)?;
        let child = command_in(&record, self.namespace(), &argv, &[], Mode::BoundForeground)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot())?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (done, finished) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let watchdog = scope.spawn(move || {
                let late = finished.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
                // The child is not waited for before its pipes close, so the number of the group is still its own.
                if late && let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                late
            });
            let output = child.wait_with_output().map_err(cannot());
            drop(done);
            if watchdog.join().unwrap_or(false) {
                return Err(LabError::ExecTimeout {
                    host: self.name().to_owned(),
                    command: line.clone(),
                    limit,
                });
            }
            output
        })
    }

    /// What a command here writes to its standard output.
    ///
    /// # Errors
    /// Those of [`Self::exec`]; [`LabError::Command`] unless it ends with 0.
    pub fn said<S: AsRef<str>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<String, LabError> {
        let argv: Vec<String> = argv.into_iter().map(|s| s.as_ref().to_owned()).collect();
        let output = self.exec(&argv)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Command {
            command: format!("{} on {}", argv.join(" "), self.name()),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// A command that runs `argv` here with the caller's terminal and without a time limit.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub fn foreground(&self, argv: &[String]) -> Result<Command, LabError> {
        let argv = self.inside(argv.to_vec())?;
        Ok(command_in(
            &self.lab.record(),
            self.namespace(),
            &argv,
            &[],
            Mode::Foreground,
        ))
    }

    /// `argv`, with what takes it into the machine that the host is, if it is one.
    fn inside(&self, argv: Vec<String>) -> Result<Vec<String>, LabError> {
        Ok(match self.lab.machine(self.name())? {
            Some(machine) => machine.command(argv),
            None => argv,
        })
    }

    /// Starts a process; see [`Lab::spawn`].
    ///
    /// # Errors
    /// Those of [`Lab::spawn`].
    pub fn spawn<S: AsRef<str>>(
        &self,
        name: &str,
        argv: impl IntoIterator<Item = S>,
        env: &[(String, String)],
    ) -> Result<ProcessRecord, LabError> {
        let argv: Vec<String> = argv.into_iter().map(|s| s.as_ref().to_owned()).collect();
        self.lab.spawn(self.name(), name, &argv, env)
    }

    /// Sends `signal` to its atmd.
    ///
    /// # Errors
    /// [`LabError::NoProcess`], [`LabError::NotRunning`].
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.lab.signal(self.name(), ATMD, signal)
    }

    /// Runs `work` on a thread inside its network namespace; see [`Lab::in_netns`].
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn in_netns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        netns::in_namespace(self.namespace(), work)
    }

    /// Log of its process `name`.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.lab.record().log(self.name(), name)
    }
}
