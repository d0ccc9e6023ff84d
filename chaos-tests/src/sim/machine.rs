//! Committed entries into the state, as the daemon's state machine does it: what an entry changed is handed to the packet
//! path before the entry counts as applied.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane_core::{ForwardingTable, NextHop, OtherAtms};
use model::command::{Command, Response};
use model::connections::ConnectionChange;
use model::state::State;

use super::atm::{Control, Machine, Process, Waiter, name, weight};
use super::clock::US;
use super::event::Later;
use super::hosts;
use super::judge::Applied;
use super::log::Snapshot;
use super::network::ATM;
use super::violation::Violation;
use super::world::World;

/// Entries of the log after which a snapshot takes their place, and what is kept beside it.
const SNAPSHOT_ENTRIES: u64 = 24;
const SNAPSHOT_KEEP: u64 = 4;
/// Committed entries applied in one go.
const APPLY_MAX: u64 = 32;

impl World {
    /// Committed entries change the state, and the packet path hears of it before they count as applied.
    pub(crate) fn apply(&mut self, me: usize) {
        let Some(process) = self.atms[me].process() else {
            return;
        };
        process.apply_due = false;
        let first = process.machine.applied + 1;
        let last = process.raft.commit.min(first + APPLY_MAX);
        let mut answers = Vec::new();
        for index in first..=last {
            let entry = self.atms[me]
                .process()
                .and_then(|process| process.raft.log.get(index).cloned());
            let Some(entry) = entry else {
                let what = format!("{} has no entry {index} to apply", name(me));
                self.report(Violation::Consensus(what));
                return;
            };
            let response = match self.apply_one(me, index, &entry.bytes) {
                Ok(response) => response,
                Err(violation) => {
                    self.report(violation);
                    return;
                }
            };
            let Some(process) = self.atms[me].process() else {
                return;
            };
            if let Some((term, waiter)) = process.waiters.remove(&index) {
                let response = (term == entry.term).then_some(response);
                answers.push((waiter, response));
            }
        }
        for (waiter, response) in answers {
            match response {
                Some(response) => self.answer(me, waiter, response),
                None => self.refused(me, waiter, "another entry is there"),
            }
        }
        self.wake_engine(me);
        self.tenure_applied(me);
        self.snapshot_when_due(me);
        if let Some(process) = self.atms[me].process()
            && process.raft.commit > process.machine.applied
            && !process.apply_due
        {
            process.apply_due = true;
            self.soon(me, 200 * US, Later::Apply);
        }
    }

    fn apply_one(&mut self, me: usize, index: u64, bytes: &[u8]) -> Result<Response, Violation> {
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return Ok(Response::None);
        };
        let machine = &mut process.machine;
        let response = if bytes.is_empty() {
            Response::None
        } else {
            let command = Command::decode(bytes)
                .map_err(|error| Violation::Consensus(format!("entry {index}: {error}")))?;
            let changed = machine.apply(command);
            let broken = machine.state.violations();
            if !broken.is_empty() {
                return Err(Violation::Invariant {
                    atm: name(me),
                    index,
                    what: format!("{broken:?}"),
                });
            }
            changed
        };
        machine.applied = index;
        let engine = &mut process.engine;
        if let Response::Applied(_) | Response::Health(true) = &response {
            let table =
                ForwardingTable::compile(&machine.state, index, NextHop::default(), |_| false);
            engine.tell(index, Control::Install(Box::new(table)));
        }
        if let Response::Applied(_) | Response::EpochBegun { .. } | Response::EpochEnded = &response
        {
            let others = other_atms(me, &machine.state);
            engine.tell(index, Control::OtherAtms(others));
        }
        if let Response::Connections { accepted, .. } = &response
            && !accepted.is_empty()
        {
            engine.tell(index, Control::Commit(accepted.clone()));
        }
        let applied = Applied::of(machine, &response);
        self.digest.add(applied.digest());
        self.judge
            .applied(&name(me), index, applied, &machine.state)?;
        self.tell(|_| format!("{} applied {index}: {}", name(me), brief(&response)));
        Ok(response)
    }

    fn answer(&mut self, me: usize, waiter: Waiter, response: Response) {
        match waiter {
            Waiter::Tenure(number) => self.proposal_answered(me, number, Ok(response)),
            Waiter::Replicator(changes) => {
                if let Response::Connections { refused, .. } = response {
                    let keys = refused.into_iter().map(|(key, _)| key).collect();
                    self.replicated(me, keys);
                } else {
                    self.refused(me, Waiter::Replicator(changes), "refused");
                }
            }
        }
    }

    pub(crate) fn refused(&mut self, me: usize, waiter: Waiter, why: &str) {
        match waiter {
            Waiter::Tenure(number) => self.proposal_answered(me, number, Err(why.to_owned())),
            Waiter::Replicator(changes) => {
                let keys = changes
                    .iter()
                    .filter(|change| matches!(change, ConnectionChange::Open(..)))
                    .filter_map(|change| change.key().copied())
                    .collect();
                self.replicated(me, keys);
            }
        }
    }

    fn snapshot_when_due(&mut self, me: usize) {
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let machine = &process.machine;
        if machine.applied < process.raft.log.base() + SNAPSHOT_ENTRIES + SNAPSHOT_KEEP {
            return;
        }
        let Some(term) = process.raft.log.term_of(machine.applied) else {
            return;
        };
        let snapshot = Arc::new(Snapshot {
            index: machine.applied,
            term,
            bytes: machine.state.encode(),
        });
        process.raft.compacted(snapshot, SNAPSHOT_KEEP);
        self.tell(|_| format!("{} takes a snapshot", name(me)));
        self.after_raft(me);
    }

    /// A snapshot has taken the place of the state.
    pub(crate) fn install(&mut self, me: usize, snapshot: &Snapshot) {
        let Some(process) = self.atms[me].process() else {
            return;
        };
        if snapshot.index <= process.machine.applied {
            return;
        }
        match State::decode(&snapshot.bytes) {
            Ok(state) => process.machine.replace(state, snapshot.index),
            Err(error) => {
                let what = format!(
                    "{} was sent a snapshot that cannot be read: {error}",
                    name(me)
                );
                self.report(Violation::Consensus(what));
                return;
            }
        }
        self.tell(|_| format!("{} installs a snapshot up to {}", name(me), snapshot.index));
        self.replaced(me);
        self.tenure_applied(me);
    }

    /// The whole state goes to the packet path.
    pub(crate) fn replaced(&mut self, me: usize) {
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        let Process {
            machine, engine, ..
        } = process;
        let (state, index) = (&machine.state, machine.applied);
        let applied = Applied::of(machine, &Response::None);
        if let Err(violation) = self.judge.replaced(&name(me), index, applied, state) {
            self.report(violation);
            return;
        }
        if state.current().is_some() {
            let table = ForwardingTable::compile(state, index, NextHop::default(), |_| false);
            engine.tell(index, Control::Install(Box::new(table)));
            engine.tell(index, Control::OtherAtms(other_atms(me, state)));
            let all = state.connections().iter().collect();
            let sticky = state.sticky().iter().collect();
            engine.tell(index, Control::Replace(all, sticky));
        }
        self.wake_engine(me);
    }
}

impl Machine {
    /// Applies one command, and keeps the sum over the connections up to date.
    fn apply(&mut self, command: Command) -> Response {
        let keys: Vec<_> = match &command {
            Command::Connections { changes, .. }
            | Command::ConnectionsBeforeSticky { changes, .. } => changes
                .iter()
                .filter_map(|change| change.key().copied())
                .collect(),
            Command::Control(_) => Vec::new(),
        };
        let sum = |state: &State| {
            keys.iter().enumerate().fold(0_u64, |sum, (place, key)| {
                let twice = keys[..place].contains(key);
                match state.connections().get(key).filter(|_| !twice) {
                    Some(pin) => sum.wrapping_add(weight(key, pin)),
                    None => sum,
                }
            })
        };
        let before = sum(&self.state);
        let response = self.state.apply(command);
        let after = sum(&self.state);
        self.connections = self.connections.wrapping_sub(before).wrapping_add(after);
        response
    }

    fn replace(&mut self, state: State, index: u64) {
        self.connections = Self::sum(&state);
        self.state = state;
        self.applied = index;
        self.reported = self.reported.max(index);
    }
}

/// The other ATMs, as the node tells its engine.
fn other_atms(me: usize, state: &State) -> OtherAtms {
    let ours = IpAddr::V4(hosts::address(ATM + me));
    let others = OtherAtms::of(state, state.tenure(), |address| address == ours, |_| true);
    // A simulated tenure has a name of its own, which is not that of the `AddAtm` line.
    let active = state.tenure().filter(|tenure| !tenure.ended);
    let active = active.and_then(|tenure| usize::try_from(tenure.node.0).ok()?.checked_sub(1));
    OtherAtms {
        active: active
            .filter(|atm| *atm != me)
            .map(|atm| IpAddr::V4(hosts::address(ATM + atm))),
        ..others
    }
}

fn brief(response: &Response) -> String {
    if let Response::Connections {
        accepted, refused, ..
    } = response
    {
        return format!("{accepted:?}, {} refused", refused.len());
    }
    format!("{response:?}")
}
