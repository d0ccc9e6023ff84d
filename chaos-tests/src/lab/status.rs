//! What a lab looks like right now. Serialized names are stable: programs read them.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;

use super::error::LabError;
use super::handle::Lab;
use super::network::{Link, format_mac, links};
use super::plan::{CLIENT_NAME, ROGUE_NAME};
use super::process::Condition;

/// A lab.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Begins the names of its namespaces.
    pub prefix: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Whether it stays until `lab down`.
    pub persistent: bool,
    /// Addresses of the virtual hosts.
    pub vips: Vec<Ipv4Addr>,
    /// Its hosts.
    pub hosts: Vec<HostStatus>,
    /// Names of the impairments of the network in place: see [`Lab::impair`].
    pub impairments: Vec<String>,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// MAC of `eth0`.
    pub mac: String,
    /// `atm`, `server`, `atm+server`, `client`, `router`, `rogue`, or `other` for a host without a part in the cluster.
    pub role: &'static str,
    /// How it is connected.
    pub link: Link,
    /// Its recorded processes.
    pub processes: Vec<ProcessStatus>,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessStatus {
    /// Its name on the host.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// What it is doing.
    pub condition: Condition,
    /// Its log.
    pub log: PathBuf,
}

impl fmt::Display for Status {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vips = self
            .vips
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        writeln!(
            f,
            "lab {} in {}, VIP {vips}\n",
            self.prefix,
            self.dir.display()
        )?;
        writeln!(
            f,
            "{:<8} {:<12} {:<15} {:<18} {:<9} PROCESSES",
            "HOST", "ROLE", "ADDRESS", "MAC", "LINK"
        )?;
        for host in &self.hosts {
            let link = match host.link {
                Link::Up => "up",
                Link::Cut => "cut",
                Link::Down => "down",
                Link::CutPeers => "cut-peers",
            };
            let (name, role, mac) = (&host.name, host.role, &host.mac);
            let line = format!(
                "{name:<8} {role:<12} {:<15} {mac:<18} {link:<9} ",
                host.address
            );
            let processes = host
                .processes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            writeln!(f, "{}", (line + &processes).trim_end())?;
        }
        if !self.impairments.is_empty() {
            writeln!(f, "\nimpaired: {}", self.impairments.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for ProcessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let condition = match self.condition {
            Condition::Running => "running",
            Condition::Stopped => "stopped",
            Condition::Dead => "dead",
        };
        write!(f, "{} {} {condition}", self.name, self.pid)
    }
}

impl Lab {
    /// Looks at every host and process.
    ///
    /// # Errors
    /// A failed `bridge` or `nft`.
    pub fn status(&self) -> Result<Status, LabError> {
        let record = self.record();
        let impairments = self.impaired()?;
        let links = links(&record, &impairments)?;
        let hosts = record
            .hosts
            .iter()
            .zip(links)
            .map(|(host, link)| HostStatus {
                name: host.name.clone(),
                namespace: host.namespace.clone(),
                address: host.address,
                mac: format_mac(host.mac),
                role: match (host.atm, host.server) {
                    (true, true) => "atm+server",
                    (true, false) => "atm",
                    (false, true) => "server",
                    (false, false) if host.name == ROGUE_NAME => "rogue",
                    (false, false) if host.place.is_router() => "router",
                    (false, false) if host.name == CLIENT_NAME => "client",
                    (false, false) => "other",
                },
                link,
                processes: record
                    .processes
                    .iter()
                    .filter(|p| p.host == host.name)
                    .map(|p| ProcessStatus {
                        name: p.name.clone(),
                        pid: p.identity.pid,
                        condition: p.identity.condition(),
                        log: record.log(&p.host, &p.name),
                    })
                    .collect(),
            });
        Ok(Status {
            hosts: hosts.collect(),
            impairments,
            prefix: record.prefix.clone(),
            dir: record.dir.clone(),
            persistent: record.persistent,
            vips: record.vips.clone(),
        })
    }
}
