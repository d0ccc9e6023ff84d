//! A run: processes, a network that loses, doubles, delays and reorders, and true time.

use crate::chance::Chance;
use crate::clock::{MS, True};
use crate::event::{Event, Later, Message, Queue};
use crate::fault::Planted;
use crate::judge::{Judge, Violation};
use crate::process::{Claim, Process};
use crate::raft::{Members, node_id};

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
    pub(crate) judge: Judge,
    /// When the faults end.
    pub(crate) heal_at: True,
    pub(crate) spoke_after_healing: Option<True>,
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
