//! A checked configuration. Names of hosts are kept as written; their addresses belong to a version, not to the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::bounds;
use super::nat::Nat;

/// A whole configuration that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `NetworkMask`: mask of the network the ATMs talk on; `None` when the line is absent.
    pub network_mask: Option<PrefixLength>,
    /// The `NAT` block.
    pub nat: Option<Nat>,
    /// `UserCheck` blocks, in file order.
    pub user_checks: Vec<UserCheck>,
    /// `Service` lines, in file order.
    pub services: Vec<Service>,
    /// `Server` lines, in file order.
    pub servers: Vec<Server>,
    /// `ServerPool` blocks, in file order.
    pub server_pools: Vec<ServerPool>,
    /// The `AtmPool` block: exactly one.
    pub atm_pool: AtmPool,
    /// `VirtualHost` blocks, in file order.
    pub virtual_hosts: Vec<VirtualHost>,
}

impl Config {
    /// The names that need an address before the configuration can be used. A virtual host with `Address` lines needs
    /// none.
    #[must_use]
    pub fn host_names(&self) -> BTreeSet<&str> {
        let atms = self.atm_pool.atms.iter().map(|atm| &atm.host);
        let servers = self.servers.iter().map(|server| &server.host);
        let virtual_hosts = self
            .virtual_hosts
            .iter()
            .filter(|host| host.addresses.is_empty())
            .map(|host| &host.host);
        atms.chain(servers)
            .chain(virtual_hosts)
            .filter_map(Host::name)
            .collect()
    }
}

/// Number of leading one bits of an IPv4 netmask, 0..=32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLength(pub u8);

impl PrefixLength {
    /// The mask with that many leading one bits.
    #[must_use]
    pub const fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(
            match u32::MAX.checked_shl(32u32.saturating_sub(self.0 as u32)) {
                Some(bits) => bits,
                None => 0,
            },
        )
    }

    /// The network an address is in.
    #[must_use]
    pub const fn network(self, address: Ipv4Addr) -> Ipv4Addr {
        Ipv4Addr::from_bits(address.to_bits() & self.mask().to_bits())
    }
}

impl fmt::Display for PrefixLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mask().fmt(f)
    }
}

/// A host as written: an address, or a name that is resolved once by the ATM that proposes the version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A DNS name, in lower case, at most 253 bytes.
    Name(String),
}

impl Host {
    /// The name, unless it is an address.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Name(name) => Some(name),
        }
    }

    /// Its address, where `hosts` has those of names.
    #[must_use]
    pub fn address(&self, hosts: &BTreeMap<String, IpAddr>) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(name) => hosts.get(name).copied(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// `UserCheck` … `EndUserCheck`: an agent program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCheck {
    /// The agent's name, as services refer to it.
    pub name: String,
    /// `Check <path>`.
    pub check: String,
    /// `Up <path>`.
    pub up: Option<String>,
    /// `Down <path>`.
    pub down: Option<String>,
}

/// Transport protocol of a service.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Each with its word in the file.
    pub const NAMES: [(&'static str, Self); 2] = [("tcp", Self::Tcp), ("udp", Self::Udp)];

    /// Its word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How a service is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// An HTTP/1.1 transaction.
    Http,
    /// A plain TCP connect.
    Connect,
    /// Always up.
    None,
    /// A `UserCheck` by its name, or one of the programs known by name (`smtpAgent`, …).
    User(String),
}

impl Agent {
    /// Programs that need no `UserCheck`: they come with the ATM, under the original's names.
    pub const KNOWN_PROGRAMS: [&'static str; 8] = [
        "smtpAgent",
        "popAgent",
        "imapAgent",
        "ftpAgent",
        "httpAgent",
        "nntpAgent",
        "dnsAgent",
        "ldapAgent",
    ];

    /// The built-in agent of that name, in whatever case.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        [Self::Http, Self::Connect, Self::None]
            .into_iter()
            .find(|agent| agent.name().eq_ignore_ascii_case(name))
    }

    /// Whether ours of this name speaks TCP and nothing else. Only where no `UserCheck` has the name is it ours.
    #[must_use]
    pub fn is_tcp_only(&self) -> bool {
        match self {
            Self::Http | Self::Connect => true,
            Self::None => false,
            Self::User(name) => name != DNS_AGENT && is_known_program(name),
        }
    }

    /// Whether the protocol of ours of this name has a request that starts TLS. Only where no `UserCheck` has the name is it ours.
    #[must_use]
    pub fn has_starttls(&self) -> bool {
        match self {
            Self::Http | Self::Connect | Self::None => false,
            Self::User(name) => {
                !["httpAgent", DNS_AGENT].contains(&name.as_str()) && is_known_program(name)
            }
        }
    }

    /// The agent's name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Http => "http",
            Self::Connect => "connect",
            Self::None => "none",
            Self::User(name) => name,
        }
    }
}

/// The one of ours that speaks UDP, too.
const DNS_AGENT: &str = "dnsAgent";

fn is_known_program(name: &str) -> bool {
    Agent::KNOWN_PROGRAMS.contains(&name)
}

/// How new connections are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// Smooth weighted round robin.
    #[default]
    Wrr,
    /// Weighted least connections.
    Wlc,
    /// Consistent hashing.
    Maglev,
    /// Source hashing.
    Sh,
}

impl Scheduler {
    /// Each with its word in the file.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("wrr", Self::Wrr),
        ("wlc", Self::Wlc),
        ("maglev", Self::Maglev),
        ("sh", Self::Sh),
    ];

    /// Its word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wrr => "wrr",
            Self::Wlc => "wlc",
            Self::Maglev => "maglev",
            Self::Sh => "sh",
        }
    }
}

/// When a connection's first packet may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// After its record is committed by a quorum.
    #[default]
    Quorum,
    /// At once; the record follows.
    Async,
    /// At once; no record.
    None,
}

impl Replication {
    /// Each with its word in the file.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("quorum", Self::Quorum),
        ("async", Self::Async),
        ("none", Self::None),
    ];

    /// Its word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Async => "async",
            Self::None => "none",
        }
    }
}

/// What becomes of the connections of a service whose server goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They stay: the server may only be slow.
    #[default]
    Keep,
    /// Their clients' next packets are answered with a reset, so that they connect anew.
    Reset,
}

impl OnDown {
    /// Each with its word in the file.
    pub const NAMES: [(&'static str, Self); 2] = [("keep", Self::Keep), ("reset", Self::Reset)];

    /// Its word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
        }
    }
}

/// How a check encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckTls {
    /// Not at all.
    None,
    /// From the first byte on: `smtps`, `imaps`, `pop3s`, `https`.
    Implicit,
    /// After the protocol's own command: `STARTTLS`, `STLS`, `AUTH TLS`.
    StartTls,
}

impl CheckTls {
    /// Each with its word in the file.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("implicit", Self::Implicit),
        ("starttls", Self::StartTls),
    ];

    /// Its word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Implicit => "implicit",
            Self::StartTls => "starttls",
        }
    }
}

/// `Service <name> tcp:<port>|udp:<port> <agent> [sticky] [key=value …]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The service's name.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port, 1..=65535.
    pub port: u16,
    /// The check.
    pub agent: Agent,
    /// `sticky`: new connections of a client go to the server of its latest one.
    pub sticky: bool,
    /// `scheduler=`.
    pub scheduler: Scheduler,
    /// `replication=`.
    pub replication: Replication,
    /// `persist=<duration>`: how long a sticky client keeps its server after its last connection; default 300 s.
    pub persist: Option<Duration>,
    /// `mask=<prefix length>`: how much of the client's address is sticky; default the whole address.
    pub mask: Option<u8>,
    /// `fallback=<server>`: takes new connections when no server that offers the service does.
    pub fallback: Option<String>,
    /// `on-down=`.
    pub on_down: OnDown,
    /// `tls=`; without it as the service's port is assigned.
    pub tls: Option<CheckTls>,
}

/// How packets reach a server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum ForwardingMethod {
    /// MAC rewrite.
    Direct,
    /// IPIP (RFC 2003).
    Tunnel,
    /// Destination NAT; with `source=` full NAT.
    Nat,
}

impl ForwardingMethod {
    /// Each with its word in the file.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("direct", Self::Direct),
        ("tunnel", Self::Tunnel),
        ("nat", Self::Nat),
    ];

    /// Its word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
            Self::Nat => "nat",
        }
    }
}

/// `Server <name> <host> direct|tunnel|nat [source=<address>] [noping]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The server's name.
    pub name: String,
    /// Where it is.
    pub host: Host,
    /// How packets reach it.
    pub method: ForwardingMethod,
    /// `source=<address>`, only with `nat`: where packets to the server come from (full NAT), instead of from the client.
    pub source: Option<IpAddr>,
    /// `noping`: skip the ping check.
    pub noping: bool,
}

/// One `<service>/<weight>` of an `AddServer` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Name of the service.
    pub service: String,
    /// Share of new connections, 0..=65535; 0 takes none.
    pub weight: u16,
}

/// `AddServer <server> <service>/<weight> …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddServer {
    /// Name of the server.
    pub server: String,
    /// What it offers.
    pub offers: Vec<Offer>,
}

/// `ServerPool` … `EndServerPool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPool {
    /// The pool's name.
    pub name: String,
    /// Its servers, in file order.
    pub servers: Vec<AddServer>,
    /// `CheckServerFrequency`, default 30 s.
    pub check_server_frequency: Duration,
    /// `CheckServerTimeout`, default 10 s.
    pub check_server_timeout: Duration,
    /// `CheckPortFrequency`, default 30 s.
    pub check_port_frequency: Duration,
    /// `CheckPortTimeout`, default 10 s.
    pub check_port_timeout: Duration,
    /// `rise=`: checks in a row that have to succeed before a down server or service is up, 1..=100, default 1.
    pub rise: u32,
    /// `fall=`: checks in a row that have to fail before it is down, 1..=100, default 1.
    pub fall: u32,
}

impl ServerPool {
    /// A pool without servers, and with the defaults.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            servers: Vec::new(),
            check_server_frequency: bounds::CHECK_FREQUENCY_DEFAULT,
            check_server_timeout: bounds::CHECK_TIMEOUT_DEFAULT,
            check_port_frequency: bounds::CHECK_FREQUENCY_DEFAULT,
            check_port_timeout: bounds::CHECK_TIMEOUT_DEFAULT,
            rise: bounds::RISE_FALL_DEFAULT,
            fall: bounds::RISE_FALL_DEFAULT,
        }
    }
}

/// `AddAtm <host> [witness]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddAtm {
    /// The ATM; what is written here is also its name.
    pub host: Host,
    /// A voter without traffic.
    pub witness: bool,
}

/// `AtmPool` … `EndAtmPool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtmPool {
    /// The pool's name.
    pub name: String,
    /// The ATMs, in order of promotion; 1..=7.
    pub atms: Vec<AddAtm>,
    /// `SendArpDelay`: interval of the gratuitous ARP, default 20 s.
    pub send_arp_delay: Duration,
    /// `HeartBeatDelay`: interval of the heartbeat, default 1 s.
    pub heartbeat_delay: Duration,
    /// `MaxLostHeartbeats`, default 3.
    pub max_lost_heartbeats: u32,
    /// `NumConnections`, default 10000.
    pub num_connections: u32,
    /// `NumServers`, default 1000.
    pub num_servers: u32,
    /// `NumServices`, default 100.
    pub num_services: u32,
    /// `ConnectionTimeout`: lifetime of an idle connection, default 30 s.
    pub connection_timeout: Duration,
}

impl AtmPool {
    /// A pool without ATMs, and with the defaults.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            atms: Vec::new(),
            send_arp_delay: bounds::SEND_ARP_DELAY_DEFAULT,
            heartbeat_delay: bounds::HEARTBEAT_DELAY_DEFAULT,
            max_lost_heartbeats: bounds::MAX_LOST_HEARTBEATS_DEFAULT,
            num_connections: bounds::NUM_CONNECTIONS_DEFAULT,
            num_servers: bounds::NUM_SERVERS_DEFAULT,
            num_services: bounds::NUM_SERVICES_DEFAULT,
            connection_timeout: bounds::CONNECTION_TIMEOUT_DEFAULT,
        }
    }
}

/// `VirtualHost` … `EndVirtualHost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    /// As written after the keyword; its address is a VIP unless `addresses` is given.
    pub host: Host,
    /// `Address <ip>` lines.
    pub addresses: Vec<IpAddr>,
    /// `AddAtmPool`: name of the ATM pool.
    pub atm_pool: String,
    /// `AddServerPool`: names of the server pools.
    pub server_pools: Vec<String>,
}

impl VirtualHost {
    /// Its virtual addresses: the `Address` lines, or else the host itself.
    pub fn virtual_addresses(&self) -> impl Iterator<Item = Host> {
        let host = self.addresses.is_empty().then(|| self.host.clone());
        host.into_iter()
            .chain(self.addresses.iter().copied().map(Host::Address))
    }
}
