//! What all acts share: the cluster, the mail servers, the screen, the rows.

use super::error::MailClusterError;
use super::outcome::MailOutcome;
use super::servers::MailServers;
use super::setting::Setting;
use crate::cluster::Cluster;
use crate::demo::{Row, Screen};
use crate::lab::Lab;

/// The running demo.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) servers: MailServers<'a>,
    pub(super) outcome: MailOutcome,
    screen: &'a mut Screen,
    act: String,
    /// Number of rows when the act began.
    act_rows: usize,
}

impl<'a> Stage<'a> {
    /// Nothing is measured yet.
    pub(super) fn new(
        cluster: &'a Cluster,
        servers: MailServers<'a>,
        outcome: MailOutcome,
        screen: &'a mut Screen,
    ) -> Self {
        Self {
            cluster,
            servers,
            outcome,
            screen,
            act: String::new(),
            act_rows: 0,
        }
    }

    /// The hosts.
    pub(super) fn lab(&self) -> &'a Lab {
        self.cluster.lab()
    }

    /// The kind of machine.
    pub(super) fn setting(&self) -> Setting {
        self.servers.setting()
    }

    /// The next act begins.
    pub(super) fn begin(&mut self, title: &str) {
        title.clone_into(&mut self.act);
        self.act_rows = self.outcome.rows.len();
        self.screen.step(title);
    }

    /// What the act is doing.
    pub(super) fn say(&mut self, text: &str) {
        self.screen.say(text);
    }

    /// Something was measured.
    pub(super) fn row(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        bound: impl Into<String>,
        ok: bool,
    ) {
        self.outcome.rows.push(Row {
            act: self.act.clone(),
            what: what.into(),
            measured: measured.into(),
            bound: bound.into(),
            ok,
        });
    }

    /// The act is over.
    pub(super) fn done(&mut self) {
        let rows = &self.outcome.rows[self.act_rows..];
        let held = rows.iter().all(|row| row.ok);
        let text = format!("{} checks", rows.len());
        self.screen.done(held, &text);
    }

    /// The act could not go on.
    pub(super) fn fail(&mut self, error: &MailClusterError) {
        let text = error.to_string();
        self.row("goes to its end", &text, "no error", false);
        self.screen.done(false, &text);
    }
}
