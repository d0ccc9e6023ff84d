//! One run from its schedule to its verdict.

use std::collections::VecDeque;

use super::chance::Digest;
use super::clock::{MS, True};
use super::judge::Tally;
use super::schedule::Schedule;
use super::violation::Violation;
use super::world::{Tells, World};

/// Everything must work again within this time after the last fault: several elections, a hand-over that is given up
/// after 5 s, and what clients need to find the new ATM.
const HEALED_WITHIN: True = 20_000 * MS;
/// Once the clients are quiet everything must come to rest within this time: entries, closes of idle connections.
const QUIET_WITHIN: True = 12_000 * MS;
/// How often it is looked whether all is well.
const LOOK_EVERY: u64 = 64;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything that happened, in one word: equal digests, equal runs.
    pub digest: Digest,
    /// Events, those after the last fault included.
    pub steps: u64,
    /// True time, in milliseconds.
    pub time_ms: u64,
    /// What was seen.
    pub tally: Tally,
    /// What must not have been; with it the run ended.
    pub violation: Option<Violation>,
    /// The last lines of the story, if it was asked for.
    pub story: Vec<String>,
}

/// How much of its story a run tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// Nothing: fastest.
    Untold,
    /// The last lines, in [`Outcome::story`].
    Kept,
    /// Each line on stdout as it happens.
    Printed,
}

/// Runs a schedule: `steps` events with faults; then everything heals, and must come to work again.
pub fn run(schedule: &Schedule, story: Story) -> Outcome {
    let tells = match story {
        Story::Untold => Tells::Nobody,
        Story::Kept => Tells::Keeps(VecDeque::new()),
        Story::Printed => Tells::Prints,
    };
    let mut world = World::new(schedule.clone(), tells);
    let mut left = schedule.steps;
    while left > 0 && world.judge.broken.is_none() && world.step().is_some() {
        left -= 1;
    }
    if world.judge.broken.is_none() {
        world.heal();
        world.await_recovery();
    }
    if world.judge.broken.is_none() {
        world.await_rest();
    }
    for me in 0..world.atms.len() {
        let name = world.atms[me].name();
        if let Some(process) = world.atms[me].process.take() {
            world.judge.verdicts(&name, &process.engine);
        }
    }
    Outcome {
        digest: world.digest,
        steps: world.steps,
        time_ms: world.now / MS,
        tally: world.judge.tally,
        violation: world.judge.broken,
        story: match world.tells {
            Tells::Keeps(lines) => lines.into(),
            Tells::Nobody | Tells::Prints => Vec::new(),
        },
    }
}

impl World {
    /// Until one ATM speaks and every client's connections flow.
    fn await_recovery(&mut self) {
        self.await_that(HEALED_WITHIN, Self::is_recovered);
    }

    /// Until everybody has applied everything, with the same state, and every table has it.
    fn await_rest(&mut self) {
        self.quiet = true;
        self.await_that(QUIET_WITHIN, Self::is_at_rest);
        if self.judge.broken.is_some() {
            return;
        }
        for me in 0..self.count() {
            let Some(process) = self.atms[me].process.as_ref() else {
                continue;
            };
            let (state, index) = (&process.machine.state, process.machine.applied);
            let name = super::atm::name(me);
            if let Err(violation) = self.judge.compare(&name, index, state) {
                self.report(violation);
                return;
            }
        }
    }

    fn await_that(&mut self, within: True, reached: impl Fn(&Self) -> Result<(), String>) {
        let since = self.now;
        loop {
            for _ in 0..LOOK_EVERY {
                if self.judge.broken.is_some() || self.step().is_none() {
                    return;
                }
            }
            if !self.quiet {
                self.mend_health();
            }
            match reached(self) {
                Ok(()) => return,
                Err(what) if self.now > since + within => {
                    let seconds = within / (1000 * MS);
                    self.report(Violation::NotHealed { seconds, what });
                    return;
                }
                Err(_) => {}
            }
        }
    }

    fn is_recovered(&self) -> Result<(), String> {
        let healed = self.healed.unwrap_or(self.now);
        let speaking = self
            .atms
            .iter()
            .filter(|atm| atm.speaks(self.now).is_some())
            .count();
        if speaking != 1 {
            return Err(format!("{speaking} ATMs hold the lease"));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let flows = |connection: &super::hosts::Connection| {
                connection.server.is_some() && connection.answered > healed
            };
            if !client.connections.values().any(flows) {
                return Err(format!("no connection of client {at} flows"));
            }
            let stuck = client
                .connections
                .iter()
                .find(|(_, connection)| connection.protected && connection.answered <= healed);
            if let Some((port, _)) = stuck {
                return Err(format!("connection {port} of client {at} does not flow"));
            }
        }
        Ok(())
    }

    fn is_at_rest(&self) -> Result<(), String> {
        let mut index = None;
        for atm in &self.atms {
            let Some(process) = atm.process.as_ref() else {
                return Err(format!("{} is down", atm.name()));
            };
            let machine = &process.machine;
            let behind = process.raft.log.last() - machine.applied;
            if behind > 0 || *index.get_or_insert(machine.applied) != machine.applied {
                return Err(format!(
                    "{} has applied {} of {}",
                    atm.name(),
                    machine.applied,
                    process.raft.log.last()
                ));
            }
            let (table, state) = (
                process.engine.forwarder.connections(),
                machine.state.connections().len(),
            );
            if !process.engine.control.is_empty() || table < state {
                return Err(format!(
                    "{} has {table} connections in its forwarding table, {state} are committed",
                    atm.name()
                ));
            }
        }
        Ok(())
    }
}
