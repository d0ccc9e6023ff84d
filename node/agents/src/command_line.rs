//! The programs: `<program> <server-ip> <port> <socktype>`, exit status 0 healthy, 1 the test transaction failed, 2 wrong usage.

use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::agent::{Agent, Target, Transport};
use crate::options::{Options, Statuses, Tls};
use crate::protocol::{checked_name, checked_path};
use crate::{check_within, tls};

const EXIT_CODES: &str = "Exit status: 0 healthy, 1 the test transaction failed and standard error says at which step, 2 wrong usage.";

/// Tells whether a service works, by one transaction with it.
#[derive(Debug, Parser)]
#[command(after_help = EXIT_CODES)]
struct Args {
    /// The server
    #[arg(value_name = "SERVER-IP")]
    address: IpAddr,

    /// The port of the service
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// 1 is TCP, 2 is UDP
    #[arg(value_parser = parse_socktype)]
    socktype: Transport,

    /// TLS from the first byte; the default on the port that is assigned to the protocol for that
    #[arg(long, conflicts_with_all = ["starttls", "plain"])]
    tls: bool,

    /// TLS after the protocol's own request for it
    #[arg(long, conflicts_with = "plain")]
    starttls: bool,

    /// No TLS, whatever the port
    #[arg(long)]
    plain: bool,

    /// The name that TLS (SNI) and HTTP (Host) ask for
    #[arg(long, value_name = "NAME", value_parser = parse_server_name)]
    server_name: Option<String>,

    /// Check the certificate against the system's roots
    #[arg(long)]
    verify: bool,

    /// How long everything may take: 10s, 500ms, or seconds; 10ms to 24h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    timeout: Duration,

    /// What is asked for
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_path)]
    path: String,

    /// Statuses that are healthy, by commas
    #[arg(long, value_name = "STATUSES", default_value = "2xx,3xx")]
    expect: Statuses,

    /// The name whose address is asked for
    #[arg(long, value_name = "NAME", default_value = "localhost", value_parser = parse_query)]
    query: String,
}

/// Options that only some agents have.
fn has(agent: Agent, option: &str) -> bool {
    match option {
        "path" | "expect" => agent == Agent::Http,
        "query" => agent == Agent::Dns,
        "starttls" => agent.has_starttls(),
        _ => true,
    }
}

/// What the program of `agent` does: parses the command line, carries out the transaction, says why it failed.
#[must_use]
pub fn run(agent: Agent) -> ExitCode {
    let name = agent.program().unwrap_or("agent");
    let args = match parse(agent, name) {
        Ok(args) => args,
        Err(error) => return refuse(name, &error),
    };
    let target = args.target();
    let options = args.options(agent);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let failure = match runtime {
        Ok(runtime) => {
            let transaction = check_within(agent, &target, &options, args.timeout);
            match runtime.block_on(transaction) {
                Ok(()) => return ExitCode::SUCCESS,
                Err(failure) => failure.to_string(),
            }
        }
        Err(error) => format!("start: expected resources for one connection: {error}"),
    };
    say(format_args!("{name}: {target}: {failure}\n"));
    ExitCode::FAILURE
}

/// Help, or what is wrong with the command line and how it is used; clap leaves the latter out where only a value is wrong.
fn refuse(name: &'static str, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let sentence = error.to_string();
    if sentence.contains("Usage: ") {
        say(format_args!("{sentence}"));
    } else {
        let usage = Args::command().name(name).bin_name(name).render_usage();
        say(format_args!("{}\n\n{usage}\n", sentence.trim_end()));
    }
    ExitCode::from(2)
}

/// Writes to standard error. Where nobody listens there is nobody to tell, and the exit status is still to come.
fn say(words: fmt::Arguments<'_>) {
    let _nobody_listens = io::stderr().lock().write_fmt(words);
}

fn parse(agent: Agent, name: &'static str) -> Result<Args, clap::Error> {
    let ids: Vec<String> = Args::command()
        .get_arguments()
        .map(|argument| argument.get_id().to_string())
        .collect();
    let foreign = || ids.iter().filter(|id| !has(agent, id));
    let mut command = Args::command().name(name).bin_name(name);
    for id in foreign() {
        command = command.mut_arg(id, |argument| argument.hide(true));
    }
    let matches = command.clone().try_get_matches()?;
    let said = |id: &&String| matches.value_source(id) == Some(ValueSource::CommandLine);
    if let Some(id) = foreign().find(said) {
        let sentence = format!("{name} has no option --{id}");
        return Err(command.error(ErrorKind::UnknownArgument, sentence));
    }
    Args::from_arg_matches(&matches)
}

impl Args {
    fn target(&self) -> Target {
        Target {
            address: self.address,
            port: self.port,
            transport: self.socktype,
        }
    }

    fn options(&self, agent: Agent) -> Options {
        let tls = match (self.tls, self.starttls, self.plain) {
            (true, _, _) => Tls::Implicit,
            (_, true, _) => Tls::StartTls,
            (_, _, true) => Tls::None,
            (false, false, false) => Tls::usual(agent, self.socktype, self.port),
        };
        Options {
            tls,
            server_name: self.server_name.clone(),
            verify: self.verify,
            path: self.path.clone(),
            expect: self.expect.clone(),
            query: self.query.clone(),
        }
    }
}

fn parse_socktype(text: &str) -> Result<Transport, String> {
    let socktype = text.parse().ok().and_then(Transport::by_socktype);
    socktype.ok_or_else(|| "1 is TCP, 2 is UDP".to_owned())
}

fn parse_server_name(text: &str) -> Result<String, String> {
    match tls::server_name(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_path(text: &str) -> Result<String, String> {
    checked_path(text)
        .map(str::to_owned)
        .map_err(|error| error.to_string())
}

fn parse_query(text: &str) -> Result<String, String> {
    match checked_name(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    const BOUNDS: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| "write 10s, 500ms, or seconds".to_owned())?;
    let duration = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(60 * 60)),
        unit => return Err(format!("{unit} is no unit: ms, s, m or h")),
    };
    if BOUNDS.contains(&duration) {
        Ok(duration)
    } else {
        Err("10ms to 24h".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_bounds() {
        for (text, duration) in [
            ("10s", Duration::from_secs(10)),
            ("10", Duration::from_secs(10)),
            ("10ms", Duration::from_millis(10)),
            ("2m", Duration::from_secs(120)),
            ("24h", Duration::from_secs(86400)),
        ] {
            assert_eq!(parse_timeout(text), Ok(duration), "{text}");
        }
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "9ms",
            "0",
            "25h",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
