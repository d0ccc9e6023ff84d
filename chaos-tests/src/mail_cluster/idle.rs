//! IMAP sessions that wait in IDLE.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::clients::VIP_NAME;
use super::error::MailClusterError;
use super::program::Program;
use super::setting::Setting;
use crate::cluster::wait_until;
use crate::lab::Lab;

const IDLE_PY: &str = include_str!("../../mail/idle.py");

/// Two for each server of IMAP.
pub(super) const SESSIONS: usize = 4;

/// The mailbox that they watch.
pub(super) const USER: &str = "idle";

/// To open all of them.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Its own limit, and a loaded machine.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// What a session tells.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event {
    /// It waits.
    Idle { session: usize, server: String },
    /// There are so many mails.
    Exists { session: usize, count: usize },
    /// It answered a command after all that waiting.
    Answered { session: usize },
    /// Its connection is gone.
    Closed { session: usize },
}

/// The sessions.
pub(super) struct Sessions(Program<Event>);

impl Sessions {
    /// Opens them through the VIP; all wait when this returns.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn open(lab: &Lab, setting: Setting) -> Result<Self, MailClusterError> {
        let args = [VIP_NAME.to_owned(), USER.to_owned(), SESSIONS.to_string()];
        let sessions = Self(Program::start(lab, "idle", IDLE_PY, &args)?);
        let limit = setting.here(OPEN_MAX);
        wait_until("every session waits in IDLE", limit, || {
            let servers = sessions.servers();
            if servers.len() == SESSIONS {
                Ok(())
            } else {
                Err(format!("{servers:?}"))
            }
        })?;
        Ok(sessions)
    }

    /// The server of each session.
    pub(super) fn servers(&self) -> BTreeMap<usize, String> {
        let told = self.0.told().into_iter();
        let idle = told.filter_map(|event| match event {
            Event::Idle { session, server } => Some((session, server)),
            Event::Exists { .. } | Event::Answered { .. } | Event::Closed { .. } => None,
        });
        idle.collect()
    }

    /// The sessions that were told of `count` mails at least.
    pub(super) fn told_of(&self, wanted: usize) -> BTreeSet<usize> {
        told_of(&self.0.told(), wanted)
    }

    /// Ends the waiting; how many sessions then answered a command.
    ///
    /// # Errors
    /// The client does not end.
    pub(super) fn finish(self, setting: Setting) -> Result<usize, MailClusterError> {
        let told = self.0.finish(setting.here(FINISH_MAX))?;
        let answered = |event: &&Event| matches!(event, Event::Answered { .. });
        Ok(told.iter().filter(answered).count())
    }
}

/// The sessions that were told of `wanted` mails at least and are still open.
fn told_of(events: &[Event], wanted: usize) -> BTreeSet<usize> {
    let mut told = BTreeSet::new();
    for event in events {
        match event {
            Event::Exists { session, count } if *count >= wanted => {
                told.insert(*session);
            }
            Event::Closed { session } => {
                told.remove(session);
            }
            Event::Idle { .. } | Event::Exists { .. } | Event::Answered { .. } => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_ended_was_told_nothing() {
        let text = r#"[{"session":0,"event":"idle","server":"serv2.my.org","at":1.0},
            {"session":1,"event":"idle","server":"serv3.my.org","at":1.0},
            {"session":0,"event":"exists","count":1,"at":2.0},
            {"session":1,"event":"exists","count":1,"at":2.0},
            {"session":1,"event":"exists","count":2,"at":3.0},
            {"session":0,"event":"closed","at":3.0}]"#;
        let events: Vec<Event> = serde_json::from_str(text).unwrap();
        assert_eq!(told_of(&events[..4], 1), BTreeSet::from([0, 1]));
        assert_eq!(told_of(&events, 1), BTreeSet::from([1]));
        assert_eq!(told_of(&events, 2), BTreeSet::from([1]));
        assert_eq!(told_of(&events, 3), BTreeSet::new());
    }
}
