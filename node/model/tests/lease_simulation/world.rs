//! A run: processes, a network that loses, doubles, delays and reorders, and true time.

use std::time::Duration;

use model::command::Response;

use crate::chance::Chance;
use crate::clock::{MS, True};
use crate::event::{Event, Later, Message, Queue};
use crate::fault::Planted;
use crate::judge::{Judge, Violation};
use crate::process::{Claim, Process};
use crate::raft::{Members, What, node_id};

/// The group a run begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    One,
    Three,
    Five,
    /// Three voters out of five processes; the membership changes.
    Changing,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Tenures that spoke.
    pub(crate) claims: u64,
    /// From winning to speaking, summed over the tenures that spoke.
    pub(crate) waited: True,
    pub(crate) handovers: u64,
    pub(crate) restarts: u64,
    pub(crate) changes: u64,
    /// From the end of all faults to the first lease after it.
    pub(crate) healed_in: True,
}

/// Faults come to an end so that somebody must speak: within this time.
const HEALED_WITHIN: True = 5_000 * MS;
/// A lease published this long after the last fault owes nothing to what was under way.
const HEALED_AFTER: True = 200 * MS;
/// Of every leader and every election timer.
const HEARTBEAT: True = 30 * MS;

pub(crate) struct World {
    pub(crate) now: True,
    pub(crate) chance: Chance,
    pub(crate) queue: Queue,
    pub(crate) processes: Vec<Process>,
    /// `cut[from] & (1 << to)`: nothing passes, in this direction.
    pub(crate) cut: [u8; 5],
    pub(crate) group: Group,
    pub(crate) tally: Tally,
    pub(crate) planted: Planted,
    pub(crate) tells: bool,
    judge: Judge,
    /// When the faults end.
    pub(crate) heal_at: True,
    spoke_after_healing: Option<True>,
}

impl World {
    pub(crate) fn new(seed: u64, group: Group, planted: Planted, tells: bool) -> Self {
        let mut chance = Chance::new(seed);
        let (count, voters) = match group {
            Group::One => (1, 0b1),
            Group::Three => (3, 0b111),
            Group::Five => (5, 0b1_1111),
            Group::Changing => (5, 0b111),
        };
        let processes = (0..count)
            .map(|me| Process::new(me, Members::fixed(voters), planted, &mut chance))
            .collect();
        let heal_at = (300 + chance.below(900)) * MS;
        let mut world = Self {
            now: 0,
            chance,
            queue: Queue::default(),
            processes,
            cut: [0; 5],
            group,
            tally: Tally::default(),
            planted,
            tells,
            judge: Judge::default(),
            heal_at,
            spoke_after_healing: None,
        };
        for process in 0..count {
            world.tick(process);
        }
        world.queue.put(0, Event::Chaos);
        world
    }

    /// Runs to the end: some time with faults, then without.
    pub(crate) fn run(mut self) -> Result<Tally, Violation> {
        while let Some((at, event)) = self.queue.next() {
            self.now = at;
            self.happen(event)?;
            if let Some(spoke) = self.spoke_after_healing {
                self.tally.healed_in = spoke - self.heal_at;
                return Ok(self.tally);
            }
            if self.now > self.heal_at + HEALED_WITHIN {
                return Err(Violation::Silence(HEALED_WITHIN / MS));
            }
        }
        Err(Violation::Silence((self.now - self.heal_at) / MS))
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.now >= self.heal_at
    }

    pub(crate) fn tell(&self, words: impl FnOnce(&Self) -> String) {
        if self.tells {
            println!("{:>9.3} ms  {}", self.now as f64 / MS as f64, words(self));
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Chaos => self.chaos(),
            Event::Strike { half, successor } => {
                self.strike(half, successor);
                Ok(())
            }
            Event::Start(process) => {
                self.start(process);
                Ok(())
            }
            Event::Arrive {
                from,
                from_of,
                to,
                of,
                message,
            } => {
                let receiver = &self.processes[to];
                if !receiver.is_up || of.is_some_and(|of| of != receiver.incarnation) {
                    return Ok(());
                }
                if receiver.paused_until > self.now {
                    let event = Event::Arrive {
                        from,
                        from_of,
                        to,
                        of,
                        message,
                    };
                    self.queue.put(receiver.paused_until, event);
                    return Ok(());
                }
                self.arrive(from, from_of, to, message)
            }
            Event::Later { process, of, later } => {
                let owner = &self.processes[process];
                if !owner.is_up || of != owner.incarnation {
                    return Ok(());
                }
                if owner.paused_until > self.now {
                    self.queue
                        .put(owner.paused_until, Event::Later { process, of, later });
                    return Ok(());
                }
                self.come_to(process, later)
            }
        }
    }

    fn arrive(
        &mut self,
        from: usize,
        of: u32,
        to: usize,
        message: Message,
    ) -> Result<(), Violation> {
        let now = self.now;
        let process = &mut self.processes[to];
        let local = process.now(now);
        match message {
            Message::Append { append, sent } => {
                let later = Later::Append {
                    from,
                    of,
                    append,
                    sent,
                };
                if self.planted == Planted::LateStamp {
                    self.come_to(to, later)?;
                    self.later(to, Later::Stamp(local));
                    return Ok(());
                }
                process.keeper.append_received(local);
                self.soon(to, later)
            }
            Message::Vote(request) => {
                if process.raft.vote(from, request) {
                    process.hears(&mut self.chance, now);
                    self.soon(
                        to,
                        Later::Grant {
                            to: from,
                            of,
                            term: request.term,
                        },
                    )?;
                }
                self.after_raft(to)
            }
            Message::Granted { term, age } => {
                process
                    .keeper
                    .grant_received(term, node_id(from), age, local);
                process.raft.granted(term, from);
                self.after_raft(to)
            }
            Message::Acknowledged {
                term,
                sent,
                matched,
            } => {
                process.raft.acknowledged(term, from, matched);
                self.soon(to, Later::Acknowledged { from, term, sent })?;
                self.after_raft(to)
            }
            Message::Stand => self.stand(to),
        }
    }

    pub(crate) fn come_to(&mut self, me: usize, later: Later) -> Result<(), Violation> {
        let now = self.now;
        let process = &mut self.processes[me];
        let local = process.now(now);
        match later {
            Later::Append {
                from,
                of,
                append,
                sent,
            } => {
                if let Some(matched) = process.raft.append(&append) {
                    process.hears(&mut self.chance, now);
                    let reply = Message::Acknowledged {
                        term: append.term,
                        sent,
                        matched,
                    };
                    self.send(me, from, Some(of), reply);
                }
                self.after_raft(me)
            }
            Later::Stamp(at) => {
                process.keeper.append_received(at);
                Ok(())
            }
            Later::Grant { to, of, term } => {
                let age = process.keeper.vote_granted(term, local);
                self.send(me, to, Some(of), Message::Granted { term, age });
                Ok(())
            }
            Later::Acknowledged { from, term, sent } => {
                process
                    .keeper
                    .round_acknowledged(term, node_id(from), sent, local);
                self.check_voice(me)
            }
            Later::Notice => self.notice(me),
            Later::Wake => self.wake(me),
            Later::Tick => {
                self.tick(me);
                if self.processes[me].raft.leads().is_some() {
                    self.lead(me)
                } else if self.processes[me].has_lost_patience(now) {
                    self.stand(me)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// A leader's heartbeat; without a claim it may try once more.
    fn lead(&mut self, me: usize) -> Result<(), Violation> {
        self.send_round(me);
        let process = &mut self.processes[me];
        let local = process.now(self.now);
        process.keeper.refresh(local);
        self.check_voice(me)?;
        if self.processes[me].claim == Claim::None && self.chance.percent(25) {
            self.claim(me)?;
        }
        if self.group == Group::Changing {
            self.change_members(me)?;
        }
        Ok(())
    }

    /// Stands for election, whatever was promised to whom.
    pub(crate) fn stand(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        process.hears(&mut self.chance, self.now);
        let Some(request) = process.raft.campaign() else {
            return Ok(());
        };
        process.keeper.campaign_started(request.term);
        self.tell(|_| format!("{me} stands for term {}", request.term));
        for to in 0..self.processes.len() {
            if to != me {
                self.send(me, to, None, Message::Vote(request));
            }
        }
        self.after_raft(me)
    }

    /// The tasks learn what Raft's role is.
    fn notice(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let local = process.now(self.now);
        let leads = process.raft.leads();
        if leads == process.told {
            return Ok(());
        }
        process.told = leads;
        process.claim = Claim::None;
        match leads {
            Some(term) => {
                process.keeper.elected(term, local);
                self.claim(me)
            }
            None => {
                process.keeper.deposed();
                Ok(())
            }
        }
    }

    /// Asks for an epoch.
    fn claim(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let Some(term) = process.told else {
            return Ok(());
        };
        if self.planted == Planted::NoClaimGate {
            let epoch = process
                .state
                .tenure()
                .map_or(1, |tenure| tenure.epoch.0 + 1);
            let longest = Duration::from_millis(140);
            process.begin_waiting(
                term,
                model::ids::Epoch(epoch),
                longest,
                process.now(self.now),
            );
            return self.wake(me);
        }
        let begin = What::Begin {
            by: me,
            lease: process.lease,
        };
        if let Some(index) = process.raft.propose(begin) {
            process.claim = Claim::Proposed { term, index };
        }
        self.send_round(me);
        self.after_raft(me)
    }

    /// Speaks, when the wait is over and the tasks still know of this term.
    fn wake(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let Claim::Waiting {
            term,
            epoch,
            length,
            until,
        } = process.claim
        else {
            return Ok(());
        };
        let local = process.now(self.now);
        if local < until {
            let of = process.incarnation;
            let at = process.clock.when(until, self.now + 1);
            self.queue.put(
                at,
                Event::Later {
                    process: me,
                    of,
                    later: Later::Wake,
                },
            );
            return Ok(());
        }
        process.claim = Claim::Active { epoch };
        process.keeper.tenure_begun(term, epoch, length, local);
        self.judge.claims(me, term, self.processes[me].applied)?;
        self.tell(|_| format!("{me} may speak in epoch {epoch}, term {term}"));
        self.check_voice(me)
    }

    /// The packet path of `me` may have got a new lease.
    fn check_voice(&mut self, me: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(lease) = self.processes[me]
            .keeper
            .speaks(self.processes[me].now(now))
        else {
            return Ok(());
        };
        let voices = self.processes.iter().filter(|process| process.is_up);
        let voices = voices
            .filter_map(|process| Some((process.me, process.keeper.speaks(process.now(now))?)));
        let before = self.judge.spoken;
        self.judge.speaks(me, lease, voices)?;
        if lease.epoch != before {
            self.tell(|_| format!("{me} speaks in epoch {}", lease.epoch));
            self.tally.claims += 1;
            let won = self.processes[me].won.map_or(now, |(_, at)| at);
            self.tally.waited += now - won;
        }
        if now >= self.heal_at + HEALED_AFTER {
            self.spoke_after_healing = Some(now);
        }
        Ok(())
    }

    /// After anything Raft did: apply what is committed, and let the tasks know in a while.
    pub(crate) fn after_raft(&mut self, me: usize) -> Result<(), Violation> {
        let now = self.now;
        let process = &mut self.processes[me];
        process.follow_members();
        let leads = process.raft.leads();
        if leads != process.told {
            if let Some(term) = leads
                && process.won.is_none_or(|(known, _)| known < term)
            {
                process.won = Some((term, now));
                self.tell(|_| format!("{me} wins term {term}"));
                self.send_round(me);
            }
            self.later(me, Later::Notice);
        }
        while self.processes[me].applied < self.processes[me].raft.commit {
            self.apply(me)?;
        }
        Ok(())
    }

    fn apply(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let index = process.applied;
        let entry = process.raft.entry(index);
        let older = process
            .state
            .tenure()
            .filter(|tenure| !tenure.ended)
            .map(|tenure| tenure.lease);
        let response = process.apply_next();
        self.judge.committed(index, entry)?;
        self.judge.applied(index, response.clone())?;
        match (response, process.claim) {
            (
                Response::EpochBegun {
                    epoch,
                    longest_older_lease,
                },
                Claim::Proposed { term, index: mine },
            ) if mine == index && term == entry.term => {
                let longest = match (self.planted, older) {
                    (Planted::ForgetsOlderLease, older) => older.unwrap_or_default(),
                    _ => longest_older_lease,
                };
                let local = process.now(self.now);
                process.begin_waiting(term, epoch, longest, local);
                self.wake(me)?;
            }
            (Response::EpochEnded, Claim::Ending { index: mine }) if mine == index => {
                process.claim = Claim::None;
                self.transfer(me);
            }
            (
                Response::Refused(_),
                Claim::Proposed { index: mine, .. } | Claim::Ending { index: mine },
            ) if mine == index => {
                process.claim = Claim::None;
            }
            _ => {}
        }
        if matches!(entry.what, What::Members(members) if !members.is_joint() && !members.contains(me))
        {
            // The change that removes this leader is committed.
            self.processes[me].raft.retire();
        }
        Ok(())
    }

    /// Hands leadership to some other voter, as Raft's transfer does.
    pub(crate) fn transfer(&mut self, me: usize) {
        let to = self.chance.index(self.processes.len());
        if to != me {
            self.send(me, to, None, Message::Stand);
        }
    }

    pub(crate) fn tick(&mut self, me: usize) {
        let of = self.processes[me].incarnation;
        let at = self.now + HEARTBEAT - 2 * MS + self.chance.below(4 * MS);
        self.queue.put(
            at,
            Event::Later {
                process: me,
                of,
                later: Later::Tick,
            },
        );
    }
}
