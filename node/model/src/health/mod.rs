//! What the ATMs agree on about the health of servers: verdicts of the checks, what operators ordered, what happened,
//! and which `Up` and `Down` scripts are to run.
//!
//! A *subject* is what is checked: a server (ping, with the empty service name [`HOST`]) or one service of a server (agent).
//! What was never judged is up. [`judge`] makes verdicts of the reports of all ATMs; nothing there is replicated.

mod events;
pub mod judge;
mod overrides;
mod scripts;
mod targets;
mod verdicts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use events::{EVENTS_MAX, Event, EventKind, Events, TEXT_BYTES_MAX};
pub use overrides::{Mode, Order, Override, OverrideKey};
pub use scripts::{Begun, RUNS_MAX, ScriptRun, ScriptStep};
pub use targets::{Check, Target};
pub(crate) use verdicts::Verdict;

use crate::ids::ServerId;

/// The service name that stands for a server itself, in a [`Subject`].
pub const HOST: &str = "";

/// A server and the name of a service, or [`HOST`].
pub type Subject = (ServerId, String);

/// Why a subject is down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// When the verdict was proposed: milliseconds since 1970 by the proposer's wall clock; 0: not known.
    pub since_ms: u64,
    /// What a check said, at most [`TEXT_BYTES_MAX`] bytes.
    pub reason: String,
}

/// The replicated part of health beside the set of what is down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Why each subject that is down is; one from before reasons were kept has none.
    pub(crate) findings: BTreeMap<Subject, Finding>,
    /// What operators ordered.
    pub(crate) overrides: BTreeMap<OverrideKey, Override>,
    pub(crate) events: Events,
    /// Scripts that have to run, by the number of their run.
    pub(crate) runs: BTreeMap<u64, ScriptRun>,
    pub(crate) next_run: u64,
}

impl Health {
    /// What forwarding needs of it.
    pub(crate) fn for_forwarding(&self) -> Self {
        Self {
            overrides: self.overrides.clone(),
            ..Self::default()
        }
    }
}

/// `text` cut to [`TEXT_BYTES_MAX`] bytes at a character.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
    }
    text
}
