//! `atmd.toml`: what concerns this host alone. Everything the ATMs agree on is in clusterserver.conf.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where atmd looks without `--config`.
pub const DEFAULT_PATH: &str = "/etc/clusterserver/atmd.toml";

/// The checked file. docs/OPERATIONS.md lists every key with its default.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// This host as AtmPool or Servers writes it. Without it the host name and the local addresses are tried.
    pub name: Option<String>,
    /// The interface towards clients and servers.
    pub interface: String,
    /// clusterserver.conf, read at the first start only; afterwards the replicated version rules.
    #[serde(default = "default_cluster_config")]
    pub cluster_config: PathBuf,
    /// Log, snapshots and identity of this ATM.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// How packets are received and sent.
    #[serde(default)]
    pub port: PortKind,
    /// Where the other ATMs reach this one. Its port is used for all ATMs.
    #[serde(default = "default_peer_listen")]
    pub peer_listen: SocketAddr,
    /// Where operators and programs reach it.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// Real-time scheduling of the threads that a takeover hangs on.
    pub realtime: Option<RealtimePriority>,
    /// Keeps the process in memory.
    #[serde(default)]
    pub lock_memory: bool,
    /// What is logged, as tracing's EnvFilter writes it.
    #[serde(default = "default_log")]
    pub log: String,
    /// How.
    #[serde(default)]
    pub log_format: LogFormat,
}

/// The packet port.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// TPACKET ring, sendmmsg and the virtio-net header.
    #[default]
    Ring,
    /// pnet's datalink channel: the simplest.
    Pnet,
}

/// Priority of the packet engine under real-time scheduling, 1 to 50; consensus has one more. 51 and above stay free: there
/// the kernel runs its threaded interrupts (at 50), and what an operator wants to be able to stop atmd with.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "u8")]
pub struct RealtimePriority(u8);

impl RealtimePriority {
    /// As sched(7) counts.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for RealtimePriority {
    type Error = String;

    fn try_from(raw: u8) -> Result<Self, String> {
        match raw {
            1..=50 => Ok(Self(raw)),
            _ => Err(format!("realtime = {raw}: a priority of 1 to 50 is needed")),
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

fn default_cluster_config() -> PathBuf {
    "/etc/clusterserver/clusterserver.conf".into()
}

fn default_data_dir() -> PathBuf {
    "/var/lib/atmd".into()
}

fn default_peer_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7410))
}

fn default_admin_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7411))
}

fn default_log() -> String {
    "info,openraft=error,fjall=warn,lsm_tree=warn".into()
}

/// An atmd.toml that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file itself.
    #[error("{} cannot be read (--config names another file)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its content; the message shows the place.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: toml::de::Error,
    },
    /// A value that cannot work.
    #[error("{}: {what}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
}

impl Settings {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let settings: Self = toml::from_str(&text).map_err(|source| SettingsError::Parse {
            path: path.to_owned(),
            source,
        })?;
        settings.check().map_err(|what| SettingsError::Value {
            path: path.to_owned(),
            what,
        })?;
        Ok(settings)
    }

    /// Every default, and an Admin service that other hosts reach.
    #[cfg(atm_sim)]
    pub(crate) fn simulated() -> Self {
        Self {
            name: None,
            interface: String::new(),
            cluster_config: default_cluster_config(),
            data_dir: default_data_dir(),
            port: PortKind::default(),
            peer_listen: default_peer_listen(),
            admin_listen: SocketAddr::from(([0, 0, 0, 0], 7411)),
            realtime: None,
            lock_memory: false,
            log: default_log(),
            log_format: LogFormat::default(),
        }
    }

    fn check(&self) -> Result<(), String> {
        // IFNAMSIZ is 16 with the terminating zero (linux/if.h).
        if self.interface.is_empty() || self.interface.len() > 15 {
            return Err(format!(
                "interface = \"{}\": a name of 1 to 15 characters is needed",
                self.interface
            ));
        }
        if self.peer_listen.port() == 0 || self.admin_listen.port() == 0 {
            return Err(
                "peer_listen and admin_listen need a port other than 0: the others must know it"
                    .into(),
            );
        }
        if self.peer_listen == self.admin_listen {
            return Err(format!(
                "peer_listen and admin_listen are both {}; give them different ports",
                self.peer_listen
            ));
        }
        tracing_subscriber::EnvFilter::try_new(&self.log)
            .map_err(|error| format!("log = \"{}\": {error}", self.log))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("atmd.toml");
        std::fs::write(&path, text).unwrap();
        Settings::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn one_line_is_enough() {
        let settings = load("interface = \"eth0\"").unwrap();
        assert_eq!(settings.port, PortKind::Ring);
        assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:7411");
        assert_eq!((settings.realtime, settings.lock_memory), (None, false));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("", "interface"),
            ("interface = \"eth0\"\ncolour = 1", "colour"),
            ("interface = \"eth0\"\nport = \"dpdk\"", "dpdk"),
            ("interface = \"eth0\"\npeer_listen = \"here\"", "line 2"),
            ("interface = \"averyveryverylongname\"", "15"),
            (
                "interface = \"eth0\"\npeer_listen = \"127.0.0.1:7411\"",
                "different",
            ),
            ("interface = \"eth0\"\nrealtime = 0", "1 to 50"),
            ("interface = \"eth0\"\nrealtime = 51", "1 to 50"),
            ("interface = \"eth0\"\nlock_memory = 1", "line 2"),
            ("interface = \"eth0\"\nlog = \"a=b=c\"", "log"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text:?}: {error}");
        }
        assert!(
            Settings::load(Path::new("/nonexistent"))
                .unwrap_err()
                .to_string()
                .contains("--config")
        );
    }
}
