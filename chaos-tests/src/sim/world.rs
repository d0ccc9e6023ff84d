//! A run: hosts, wires, true time; and one event after the other.

use model::lease::Term;

use super::atm::{Atm, Process};
use super::chance::{Chance, Digest};
use super::clock::{MS, True, US};
use super::event::{Event, Later, Queue};
use super::hosts::{self, Client, Server};
use super::judge::Judge;
use super::network::{ATM, CLIENT, KIND_MAX, Network, SERVER, Wire};
use super::raft::Message;
use super::schedule::{Schedule, Who};
use super::timing::Timing;
use super::violation::Violation;

/// Lines of the story that are kept for a report.
const STORY_MAX: usize = 400;

pub(crate) struct World {
    pub(crate) now: True,
    pub(crate) schedule: Schedule,
    pub(crate) timing: Timing,
    pub(crate) queue: Queue,
    pub(crate) atms: Vec<Atm>,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) network: Network,
    pub(crate) judge: Judge,
    pub(crate) digest: Digest,
    pub(crate) steps: u64,
    /// What processes do by chance.
    pub(crate) chance: Chance,
    /// What clients do by chance.
    pub(crate) whims: Chance,
    /// No more faults from then on.
    pub(crate) healed: Option<True>,
    /// Clients say nothing new any more.
    pub(crate) quiet: bool,
    pub(crate) tells: Tells,
}

/// What becomes of the story of a run.
#[derive(Debug)]
pub(crate) enum Tells {
    Nobody,
    /// The last lines.
    Keeps(std::collections::VecDeque<String>),
    /// Each line as it comes.
    Prints,
}

impl World {
    pub(crate) fn new(schedule: Schedule, tells: Tells) -> Self {
        let seed = schedule.seed;
        let mut schedule = schedule;
        // A schedule may come from a file.
        schedule.atms = schedule.atms.clamp(1, 7);
        schedule.servers = schedule.servers.clamp(1, KIND_MAX);
        schedule.clients = schedule.clients.min(KIND_MAX);
        let timing = Timing::of(std::time::Duration::from_millis(
            schedule.heartbeat_ms.clamp(10, 60_000),
        ));
        let mut world = Self {
            now: 0,
            timing,
            queue: Queue::default(),
            atms: (0..schedule.atms).map(|me| Atm::new(me, seed)).collect(),
            servers: (0..schedule.servers).map(|_| Server::default()).collect(),
            clients: (0..schedule.clients).map(|_| Client::new()).collect(),
            network: Network::new(seed, schedule.weather),
            judge: Judge::new(schedule.atms),
            digest: Digest::default(),
            steps: 0,
            chance: Chance::new(seed, 3),
            whims: Chance::new(seed, 4),
            healed: None,
            quiet: false,
            tells,
            schedule,
        };
        for me in 0..world.atms.len() {
            world.start(me);
        }
        for client in 0..world.clients.len() {
            let at = world.whims.below(100 * MS);
            world.queue.put(at, Event::Client(client));
        }
        for (place, planned) in world.schedule.faults.iter().enumerate() {
            let at = planned.at_us.saturating_mul(US);
            world.queue.put(at, Event::Fault(place));
        }
        world
    }

    /// One event. `None`: nothing is left to happen.
    pub(crate) fn step(&mut self) -> Option<()> {
        let (at, event) = self.queue.next()?;
        self.now = at;
        self.steps += 1;
        self.digest.add(at);
        self.happen(event);
        Some(())
    }

    pub(crate) fn tell(&mut self, words: impl FnOnce(&Self) -> String) {
        if matches!(self.tells, Tells::Nobody) {
            return;
        }
        let line = format!("{:>10.3} ms  {}", self.now as f64 / MS as f64, words(self));
        match &mut self.tells {
            Tells::Nobody => {}
            Tells::Prints => println!("{line}"),
            Tells::Keeps(lines) => {
                if lines.len() == STORY_MAX {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        }
    }

    pub(crate) fn report(&mut self, violation: Violation) {
        self.tell(|_| format!("BROKEN: {violation}"));
        self.judge.report(violation);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive {
                from,
                from_of,
                to,
                of,
                message,
            } => {
                self.digest.add((from << 8 | to) as u64);
                let atm = &self.atms[to];
                if atm.process.is_none() || of.is_some_and(|of| of != atm.life) {
                    return;
                }
                if atm.paused_until > self.now {
                    let until = atm.paused_until;
                    let event = Event::Arrive {
                        from,
                        from_of,
                        to,
                        of,
                        message,
                    };
                    self.queue.put(until, event);
                    return;
                }
                self.arrive(from, from_of, to, *message);
            }
            Event::Later { atm, of, later } => {
                let owner = &self.atms[atm];
                if owner.process.is_none() || of != owner.life {
                    return;
                }
                let is_kernel = matches!(later, Later::Disk);
                if owner.paused_until > self.now && !is_kernel {
                    let until = owner.paused_until;
                    self.queue.put(until, Event::Later { atm, of, later });
                    return;
                }
                self.come_to(atm, later);
            }
            Event::Frame { to, bytes } => {
                self.digest.add_bytes(&bytes);
                match to {
                    ATM..SERVER => self.atm_receives(to - ATM, bytes),
                    SERVER..CLIENT => self.server_receives(to - SERVER, &bytes),
                    _ => self.client_receives(to - CLIENT, &bytes),
                }
            }
            Event::Answer {
                client,
                server,
                port,
                kind,
            } => self.answered(client, server, port, kind),
            Event::Client(client) => self.client(client),
            Event::Resume(me) => self.tell(|_| format!("{} goes on", super::atm::name(me))),
            Event::Start(me) => self.start(me),
            Event::ServerUp(server) => {
                if self.servers[server].down_until <= self.now {
                    self.tell(|_| format!("server {server} is back"));
                }
            }
            Event::Fault(place) => self.strike(place),
        }
    }

    fn come_to(&mut self, me: usize, later: Later) {
        match later {
            Later::Timer => self.raft_timer(me),
            Later::Disk => self.disk_synced(me),
            Later::Append {
                from,
                from_of,
                message,
            } => self.raft_receives(me, from, from_of, *message),
            Later::Grant { to, of, term } => self.grant(me, to, of, term),
            Later::Apply => self.apply(me),
            Later::Stamp => self.stamp(me),
            Later::Batch => self.batch(me),
            Later::Flush => self.flush(me),
            Later::Replicate => self.replicate(me),
            Later::Notice | Later::Wake => self.follow_tenure(me),
            Later::Tick => self.tenure_tick(me),
            Later::ProposalTimeout(number) => self.proposal_timeout(me, number),
        }
    }

    /// In this life of the ATM, after at most `within`.
    pub(crate) fn soon(&mut self, me: usize, within: True, later: Later) {
        let at = self.now + self.chance.below(within.max(1));
        self.later(me, at, later);
    }

    pub(crate) fn later(&mut self, me: usize, at: True, later: Later) {
        let of = self.atms[me].life;
        let atm = me;
        self.queue.put(at, Event::Later { atm, of, later });
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, of: Option<u32>, message: Message) {
        let from_of = self.atms[from].life;
        let arrivals = self
            .network
            .arrivals(Wire::Peers, ATM + from, ATM + to, self.now);
        let [first, second] = arrivals;
        if let Some(at) = second {
            let message = Box::new(message.clone());
            self.queue.put(
                at,
                Event::Arrive {
                    from,
                    from_of,
                    to,
                    of,
                    message,
                },
            );
        }
        if let Some(at) = first {
            let message = Box::new(message);
            self.queue.put(
                at,
                Event::Arrive {
                    from,
                    from_of,
                    to,
                    of,
                    message,
                },
            );
        }
    }

    /// A frame to everybody it is for.
    pub(crate) fn send_frame(&mut self, from: usize, bytes: &[u8]) {
        let Some(destination) = super::packets::destination(bytes) else {
            return;
        };
        match hosts::host_of(destination) {
            Some(to) if self.exists(to) => self.send_frame_to(from, to, bytes),
            Some(_) => {}
            None => {
                // Who is asked for matters; the others would only see that they are not.
                let asked = super::packets::Arp::parse(bytes)
                    .filter(|arp| arp.sender != arp.target)
                    .and_then(|arp| hosts::host_at(arp.target));
                match asked {
                    Some(to) if self.exists(to) => self.send_frame_to(from, to, bytes),
                    Some(_) => {}
                    None => self.broadcast(from, bytes),
                }
            }
        }
    }

    fn broadcast(&mut self, from: usize, bytes: &[u8]) {
        let atms = ATM..ATM + self.atms.len();
        // Clients claim nothing that another client has to hear of.
        let hear = if from < CLIENT { self.clients.len() } else { 0 };
        let clients = CLIENT..CLIENT + hear;
        for to in atms.chain(clients).filter(|to| *to != from) {
            self.send_frame_to(from, to, bytes);
        }
    }

    fn send_frame_to(&mut self, from: usize, to: usize, bytes: &[u8]) {
        for at in self
            .network
            .arrivals(Wire::Frames, from, to, self.now)
            .into_iter()
            .flatten()
        {
            let bytes = bytes.to_vec();
            self.queue.put(at, Event::Frame { to, bytes });
        }
    }

    fn exists(&self, host: usize) -> bool {
        match host {
            ATM..SERVER => host < self.atms.len(),
            SERVER..CLIENT => host - SERVER < self.servers.len(),
            _ => host - CLIENT < self.clients.len(),
        }
    }

    /// A process starts with what its disk kept, unless the disk is full.
    pub(crate) fn start(&mut self, me: usize) {
        let (now, count, timing) = (self.now, self.atms.len(), self.timing);
        let atm = &mut self.atms[me];
        if atm.process.is_some() {
            return;
        }
        if atm.full_until > now {
            let at = atm.full_until;
            self.queue.put(at, Event::Start(me));
            return;
        }
        atm.life += 1;
        atm.paused_until = 0;
        let local = atm.now(now);
        let started = Process::start(me, count, timing, &atm.disk, &mut self.chance, local);
        match started {
            Ok(process) => atm.process = Some(Box::new(process)),
            Err(error) => {
                let what = format!("{} cannot read its snapshot: {error}", atm.name());
                self.report(Violation::Consensus(what));
                return;
            }
        }
        self.tell(|_| format!("{} starts", super::atm::name(me)));
        self.replaced(me);
        self.arm(me);
        self.soon(me, MS, Later::Tick);
    }

    /// The process dies. What it had not synced may be lost, and what it was about to say is.
    pub(crate) fn kill(&mut self, me: usize) {
        let atm = &mut self.atms[me];
        let Some(process) = atm.process.take() else {
            return;
        };
        atm.life += 1;
        atm.disk.crash(&mut self.chance);
        let name = atm.name();
        self.judge.verdicts(&name, &process.engine);
        self.tell(|_| format!("{name} dies"));
    }

    /// Raft's timer is set.
    pub(crate) fn arm(&mut self, me: usize) {
        let now = self.now;
        let atm = &mut self.atms[me];
        let Some(process) = atm.process.as_mut() else {
            return;
        };
        let want = atm.clock.when(process.raft.timer, now);
        if process.timer_at.is_none_or(|at| want < at) {
            process.timer_at = Some(want);
            self.later(me, want, Later::Timer);
        }
    }

    /// The ATM that a fault means now.
    pub(crate) fn whom(&self, who: Who) -> usize {
        let leader = || {
            self.atms
                .iter()
                .filter_map(|atm| Some((atm.process.as_ref()?.raft.leads()?, atm.me)))
                .max_by_key(|(term, _): &(Term, usize)| *term)
                .map(|(_, me)| me)
        };
        let found = match who {
            Who::Atm(me) => Some(me),
            Who::Leader => leader(),
            Who::Active => self
                .atms
                .iter()
                .find(|atm| atm.speaks(self.now).is_some())
                .map(|atm| atm.me)
                .or_else(leader),
        };
        found.unwrap_or(0) % self.atms.len()
    }
}
