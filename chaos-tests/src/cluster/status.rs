//! The answers of `atmctl --output json`, as far as tests look at them. Fields are those of the program's promise.

use serde::Deserialize;

/// `atmctl status`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Status {
    /// The ATM that answered.
    pub answered_by: String,
    /// The ATM that holds the lease.
    pub active: Option<String>,
    /// Number of the latest tenure.
    pub epoch: u64,
    /// What is left of the lease.
    pub lease_left_ms: u64,
    /// The configuration in force where it was answered.
    pub config_version: u64,
    /// What was applied where it was answered.
    pub applied_index: u64,
    /// Connections in the replicated table.
    pub connections: u64,
    /// Connections a crash right now would lose.
    pub replication_debt: u64,
    /// All ATMs.
    pub atms: Vec<Atm>,
    /// All virtual hosts.
    pub virtual_hosts: Vec<VirtualHost>,
    /// All servers.
    pub servers: Vec<Server>,
    /// What an operator should know.
    pub notices: Vec<String>,
    /// The timeline of the takeover, told by the active ATM.
    pub tenure: Option<Tenure>,
}

impl Status {
    /// The ATM called `name`.
    #[must_use]
    pub fn atm(&self, name: &str) -> Option<&Atm> {
        self.atms.iter().find(|atm| atm.name == name)
    }

    /// The server called `name`.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// Whether every ATM can be reached and has applied what the answering one has.
    #[must_use]
    pub fn all_caught_up(&self) -> bool {
        self.atms.iter().all(|atm| atm.reachable && atm.lag == 0)
    }

    /// The names of the backups.
    #[must_use]
    pub fn backups(&self) -> Vec<&str> {
        let backups = self.atms.iter().filter(|atm| atm.role == Role::Backup);
        backups.map(|atm| atm.name.as_str()).collect()
    }
}

/// An ATM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Atm {
    /// As AtmPool writes it.
    pub name: String,
    /// What it is, as the answering one knows.
    pub role: Role,
    /// What it has applied.
    pub applied_index: u64,
    /// How much it is behind.
    pub lag: u64,
    /// Whether it answered.
    pub reachable: bool,
    /// Whether it alone sees every server down.
    pub suspected: bool,
}

/// What an ATM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the lease.
    Active,
    /// Follows.
    Backup,
    /// Leads and does not hold the lease yet.
    Claiming,
    /// Votes only.
    Witness,
    /// Not known to the one that answered.
    Unknown,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VirtualHost {
    /// As the file writes it.
    pub name: String,
    /// Its VIPs.
    pub addresses: Vec<String>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Server {
    /// Its name in the file.
    pub name: String,
    /// What it offers.
    pub services: Vec<ServerService>,
    /// Why it answers no ping.
    pub down: Option<Finding>,
    /// What atmd on it said last.
    pub report: Option<ServerReport>,
}

impl Server {
    /// Its service called `name`.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServerService> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ServerReport {
    /// Whether it has fallen silent.
    pub stale: bool,
    /// In force there; `None`: what its own file says.
    pub config_version: Option<u64>,
    /// Why the latest version is not.
    pub error: Option<String>,
    /// Its load average.
    pub load_1m: Option<f64>,
    /// Connections as it counts them.
    pub connections: Option<u64>,
}

/// A service of a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerService {
    /// Its name in the file.
    pub name: String,
    /// Whether the ATMs say that it is up.
    pub healthy: bool,
    /// Connections it has.
    pub connections: u64,
    /// Why it fails its checks.
    pub down: Option<Finding>,
    /// What an operator ordered, as one word.
    pub mode: String,
}

/// Why something is down.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Finding {
    /// What a failed check said, and to how many ATMs.
    pub reason: String,
}

/// When what happened in the latest tenure: nanoseconds of the boot-time clock, 0 for not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Tenure {
    /// Its number.
    pub epoch: u64,
    /// Last message of the leader before.
    pub last_heard_at_ns: u64,
    /// Elected.
    pub leader_at_ns: u64,
    /// BeginEpoch was applied.
    pub begun_at_ns: u64,
    /// The packet path has everything up to it.
    pub table_at_ns: u64,
    /// Every older lease has run out.
    pub wait_until_ns: u64,
    /// The lease began.
    pub claimed_at_ns: u64,
    /// The first gratuitous ARP.
    pub first_arp_at_ns: u64,
    /// The first packet to a server.
    pub first_forward_at_ns: u64,
}

/// `atmctl config apply`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Applied {
    /// The version in force; `None`: refused.
    pub version: Option<u64>,
    /// Where it was committed.
    pub index: Option<u64>,
    /// Whether it changed nothing.
    pub unchanged: bool,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
}

/// A problem of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// `error` or `warning`.
    pub severity: String,
    /// Where.
    pub line: Option<u64>,
    /// What.
    pub message: String,
}
