//! `Up` and `Down` scripts: each change of a service's health has one run, on the ATM that is active.
//!
//! A run is written down when its verdict is, again when an ATM begins it, and is gone when it ended. So across a takeover nobody runs
//! what ended, and what nobody began is begun. What was begun may or may not have run: the ATM that began it knows, and where it
//! cannot be asked the run begins again and its event says so.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{EventKind, HOST};
use crate::command::{Refusal, Response};
use crate::conf::{Agent, Protocol};
use crate::ids::{Epoch, NodeId, ServerId};
use crate::state::State;

/// Runs that wait or are under way: each may be a process that restarts a service.
pub const RUNS_MAX: usize = 256;

/// One run of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// The program.
    pub program: String,
    /// `Up`; else `Down`.
    pub up: bool,
    /// The server's name.
    pub server: String,
    /// The service's name.
    pub service: String,
    /// The server's address: the script's first argument.
    pub address: IpAddr,
    /// The service's port: the second.
    pub port: u16,
    /// The third: 1 for TCP, 2 for UDP.
    pub protocol: Protocol,
    /// Who began it last; `None`: nobody yet.
    pub begun: Option<Begun>,
}

/// Who began a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// In which tenure.
    pub epoch: Epoch,
    /// The ATM.
    pub node: NodeId,
}

/// What the active ATM says of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScriptStep {
    /// It is going to start it.
    Begin,
    /// It has ended, as this text says.
    End(String),
}

impl State {
    /// Scripts that have to run or are running, oldest first.
    pub fn script_runs(&self) -> &std::collections::BTreeMap<u64, ScriptRun> {
        &self.health.runs
    }

    /// One ATM's word about a run, in its tenure.
    pub(crate) fn script(
        &mut self,
        epoch: Epoch,
        number: u64,
        step: ScriptStep,
        at_ms: u64,
    ) -> Result<Response, Refusal> {
        let tenure = self.current_tenure(epoch)?;
        let (node, name) = (tenure.node, tenure.name.clone());
        let Some(run) = self.health.runs.get_mut(&number) else {
            return Ok(Response::Noted(false));
        };
        let what = format!("{} {}", if run.up { "Up" } else { "Down" }, run.program);
        let (kind, text) = match step {
            ScriptStep::Begin => {
                let before = run.begun.replace(Begun { epoch, node });
                match before {
                    None => (EventKind::ScriptBegun, format!("{what} on {name}")),
                    Some(before) if before.epoch == epoch => return Ok(Response::Noted(false)),
                    Some(before) => (
                        EventKind::ScriptAgain,
                        format!(
                            "{what} on {name}: nobody can know whether it ran in epoch {}",
                            before.epoch
                        ),
                    ),
                }
            }
            ScriptStep::End(how) => (EventKind::ScriptEnded, format!("{what}: {how}")),
        };
        let about = (run.server.clone(), run.service.clone());
        if kind == EventKind::ScriptEnded {
            self.health.runs.remove(&number);
        }
        let about = (about.0.as_str(), about.1.as_str());
        self.health.events.add(at_ms, kind, about, text);
        Ok(Response::Noted(true))
    }

    /// Writes down the run that a change of a service's health asks for, if its agent has a script for that.
    pub(crate) fn want_script(&mut self, server: ServerId, service: &str, up: bool, at_ms: u64) {
        debug_assert_ne!(service, HOST);
        let Some((run, about)) = self.script_for(server, service, up) else {
            return;
        };
        if self.health.runs.len() >= RUNS_MAX {
            let about = (about.0.as_str(), about.1.as_str());
            let text = format!("{}: {RUNS_MAX} others wait", run.program);
            self.health
                .events
                .add(at_ms, EventKind::ScriptRefused, about, text);
            return;
        }
        self.health.next_run += 1;
        self.health.runs.insert(self.health.next_run, run);
    }

    fn script_for(
        &self,
        server: ServerId,
        service: &str,
        up: bool,
    ) -> Option<(ScriptRun, (String, String))> {
        let config = &self.current.as_ref()?.config;
        let known = self.servers.get(&server)?;
        let service = config.services.iter().find(|s| s.name == service)?;
        let Agent::User(agent) = &service.agent else {
            return None;
        };
        let agent = config.user_checks.iter().find(|user| user.name == *agent)?;
        let program = if up { &agent.up } else { &agent.down };
        let run = ScriptRun {
            program: program.clone()?,
            up,
            server: known.name.clone(),
            service: service.name.clone(),
            address: known.address,
            port: service.port,
            protocol: service.protocol,
            begun: None,
        };
        Some((run, (known.name.clone(), service.name.clone())))
    }
}
