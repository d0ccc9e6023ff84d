//! Sees everything, with true time, and compares.

use std::collections::BTreeMap;

use model::command::Response;
use model::ids::Epoch;
use model::lease::Term;
use model::state::State;

use super::atm::{Engine, Machine, Process, name};
use super::chance::Digest;
use super::hosts::{self, QUORUM_PORT, VIP};
use super::network::CLIENT;
use super::violation::Violation;
use super::world::World;

/// Every so many indexes the whole states are compared; in between their sums are.
const DIGEST_EVERY: u64 = 8;

#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) broken: Option<Violation>,
    /// Everything that is committed, by whichever ATM knew first.
    committed: Vec<(Term, u64)>,
    /// What it came to, by whoever applied it first.
    applied: BTreeMap<u64, Applied>,
    digests: BTreeMap<u64, [u8; 32]>,
    /// The youngest epoch that spoke, and who.
    pub(crate) spoken: Epoch,
    speaker: usize,
    pub(crate) tally: Tally,
    atms: usize,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tenures that spoke.
    pub tenures: u64,
    /// Connections that were acknowledged.
    pub connections: u64,
    /// Packets that reached a server through an ATM.
    pub forwarded: u64,
    /// Packets that a backup passed to another ATM.
    pub relayed: u64,
    /// Entries applied, on all ATMs.
    pub applied: u64,
    /// Faults that struck.
    pub faults: u64,
}

impl Tally {
    /// The sum of two.
    pub const fn add(&mut self, other: &Self) {
        self.tenures += other.tenures;
        self.connections += other.connections;
        self.forwarded += other.forwarded;
        self.relayed += other.relayed;
        self.applied += other.applied;
        self.faults += other.faults;
    }
}

/// A state at an index, in few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    response: u64,
    connections: u64,
    rest: u64,
}

impl Applied {
    pub(crate) fn of(machine: &Machine, response: &Response) -> Self {
        let state = &machine.state;
        let mut said = Digest::default();
        if let Response::Connections {
            accepted, refused, ..
        } = response
        {
            for change in accepted {
                said.add_bytes(&change.encode());
            }
            for (key, refusal) in refused {
                said.add(u64::from(key.port));
                said.add_bytes(refusal.to_string().as_bytes());
            }
        } else if *response != Response::None {
            said.add_bytes(format!("{response:?}").as_bytes());
        }
        let mut rest = Digest::default();
        rest.add(state.config_number().0);
        rest.add(state.connections().len() as u64);
        rest.add(state.sticky().len() as u64);
        rest.add((state.servers().len() << 8 | state.services().len()) as u64);
        if let Some(tenure) = state.tenure() {
            rest.add(tenure.epoch.0 << 1 | u64::from(tenure.ended));
            rest.add(tenure.term);
            rest.add(tenure.node.0);
        }
        Self {
            response: said.get(),
            connections: machine.connections,
            rest: rest.get(),
        }
    }

    pub(crate) const fn digest(self) -> u64 {
        self.response ^ self.connections.rotate_left(21) ^ self.rest.rotate_left(42)
    }
}

impl Judge {
    pub(crate) fn new(atms: usize) -> Self {
        Self {
            broken: None,
            committed: Vec::new(),
            applied: BTreeMap::new(),
            digests: BTreeMap::new(),
            spoken: Epoch(0),
            speaker: 0,
            tally: Tally::default(),
            atms,
        }
    }

    /// The first one counts.
    pub(crate) fn report(&mut self, violation: Violation) {
        self.broken.get_or_insert(violation);
    }

    /// What an ATM knows to be committed.
    pub(crate) fn committed(&mut self, name: &str, process: &mut Process) {
        let machine = &mut process.machine;
        for index in machine.reported + 1..=process.raft.commit {
            let Some(entry) = process.raft.log.get(index) else {
                continue;
            };
            let mut digest = Digest::default();
            digest.add_bytes(&entry.bytes);
            let this = (entry.term, digest.get());
            let place = usize::try_from(index - 1).unwrap_or(usize::MAX);
            match self.committed.get(place) {
                Some(known) if *known != this => {
                    let what = format!("{name} has another entry {index} committed");
                    self.report(Violation::Consensus(what));
                }
                Some(_) => {}
                None if place == self.committed.len() => self.committed.push(this),
                None => {
                    let what = format!("{name} has entry {index} committed before the one before");
                    self.report(Violation::Consensus(what));
                }
            }
        }
        machine.reported = machine.reported.max(process.raft.commit);
    }

    /// An ATM applied an entry (P4).
    pub(crate) fn applied(
        &mut self,
        name: &str,
        index: u64,
        applied: Applied,
        state: &State,
    ) -> Result<(), Violation> {
        self.tally.applied += 1;
        let first = *self.applied.entry(index).or_insert(applied);
        if first != applied {
            return Err(diverged(name, index, &first, &applied));
        }
        if index.is_multiple_of(DIGEST_EVERY) {
            self.compare(name, index, state)?;
        }
        Ok(())
    }

    /// An ATM's state came from a snapshot (P4).
    pub(crate) fn replaced(
        &mut self,
        name: &str,
        index: u64,
        applied: Applied,
        state: &State,
    ) -> Result<(), Violation> {
        if let Some(first) = self.applied.get(&index)
            && (first.connections, first.rest) != (applied.connections, applied.rest)
        {
            return Err(diverged(name, index, first, &applied));
        }
        if index.is_multiple_of(DIGEST_EVERY) {
            self.compare(name, index, state)?;
        }
        Ok(())
    }

    /// Whole states.
    pub(crate) fn compare(
        &mut self,
        name: &str,
        index: u64,
        state: &State,
    ) -> Result<(), Violation> {
        let digest = state.digest();
        if *self.digests.entry(index).or_insert(digest) == digest {
            return Ok(());
        }
        Err(Violation::Diverged {
            atm: name.to_owned(),
            index,
            what: "the digest of the whole state".to_owned(),
        })
    }

    /// `true`: this tenure speaks for the first time.
    pub(crate) fn began(&mut self, me: usize, epoch: Epoch) -> bool {
        if epoch < self.spoken || (epoch == self.spoken && me != self.speaker) {
            let atm = name(me);
            let what = format!("epoch {epoch} after epoch {}", self.spoken);
            self.report(Violation::WithoutLease { atm, what });
            return false;
        }
        let new = epoch > self.spoken;
        self.spoken = epoch;
        self.speaker = me;
        self.tally.tenures += u64::from(new);
        new
    }

    /// Every frame has one verdict (P5).
    pub(crate) fn verdicts(&mut self, name: &str, engine: &Engine) {
        let verdicts: u64 = engine.forwarder.counters().verdicts().iter().sum();
        if verdicts != engine.received {
            self.report(Violation::Verdicts {
                atm: name.to_owned(),
                frames: engine.received,
                verdicts,
            });
        }
    }
}

fn diverged(name: &str, index: u64, first: &Applied, this: &Applied) -> Violation {
    let what = if first.response != this.response {
        "what the entry came to"
    } else if first.connections != this.connections {
        "connections"
    } else {
        "configuration, tenure or sizes"
    };
    Violation::Diverged {
        atm: name.to_owned(),
        index,
        what: what.to_owned(),
    }
}

impl World {
    /// An ATM begins to speak: has it everything that was committed before its term, and every acknowledged connection
    /// (P2, P3)?
    pub(crate) fn judge_claim(&mut self, me: usize, epoch: Epoch) {
        let term = match self.atms[me].process() {
            Some(process) => process.begun,
            None => return,
        };
        let before = self.judge.committed.partition_point(|entry| entry.0 < term) as u64;
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let applied = process.machine.applied;
        let waiting = process
            .engine
            .control
            .iter()
            .find(|(index, _)| (1..=before).contains(index));
        let what = match waiting {
            _ if applied < before => {
                format!("{applied} entries applied, {before} were committed before its term")
            }
            Some((index, _)) => format!("entry {index} is not in its forwarding table"),
            None => {
                self.judge_connections(me);
                return;
            }
        };
        let atm = name(me);
        self.report(Violation::ClaimGate { atm, epoch, what });
    }

    /// Every connection that must live stands in this ATM's state, with its server (P2).
    pub(crate) fn judge_connections(&mut self, me: usize) {
        let Some(process) = self.atms[me].process.as_ref() else {
            return;
        };
        let state = &process.machine.state;
        let service = state
            .services()
            .iter()
            .find(|(_, entry)| entry.vip == VIP && entry.port == QUORUM_PORT)
            .map(|(id, _)| *id);
        let live = self.clients.iter().enumerate().flat_map(|(at, client)| {
            let now = self.now;
            client
                .connections
                .iter()
                .filter(move |(_, connection)| connection.must_live(now))
                .map(move |(port, connection)| (at, *port, connection.server))
        });
        let mut lost = None;
        for (client, port, server) in live {
            let address = hosts::address(CLIENT + client);
            let key = service.map(|service| model::connections::ConnectionKey {
                client: address.into(),
                port,
                service,
            });
            let found = key
                .and_then(|key| state.connections().get(&key))
                .and_then(|pin| state.servers().get(&pin.server))
                .map(|entry| entry.address);
            let wanted =
                server.map(|server| hosts::address(super::network::SERVER + server).into());
            if found != wanted {
                lost = Some((
                    format!("{address}:{port}"),
                    format!(
                        "{} at index {} has it at {found:?}, it belongs to {wanted:?}",
                        name(me),
                        process.machine.applied
                    ),
                ));
                break;
            }
        }
        if let Some((connection, what)) = lost {
            self.report(Violation::ConnectionLost { connection, what });
        }
    }

    /// The number of ATMs in the run.
    pub(crate) const fn count(&self) -> usize {
        self.judge.atms
    }
}
