//! A scenario as a running cluster, with programs on its servers.

use std::net::{IpAddr, SocketAddr};

use super::configuration::configuration;
use super::probe::{Needs, probe};
use super::programs::{Programs, dnsmasq};
use super::scenario::{Method, Path, Scenario};
use crate::cluster::{Cluster, ClusterError};
use crate::lab::{Lab, LabError, has_ipv6, require_decapsulation};

/// A running scenario.
pub struct Rig {
    /// Before the cluster: they end while their hosts still exist.
    _programs: Programs,
    cluster: Cluster,
    scenario: Scenario,
    /// Why UDP is left out.
    without_udp: Option<String>,
    /// Why DNS is left out.
    without_dns: Option<String>,
}

/// What became of starting a scenario.
pub enum Started {
    /// It runs.
    Running(Box<Rig>),
    /// It needs something that is not there, in plain words.
    Needs(String),
}

/// Why a scenario does not run.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The daemon calls the configuration wrong.
    #[error("atmd --check: {0}")]
    Refused(String),
    /// A program of a server.
    #[error("cannot {what}: {why}")]
    Program {
        /// What was attempted.
        what: String,
        /// What the system says.
        why: String,
    },
}

impl From<LabError> for RigError {
    fn from(source: LabError) -> Self {
        Self::Cluster(source.into())
    }
}

impl Rig {
    /// Starts `scenario`, unless the daemon or the machine cannot do it. Services over UDP are left out, and the rest is
    /// started, if they alone are what the daemon lacks.
    ///
    /// # Errors
    /// See [`RigError`].
    pub fn start(scenario: &Scenario) -> Result<Started, RigError> {
        if scenario.has_ipv6() && !has_ipv6() {
            return Ok(Started::Needs("this kernel has no IPv6".to_owned()));
        }
        if scenario.has(Method::Tunnel)
            && let Err(reason) = require_decapsulation()
        {
            return Ok(Started::Needs(reason.to_string()));
        }
        let (mut conf, mut without_udp) = (configuration(scenario, true), None);
        if let Some(Needs(lack)) = probe(&conf)? {
            conf = configuration(scenario, false);
            if let Some(Needs(lack)) = probe(&conf)? {
                return Ok(Started::Needs(lack));
            }
            without_udp = Some(lack);
        }
        let builder = Lab::builder().conf(conf);
        let builder = match scenario.path {
            Path::Flat => builder,
            Path::ClientRouter => builder.client_behind_router(None),
            Path::ServerRouter => builder.servers_behind_router(None),
        };
        let cluster = Cluster::start_with(builder)?;
        let mut without_dns = without_udp.clone();
        if without_dns.is_none() && dnsmasq().is_none() {
            without_dns = Some("dnsmasq is not installed; `make dns` installs it".to_owned());
        }
        let programs = Programs::start(
            scenario,
            &cluster,
            without_udp.is_none(),
            without_dns.is_none(),
        )?;
        Ok(Started::Running(Box::new(Self {
            _programs: programs,
            cluster,
            scenario: *scenario,
            without_udp,
            without_dns,
        })))
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What it runs.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Why there are no services over UDP, and no DNS; `None`: there are.
    #[must_use]
    pub fn without(&self) -> [Option<&str>; 2] {
        [self.without_udp.as_deref(), self.without_dns.as_deref()]
    }

    /// Its virtual addresses.
    #[must_use]
    pub fn targets(&self) -> Vec<IpAddr> {
        self.cluster.lab().virtual_addresses()
    }

    /// A port of each virtual address.
    #[must_use]
    pub fn targets_at(&self, port: u16) -> Vec<SocketAddr> {
        let at = |address| SocketAddr::from((address, port));
        self.targets().into_iter().map(at).collect()
    }

    /// Copies the logs of the daemons to where they outlive the lab, and says where.
    pub fn keep_logs(&self) {
        let lab = self.cluster.lab();
        let to = std::env::temp_dir().join(format!("atm-failed-{}", lab.prefix()));
        for host in lab.hosts() {
            let from = host.log(crate::lab::ATMD);
            let kept = to.join(format!("{}.log", host.name()));
            // Routers and clients have none.
            let _ = std::fs::create_dir_all(&to).and_then(|()| std::fs::copy(from, kept));
        }
        eprintln!("{}: logs are kept in {}", self.scenario, to.display());
    }
}
