//! The clustered mail server of the original product's tutorial, with real daemons: postfix and dovecot of Debian on three
//! servers with one storage, behind three ATMs, used by public clients (swaks, curl, Python's library).
//!
//! `lab up --scenario mail` brings it up to look at, [`run`] is the demo, [`play`] the same as a test calls it. [`mail`](crate::mail)
//! stands in for the daemons where they are not installed.
//!
//! Invariant: every row was measured; a mail counts as accepted only when its client has read a 250 after its DATA.

mod acts;
mod clients;
mod configuration;
mod error;
mod files;
mod idle;
mod judge;
mod outcome;
mod packages;
mod program;
mod senders;
mod servers;
mod setting;
mod stage;
mod storage;
mod storm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use configuration::{CHECK_FREQUENCY, CHECK_TIMEOUT, HEARTBEAT_DELAY, configuration};
pub use error::MailClusterError;
pub use outcome::{MailOutcome, Mails};
pub use packages::missing_packages;
pub use servers::{MailServers, builder};
pub use setting::Setting;
pub use storage::Storage;

use model::conf::ForwardingMethod;

use crate::cluster::Cluster;
use crate::demo::{Output, Screen, checks_table, print};
use crate::lab::{LabError, PortKind};
use stage::Stage;

/// Result of the latest run, in the demo's directory.
pub const RESULT_FILE: &str = "mail-demo.json";

/// How the demo shall run.
#[derive(Clone, Debug, clap::Args)]
pub struct MailDemoArgs {
    /// Directory of the result (mail-demo.json) and of the lab's files and logs [default: a new one for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Three computers instead of six: each ATM is a server, too
    #[arg(long)]
    pub combined: bool,
    /// HeartBeatDelay in milliseconds; a slow machine needs more than the default
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    pub heartbeat_ms: u64,
    /// How the ATMs forward to the servers
    #[arg(long, value_enum, default_value_t = Way::Tunnel)]
    pub method: Way,
    /// How many times slower than a real machine this one is: checks and mails are as much rarer and what is waited for may take as much
    /// longer, but for the takeover itself and the run of a single client; heartbeats have --heartbeat-ms
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub slow: u32,
    /// Clients that send mail while everything fails
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub senders: u8,
    /// How atmd reads and writes frames
    #[arg(long, value_enum, default_value_t = PortKind::Ring)]
    pub port: PortKind,
    /// What goes to standard output at the end; progress then goes to standard error with json
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How the ATMs forward to the mail servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// IPIP; the server role unpacks it, with rules of nftables' family `inet`.
    Tunnel,
    /// MAC rewrite; the server role needs no nftables.
    Direct,
}

impl MailDemoArgs {
    fn setting(&self) -> Setting {
        Setting {
            combined: self.combined,
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            method: match self.method {
                Way::Tunnel => ForwardingMethod::Tunnel,
                Way::Direct => ForwardingMethod::Direct,
            },
            slow: self.slow,
            senders: usize::from(self.senders),
        }
    }
}

/// Plays the demo, prints and stores its result: 0 if every row held, else 1.
///
/// # Errors
/// [`MailClusterError::Missing`] without the packages; what keeps the cluster from coming up or the result from being written.
/// What goes wrong later is a row that failed.
pub fn run(args: &MailDemoArgs) -> Result<ExitCode, MailClusterError> {
    let mut screen = Screen::new(args.output);
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("mail-demo-{}", std::process::id())),
    };
    fs::create_dir_all(&dir).map_err(LabError::io(format!("create {}", dir.display())))?;
    let outcome = play(args, &dir.join("lab"), &mut screen)?;
    let json = outcome.json()?;
    let file = dir.join(RESULT_FILE);
    fs::write(&file, &json).map_err(LabError::io(format!("write {}", file.display())))?;
    print(&match args.output {
        Output::Json => json,
        Output::Table => checks_table(&outcome.rows, outcome.elapsed_ms),
    });
    if outcome.holds() {
        // Of a run in which everything held nobody wants the logs; what cannot be removed is emptied by the next run.
        let _ = fs::remove_dir_all(dir.join("lab"));
        screen.line(&format!("result: {}", file.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let (file, dir) = (file.display(), dir.display());
    screen.line(&format!(
        "result: {file}; logs: {dir}/lab/HOST/*.log and {dir}/lab/HOST/disk/upper/var/log"
    ));
    Ok(ExitCode::FAILURE)
}

/// How long services that greet may take to come into rotation: some checks, on a loaded machine.
const ROTATION_MAX: Duration = Duration::from_secs(30);

/// Brings the cluster up in `lab_dir`, plays every act, tears everything down.
///
/// # Errors
/// As [`run`].
pub fn play(
    args: &MailDemoArgs,
    lab_dir: &Path,
    screen: &mut Screen,
) -> Result<MailOutcome, MailClusterError> {
    let begun = Instant::now();
    let missing = missing_packages();
    if !missing.is_empty() {
        return Err(MailClusterError::Missing(missing));
    }
    screen.step("ATMs, servers, storage");
    let setting = args.setting();
    let lab = builder(&setting)?.port(args.port).dir(lab_dir);
    let cluster = Cluster::start_with(lab)?;
    let servers = MailServers::start(cluster.lab(), setting)?;
    // The ATMs were there first, and have found nobody at home.
    let hosts = cluster.atms();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    cluster.wait_for(
        "every service in rotation",
        &hosts,
        setting.here(ROTATION_MAX),
        |status| {
            let mut services = status.servers.iter().flat_map(|server| &server.services);
            status.active.is_some() && services.all(|service| service.healthy)
        },
    )?;
    let storage = servers.storage()?;
    screen.done(true, &format!("{storage}; six services greet"));
    let mut outcome = MailOutcome {
        storage,
        combined: args.combined,
        ..MailOutcome::default()
    };
    let mut stage = Stage::new(&cluster, servers, outcome, screen);
    let mut broken = false;
    for act in acts::ACTS {
        stage.begin(act.title);
        if broken {
            stage.not_reached();
        } else if let Err(error) = (act.play)(&mut stage) {
            // It leaves the cluster as nobody knows it: the acts after it would measure that.
            stage.failed(&error);
            broken = true;
        }
    }
    outcome = stage.outcome;
    outcome.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

/// A screen for a test: progress goes to standard error.
#[must_use]
pub fn quiet_screen() -> Screen {
    Screen::new(Output::Json)
}

/// The rows of `outcome` as a table.
#[must_use]
pub fn table(outcome: &MailOutcome) -> String {
    checks_table(&outcome.rows, outcome.elapsed_ms)
}
