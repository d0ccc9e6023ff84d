//! What all acts share: the cluster, the mail servers, the screen, the rows.

use super::error::MailClusterError;
use super::outcome::MailOutcome;
use super::servers::MailServers;
use super::setting::Setting;
use crate::cluster::Cluster;
use crate::demo::Screen;
use crate::lab::Lab;

/// The running demo.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) servers: MailServers<'a>,
    pub(super) outcome: MailOutcome,
    screen: &'a mut Screen,
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
        self.outcome.rows.begin(title);
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
        self.outcome.rows.push(what, measured, bound, ok);
    }

    /// The act is over.
    pub(super) fn done(&mut self) {
        let rows = &self.outcome.rows;
        let text = format!("{} checks", rows.of_act().len());
        self.screen.done(rows.act_holds(), &text);
    }

    /// The act could not go on.
    pub(super) fn failed(&mut self, error: &MailClusterError) {
        let text = self.outcome.rows.failed(error);
        self.screen.done(false, &text);
    }

    /// An earlier act could not go on, so this one was not tried.
    pub(super) fn not_reached(&mut self) {
        let text = self.outcome.rows.not_reached();
        self.screen.done(false, text);
    }
}
