//! Building a lab from a configuration.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::configuration::read_configuration;
use super::default_conf::default_configuration;
use super::error::LabError;
use super::handle::{Lab, Owned, tail};
use super::netns;
use super::network;
use super::place::has_ipv6;
use super::plan::{Plan, Router, Surroundings, atmd_toml};
use super::privileges::{Privileges, Unavailable, available, tool};
use super::process::{Condition, Identity};
use super::record::{HostRecord, PortKind, RECORD_FILE, Record, boot_id, reserve_prefix};
use super::spawn::{ATMD, HOSTS_FILE, Janitor, Spawner, program};
use super::teardown::{end, end_stale_labs};

/// How long a daemon has to fail over its own files before it counts as running.
const SETTLE: Duration = Duration::from_millis(300);

/// Settings of every host's kernel. A new namespace may inherit the machine's, and a host of a lab is no router unless it is
/// built as one.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_forward", "0"),
    ("/proc/sys/net/ipv4/conf/all/rp_filter", "0"),
    ("/proc/sys/net/ipv4/conf/default/rp_filter", "0"),
];

/// What a lab shall be.
#[derive(Clone, Debug)]
pub struct Builder {
    atms: usize,
    servers: usize,
    around: Surroundings,
    rogue: bool,
    further: Vec<String>,
    names: Vec<(String, String)>,
    switch: Option<u64>,
    conf: Option<(String, String)>,
    port: PortKind,
    settings: String,
    dir: Option<PathBuf>,
    daemons: bool,
    persistent: bool,
    unobserved: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            atms: 3,
            servers: 3,
            around: Surroundings::default(),
            rogue: false,
            further: Vec::new(),
            names: Vec::new(),
            switch: None,
            conf: None,
            port: PortKind::default(),
            settings: String::new(),
            dir: None,
            daemons: true,
            persistent: false,
            unobserved: false,
        }
    }
}

impl Builder {
    /// Number of ATMs, 1..=7; default 3. Without meaning when a configuration is given.
    #[must_use]
    pub fn atms(mut self, atms: usize) -> Self {
        self.atms = atms;
        self
    }

    /// Number of servers, 1..=64; default 3. Without meaning when a configuration is given.
    #[must_use]
    pub fn servers(mut self, servers: usize) -> Self {
        self.servers = servers;
        self
    }

    /// Adds the host `client`, with the observer's interface.
    #[must_use]
    pub fn client(mut self) -> Self {
        self.around.client = true;
        self
    }

    /// Puts the client behind the host `router`, in a network of its own. The router passes no packet on that is larger than
    /// `path_mtu` bytes, in neither direction, and says so; `None`: its links carry what all others do.
    #[must_use]
    pub fn client_behind_router(mut self, path_mtu: Option<u16>) -> Self {
        self.around.client_router = Some(Router { path_mtu });
        self
    }

    /// Puts the servers that the configuration has in another network than the ATMs' behind the host `srouter`; `path_mtu` as of
    /// [`Self::client_behind_router`].
    #[must_use]
    pub fn servers_behind_router(mut self, path_mtu: Option<u16>) -> Self {
        self.around.server_router = Some(Router { path_mtu });
        self
    }

    /// Adds the host `rogue`, which has no part in the cluster.
    #[must_use]
    pub fn rogue(mut self) -> Self {
        self.rogue = true;
        self
    }

    /// Adds a host of this name, beside ATMs and servers, that has no part in the cluster.
    #[must_use]
    pub fn further_host(mut self, name: impl Into<String>) -> Self {
        self.further.push(name.into());
        self
    }

    /// Gives the host `host` one more name, which every host of the lab resolves.
    #[must_use]
    pub fn name(mut self, host: impl Into<String>, name: impl Into<String>) -> Self {
        self.names.push((host.into(), name.into()));
        self
    }

    /// Connects the hosts by the userspace switch instead of the kernel's bridge: only it can delay frames. What it leaves
    /// to chance follows from `seed`. It runs in this process, so such a lab cannot be persistent.
    #[must_use]
    pub fn switch(mut self, seed: u64) -> Self {
        self.switch = Some(seed);
        self
    }

    /// Uses this `clusterserver.conf` instead of the generated one.
    #[must_use]
    pub fn conf(self, text: impl Into<String>) -> Self {
        self.conf_named("clusterserver.conf", text)
    }

    /// Like [`Self::conf`]; `file` is its name in messages.
    #[must_use]
    pub fn conf_named(mut self, file: impl Into<String>, text: impl Into<String>) -> Self {
        self.conf = Some((file.into(), text.into()));
        self
    }

    /// The port the ATMs use; default [`PortKind::Ring`].
    #[must_use]
    pub fn port(mut self, port: PortKind) -> Self {
        self.port = port;
        self
    }

    /// Adds these lines to every host's `atmd.toml`.
    #[must_use]
    pub fn settings(mut self, lines: impl Into<String>) -> Self {
        self.settings = lines.into();
        self
    }

    /// Keeps files and logs in `dir`, which stays; default a temporary directory that goes with the lab.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives the client no interface for the observer; that one needs a netdev hook of nftables, which not every kernel has.
    #[must_use]
    pub fn without_observer(mut self) -> Self {
        self.unobserved = true;
        self
    }

    /// Starts no atmd.
    #[must_use]
    pub fn without_daemons(mut self) -> Self {
        self.daemons = false;
        self
    }

    /// The lab outlives this process, until somebody calls [`Lab::down`].
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Ends stale labs, then builds this one and starts its daemons. A lab that cannot be built leaves only its logs.
    ///
    /// # Errors
    /// [`LabError`]; nothing of the lab is left running.
    pub fn start(self) -> Result<Lab, LabError> {
        if available()? == Privileges::NeedsUserNamespace {
            return Err(Unavailable::not_entered().into());
        }
        end_stale_labs();
        let (file, text) = match &self.conf {
            Some((file, text)) => (file.clone(), text.clone()),
            None => (
                "clusterserver.conf".to_owned(),
                default_configuration(self.atms, self.servers)?,
            ),
        };
        let mut plan = Plan::within(&read_configuration(&file, &text)?, &self.around)?;
        if self.rogue {
            plan.add_rogue()?;
        }
        for name in &self.further {
            plan.add_further(name)?;
        }
        for (host, name) in &self.names {
            plan.add_name(host, name)?;
        }
        if self.switch.is_some() && self.persistent {
            return Err(LabError::SwitchElsewhere);
        }
        if self.switch.is_some() && plan.hosts.iter().any(|host| host.place.is_router()) {
            return Err(LabError::NeedsBridge);
        }
        // Looked for before anything is made.
        let daemon = if self.daemons {
            Some(program(ATMD)?)
        } else {
            None
        };

        let mut lab = self.reserve(&plan)?;
        self.furnish(&lab, &plan, &text)?;
        if let Some(daemon) = daemon {
            start_daemons(&lab, &daemon)?;
        }
        if self.persistent {
            lab.persist(anchor()?)?;
        }
        Ok(lab)
    }

    /// Writes the record before anything it speaks of exists.
    fn reserve(&self, plan: &Plan) -> Result<Lab, LabError> {
        let given = self.dir.as_deref().map(own_directory).transpose()?;
        let prefix = reserve_prefix()?;
        let dir_is_temporary = given.is_none();
        let dir = given.unwrap_or_else(|| std::env::temp_dir().join(format!("atm-lab-{prefix}")));
        fs::create_dir_all(&dir).map_err(LabError::io(format!("create {}", dir.display())))?;
        let hosts = plan.hosts.iter().map(|host| {
            let [a, b, c, d] = host.address.octets();
            HostRecord {
                name: host.name.clone(),
                namespace: format!("{prefix}-{}", host.name),
                address: host.address,
                // Locally administered, and readable: the address is in it.
                mac: [2, 0, a, b, c, d],
                atm: host.atm,
                server: host.server,
                written: host.written.clone(),
                place: host.place.clone(),
            }
        });
        let record = Record {
            hosts: hosts.collect(),
            prefix,
            dir,
            dir_is_temporary,
            owner: Identity::own(),
            persistent: false,
            boot: boot_id(),
            anchor: None,
            port: self.port,
            switched: self.switch.is_some(),
            observed: !self.unobserved,
            vips: plan.vips.clone(),
            virtual_addresses: plan.virtual_addresses.clone(),
            namespace_inodes: Vec::new(),
            processes: Vec::new(),
        };
        record.save()?;
        let spawner = Spawner::start().map_err(LabError::io("start a thread"))?;
        let janitor = Janitor::start(&record).map_err(LabError::io("start the janitor"))?;
        Ok(Lab::new(
            record,
            Owned {
                binding: !self.persistent,
                spawner,
                janitor: Some(janitor),
            },
        ))
    }

    /// Makes namespaces, links and the hosts' files.
    fn furnish(&self, lab: &Lab, plan: &Plan, conf: &str) -> Result<(), LabError> {
        let record = lab.record();
        network::build(&record)?;
        if let Some(seed) = self.switch {
            lab.start_switch(seed)?;
        }
        let mut inodes = Vec::new();
        for namespace in record.namespaces() {
            let path = Path::new("/run/netns").join(&namespace);
            inodes.push(
                fs::metadata(&path)
                    .map_err(LabError::io(format!("see {}", path.display())))?
                    .ino(),
            );
        }
        lab.set_namespace_inodes(inodes)?;

        write(&record.dir.join(HOSTS_FILE), &plan.hosts_file())?;
        for host in &record.hosts {
            netns::in_namespace(&host.namespace, || {
                let set = |path: &str, value: &str| {
                    fs::write(path, value).map_err(LabError::io(format!("write {value} to {path}")))
                };
                for (path, value) in SYSCTLS {
                    set(path, value)?;
                }
                if host.place.is_router() {
                    set("/proc/sys/net/ipv4/ip_forward", "1")?;
                    if has_ipv6() {
                        set("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
                    }
                }
                Ok::<(), LabError>(())
            })??;
            let dir = record.host_dir(&host.name);
            // What an earlier lab in this directory left must not be taken for this one's.
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).map_err(LabError::io(format!("create {}", dir.display())))?;
            if let Some(written) = &host.written {
                write(&dir.join("clusterserver.conf"), conf)?;
                let toml = atmd_toml(written, host.address, &dir.to_string_lossy(), self.port);
                write(&dir.join("atmd.toml"), &(toml + &self.settings))?;
            }
        }
        Ok(())
    }
}

/// Starts atmd on every ATM and server, and makes sure that none ends at once.
fn start_daemons(lab: &Lab, daemon: &Path) -> Result<(), LabError> {
    let daemon = daemon.to_string_lossy().into_owned();
    let hosts: Vec<_> = lab
        .hosts()
        .into_iter()
        .filter(|h| h.is_atm() || h.is_server())
        .collect();
    for host in &hosts {
        let config = host.dir().join("atmd.toml").to_string_lossy().into_owned();
        host.spawn(ATMD, [daemon.as_str(), "--config", &config], &[])?;
    }
    thread::sleep(SETTLE);
    for host in &hosts {
        if lab.condition(host.name(), ATMD)? == Condition::Dead {
            let log = host.log(ATMD);
            return Err(LabError::EndedAtOnce {
                host: host.name().to_owned(),
                process: ATMD.to_owned(),
                tail: tail(&log),
                log,
            });
        }
    }
    Ok(())
}

/// `dir`, absolute; refused if a living lab is in it, swept if a dead one is.
fn own_directory(dir: &Path) -> Result<PathBuf, LabError> {
    let dir = std::path::absolute(dir).map_err(LabError::io(format!("use {}", dir.display())))?;
    match Record::read(&dir.join(RECORD_FILE)) {
        Err(LabError::NoLab { .. }) => {}
        Err(other) => return Err(other),
        Ok(record) if record.is_up() || record.anchor.is_some_and(Identity::is_alive) => {
            return Err(LabError::AlreadyUp {
                dir,
                prefix: record.prefix,
            });
        }
        Ok(record) => end(
            &Record {
                dir_is_temporary: false,
                ..record
            },
            || {},
        ),
    }
    Ok(dir)
}

/// In a user namespace something has to keep it alive between two calls of `lab`.
fn anchor() -> Result<Option<Identity>, LabError> {
    if available()? != Privileges::UserNamespace {
        return Ok(None);
    }
    let mut command: Command = tool("setsid");
    command
        .args(["sleep", "infinity"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().map_err(LabError::io(
        "start the process that keeps the user namespace",
    ))?;
    Ok(Identity::of(child.id()))
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(LabError::io(format!("write {}", path.display())))
}
