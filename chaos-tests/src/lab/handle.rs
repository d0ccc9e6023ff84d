//! A lab that is up: its hosts, the processes in them, its end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::builder::Builder;
use super::error::LabError;
use super::host::Host;
use super::network::{self, bridge_port};
use super::plan::check_path_mtu;
use super::process::{Condition, Identity, Signal, members};
use super::record::{ProcessRecord, RECORD_FILE, Record, registered};
use super::spawn::{Janitor, Mode, Spawner, command_in, with_log};
use super::teardown::{end, end_sessions, survived};
use crate::switch::Switch;

/// Processes recorded per lab: every host of the largest lab with two of them.
pub const PROCESSES_MAX: usize = 256;

/// A lab. Dropped by its owner it ends, unless it is persistent.
pub struct Lab {
    record: Mutex<Record>,
    children: Mutex<Vec<Child>>,
    /// `Some` in the process that built the lab.
    owned: Option<Owned>,
    /// What connects the hosts, where it is not the bridge.
    switch: OnceLock<Switch>,
}

/// What only the owner of a lab has.
pub(crate) struct Owned {
    /// Whether processes end with this one; not so where the lab is to persist once it is built.
    pub(crate) binding: bool,
    pub(crate) spawner: Spawner,
    pub(crate) janitor: Option<Janitor>,
}

impl Lab {
    /// Begins a lab with three ATMs and three servers.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The lab whose record is in `dir`, built by another process.
    ///
    /// # Errors
    /// [`LabError::NoLab`] if there is none or it is down; [`LabError::Record`] if the record is damaged.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let dir =
            std::path::absolute(dir).map_err(LabError::io(format!("use {}", dir.display())))?;
        let record = match Record::read(&dir.join(RECORD_FILE)) {
            // The registry still knows a lab whose directory somebody has removed.
            Err(LabError::NoLab { .. }) => registered()
                .into_iter()
                .find(|r| r.dir == dir)
                .ok_or_else(|| LabError::NoLab { dir: dir.clone() })?,
            other => other?,
        };
        if !record.is_up() {
            return Err(LabError::NoLab { dir });
        }
        Ok(Self {
            record: Mutex::new(record),
            children: Mutex::default(),
            owned: None,
            switch: OnceLock::new(),
        })
    }

    pub(crate) fn new(record: Record, owned: Owned) -> Self {
        Self {
            record: Mutex::new(record),
            children: Mutex::default(),
            owned: Some(owned),
            switch: OnceLock::new(),
        }
    }

    /// A copy of what is recorded.
    #[must_use]
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        lock(&self.record).dir.clone()
    }

    /// Begins the names of its namespaces.
    #[must_use]
    pub fn prefix(&self) -> String {
        lock(&self.record).prefix.clone()
    }

    /// IPv4 addresses of the virtual hosts.
    #[must_use]
    pub fn vips(&self) -> Vec<Ipv4Addr> {
        lock(&self.record).vips.clone()
    }

    /// All addresses of the virtual hosts, in file order.
    #[must_use]
    pub fn virtual_addresses(&self) -> Vec<IpAddr> {
        lock(&self.record).virtual_addresses.clone()
    }

    /// Gives the router `name` another path MTU; `None`: as large as its links carry.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NotARouter`], a value out of bounds.
    pub fn set_path_mtu(&self, name: &str, mtu: Option<u16>) -> Result<(), LabError> {
        if let Some(mtu) = mtu {
            check_path_mtu(mtu)?;
        }
        network::set_path_mtu(lock(&self.record).host(name)?, mtu)
    }

    /// The host called `name`.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub fn host(&self, name: &str) -> Result<Host<'_>, LabError> {
        let record = lock(&self.record).host(name)?.clone();
        Ok(Host::new(self, record))
    }

    /// All hosts, in the order ATMs, servers, client.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host<'_>> {
        self.record()
            .hosts
            .into_iter()
            .map(|record| Host::new(self, record))
            .collect()
    }

    /// Runs `work` on a thread inside `host`'s network namespace; sockets it opens stay there.
    ///
    /// # Errors
    /// [`LabError::NoHost`], or the namespace cannot be entered.
    pub fn in_netns<T: Send>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, LabError> {
        self.host(host)?.in_netns(work)
    }

    /// Starts `argv` in `host` as the process `name`, logging to `<dir>/<host>/<name>.log`.
    ///
    /// # Errors
    /// [`LabError::AlreadyRunning`], [`LabError::BadName`], [`LabError::TooManyProcesses`], [`LabError::NoHost`], or it cannot
    /// be started.
    pub fn spawn(
        &self,
        host: &str,
        name: &str,
        argv: &[String],
        env: &[(String, String)],
    ) -> Result<ProcessRecord, LabError> {
        check_process_name(name)?;
        self.reap();
        let lock_file = self.lock_record()?;
        let mut record = self.reread()?;
        let namespace = record.host(host)?.namespace.clone();
        if let Ok(old) = record.process(host, name)
            && old.identity.is_alive()
        {
            return Err(LabError::AlreadyRunning {
                host: host.to_owned(),
                process: name.to_owned(),
                pid: old.identity.pid,
            });
        }
        record
            .processes
            .retain(|p| p.host != host || p.name != name);
        if record.processes.len() >= PROCESSES_MAX {
            return Err(LabError::TooManyProcesses(PROCESSES_MAX));
        }

        let binding = self.owned.as_ref().is_some_and(|owned| owned.binding);
        let mode = if binding { Mode::Bound } else { Mode::Detached };
        let mut command = command_in(&record, &namespace, argv, env, mode);
        let cannot = || LabError::io(format!("start {name} on {host}"));
        with_log(&mut command, &record.log(host, name)).map_err(cannot())?;
        let child = match &self.owned {
            Some(owned) => owned.spawner.spawn(command),
            None => command.spawn(),
        }
        .map_err(cannot())?;
        let identity =
            Identity::of(child.id()).ok_or_else(|| cannot()(io::ErrorKind::NotFound.into()))?;
        lock(&self.children).push(child);

        let process = ProcessRecord {
            host: host.to_owned(),
            name: name.to_owned(),
            identity,
            argv: argv.to_vec(),
            env: env.to_vec(),
        };
        record.processes.push(process.clone());
        record.save()?;
        *lock(&self.record) = record;
        drop(lock_file);
        Ok(process)
    }

    /// Sends `signal` to the process `name` of `host`.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NoProcess`], [`LabError::NotRunning`].
    pub fn signal(&self, host: &str, name: &str, signal: Signal) -> Result<(), LabError> {
        self.reap();
        let record = self.reread()?;
        let identity = record.process(host, name)?.identity;
        if identity.signal(signal) {
            return Ok(());
        }
        Err(not_running(host, name, identity))
    }

    /// Every living process of `host`: those that were started and what they started in turn.
    ///
    /// # Errors
    /// [`LabError::NoHost`], or the namespace cannot be seen.
    pub fn processes_of(&self, host: &str) -> Result<Vec<Identity>, LabError> {
        self.reap();
        let record = self.reread()?;
        let namespace = namespace_inode(&record, host)?;
        let started = record.processes.iter().filter(|p| p.host == host);
        let leaders = started.map(|p| p.identity.pid).collect();
        Ok(members(&leaders, &BTreeSet::from([namespace])))
    }

    /// `kill -9` of the process `name` of `host`; it is gone when this returns.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NoProcess`], [`LabError::NotRunning`]; [`LabError::Survived`]: it is not gone.
    pub fn kill(&self, host: &str, name: &str) -> Result<(), LabError> {
        self.kill_in(host, name, &BTreeSet::new())
    }

    /// As [`Self::kill`], with all that it has started on `host`.
    ///
    /// # Errors
    /// As [`Self::kill`], of everything.
    pub(crate) fn kill_all(&self, host: &str, name: &str) -> Result<(), LabError> {
        let namespace = namespace_inode(&self.record(), host)?;
        self.kill_in(host, name, &BTreeSet::from([namespace]))
    }

    fn kill_in(&self, host: &str, name: &str, namespaces: &BTreeSet<u64>) -> Result<(), LabError> {
        self.reap();
        let identity = self.reread()?.process(host, name)?.identity;
        if !identity.is_alive() {
            return Err(not_running(host, name, identity));
        }
        let survivors = end_sessions(&[identity], namespaces, &mut || self.reap());
        survived(host, &survivors)
    }

    /// Starts the process `name` of `host` again as it was started before, killing it first if it runs.
    ///
    /// # Errors
    /// Those of [`Self::kill`] and [`Self::spawn`], except that it need not run.
    pub fn restart(&self, host: &str, name: &str) -> Result<ProcessRecord, LabError> {
        match self.kill(host, name) {
            Ok(()) | Err(LabError::NotRunning { .. }) => {}
            Err(other) => return Err(other),
        }
        let old = self.record().process(host, name)?.clone();
        self.spawn(host, name, &old.argv, &old.env)
    }

    /// What the process `name` of `host` is doing.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NoProcess`].
    pub fn condition(&self, host: &str, name: &str) -> Result<Condition, LabError> {
        self.reap();
        Ok(self.reread()?.process(host, name)?.identity.condition())
    }

    /// Ends the lab whoever built it, and whether or not it is persistent.
    pub fn down(mut self) {
        self.end();
    }

    /// Makes the lab outlive this process.
    pub(crate) fn persist(&mut self, anchor: Option<Identity>) -> Result<(), LabError> {
        let _lock_file = self.lock_record()?;
        let mut record = self.reread()?;
        record.persistent = true;
        record.anchor = anchor;
        record.save()?;
        *lock(&self.record) = record;
        if let Some(owned) = self.owned.take()
            && let Some(janitor) = owned.janitor
        {
            janitor.dismiss();
        }
        Ok(())
    }

    /// The userspace switch that connects the hosts; `None`: the bridge does.
    ///
    /// # Errors
    /// [`LabError::SwitchElsewhere`]: another process has it.
    pub fn switch(&self) -> Result<Option<&Switch>, LabError> {
        match self.switch.get() {
            None if lock(&self.record).switched => Err(LabError::SwitchElsewhere),
            found => Ok(found),
        }
    }

    /// Connects the hosts, whose links exist.
    pub(crate) fn start_switch(&self, seed: u64) -> Result<(), LabError> {
        let record = self.record();
        let ports: Vec<(String, String)> = record
            .hosts
            .iter()
            .map(|host| (host.name.clone(), bridge_port(&host.name)))
            .collect();
        let switch = Switch::start(&record.switch(), &ports, seed)?;
        // Called once, by the builder: there is none yet.
        let _ = self.switch.set(switch);
        Ok(())
    }

    pub(crate) fn set_namespace_inodes(&self, inodes: Vec<u64>) -> Result<(), LabError> {
        let _lock_file = self.lock_record()?;
        let mut record = self.reread()?;
        record.namespace_inodes = inodes;
        record.save()?;
        *lock(&self.record) = record;
        Ok(())
    }

    /// Collects children that have ended.
    pub(crate) fn reap(&self) {
        lock(&self.children).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Other processes (`lab fault --dir`) may start processes in the same lab: the record is read again under a lock.
    fn lock_record(&self) -> Result<File, LabError> {
        let path = self.dir().join("lab.lock");
        let cannot = || LabError::io(format!("lock {}", path.display()));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(cannot())?;
        file.lock().map_err(cannot())?;
        Ok(file)
    }

    fn reread(&self) -> Result<Record, LabError> {
        let fresh = Record::read(&self.dir().join(RECORD_FILE))?;
        *lock(&self.record) = fresh.clone();
        Ok(fresh)
    }

    fn end(&mut self) {
        let record = self.reread().unwrap_or_else(|_| self.record());
        // Its sockets would keep the namespace.
        drop(self.switch.take());
        end(&record, || self.reap());
        if let Some(janitor) = self.owned.take().and_then(|owned| owned.janitor) {
            janitor.finish();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned.is_none() {
            return;
        }
        if std::thread::panicking() {
            let dir = self.dir();
            // The logs are what one wants to see after a failed test.
            eprintln!("lab: logs are kept in {}", dir.display());
            let mut record = lock(&self.record);
            record.dir_is_temporary = false;
            let _ = record.save();
        }
        self.end();
    }
}

/// The last lines of a file, for an error message.
pub(crate) fn tail(path: &Path) -> String {
    /// As many lines as one screen takes beside everything else.
    const LINES_MAX: usize = 10;
    let text = fs::read(path)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

fn not_running(host: &str, process: &str, identity: Identity) -> LabError {
    LabError::NotRunning {
        host: host.to_owned(),
        process: process.to_owned(),
        pid: identity.pid,
    }
}

/// By which number processes in the network namespace of `host` tell it.
fn namespace_inode(record: &Record, host: &str) -> Result<u64, LabError> {
    let path = Path::new("/run/netns").join(&record.host(host)?.namespace);
    let cannot = LabError::io(format!("see {}", path.display()));
    Ok(fs::metadata(&path).map_err(cannot)?.ino())
}

fn check_process_name(name: &str) -> Result<(), LabError> {
    let fits = (1..=32).contains(&name.len());
    if fits
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Ok(());
    }
    Err(LabError::BadName(name.to_owned()))
}

/// A poisoned lock still guards plain data that every writer replaces whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
