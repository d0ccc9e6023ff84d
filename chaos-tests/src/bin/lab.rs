//! `lab`: hosts as network namespaces on one machine, the project's binaries in them, faults.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use chaos_tests::demo::{self, DemoArgs, DemoError};
use chaos_tests::lab::{
    self, Fault, Lab, LabError, PortKind, Privileges, RECORD_FILE, Record, available,
    enter_user_namespace, join_user_namespace, left_out, with_causes,
};
use chaos_tests::mail_cluster::{self, MailClusterError, MailDemoArgs, MailServers};
use chaos_tests::{lines, mail};
use clap::{Args, Parser, Subcommand, ValueEnum};

fn main() -> ExitCode {
    let command = match Arguments::parse().command {
        // These two run inside a host already and touch no lab.
        Action::MailServer(args) => return served(mail::serve(args)),
        Action::LineServer(args) => return served(lines::serve(args)),
        Action::Lab(command) => command,
    };
    match settle_privileges(&command).and_then(|()| run(command)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// A cluster on one machine: each host is a network namespace.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    #[command(flatten)]
    Lab(LabAction),
    /// Serve SMTP, POP3 and IMAP over a shared Maildir; for tests, not for real mail.
    MailServer(mail::ServerArgs),
    /// Serve numbered lines.
    LineServer(lines::ServerArgs),
}

#[derive(Subcommand)]
enum LabAction {
    /// Show everything on one screen: mail, 100 connections, four ways to lose the active ATM.
    Demo(DemoArgs),
    /// Show the clustered mail server: postfix and dovecot behind the VIP, public clients, mail while everything fails.
    MailDemo(MailDemoArgs),
    /// Build the hosts and start atmd in them; the lab stays until `lab down`.
    Up(Up),
    /// Run a command in a host; exits as the command does.
    Exec {
        #[command(flatten)]
        at: At,
        /// atm1…, serv1…, client.
        host: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Break something on a host, or mend it.
    Fault {
        #[command(flatten)]
        at: At,
        #[arg(value_enum)]
        fault: Fault,
        /// atm1…, serv1…, client.
        host: String,
    },
    /// Show hosts, links and processes.
    Status {
        #[command(flatten)]
        at: At,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// End the lab.
    Down {
        #[command(flatten)]
        at: At,
        /// Instead: end every lab whose owner died without doing so.
        #[arg(long, conflicts_with = "dir")]
        all_stale: bool,
    },
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    at: At,
    /// The clusterserver.conf to run; names in it become hosts of the lab.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["atms", "servers"])]
    conf: Option<PathBuf>,
    /// Everything that the tutorial of this name has, instead of a cluster without servers' programs.
    #[arg(long, value_enum, conflicts_with_all = ["conf", "atms", "servers", "no_daemons", "client_router"])]
    scenario: Option<Scenario>,
    /// Of a scenario: each ATM is a server, too.
    #[arg(long, requires = "scenario")]
    combined: bool,
    /// Number of ATMs, 1 to 7.
    #[arg(long, value_name = "N", default_value_t = 3)]
    atms: usize,
    /// Number of servers, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 3)]
    servers: usize,
    /// How atmd reads and writes frames.
    #[arg(long, value_enum, default_value_t = PortKind::Ring)]
    port: PortKind,
    /// A router between the client and the cluster, and the largest packet that it passes on, 1280 to 1500 bytes.
    #[arg(long, value_name = "MTU")]
    client_router: Option<u16>,
    /// A router before the servers that --conf has in another network than the ATMs', and the largest packet that it passes on.
    #[arg(long, value_name = "MTU", requires = "conf")]
    server_router: Option<u16>,
    /// Only the hosts, no atmd.
    #[arg(long)]
    no_daemons: bool,
}

#[derive(Args)]
struct At {
    /// Directory of the lab: its record, files and logs.
    #[arg(long, value_name = "DIR", default_value = "lab-run")]
    dir: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// The clustered mail server, with postfix and dovecot.
    Mail,
}

/// Gets this process to where it may touch the lab; without root that is a user namespace, by re-executing itself.
fn settle_privileges(command: &LabAction) -> Result<(), LabError> {
    if available()? != Privileges::NeedsUserNamespace {
        return Ok(());
    }
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let at = match command {
        LabAction::Up(_) | LabAction::Demo(_) | LabAction::MailDemo(_) => None,
        LabAction::Down {
            all_stale: true, ..
        } => return Ok(()),
        LabAction::Exec { at, .. }
        | LabAction::Fault { at, .. }
        | LabAction::Status { at, .. }
        | LabAction::Down { at, .. } => Some(at),
    };
    let error = match at {
        None => {
            eprintln!(
                "lab: not root, so in a user namespace; left out: {}",
                left_out().join("; ")
            );
            enter_user_namespace(&args)
        }
        Some(at) => {
            let record = Record::read(&at.dir.join(RECORD_FILE))?;
            match record.anchor.filter(|a| a.is_alive()) {
                Some(anchor) => join_user_namespace(anchor.pid, &args),
                None => return Err(LabError::NoLab { dir: record.dir }),
            }
        }
    };
    Err(LabError::Io {
        what: "enter a user namespace".to_owned(),
        source: error,
    })
}

fn run(command: LabAction) -> Result<ExitCode, LabError> {
    match command {
        LabAction::Demo(args) => match demo::run(&args) {
            Err(DemoError::Lab(error)) => Err(error),
            Err(error) => {
                eprintln!("error: {}", with_causes(&error));
                Ok(ExitCode::from(error.exit_code()))
            }
            Ok(code) => Ok(code),
        },
        LabAction::MailDemo(args) => mail_cluster::run(&args).or_else(mail_failure),
        LabAction::Up(up) => self::up(up),
        LabAction::Exec { at, host, command } => exec(&at.dir, &host, &command),
        LabAction::Fault { at, fault, host } => {
            Lab::open(&at.dir)?.fault(fault, &host)?;
            Ok(ExitCode::SUCCESS)
        }
        LabAction::Status { at, output } => status(&Lab::open(&at.dir)?, output),
        LabAction::Down {
            all_stale: true, ..
        } => {
            for prefix in lab::end_stale_labs() {
                println!("ended {prefix}");
            }
            Ok(ExitCode::SUCCESS)
        }
        LabAction::Down {
            at,
            all_stale: false,
        } => {
            Lab::open(&at.dir)?.down();
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn up(up: Up) -> Result<ExitCode, LabError> {
    if let Some(Scenario::Mail) = up.scenario {
        return mail_up(&up).or_else(mail_failure);
    }
    let mut builder = Lab::builder()
        .client()
        .atms(up.atms)
        .servers(up.servers)
        .port(up.port)
        .dir(&up.at.dir)
        .persistent();
    if let Some(file) = up.conf {
        let text = std::fs::read_to_string(&file).map_err(|source| LabError::Io {
            what: format!("read {}", file.display()),
            source,
        })?;
        builder = builder.conf_named(file.display().to_string(), text);
    }
    if let Some(mtu) = up.client_router {
        builder = builder.client_behind_router(Some(mtu));
    }
    if let Some(mtu) = up.server_router {
        builder = builder.servers_behind_router(Some(mtu));
    }
    if up.no_daemons {
        builder = builder.without_daemons();
    }
    let lab = builder.start()?;
    status(&lab, Output::Table)?;
    let dir = said_dir(&up.at);
    println!("\nnext:");
    if !up.no_daemons {
        println!("  lab exec{dir} atm1 -- atmctl status");
        println!("  lab fault{dir} kill atm1");
    }
    println!("  lab exec{dir} client -- ip addr");
    println!("  lab status{dir}\n  lab down{dir}");
    Ok(ExitCode::SUCCESS)
}

/// The clustered mail server, to look at.
fn mail_up(up: &Up) -> Result<ExitCode, MailClusterError> {
    let missing = mail_cluster::missing_packages();
    if !missing.is_empty() {
        return Err(MailClusterError::Missing(missing));
    }
    let setting = mail_cluster::Setting {
        combined: up.combined,
        ..mail_cluster::Setting::default()
    };
    let builder = mail_cluster::builder(&setting)?;
    let lab = builder.port(up.port).dir(&up.at.dir).persistent().start()?;
    let started = MailServers::start(&lab, setting);
    let storage = match started.and_then(|servers| servers.storage()) {
        Ok(storage) => storage,
        Err(error) => {
            // Half a scenario is of no use to anybody, and would be in the way of the next attempt.
            lab.down();
            return Err(error);
        }
    };
    status(&lab, Output::Table)?;
    let (dir, server) = (said_dir(&up.at), if up.combined { "atm2" } else { "serv2" });
    println!("\n{storage}\n\nnext:");
    println!("  lab exec{dir} client -- swaks --server mail.my.org --to somebody@mail.my.org");
    println!(
        "  lab exec{dir} client -- curl -u somebody:secret 'imap://mail.my.org/INBOX;MAILINDEX=1'"
    );
    println!("  lab exec{dir} {server} -- postqueue -p");
    println!("  lab exec{dir} {server} -- doveadm who");
    println!("  lab fault{dir} kill atm1");
    println!("  lab status{dir}\n  lab down{dir}");
    Ok(ExitCode::SUCCESS)
}

/// What the lab has no error for is said here.
fn mail_failure(error: MailClusterError) -> Result<ExitCode, LabError> {
    match error {
        MailClusterError::Lab(error) => Err(error),
        error @ (MailClusterError::Missing(_)
        | MailClusterError::NotRoot
        | MailClusterError::Cluster(_)
        | MailClusterError::Client { .. }
        | MailClusterError::Answer { .. }
        | MailClusterError::Result(_)) => {
            eprintln!("error: {}", with_causes(&error));
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}

/// The option that names the directory again, where it is not the default.
fn said_dir(at: &At) -> String {
    if at.dir == Path::new("lab-run") {
        String::new()
    } else {
        format!(" --dir {}", at.dir.display())
    }
}

fn exec(dir: &Path, host: &str, argv: &[String]) -> Result<ExitCode, LabError> {
    let lab = Lab::open(dir)?;
    let mut command: Command = lab.host(host)?.foreground(argv)?;
    let status: ExitStatus = command.status().map_err(|source| LabError::Io {
        what: format!("run {}", argv[0]),
        source,
    })?;
    // As a shell reports a command that a signal ended.
    let code = status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn status(lab: &Lab, output: Output) -> Result<ExitCode, LabError> {
    let status = lab.status()?;
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&status).map_err(|e| LabError::Io {
            what: "write the status".to_owned(),
            source: e.into(),
        })?,
        Output::Table => status.to_string(),
    };
    // A reader that has seen enough (`| head`) is no failure.
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// A server ends only when it cannot start.
fn served<E: std::error::Error>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            // EX_UNAVAILABLE of sysexits(3).
            ExitCode::from(69)
        }
    }
}

fn fail(error: &LabError) -> ExitCode {
    if let LabError::Unavailable(reason) = error {
        eprintln!("skipped: no namespaces: {reason}");
    } else {
        eprintln!("error: {}", with_causes(error));
    }
    ExitCode::from(error.exit_code())
}
