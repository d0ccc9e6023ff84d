//! A lab with a running cluster in it, and asking it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::ClusterError;
use super::status::Status;
use super::wait::wait_until;
use crate::equipment::Equipment;
use crate::lab::{
    ATMD, Builder, LINES_PORT, Lab, LabError, default_configuration, has_ipv6, program,
    read_configuration,
};
use crate::lines::{Server, ServerArgs, realtime_ns};

/// How long a fresh group may take to have an active ATM on a loaded machine.
const START_MAX: Duration = Duration::from_secs(30);

/// How long one `atmctl` may take: its own limit for one ATM, and a loaded machine.
const ATMCTL_MAX: Duration = Duration::from_secs(20);

/// A running cluster: ATMs, servers with `lines` behind the VIP, and a client.
pub struct Cluster {
    /// Before the lab: they end while their hosts still exist.
    _servers: Vec<Server>,
    lab: Lab,
    atmctl: PathBuf,
    /// Last, so that the next cluster starts when this one is gone.
    _turn: MutexGuard<'static, ()>,
}

/// One cluster at a time in one process: two of them with heartbeats of 50 ms on two processors depose one another's ATMs.
static TURN: Mutex<()> = Mutex::new(());

/// Text of a configuration with `atms` ATMs and `servers` servers that takes over in a fraction of a second:
/// HeartBeatDelay 50 ms, MaxLostHeartbeats 3.
///
/// # Errors
/// Those of [`default_configuration`].
pub fn fast_configuration(atms: usize, servers: usize) -> Result<String, LabError> {
    let text = default_configuration(atms, servers)?;
    let mut config = read_configuration("generated", &text)?;
    config.atm_pool.heartbeat_delay = Duration::from_millis(50);
    config.atm_pool.max_lost_heartbeats = 3;
    Ok(model::conf::print(&config))
}

impl Cluster {
    /// Three ATMs, three servers and a client with [`fast_configuration`], once one ATM is active and the others have caught up.
    ///
    /// # Errors
    /// The lab cannot be built, or nobody becomes active in time.
    pub fn start() -> Result<Self, ClusterError> {
        let text = fast_configuration(3, 3)?;
        Self::start_with(Lab::builder().conf(text))
    }

    /// As [`Self::start`], of another lab; it gets a client and daemons in any case.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(builder: Builder) -> Result<Self, ClusterError> {
        Self::start_running(builder, &program(ATMD)?, &[])
    }

    /// As [`Self::start_with`], with another program as atmd, and variables in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_running(
        builder: Builder,
        daemon: &Path,
        env: &[(String, String)],
    ) -> Result<Self, ClusterError> {
        Self::start_equipped(builder, daemon, env, &Equipment::default())
    }

    /// As [`Self::start_running`], with what faults of the ATMs' resources need.
    ///
    /// # Errors
    /// As [`Self::start`], and [`ClusterError::Equipment`].
    pub fn start_equipped(
        builder: Builder,
        daemon: &Path,
        env: &[(String, String)],
        equipment: &Equipment,
    ) -> Result<Self, ClusterError> {
        let cluster = Self::begin(builder, daemon, env, equipment)?;
        let hosts = cluster.atms();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        cluster.wait_for(
            "an active ATM and backups that caught up",
            &hosts,
            START_MAX,
            |status| status.active.is_some() && status.all_caught_up(),
        )?;
        Ok(cluster)
    }

    fn begin(
        builder: Builder,
        daemon: &Path,
        env: &[(String, String)],
        equipment: &Equipment,
    ) -> Result<Self, ClusterError> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked for before anything is made.
        let atmctl = program("atmctl")?;
        let lab = builder.client().without_daemons().start()?;
        let mut servers = Vec::new();
        for host in lab.hosts().iter().filter(|host| host.is_server()) {
            let args = ServerArgs {
                listen: on_every_address(LINES_PORT),
                name: host.name().to_owned(),
            };
            let server = host.in_netns(|| Server::start(args))?;
            servers.push(server.map_err(|error| ClusterError::Workload {
                what: format!("serve lines on {}", host.name()),
                source: std::io::Error::other(error),
            })?);
        }
        for host in lab
            .hosts()
            .iter()
            .filter(|host| host.is_atm() || host.is_server())
        {
            let (daemon, config) = (daemon.to_string_lossy(), host.dir().join("atmd.toml"));
            let mut argv = if host.is_atm() {
                equipment.install(&lab, host.name())?
            } else {
                Vec::new()
            };
            let command = [daemon.as_ref(), "--config", &config.to_string_lossy()];
            argv.extend(command.map(str::to_owned));
            host.spawn(ATMD, argv, env)?;
        }
        Ok(Self {
            lab,
            atmctl,
            _servers: servers,
            _turn: turn,
        })
    }

    /// The lab it runs in.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Its first virtual address, of either IP version.
    #[must_use]
    pub fn target(&self) -> IpAddr {
        let addresses = self.lab.virtual_addresses();
        addresses.first().copied().unwrap_or(self.vip().into())
    }

    /// Opens a connection from the client to `port` of `to`.
    ///
    /// # Errors
    /// It cannot be opened within `limit`.
    pub fn connect(
        &self,
        to: IpAddr,
        port: u16,
        limit: Duration,
    ) -> Result<TcpStream, ClusterError> {
        let to = SocketAddr::from((to, port));
        let open = || TcpStream::connect_timeout(&to, limit);
        let opened = self.lab.in_netns("client", open)?;
        opened.map_err(|source| ClusterError::Workload {
            what: format!("connect to {to}"),
            source,
        })
    }

    /// Its first IPv4 VIP.
    #[must_use]
    pub fn vip(&self) -> Ipv4Addr {
        self.lab
            .vips()
            .first()
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Host names of the ATMs.
    #[must_use]
    pub fn atms(&self) -> Vec<String> {
        let hosts = self.lab.hosts();
        hosts
            .iter()
            .filter(|host| host.is_atm())
            .map(|host| host.name().to_owned())
            .collect()
    }

    /// The ATMs' hosts other than `host`.
    #[must_use]
    pub fn others(&self, host: &str) -> Vec<String> {
        self.atms()
            .into_iter()
            .filter(|other| other != host)
            .collect()
    }

    /// The host of the ATM that the configuration writes as `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn host_of(&self, name: &str) -> Result<String, ClusterError> {
        let record = self.lab.record();
        let found = record
            .hosts
            .iter()
            .find(|host| host.written.as_deref() == Some(name));
        let known = || {
            record
                .hosts
                .iter()
                .filter_map(|host| host.written.clone())
                .collect::<Vec<_>>()
        };
        found.map(|host| host.name.clone()).ok_or_else(|| {
            LabError::NoHost {
                name: name.to_owned(),
                known: known().join(", "),
            }
            .into()
        })
    }

    /// How the configuration writes the ATM on `host`.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub fn name_of(&self, host: &str) -> Result<String, ClusterError> {
        Ok(self
            .lab
            .record()
            .host(host)?
            .written
            .clone()
            .unwrap_or_default())
    }

    /// Runs `atmctl` on `host` with JSON as output.
    ///
    /// # Errors
    /// It cannot be run. An exit code other than 0 is an answer.
    pub fn atmctl(&self, host: &str, args: &[&str]) -> Result<Answer, ClusterError> {
        let program = self.atmctl.to_string_lossy();
        let argv = [&[program.as_ref(), "--output", "json"], args].concat();
        let output = self.lab.host(host)?.exec_within(ATMCTL_MAX, argv)?;
        Ok(Answer {
            host: host.to_owned(),
            args: args.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `atmctl status` on `host`.
    ///
    /// # Errors
    /// It does not answer, or not as it should.
    pub fn status(&self, host: &str) -> Result<Status, ClusterError> {
        self.atmctl(host, &["--timeout", "2", "status"])?.json()
    }

    /// Asks `hosts` in turn until an answer of one of them holds.
    ///
    /// # Errors
    /// [`ClusterError::Late`] with the last answers.
    pub fn wait_for(
        &self,
        what: &str,
        hosts: &[&str],
        limit: Duration,
        holds: impl Fn(&Status) -> bool,
    ) -> Result<Status, ClusterError> {
        let mut turn = 0;
        let mut seen = BTreeMap::new();
        wait_until(what, limit, || {
            let host = hosts[turn % hosts.len().max(1)];
            turn += 1;
            let status = self.status(host);
            match status {
                Ok(status) if holds(&status) => return Ok(status),
                Ok(status) => seen.insert(host, format!("{status:?}")),
                Err(error) => seen.insert(host, error.to_string()),
            };
            Err(format!("{seen:#?}"))
        })
    }

    /// The host of the active ATM, and the whole status.
    ///
    /// # Errors
    /// Nobody is active within the time of a start.
    pub fn active(&self) -> Result<(String, Status), ClusterError> {
        let hosts = self.atms();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let status = self.wait_for("an active ATM", &hosts, START_MAX, |s| s.active.is_some())?;
        let host = self.host_of(status.active.as_deref().unwrap_or_default())?;
        Ok((host, status))
    }

    /// The server of every connection that the ATM on `host` knows of, by the client's address and port.
    ///
    /// # Errors
    /// `atmctl` fails.
    pub fn connections(&self, host: &str) -> Result<BTreeMap<String, String>, ClusterError> {
        #[derive(Deserialize)]
        struct List {
            connections: Vec<Connection>,
        }
        #[derive(Deserialize)]
        struct Connection {
            client: String,
            server: String,
        }
        let list: List = self.atmctl(host, &["connections"])?.json()?;
        Ok(list
            .connections
            .into_iter()
            .map(|c| (c.client, c.server))
            .collect())
    }

    /// The log of the atmd on `host`, of all its runs.
    ///
    /// # Errors
    /// [`LabError::NoHost`].
    pub fn log(&self, host: &str) -> Result<String, ClusterError> {
        let path = self.lab.host(host)?.log(ATMD);
        Ok(std::fs::read(path)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default())
    }
}

/// Where to listen so that clients of both IP versions come in.
#[must_use]
pub fn on_every_address(port: u16) -> SocketAddr {
    if has_ipv6() {
        SocketAddr::from(([0_u16; 8], port))
    } else {
        SocketAddr::from(([0, 0, 0, 0], port))
    }
}

/// What an `atmctl` answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    host: String,
    args: String,
    /// Its exit code.
    pub code: Option<i32>,
    /// Its results.
    pub stdout: String,
    /// The rest.
    pub stderr: String,
}

impl Answer {
    /// Its result, if it succeeded.
    ///
    /// # Errors
    /// [`ClusterError::Atmctl`]: another exit code than 0, or not what was expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClusterError> {
        if self.code != Some(0) {
            return Err(self.wrong(self.stderr.clone()));
        }
        self.json_of_any()
    }

    /// Its result, whatever its exit code.
    ///
    /// # Errors
    /// [`ClusterError::Atmctl`]: not what was expected.
    pub fn json_of_any<T: DeserializeOwned>(&self) -> Result<T, ClusterError> {
        serde_json::from_str(&self.stdout)
            .map_err(|error| self.wrong(format!("{error}: {}{}", self.stdout, self.stderr)))
    }

    pub(super) fn wrong(&self, why: String) -> ClusterError {
        ClusterError::Atmctl {
            host: self.host.clone(),
            args: self.args.clone(),
            code: self.code,
            stderr: why,
        }
    }
}

/// What an instant of the boot-time clock is in nanoseconds since 1970. All hosts of a lab share both clocks.
#[must_use]
pub fn unix_of_boottime(boot_ns: u64) -> u64 {
    // The pair read in the shortest time is the most exact one.
    let pairs = (0..5).map(|_| {
        let begun = Instant::now();
        let (boot, unix) = (boottime_ns(), realtime_ns());
        (begun.elapsed(), unix.wrapping_sub(boot))
    });
    let offset = pairs.min().map_or(0, |(_, offset)| offset);
    boot_ns.wrapping_add(offset)
}

fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}
