//! clusterserver.conf as this host reads it: checked, with the addresses of its names, and this host's part in it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use model::conf::{self, Config, Diagnostic, Host, Severity};
use model::server::{Names, Resolved};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::host;

/// A name server that does not answer within this counts as not knowing the name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A valid configuration and where its hosts are.
#[derive(Clone, Debug)]
pub(crate) struct ClusterFile {
    /// As written.
    pub(crate) source: String,
    /// Checked.
    pub(crate) config: Config,
    /// Addresses of the names in it.
    pub(crate) hosts: BTreeMap<String, IpAddr>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterFileError {
    /// The file itself.
    #[error("{} cannot be read (cluster_config in atmd.toml names it)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its content; rendered for people, every problem at its place.
    #[error("{} error(s) in the configuration\n{rendered}", errors.iter().filter(|found| found.severity == Severity::Error).count())]
    Invalid {
        /// Every problem.
        errors: Vec<Diagnostic>,
        /// The same for people.
        rendered: String,
    },
    /// A name that nobody knows.
    #[error("host names in the configuration have no address: {}; add them to DNS or /etc/hosts of this ATM", .0.join(", "))]
    Unresolved(Vec<String>),
}

impl ClusterFile {
    /// Reads, checks and resolves a file.
    pub(crate) async fn load(path: &Path) -> Result<Self, ClusterFileError> {
        let bytes = fs::read(path).map_err(|source| ClusterFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path.display().to_string();
        let checked = conf::check_bytes(&name, &bytes);
        let source = String::from_utf8_lossy(&bytes).into_owned();
        let (file, warnings) = Self::finish(&name, source, checked).await?;
        if !warnings.is_empty() {
            warn!("{}", conf::render(&warnings, &name, &file.source, false));
        }
        Ok(file)
    }

    /// Checks and resolves a text; also returns its warnings.
    pub(crate) async fn parse(
        name: &str,
        source: String,
    ) -> Result<(Self, Vec<Diagnostic>), ClusterFileError> {
        let checked = conf::check(name, &source);
        Self::finish(name, source, checked).await
    }

    async fn finish(
        name: &str,
        source: String,
        checked: conf::Checked,
    ) -> Result<(Self, Vec<Diagnostic>), ClusterFileError> {
        let invalid = |errors: Vec<Diagnostic>, source: &str| {
            let rendered = conf::render(&errors, name, source, false);
            ClusterFileError::Invalid { errors, rendered }
        };
        let Some(config) = checked.config.clone() else {
            return Err(invalid(checked.diagnostics, &source));
        };
        let hosts = resolve(&config).await?;
        let mut diagnostics = checked.diagnostics.clone();
        // What the addresses in the file alone could tell has been said already.
        for found in checked.check_resolved(name, &source, &hosts) {
            if !diagnostics.contains(&found) {
                diagnostics.push(found);
            }
        }
        if diagnostics
            .iter()
            .any(|found| found.severity == Severity::Error)
        {
            return Err(invalid(diagnostics, &source));
        }
        Ok((
            Self {
                source,
                config,
                hosts,
            },
            diagnostics,
        ))
    }

    /// The address of a host in it.
    pub(crate) fn address(&self, host: &Host) -> Option<IpAddr> {
        self.resolved().address(host)
    }

    /// The same as the model reads it.
    pub(crate) fn resolved(&self) -> Resolved<'_> {
        Resolved {
            config: &self.config,
            hosts: &self.hosts,
        }
    }

    /// Same digest, same configuration: comments and layout do not count.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(conf::print(&self.config)).into()
    }

    /// The ATMs in order of promotion: name and address.
    pub(crate) fn atms(&self) -> Vec<(String, IpAddr)> {
        self.resolved().atms()
    }

    /// What this host is, by `name` or, without one, by its host name and its local addresses. A host that `name` makes an ATM is a
    /// server, too, where a `Server` line has another address of it, and the other way round.
    pub(crate) fn part(&self, name: Option<&str>) -> Part {
        self.part_of(&own_names(name))
    }

    fn part_of(&self, own: &Names) -> Part {
        let atms = || self.config.atm_pool.atms.iter().map(|atm| &atm.host);
        // A simulated host has a name, and the machine's own addresses are none of its.
        let has = |host: &Host| {
            let address = self.address(host);
            !cfg!(atm_sim) && address.is_some_and(|address| own.addresses.contains(&address))
        };
        let atm = atms().find(|host| own.is(host, self.address(host)));
        let servers = || self.config.servers.iter();
        let server = own.server(&self.resolved());
        let (atm, server) = match (atm, server) {
            (Some(atm), None) => (Some(atm), servers().find(|server| has(&server.host))),
            (None, Some(server)) => (atms().find(|host| has(host)), Some(server)),
            both => both,
        };
        Part {
            atm: atm.map(ToString::to_string),
            server: server.map(|server| server.name.clone()),
        }
    }
}

/// What the configuration says this host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name in AtmPool.
    pub(crate) atm: Option<String>,
    /// Its name under Servers.
    pub(crate) server: Option<String>,
}

/// By what this host may be called; `given` is the name in atmd.toml.
pub(crate) fn own_names(given: Option<&str>) -> Names {
    Names::of_host(given, &host::name(), host::local_addresses())
}

/// Where an ATM's Peer service is.
pub(crate) fn peer_address(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// Looks every name up once. IPv4 first: the tunnel is IPv4.
async fn resolve(config: &Config) -> Result<BTreeMap<String, IpAddr>, ClusterFileError> {
    let mut hosts = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in config.host_names() {
        let lookup =
            tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, 0))).await;
        let mut addresses: Vec<IpAddr> = match lookup {
            Ok(Ok(found)) => found.map(|found| found.ip()).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        match addresses.first() {
            Some(address) => {
                hosts.insert(name.to_owned(), *address);
            }
            None => unknown.push(name.to_owned()),
        }
    }
    if unknown.is_empty() {
        Ok(hosts)
    } else {
        Err(ClusterFileError::Unresolved(unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
        Services\n  Service web tcp:80 connect\nEndServices\n\
        Servers\n  Server one fd00:10:1::1 tunnel\n  Server two 10.1.0.2 tunnel\n  Server far 10.1.0.11 tunnel\nEndServers\n\
        ServerPool Pool\n  AddServer one web/1\n  AddServer two web/1\n  AddServer far web/1\nEndServerPool\n\
        AtmPool ATMs\n  AddAtm 10.1.0.1\n  AddAtm 10.1.0.2\n  AddAtm 10.1.0.3\nEndAtmPool\n\
        VirtualHost www\n  Address 10.1.0.100\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n";

    #[tokio::test]
    async fn a_host_has_both_roles_by_any_of_its_addresses() {
        let (file, _) = ClusterFile::parse("test", FILE.to_owned()).await.unwrap();
        let part = |name: Option<&str>, addresses: &[&str]| {
            let own = Names {
                given: name.map(str::to_owned),
                host_names: vec!["host".to_owned()],
                addresses: addresses.iter().map(|own| own.parse().unwrap()).collect(),
            };
            let part = file.part_of(&own);
            (part.atm, part.server)
        };
        let both = |atm: &str, server: &str| (Some(atm.to_owned()), Some(server.to_owned()));
        let first = ["10.1.0.1", "fd00:10:1::1"];
        for name in [None, Some("10.1.0.1"), Some("one")] {
            assert_eq!(part(name, &first), both("10.1.0.1", "one"), "{name:?}");
        }
        assert_eq!(
            part(Some("10.1.0.2"), &["10.1.0.2"]),
            both("10.1.0.2", "two")
        );
        let atm = (Some("10.1.0.3".to_owned()), None);
        assert_eq!(part(Some("10.1.0.3"), &["10.1.0.3"]), atm);
        assert_eq!(part(None, &["10.1.0.3"]), atm);
        let server = (None, Some("far".to_owned()));
        assert_eq!(part(Some("far"), &["10.1.0.11"]), server);
        assert_eq!(part(Some("nobody"), &first), (None, None));
    }
}
