//! A checked configuration. Names of hosts are kept as written; their addresses belong to a version, not to the file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

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

/// Number of leading one bits of an IPv4 netmask, 0..=32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLength(pub u8);

/// A host as written: an address, or a name that is resolved once by the ATM that proposes the version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A DNS name, in lower case, at most 253 bytes.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// `NAT` … `EndNAT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// `Subnet <network> <mask>`: the private side.
    pub subnet: Option<(Ipv4Addr, PrefixLength)>,
    /// `Gateway <ip>`: moves with the active ATM.
    pub gateway: Option<Ipv4Addr>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
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
    /// `sticky`: a client keeps its server.
    pub sticky: bool,
    /// `scheduler=`.
    pub scheduler: Scheduler,
    /// `replication=`.
    pub replication: Replication,
    /// `persist=<duration>`: how long a sticky client keeps its server after its last connection; default 300 s.
    pub persist: Option<Duration>,
    /// `mask=<prefix length>`: how much of the client's address is sticky; default the whole address.
    pub mask: Option<u8>,
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum ForwardingMethod {
    /// MAC rewrite.
    Direct,
    /// IPIP (RFC 2003).
    Tunnel,
    /// Destination NAT.
    Nat,
}

/// `Server <name> <host> direct|tunnel|nat [noping]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The server's name.
    pub name: String,
    /// Where it is.
    pub host: Host,
    /// How packets reach it.
    pub method: ForwardingMethod,
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
