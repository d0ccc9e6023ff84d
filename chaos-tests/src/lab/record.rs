//! What is known about a lab outside the process that built it: `lab.json` in its directory, and a copy in the registry.
//!
//! The registry (`/run/atm-lab/PREFIX.json`) is written before anything is made, so whatever happens to the owner the
//! next start finds what to clean up.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::place::Place;
use super::process::Identity;

/// Where the records of all labs of this mount namespace are.
pub const REGISTRY: &str = "/run/atm-lab";

/// Name of the record in the lab's directory.
pub const RECORD_FILE: &str = "lab.json";

/// Largest record that is read, in bytes: a lab of all hosts with every process recorded stays far below.
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// Which of its ports `atmd` uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// TPACKET_V3 and `sendmmsg`.
    #[default]
    Ring,
    /// pnet's datalink channel.
    Pnet,
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Pnet => "pnet",
        })
    }
}

/// One lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Begins the name of each of its namespaces.
    pub prefix: String,
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// Whether the directory goes with the lab.
    pub dir_is_temporary: bool,
    /// The process that built it.
    pub owner: Identity,
    /// Whether it outlives its owner.
    pub persistent: bool,
    /// The boot it belongs to: pids and namespaces of another boot mean nothing.
    pub boot: String,
    /// A process that holds the user namespace of a lab without root.
    pub anchor: Option<Identity>,
    /// Port of the ATMs.
    pub port: PortKind,
    /// Whether the userspace switch of its owner connects the hosts, instead of a bridge.
    #[serde(default)]
    pub switched: bool,
    /// Whether the client has the observer's interface.
    #[serde(default)]
    pub observed: bool,
    /// IPv4 addresses of the virtual hosts.
    pub vips: Vec<Ipv4Addr>,
    /// All addresses of the virtual hosts, in file order.
    #[serde(default)]
    pub virtual_addresses: Vec<IpAddr>,
    /// The hosts.
    pub hosts: Vec<HostRecord>,
    /// Inode of each of its network namespaces, the switch's included.
    pub namespace_inodes: Vec<u64>,
    /// Every process started, latest start under each name.
    pub processes: Vec<ProcessRecord>,
}

/// One host of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// `atm1`, `serv1`, `client`.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// MAC of `eth0`.
    pub mac: [u8; 6],
    /// Listed in the ATM pool.
    pub atm: bool,
    /// Listed under Servers.
    pub server: bool,
    /// The host as the configuration writes it.
    pub written: Option<String>,
    /// Its segment, further addresses and routes.
    #[serde(default)]
    pub place: Place,
}

/// One process of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The host it runs in.
    pub host: String,
    /// Its name there; its log is `<dir>/<host>/<name>.log`.
    pub name: String,
    /// Pid and start time. It leads a session of its own.
    pub identity: Identity,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables set for it.
    pub env: Vec<(String, String)>,
}

impl Record {
    /// Name of the namespace that holds the bridge.
    #[must_use]
    pub fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    /// All namespaces of the lab.
    pub fn namespaces(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.switch()).chain(self.hosts.iter().map(|h| h.namespace.clone()))
    }

    /// The host called `name`.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub fn host(&self, name: &str) -> Result<&HostRecord, LabError> {
        self.hosts
            .iter()
            .find(|h| h.name == name)
            .ok_or_else(|| LabError::NoHost {
                name: name.to_owned(),
                known: self
                    .hosts
                    .iter()
                    .map(|h| h.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The process called `name` on `host`.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NoProcess`].
    pub fn process(&self, host: &str, name: &str) -> Result<&ProcessRecord, LabError> {
        self.host(host)?;
        self.processes
            .iter()
            .find(|p| p.host == host && p.name == name)
            .ok_or_else(|| LabError::NoProcess {
                host: host.to_owned(),
                process: name.to_owned(),
            })
    }

    /// Directory of a host's files.
    #[must_use]
    pub fn host_dir(&self, host: &str) -> PathBuf {
        self.dir.join(host)
    }

    /// Log of the process `name` of `host`.
    #[must_use]
    pub fn log(&self, host: &str, name: &str) -> PathBuf {
        self.host_dir(host).join(format!("{name}.log"))
    }

    /// Whether nobody will ever end this lab: its owner is dead and it was not meant to outlive it, or it is of another boot.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.boot != boot_id() || (!self.persistent && !self.owner.is_alive())
    }

    /// Whether its namespaces still exist, as seen from this mount namespace.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.boot == boot_id() && Path::new("/run/netns").join(self.switch()).exists()
    }

    /// What of the lab is still there, by name, as seen from this mount namespace: namespaces, its entry in the registry, and its
    /// directory if that was to go with it.
    #[must_use]
    pub fn remains(&self) -> Vec<String> {
        let namespaces = self.namespaces();
        let namespaces = namespaces.map(|name| Path::new("/run/netns").join(name));
        let dir = self.dir_is_temporary.then(|| self.dir.clone());
        let paths = namespaces.chain([registry_path(&self.prefix)]).chain(dir);
        paths
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect()
    }

    /// Writes both copies, each at once or not at all.
    pub(crate) fn save(&self) -> Result<(), LabError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| LabError::Record {
            path: self.dir.join(RECORD_FILE),
            reason: e.to_string(),
        })?;
        for path in [registry_path(&self.prefix), self.dir.join(RECORD_FILE)] {
            replace(&path, &text).map_err(LabError::io(format!("write {}", path.display())))?;
        }
        Ok(())
    }

    /// Reads the record in `path`.
    ///
    /// # Errors
    /// [`LabError::NoLab`] if there is none, [`LabError::Record`] if it is not one.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let bad = |reason: String| LabError::Record {
            path: path.to_owned(),
            reason,
        };
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(path).to_owned();
                return Err(LabError::NoLab { dir });
            }
            Err(e) => return Err(bad(e.to_string())),
        };
        if length > RECORD_BYTES_MAX {
            return Err(bad(format!(
                "{length} bytes are more than {RECORD_BYTES_MAX}"
            )));
        }
        let text = fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let record: Self = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        // The prefix becomes part of commands and paths.
        if record.prefix.is_empty() || !record.prefix.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(bad(format!("{:?} is no prefix", record.prefix)));
        }
        Ok(record)
    }

    /// Removes both copies.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(registry_path(&self.prefix));
        // Another lab may have taken the directory since.
        let own = self.dir.join(RECORD_FILE);
        if Self::read(&own).is_ok_and(|r| r.prefix == self.prefix) {
            let _ = fs::remove_file(own);
        }
    }
}

/// All labs in the registry; files that are no records are left alone.
#[must_use]
pub fn registered() -> Vec<Record> {
    let Ok(entries) = fs::read_dir(REGISTRY) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "json"))
        .filter_map(|p| Record::read(&p).ok())
        .collect()
}

/// Reserves a prefix no other lab of this machine has.
pub(crate) fn reserve_prefix() -> Result<String, LabError> {
    /// 36^5 prefixes: a few tries suffice unless the registry is broken.
    const TRIES_MAX: usize = 16;
    fs::create_dir_all(REGISTRY).map_err(LabError::io(format!("create {REGISTRY}")))?;
    for _ in 0..TRIES_MAX {
        let prefix = random_prefix().map_err(LabError::io("read /dev/urandom"))?;
        match fs::File::create_new(registry_path(&prefix)) {
            Ok(_) => return Ok(prefix),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(LabError::io(format!("write to {REGISTRY}"))(e)),
        }
    }
    Err(LabError::io("find a free prefix")(
        io::ErrorKind::AlreadyExists.into(),
    ))
}

/// The current boot, so that a record from before a restart is known as such.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

fn registry_path(prefix: &str) -> PathBuf {
    Path::new(REGISTRY).join(format!("{prefix}.json"))
}

/// `l` and five base-36 digits: with `-` and a host's name it stays readable in `ip netns`.
fn random_prefix() -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 5];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digits = bytes
        .iter()
        .map(|b| char::from_digit(u32::from(b % 36), 36).unwrap_or('0'));
    Ok(std::iter::once('l').chain(digits).collect())
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, path)
}
