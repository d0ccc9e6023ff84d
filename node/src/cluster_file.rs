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

    /// What this host is, by `name` or, without one, by its host name and its local addresses.
    pub(crate) fn part(&self, name: Option<&str>) -> Part {
        let own = own_names(name);
        let atm = self
            .config
            .atm_pool
            .atms
            .iter()
            .map(|atm| &atm.host)
            .find(|host| own.is(host, self.address(host)));
        let server = own.server(&self.resolved());
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
    let node = host::name();
    let short = node.split('.').next().unwrap_or_default().to_owned();
    Names {
        given: given.map(str::to_owned),
        host_names: vec![node, short],
        addresses: host::local_addresses(),
    }
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
