//! The clients that send mail all the time, and what reads the mailboxes afterwards.

use std::time::Duration;

use serde::Deserialize;

use super::clients::VIP_NAME;
use super::error::MailClusterError;
use super::packages::python;
use super::program::Program;
use super::setting::Setting;
use crate::lab::Lab;

const SENDERS_PY: &str = include_str!("../../mail/senders.py");
const COLLECT_PY: &str = include_str!("../../mail/collect.py");

/// Mails of each client at least: 200 in all, of twenty clients.
pub(super) const MAILS_EACH: usize = 10;

/// Between two mails of one client: some thirty mails a second in all.
const PAUSE: Duration = Duration::from_millis(600);

/// A client waits so long for an answer; it gives a mail up after twelve times as long, a minute.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// So a client that has given up has ended.
const FINISH_MAX: Duration = Duration::from_secs(90);

/// A mail that a client has got rid of, or given up.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Sent {
    /// Its subject, which no other mail has.
    pub(super) subject: String,
    /// Who said 250 after its DATA; `None`: nobody within the client's patience.
    pub(super) server: Option<String>,
    /// How often all of it was sent and no answer came.
    pub(super) unknown: usize,
    /// How often it was not taken.
    pub(super) failed: usize,
    /// When it was accepted, in seconds since 1970.
    pub(super) at: f64,
}

/// A mail in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Found {
    /// Its subject.
    pub(super) subject: String,
    /// Who accepted it.
    pub(super) server: String,
    /// What it was called there.
    pub(super) queue_id: String,
}

/// The clients.
pub(super) struct Senders {
    program: Program<Sent>,
    setting: Setting,
}

impl Senders {
    /// Starts them all.
    ///
    /// # Errors
    /// They cannot be started.
    pub(super) fn start(lab: &Lab, setting: Setting) -> Result<Self, MailClusterError> {
        let args = [
            setting.senders.to_string(),
            MAILS_EACH.to_string(),
            setting.here(PAUSE).as_millis().to_string(),
            setting.here(ANSWER_MAX).as_secs().to_string(),
        ];
        let args = [&[VIP_NAME.to_owned()], &args[..]].concat();
        let program = Program::start(lab, "senders", SENDERS_PY, &args)?;
        Ok(Self { program, setting })
    }

    /// What they have got rid of.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.program.told()
    }

    /// How many mails `server` has accepted.
    pub(super) fn accepted_by(&self, server: &str) -> usize {
        let sent = self.sent();
        let named = sent.iter().filter_map(|sent| sent.server.as_deref());
        named
            .filter(|by| by.split('.').next() == Some(server))
            .count()
    }

    /// Lets each end with the mail it is at.
    ///
    /// # Errors
    /// They do not end.
    pub(super) fn finish(self) -> Result<Vec<Sent>, MailClusterError> {
        self.program.finish(self.setting.here(FINISH_MAX))
    }
}

/// Reads all mailboxes of the senders through the VIP.
///
/// # Errors
/// The client fails.
pub(super) fn collect(lab: &Lab, senders: usize) -> Result<Vec<Found>, MailClusterError> {
    let mut argv = vec![
        python(),
        "-c".to_owned(),
        COLLECT_PY.to_owned(),
        VIP_NAME.to_owned(),
    ];
    argv.extend((1..=senders).map(|n| format!("u{n}")));
    let output = lab.host("client")?.exec(&argv)?;
    if !output.status.success() {
        return Err(MailClusterError::Client {
            command: format!("collect.py {VIP_NAME}"),
            status: output.status.to_string(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    let found = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>();
    found.map_err(|error| MailClusterError::Answer {
        command: format!("collect.py {VIP_NAME}"),
        reason: error.to_string(),
    })
}
