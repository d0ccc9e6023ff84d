//! The command line: every command and option, its default and its bounds.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dataplane::{MacAddr, Prefix};

use crate::endpoint::Endpoint;

/// Ask and steer a cluster of ATMs.
#[derive(Debug, Parser)]
#[command(name = "atmctl", version, propagate_version = false, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused by the cluster or an invalid configuration, \
2 wrong usage or an unreadable file, 69 no ATM could be reached or none could answer, 74 the answer could not be written.";

/// What holds for every command.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// An ATM's admin address; given several times, or separated by commas, they are tried in order until one answers
    #[arg(
        long = "endpoint",
        global = true,
        env = "ATMCTL_ENDPOINT",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7411",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Vec<Endpoint>,

    /// Tables for people, or JSON for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    /// How long one ATM has to answer, at most 3600 [default: 5; failover and config apply: 15]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_timeout)]
    timeout: Option<Duration>,

    /// Colours: only on a terminal, always, or never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

impl Global {
    /// How long one ATM has to answer a command that has `default` unless the operator says otherwise.
    pub(crate) fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show who is active, and the state of ATMs, virtual hosts and servers
    Status,
    /// List connections
    Connections(Connections),
    /// Hand the virtual addresses over to another ATM, without breaking a connection
    Failover {
        /// The ATM that takes over [default: the most caught-up one, in the order of the configuration]
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
    },
    /// Steer single ATMs
    #[command(subcommand)]
    Atm(Atm),
    /// Steer single servers
    #[command(subcommand)]
    Server(Server),
    /// Check, show and apply configurations
    #[command(subcommand)]
    Config(Config),
    /// Show the counters of the ATM that answers, and what became of the frames of each service and server
    Counters(Counters),
    /// Follow the decisions on single frames as they are made, until Ctrl-C
    Trace(Trace),
    /// Show the digest of the replicated state of the ATM that answers: equal at equal indexes on all ATMs
    Digest,
    /// Show what happened to servers, services and scripts, and which ATM became active
    Events(Events),
    /// Say what an active ATM would do with each frame of a capture, without asking the cluster
    Explain(Explain),
    /// Print the version of atmctl
    Version,
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What is kept of an answer, some 200 bytes each: more than anybody can use of a list.
pub(crate) const CONNECTIONS_MAX: u64 = 1_000_000;

#[derive(Debug, ClapArgs)]
pub(crate) struct Connections {
    /// Only those of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only those to this server
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// At most so many, up to a million [default: as many as the ATM gives]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Counters {
    /// Only frames about this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only frames about this server
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Trace {
    /// The virtual address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) vip: IpAddr,
    /// Only frames from or to this client, or these clients
    #[arg(long, value_name = "ADDRESS[/PREFIX]")]
    pub(crate) client: Option<Prefix>,
    /// Only frames about this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// End after so many decisions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Of the ATM that is asked, rather than of the one that leads
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Events {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events of a greater number than this one
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: u64,
}

/// Whom an order is about.
#[derive(Debug, ClapArgs)]
pub(crate) struct Ordered {
    /// The server, as the configuration names it
    #[arg(value_name = "SERVER")]
    pub(crate) name: String,
    /// Only this service of it
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// No new connections; those of sticky clients still come
    Drain {
        #[command(flatten)]
        whom: Ordered,
        /// Send sticky clients elsewhere, too
        #[arg(long)]
        all: bool,
    },
    /// No new connections at all
    Disable {
        #[command(flatten)]
        whom: Ordered,
    },
    /// End drain and disable
    Enable {
        #[command(flatten)]
        whom: Ordered,
    },
    /// Another share of new connections than the configuration says
    Weight {
        #[command(flatten)]
        whom: Ordered,
        /// From 0 to 65535, or `default`: as the configuration says
        #[arg(value_name = "WEIGHT", value_parser = parse_weight)]
        weight: Weight,
    },
}

/// A weight by order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// As the configuration says.
    Default,
    /// This.
    Given(u16),
}

impl Weight {
    pub(crate) fn given(self) -> Option<u16> {
        match self {
            Self::Default => None,
            Self::Given(weight) => Some(weight),
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// The configuration file; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) conf: PathBuf,
    /// The capture, pcap or pcapng of an Ethernet interface; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: PathBuf,
    /// Write the frames that would be sent, as pcap
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Addresses of the names in the configuration, in the form of /etc/hosts
    #[arg(long, value_name = "FILE")]
    pub(crate) hosts: Option<PathBuf>,
    /// The ATM's own address; twice, for one of each family [default: the first AddAtm]
    #[arg(long, value_name = "IP")]
    pub(crate) own: Vec<IpAddr>,
    /// A host's Ethernet address, also the ATM's own [default: 02:00 and the last four bytes of the IP address]
    #[arg(long, value_name = "IP=MAC", value_parser = parse_neighbour)]
    pub(crate) neigh: Vec<(IpAddr, MacAddr)>,
    /// The MTU of the ATM's interface, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(68..))]
    pub(crate) mtu: u16,
    /// The VLAN whose interface the ATM uses, of a capture with tags [default: it uses the one without tags]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub(crate) vlan: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Atm {
    /// The ATM's data directory is lost: let it join with a new one
    Forget {
        /// The ATM, as AtmPool names it; it must be stopped
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Server {
    /// Print the commands that make a host a server without atmd, without asking the cluster
    Setup(ServerSetup),
    #[command(flatten)]
    Order(Order),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServerSetup {
    /// Print the commands; nothing is changed by atmctl itself
    #[arg(long, required = true)]
    pub(crate) print: bool,
    /// The configuration file; - is stdin
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/clusterserver/clusterserver.conf"
    )]
    pub(crate) conf: PathBuf,
    /// Addresses of the names in the configuration, in the form of /etc/hosts
    #[arg(long, value_name = "FILE")]
    pub(crate) hosts: Option<PathBuf>,
    /// The server, as its Server line writes it, or its address [default: the name of this host]
    #[arg(long, value_name = "SERVER")]
    pub(crate) name: Option<String>,
    /// The interface towards the ATMs and the clients
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub(crate) interface: String,
    /// The MTU of the interface, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65_536))]
    pub(crate) mtu: u32,
    /// The way back instead
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a file without asking the cluster
    Check {
        /// The configuration file; - is stdin
        file: PathBuf,
    },
    /// Print a configuration as it was applied, comments included
    Show {
        /// Which version [default: the current one]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        version: Option<u64>,
        /// Add, as comments, the addresses that the names had when it was applied
        #[arg(long)]
        resolved: bool,
        /// What the ATM that answers has applied, which may be behind the others: also without a majority
        #[arg(long)]
        local: bool,
    },
    /// Make a file the configuration of the cluster, whole or not at all
    Apply {
        /// The configuration file; - is stdin
        file: PathBuf,
        /// Refuse unless this version is the current one
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        expect_version: Option<u64>,
    },
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    /// An hour: longer than any command can sensibly take.
    const SECONDS_MAX: f64 = 3600.0;
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= SECONDS_MAX {
        Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
    } else {
        Err(format!("must be more than 0 and at most {SECONDS_MAX}"))
    }
}

fn parse_weight(text: &str) -> Result<Weight, String> {
    if text == "default" {
        return Ok(Weight::Default);
    }
    let weight = text.parse().map(Weight::Given);
    weight.map_err(|_| "must be a whole number from 0 to 65535, or `default`".to_owned())
}

fn parse_neighbour(text: &str) -> Result<(IpAddr, MacAddr), String> {
    let (ip, mac) = text
        .split_once('=')
        .ok_or_else(|| "must be IP=MAC, as 10.0.0.11=52:54:00:12:34:56".to_owned())?;
    let ip = ip.parse().map_err(|_| format!("{ip} is no IP address"))?;
    let mac = parse_mac(mac)
        .filter(|mac| !mac.is_group() && *mac != MacAddr::ZERO)
        .ok_or_else(|| format!("{mac} is no Ethernet address of a host"))?;
    Ok((ip, mac))
}

fn parse_mac(text: &str) -> Option<MacAddr> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next()?;
        // `from_str_radix` would take a sign.
        if !matches!(part.len(), 1 | 2) || part.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(MacAddr(mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn timeouts_are_positive_and_bounded() {
        for (text, millis) in [("5", 5000), ("0.25", 250), ("3600", 3_600_000)] {
            assert_eq!(
                parse_timeout(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["0", "-1", "3600.5", "1e300", "NaN", "inf", "five", ""] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn neighbours_are_two_addresses() {
        assert_eq!(
            parse_neighbour("2001:db8::b=2:0:A:0:0:0b"),
            Ok((
                "2001:db8::b".parse().unwrap(),
                MacAddr([2, 0, 10, 0, 0, 11])
            ))
        );
        for text in [
            "10.0.0.11",
            "host=02:00:0a:00:00:0b",
            "10.0.0.11=02:00:0a:00:00",
            "10.0.0.11=02:00:0a:00:00:0b:0c",
            "10.0.0.11=02:00:0a:00:00:+b",
            "10.0.0.11=02:00:0a:00:00:00b",
            "10.0.0.11=ff:ff:ff:ff:ff:ff",
            "10.0.0.11=00:00:00:00:00:00",
        ] {
            assert!(parse_neighbour(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_manual_names_every_command_and_option() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/atmctl.md");
        let manual = std::fs::read_to_string(path).unwrap();
        let mut missing = Vec::new();
        let mut pending = vec![(String::from("atmctl"), Args::command())];
        while let Some((path, command)) = pending.pop() {
            for argument in command.get_arguments() {
                missing.extend(
                    argument
                        .get_long()
                        .map(|long| format!("--{long}"))
                        .filter(|option| !manual.contains(option.as_str())),
                );
            }
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                if !sub.has_subcommands() && !manual.contains(&format!("`{path}")) {
                    missing.push(path.clone());
                }
                pending.push((path, sub.clone()));
            }
        }
        assert_eq!(missing, Vec::<String>::new());
    }
}
