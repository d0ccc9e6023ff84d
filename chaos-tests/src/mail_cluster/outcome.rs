//! What the mail demo found.

use serde::Serialize;

use crate::demo::{self, Rows};

/// The result of a run. Serialized names are stable: programs read them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MailOutcome {
    /// How the servers shared the mailboxes.
    pub storage: String,
    /// Whether each ATM was a server, too.
    pub combined: bool,
    /// Every check, in the order of the acts.
    pub rows: Rows,
    /// What became of the mails of the 20 clients.
    pub mails: Option<Mails>,
    /// How long everything took.
    pub elapsed_ms: u64,
}

/// What became of the mails that were sent while ATMs and servers failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mails {
    /// A client has read 250 after their DATA.
    pub accepted: usize,
    /// In the mailboxes.
    pub found: usize,
    /// Accepted and not in their mailbox.
    pub lost: Vec<String>,
    /// In their mailbox more than once without a reason.
    pub twice: Vec<String>,
    /// In their mailbox once more because their sender saw no answer and sent them again.
    pub sent_twice: usize,
    /// In their mailbox once more because their server lost power while it delivered them.
    pub redelivered: usize,
    /// Their client had to try more than once.
    pub tried_again: usize,
    /// Their client lost its patience.
    pub given_up: usize,
}

impl MailOutcome {
    /// Whether every row held; a run without rows proved nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.rows.hold()
    }

    /// As JSON, with `ok` for [`Self::holds`].
    ///
    /// # Errors
    /// A number that JSON cannot express.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        demo::json(self, &self.rows)
    }
}
