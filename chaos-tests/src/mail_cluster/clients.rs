//! Public clients in the host `client`: swaks, curl, Python's library.

use std::process::Output;
use std::time::Duration;

use serde::Deserialize;

use super::error::MailClusterError;
use super::files::PASSWORD;
use super::packages::python;
use super::servers::{Service, server_named};
use crate::lab::Lab;

/// What clients are told to reach.
pub(super) const VIP_NAME: &str = "mail.my.org";

/// Longest run of one client, its own time limits included.
const CLIENT_MAX: Duration = Duration::from_secs(60);

/// The clients of Python's library.
const CLIENTS_PY: &str = include_str!("../../mail/clients.py");

/// Which server served a client, by its name in the configuration.
pub(super) type ServedBy = String;

/// swaks delivers a mail and says who took it.
///
/// # Errors
/// [`MailClusterError::Client`] unless the mail was accepted.
pub(super) fn swaks(lab: &Lab, to: &str, subject: &str) -> Result<ServedBy, MailClusterError> {
    let subject = format!("Subject: {subject}");
    let argv = [
        "swaks",
        "--server",
        VIP_NAME,
        "--helo",
        "client.my.org",
        "--from",
        "me@my.org",
        "--to",
        to,
        "--header",
        &subject,
        "--body",
        "One line.\n.\nAnother one.\n",
        "--timeout",
        "30",
    ];
    let output = run(lab, &argv)?;
    // "<-  220 serv1.my.org ESMTP Postfix"
    let said = String::from_utf8_lossy(&output.stdout);
    let greeting = said.lines().find_map(|line| line.strip_prefix("<-  220 "));
    served_by(&argv, greeting.unwrap_or(&said))
}

/// curl reads the first mail of `user` by `service` and says who served it; the mail has to hold `text`.
///
/// # Errors
/// [`MailClusterError::Client`], [`MailClusterError::Answer`].
pub(super) fn curl(
    lab: &Lab,
    service: Service,
    user: &str,
    text: &str,
) -> Result<ServedBy, MailClusterError> {
    let url = match service {
        Service::Imap => format!("imap://{VIP_NAME}/INBOX;MAILINDEX=1"),
        Service::Pop3 | Service::Smtp => format!("pop3://{VIP_NAME}/1"),
    };
    let login = format!("{user}:{PASSWORD}");
    let argv = [
        "curl",
        "--silent",
        "--show-error",
        "--verbose",
        "--max-time",
        "30",
        "--user",
        &login,
        &url,
    ];
    let output = run(lab, &argv)?;
    if !String::from_utf8_lossy(&output.stdout).contains(text) {
        return Err(answer(&argv, format!("no {text:?} in the mail")));
    }
    // "< * OK [CAPABILITY ...] serv2.my.org ready", "< +OK serv1.my.org ready"
    let said = String::from_utf8_lossy(&output.stderr);
    let greeting = said
        .lines()
        .find(|line| line.starts_with("< ") && line.contains(" ready"));
    served_by(&argv, greeting.unwrap_or(&said))
}

/// What a client of Python's library did.
#[derive(Debug, Deserialize)]
struct Done {
    server: String,
}

/// One of Python's clients: `send SENDER RECIPIENT SUBJECT`, `pop3 USER SUBJECT`, `imap USER SUBJECT`.
///
/// # Errors
/// [`MailClusterError::Client`] if it failed or found no such mail.
pub(super) fn python_client(lab: &Lab, args: &[&str]) -> Result<ServedBy, MailClusterError> {
    let python = python();
    let argv = [&[python.as_str(), "-c", CLIENTS_PY, VIP_NAME], args].concat();
    let output = run(lab, &argv)?;
    let shown = [&[python.as_str(), "clients.py", VIP_NAME], args].concat();
    let done: Done = serde_json::from_slice(&output.stdout)
        .map_err(|error| answer(&shown, error.to_string()))?;
    served_by(&shown, &done.server)
}

/// Does `act` until every one of `wanted` has served it, at most `tries` times; tells who served each time.
///
/// # Errors
/// What `act` fails with.
pub(super) fn until_all_served(
    wanted: &[&str],
    tries: usize,
    mut act: impl FnMut(usize) -> Result<ServedBy, MailClusterError>,
) -> Result<Vec<ServedBy>, MailClusterError> {
    let mut served = Vec::new();
    for attempt in 0..tries {
        served.push(act(attempt)?);
        let all = wanted.iter().all(|name| served.iter().any(|by| by == name));
        if all {
            break;
        }
    }
    Ok(served)
}

fn run(lab: &Lab, argv: &[&str]) -> Result<Output, MailClusterError> {
    let output = lab.host("client")?.exec_within(CLIENT_MAX, argv)?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = said.lines().collect();
    Err(MailClusterError::Client {
        command: shown(argv),
        status: output.status.to_string(),
        // The end of the conversation says what went wrong.
        said: lines[lines.len().saturating_sub(5)..].join(" | "),
    })
}

/// The name of a server among the words of what it said.
fn served_by(argv: &[&str], said: &str) -> Result<ServedBy, MailClusterError> {
    let named = server_named(said).map(str::to_owned);
    named.ok_or_else(|| answer(argv, format!("no name of a server in {said:?}")))
}

fn answer(argv: &[&str], reason: String) -> MailClusterError {
    MailClusterError::Answer {
        command: shown(argv),
        reason,
    }
}

/// A command line for people: without the text of a program in it.
fn shown(argv: &[&str]) -> String {
    let words = argv
        .iter()
        .map(|word| if word.contains('\n') { "..." } else { word });
    words.collect::<Vec<_>>().join(" ")
}
