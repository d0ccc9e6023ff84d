//! What can go wrong in the lab, each with the way out in its text.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::privileges::Unavailable;

/// A refusal or failure of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// This machine, or this user, gets no network namespaces.
    #[error("no namespaces: {0}")]
    Unavailable(#[from] Unavailable),
    /// A file or system call failed.
    #[error("cannot {what}")]
    Io {
        /// What was attempted, as it reads after "cannot".
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A command that makes the lab, or one in a host, refused.
    #[error("{command} failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote to stderr.
        stderr: String,
    },
    /// The configuration cannot be laid out as a lab.
    #[error("configuration: {0}")]
    Plan(#[from] PlanError),
    /// No host of that name.
    #[error("no host named {name}; this lab has {known}")]
    NoHost {
        /// The name asked for.
        name: String,
        /// All names, comma separated.
        known: String,
    },
    /// No process of that name was ever started on the host.
    #[error("no process {process} was started on {host}")]
    NoProcess {
        /// The host.
        host: String,
        /// The process.
        process: String,
    },
    /// The process is recorded but has ended.
    #[error("{process} on {host} (pid {pid}) is not running; `restart` starts it again")]
    NotRunning {
        /// The host.
        host: String,
        /// The process.
        process: String,
        /// The pid it had.
        pid: u32,
    },
    /// Killed, and still there.
    #[error(
        "on {host} these were killed and have not ended: pids {pids:?}; /proc/PID/stack says what holds them"
    )]
    Survived {
        /// The host.
        host: String,
        /// Their pids.
        pids: Vec<u32>,
    },
    /// A process of that name runs already.
    #[error("{process} on {host} is already running as pid {pid}")]
    AlreadyRunning {
        /// The host.
        host: String,
        /// The process.
        process: String,
        /// Its pid.
        pid: u32,
    },
    /// A process ended right after its start.
    #[error("{process} on {host} ended at once; the end of {log}:\n{tail}", log = log.display())]
    EndedAtOnce {
        /// The host.
        host: String,
        /// The process.
        process: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The fault makes no sense for this host.
    #[error("cut-peers is for ATMs, and {0} is none")]
    NotAnAtm(String),
    /// The directory already holds a living lab.
    #[error("a lab (prefix {prefix}) is already up in {dir}; end it with `lab down --dir {dir}`", dir = dir.display())]
    AlreadyUp {
        /// The directory.
        dir: PathBuf,
        /// The prefix of the lab in it.
        prefix: String,
    },
    /// The directory holds no lab.
    #[error("no lab in {dir}; bring one up with `lab up --dir {dir}`", dir = dir.display())]
    NoLab {
        /// The directory.
        dir: PathBuf,
    },
    /// The record of a lab cannot be read.
    #[error("{path} is not the record of a lab: {reason}", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A program that hosts are to run is missing.
    #[error("no {name} in {dir}; build it, or name its directory in ATM_BIN_DIR", dir = dir.display())]
    MissingBinary {
        /// The program.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A command in a host took longer than it may.
    #[error("{command} on {host} took longer than {limit:?} and was killed")]
    ExecTimeout {
        /// The host.
        host: String,
        /// The command line.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// More processes than [`super::PROCESSES_MAX`].
    #[error("a lab records at most {0} processes")]
    TooManyProcesses(usize),
    /// A name that cannot be part of a file or interface name.
    #[error(
        "{0:?} is no name: use 1 to 32 letters, digits, - or _; for an impairment small letters, digits and _"
    )]
    BadName(String),
    /// Delay, jitter and reordering in a lab with the kernel's bridge.
    #[error(
        "the bridge cannot delay frames: build the lab with the userspace switch (Builder::switch)"
    )]
    NeedsSwitch,
    /// The userspace switch is a thread of the process that built the lab.
    #[error(
        "a lab with the userspace switch is only for the process that builds it, and cannot persist"
    )]
    SwitchElsewhere,
    /// Routers in a lab with the userspace switch.
    #[error("the userspace switch is one network: a lab with routers needs the kernel's bridges")]
    NeedsBridge,
    /// A machine whose file system cannot be had.
    #[error("{host} cannot be a machine of its own; the end of {log}:\n{tail}", log = log.display())]
    NoMachine {
        /// The host.
        host: String,
        /// The log of its first process.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// Only a router has a path MTU.
    #[error("{0} is no router of this lab")]
    NotARouter(String),
    /// More copies than [`super::DUPLICATE_PPM_MAX`].
    #[error("{0} of a million frames duplicated are more than {max}", max = super::DUPLICATE_PPM_MAX)]
    TooManyCopies(u32),
}

impl LabError {
    /// Exit code of sysexits(3) for a program that ends with this error: 69 unavailable, 78 configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable(_) | Self::NoLab { .. } => 69,
            Self::Plan(_) => 78,
            Self::Io { .. }
            | Self::Command { .. }
            | Self::NoHost { .. }
            | Self::NoProcess { .. }
            | Self::NotRunning { .. }
            | Self::Survived { .. }
            | Self::AlreadyRunning { .. }
            | Self::EndedAtOnce { .. }
            | Self::NotAnAtm(_)
            | Self::AlreadyUp { .. }
            | Self::Record { .. }
            | Self::MissingBinary { .. }
            | Self::ExecTimeout { .. }
            | Self::TooManyProcesses(_)
            | Self::BadName(_)
            | Self::NeedsSwitch
            | Self::SwitchElsewhere
            | Self::NeedsBridge
            | Self::NotARouter(_)
            | Self::NoMachine { .. }
            | Self::TooManyCopies(_) => 1,
        }
    }

    /// Wraps an [`io::Error`] for `map_err`; `what` reads after "cannot".
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The text of `error` and of every cause that it does not tell by itself: a transparent layer repeats its cause.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = inner.source();
    }
    text
}

/// Why a configuration cannot be laid out on one bridge.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The file itself is wrong; the text holds every problem with its place.
    #[error("the file is not valid:\n{0}")]
    Invalid(String),
    /// The lab is one IPv4 network.
    #[error("{address} and {other} are in different /24 networks, and the lab is one /24")]
    TwoNetworks {
        /// One address.
        address: Ipv4Addr,
        /// An address outside its network.
        other: Ipv4Addr,
    },
    /// Hosts of the lab have an IPv4 address and its twin.
    #[error("no host of the lab can have {0}: write fd00:10:1::11 for the host 10.1.0.11")]
    Ipv6Host(String),
    /// A router cannot have this path MTU.
    #[error("a path MTU of {0} bytes asked for; a router of the lab has {min} to {max}", min = super::PATH_MTU_MIN, max = super::PATH_MTU_MAX)]
    PathMtu(u16),
    /// Two hosts, or a host and a VIP, would share an address.
    #[error("{address} would belong to both {first} and {second}")]
    SharedAddress {
        /// The address.
        address: Ipv4Addr,
        /// One owner.
        first: String,
        /// The other.
        second: String,
    },
    /// The network has no address left.
    #[error("no address left in the /24 of the lab")]
    NetworkFull,
    /// A further host with the name of another one.
    #[error("two hosts would be called {0}")]
    SharedName(String),
    /// A name for a host that is not there.
    #[error("no host {0} that could have one more name")]
    NoHost(String),
    /// Too many ATMs asked for.
    #[error("{0} ATMs asked for; a cluster has 1 to {max}", max = super::ATMS_MAX)]
    Atms(usize),
    /// Too many servers asked for.
    #[error("{0} servers asked for; the lab has 1 to {max}", max = super::SERVERS_MAX)]
    Servers(usize),
}
