//! One contender, running in a lab: this product's cluster, or a pair of other routers.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contender::{Contender, Kind};
use super::error::PeersError;
use super::pair::Pair;
use super::strike::Strike;
use crate::cluster::{Cluster, FAST_LOST, FAST_SETTINGS, SETTLE_MAX, unix_of_boottime};
use crate::lab::{
    ATMD, Condition, Fault, Lab, LabError, Privileges, Signal, available, default_configuration,
    read_configuration, tool,
};
use crate::observer::Mac;

/// ATMs and servers of this product's labs.
const ATMS: usize = 3;
pub(super) const SERVERS: usize = 3;

/// The steps of a takeover, in ms since the fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Takeover {
    /// Elected: the silence was noticed, and a majority voted.
    pub elected_ms: f64,
    /// The new tenure stands in a majority's logs.
    pub begun_ms: f64,
    /// The packet path has everything up to it.
    pub table_ms: f64,
    /// Every older lease has run out, and its own one began.
    pub claimed_ms: f64,
    /// The first gratuitous ARP.
    pub announced_ms: f64,
}

pub(super) struct Rig {
    system: System,
}

enum System {
    Ours(Box<Cluster>),
    Pair(Box<Pair>),
}

impl Rig {
    /// Builds the lab and starts the contender in it, until one router speaks and the others stand by.
    pub(super) fn start(contender: Contender) -> Result<Self, PeersError> {
        let system = match contender.kind() {
            Kind::Ours => {
                let mut builder = Lab::builder().conf(configuration(contender)?);
                if contender == Contender::OursFast {
                    builder = builder.settings(FAST_SETTINGS);
                }
                System::Ours(Box::new(Cluster::start_with(builder)?))
            }
            Kind::Keepalived | Kind::Conntrackd | Kind::Ucarp => {
                System::Pair(Box::new(Pair::start(contender)?))
            }
        };
        Ok(Self { system })
    }

    pub(super) fn lab(&self) -> &Lab {
        match &self.system {
            System::Ours(cluster) => cluster.lab(),
            System::Pair(pair) => pair.lab(),
        }
    }

    pub(super) fn vip(&self) -> Ipv4Addr {
        self.lab()
            .vips()
            .first()
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The host that has this MAC.
    pub(super) fn host_of(&self, mac: Mac) -> Option<String> {
        let hosts = self.lab().record().hosts;
        hosts.into_iter().find(|h| h.mac == mac).map(|h| h.name)
    }

    /// Applies the fault to the router on `victim`.
    pub(super) fn strike(&self, strike: Strike, victim: &str) -> Result<(), PeersError> {
        let lab = self.lab();
        // Found before the cut: a crash is one instant.
        let processes = lab.processes_of(victim)?;
        let all = |signal| processes.iter().filter(|p| p.signal(signal)).count();
        match strike {
            Strike::Crash | Strike::Kill => {
                if strike == Strike::Crash {
                    lab.fault(Fault::Cut, victim)?;
                }
                // Stopped first, so that none of them notices the death of another one and acts on it.
                all(Signal::STOP);
                all(Signal::KILL);
            }
            Strike::Stop => {
                all(Signal::STOP);
            }
            Strike::LinkDown => lab.fault(Fault::LinkDown, victim)?,
            Strike::Partition => lab.fault(Fault::CutPeers, victim)?,
        }
        Ok(())
    }

    /// Ends a fault that [`Strike::is_relieved`].
    pub(super) fn relieve(&self, strike: Strike, victim: &str) -> Result<(), PeersError> {
        match strike {
            Strike::Stop => {
                for process in self.lab().processes_of(victim)? {
                    process.signal(Signal::CONT);
                }
            }
            Strike::Partition => self.lab().fault(Fault::Heal, victim)?,
            Strike::Crash | Strike::LinkDown | Strike::Kill => {}
        }
        Ok(())
    }

    /// When this product's new active ATM did what, told by itself; `None` for the others, and if it cannot be asked.
    pub(super) fn takeover(&self, victim: &str, struck: u64) -> Option<Takeover> {
        let System::Ours(cluster) = &self.system else {
            return None;
        };
        let asked = cluster.others(victim).into_iter();
        let tenure = asked
            .filter_map(|host| cluster.status(&host).ok()?.tenure)
            .max_by_key(|tenure| tenure.epoch)?;
        let since = |boot_ns: u64| {
            let at = unix_of_boottime(boot_ns);
            Duration::from_nanos(at.saturating_sub(struck)).as_secs_f64() * 1e3
        };
        Some(Takeover {
            elected_ms: since(tenure.leader_at_ns),
            begun_ms: since(tenure.begun_at_ns),
            table_ms: since(tenure.table_at_ns),
            claimed_ms: since(tenure.claimed_at_ns),
            announced_ms: since(tenure.first_arp_at_ns),
        })
    }

    /// Undoes whatever was done to `victim`, until the contender is as it was at the beginning.
    pub(super) fn mend(&self, victim: &str) -> Result<(), PeersError> {
        let lab = self.lab();
        lab.fault(Fault::Heal, victim)?;
        match &self.system {
            System::Ours(cluster) => {
                for process in lab.processes_of(victim)? {
                    process.signal(Signal::CONT);
                }
                if lab.condition(victim, ATMD)? == Condition::Dead {
                    lab.fault(Fault::Restart, victim)?;
                }
                let hosts = cluster.atms();
                let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
                let what = "an active ATM and backups that caught up";
                cluster.wait_for(what, &hosts, SETTLE_MAX, |status| {
                    status.active.is_some()
                        && status.all_caught_up()
                        && status.backups().len() + 1 == ATMS
                })?;
                Ok(())
            }
            System::Pair(pair) => pair.begin_again(),
        }
    }
}

/// Why `contender` cannot be measured here, if so.
pub(super) fn unavailable(contender: Contender) -> Option<String> {
    if contender == Contender::OursFast && available() != Ok(Privileges::Root) {
        return Some("real-time scheduling needs root".to_owned());
    }
    let missing: Vec<_> = contender
        .programs()
        .iter()
        .filter(|(program, _)| {
            tool(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .stdin(Stdio::null())
                .status()
                .is_err()
        })
        .map(|(program, package)| format!("no {program} (Debian package {package})"))
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// `clusterserver.conf` of one of this product's contenders.
fn configuration(contender: Contender) -> Result<String, LabError> {
    let text = default_configuration(ATMS, SERVERS)?;
    let mut config = read_configuration("generated", &text)?;
    config.atm_pool.heartbeat_delay = contender.beat();
    config.atm_pool.max_lost_heartbeats = max_lost_heartbeats(contender);
    Ok(model::conf::print(&config))
}

/// MaxLostHeartbeats of this product's contenders. keepalived, too, gives up two to three intervals after a crash: three after
/// the last advertisement, which came up to one before.
fn max_lost_heartbeats(contender: Contender) -> u32 {
    if contender == Contender::Ours100Ms {
        2
    } else if contender == Contender::OursFast {
        FAST_LOST
    } else {
        3
    }
}

/// How long a contender may take until its first router speaks: elections, and three advertisements of a second.
pub(super) const SPEAK_MAX: Duration = Duration::from_secs(20);
