//! A small Raft: pre-vote, elections, replication, snapshots, leadership transfer. It is the environment of what is tested.
//!
//! Pure: what it wants done it leaves in `out`. What must be on disk before it is said waits for [`Raft::synced`].

mod elect;
mod replicate;

use std::collections::VecDeque;
use std::sync::Arc;

use model::Instant;
use model::lease::Term;

use super::chance::Chance;
use super::disk::{Durable, Write};
use super::log::{Entry, Log, Snapshot};
use super::timing::Timing;

/// What travels between two ATMs.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    PreVote(Ballot),
    PreVoted {
        term: Term,
        granted: bool,
        /// The voter's own term.
        current: Term,
    },
    Vote(Ballot),
    Voted {
        term: Term,
        granted: bool,
        age: std::time::Duration,
    },
    Append(Append),
    Appended {
        term: Term,
        sent: Instant,
        result: Appended,
    },
    Install {
        term: Term,
        snapshot: Arc<Snapshot>,
        sent: Instant,
    },
    /// Stand for election now.
    Transfer {
        term: Term,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ballot {
    pub(crate) term: Term,
    last_term: Term,
    last: u64,
    /// The leader wants it: promises to it do not count.
    transfer: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) term: Term,
    before: u64,
    before_term: Term,
    entries: Vec<Entry>,
    commit: u64,
    /// By the sender's clock; it comes back with the answer.
    pub(crate) sent: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    Matched(u64),
    /// Another entry is there: try from here.
    Conflict(u64),
    HigherTerm,
}

/// What Raft wants done.
#[derive(Debug)]
pub(crate) enum Out {
    Send(usize, Message),
    Write(Write),
    /// The vote in this term, for this life of `to`, is on disk.
    Granted {
        to: usize,
        of: u32,
        term: Term,
    },
    /// Votes in this term are asked for now.
    Campaign(Term),
}

#[derive(Debug)]
enum Role {
    Follower,
    PreCandidate { granted: u32 },
    Candidate { granted: u32 },
    Leader(Vec<Peer>),
}

/// What a leader knows of another ATM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    next: u64,
    pub(crate) matched: u64,
    /// When the youngest round that it acknowledged was sent.
    pub(crate) heard: Instant,
    /// It said something since the last heartbeat.
    fresh: bool,
}

/// What is said when everything written so far is on disk.
#[derive(Debug)]
enum Waiting {
    Grant {
        to: usize,
        of: u32,
        term: Term,
    },
    OwnVote {
        term: Term,
        transfer: bool,
    },
    Matched {
        to: usize,
        term: Term,
        sent: Instant,
        index: u64,
    },
    Own {
        last: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Raft {
    me: usize,
    count: usize,
    timing: Timing,
    pub(crate) term: Term,
    voted_for: Option<usize>,
    role: Role,
    pub(crate) log: Log,
    pub(crate) commit: u64,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// Own entries up to here are on disk.
    durable: u64,
    /// The last append of a leader whose term counts.
    heard: Option<Instant>,
    pub(crate) timer: Instant,
    issued: u64,
    done: u64,
    waiting: VecDeque<(u64, Waiting)>,
    pub(crate) out: Vec<Out>,
}

impl Raft {
    /// A process that starts with what its disk kept.
    pub(crate) fn start(
        me: usize,
        count: usize,
        timing: Timing,
        disk: &Durable,
        chance: &mut Chance,
        now: Instant,
    ) -> Self {
        let base = disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let mut raft = Self {
            me,
            count,
            timing,
            term: disk.term,
            voted_for: disk.voted_for,
            role: Role::Follower,
            log: disk.log.clone(),
            commit: base,
            snapshot: disk.snapshot.clone(),
            durable: disk.log.last(),
            heard: None,
            timer: now,
            issued: 0,
            done: 0,
            waiting: VecDeque::new(),
            out: Vec::new(),
        };
        raft.wait_for_leader(chance, now);
        raft
    }

    pub(crate) fn leads(&self) -> Option<Term> {
        matches!(self.role, Role::Leader(_)).then_some(self.term)
    }

    pub(crate) fn peers(&self) -> Option<&[Peer]> {
        match &self.role {
            Role::Leader(peers) => Some(peers),
            Role::Follower | Role::PreCandidate { .. } | Role::Candidate { .. } => None,
        }
    }

    /// The timer is over: a heartbeat, or an election.
    pub(crate) fn timer(&mut self, chance: &mut Chance, now: Instant) {
        if now < self.timer {
            return;
        }
        if self.leads().is_some() {
            self.timer = now + self.timing.heartbeat;
            self.heartbeat(now);
            return;
        }
        self.wait_for_leader(chance, now);
        self.role = Role::PreCandidate {
            granted: 1 << self.me,
        };
        let ballot = self.ballot(self.term + 1, false);
        self.tell_all(|_| Message::PreVote(ballot));
        self.count_pre_votes(chance, now);
    }

    /// The leader has `to` elected.
    pub(crate) fn transfer(&mut self, to: usize) {
        if self.leads().is_some() && to != self.me {
            let term = self.term;
            self.out.push(Out::Send(to, Message::Transfer { term }));
        }
    }

    /// Puts a command into the log. `None`: this ATM does not lead.
    pub(crate) fn propose(&mut self, bytes: Arc<[u8]>, now: Instant) -> Option<u64> {
        self.leads()?;
        let term = self.term;
        let index = self.append_own(Entry { term, bytes });
        self.replicate(now);
        Some(index)
    }

    /// Everything that was written first is on disk.
    pub(crate) fn synced(&mut self, chance: &mut Chance, now: Instant) {
        self.done += 1;
        while self
            .waiting
            .front()
            .is_some_and(|(ticket, _)| *ticket <= self.done)
        {
            let Some((_, waiting)) = self.waiting.pop_front() else {
                return;
            };
            match waiting {
                Waiting::Grant { to, of, term } => self.out.push(Out::Granted { to, of, term }),
                Waiting::OwnVote { term, transfer } => self.own_vote(term, transfer, chance, now),
                Waiting::Matched {
                    to,
                    term,
                    sent,
                    index,
                } => {
                    // What was overwritten meanwhile is acknowledged no more.
                    if term == self.term {
                        let result = Appended::Matched(index);
                        let message = Message::Appended { term, sent, result };
                        self.out.push(Out::Send(to, message));
                    }
                }
                Waiting::Own { last } => {
                    self.durable = self.durable.max(last.min(self.log.last()));
                    self.commit_by_quorum();
                }
            }
        }
    }

    /// A message that is not an append's answer or a vote's was received.
    pub(crate) fn receive(
        &mut self,
        from: usize,
        of: u32,
        message: Message,
        chance: &mut Chance,
        now: Instant,
    ) {
        match message {
            Message::PreVote(ballot) => {
                let granted = ballot.term > self.term
                    && !self.has_promised(now)
                    && self.is_up_to_date(ballot);
                let message = Message::PreVoted {
                    term: ballot.term,
                    granted,
                    current: self.term,
                };
                self.out.push(Out::Send(from, message));
            }
            Message::PreVoted {
                term,
                granted,
                current,
            } => {
                // Who has the newer log may have the older term: it must get beyond, or nobody is ever elected.
                if current > self.term {
                    self.follow(current, None, chance, now);
                } else if granted
                    && term == self.term + 1
                    && let Role::PreCandidate { granted } = &mut self.role
                {
                    *granted |= 1 << from;
                    self.count_pre_votes(chance, now);
                }
            }
            Message::Vote(ballot) => self.vote(from, of, ballot, chance, now),
            Message::Voted {
                term,
                granted,
                age: _,
            } => self.voted(from, term, granted, chance, now),
            Message::Append(append) => self.append(from, append, chance, now),
            Message::Appended { term, sent, result } => {
                self.appended(from, term, sent, result, chance, now);
            }
            Message::Install {
                term,
                snapshot,
                sent,
            } => self.install(from, term, snapshot, sent, chance, now),
            Message::Transfer { term } => {
                if term == self.term {
                    self.stand(true, chance, now);
                }
            }
        }
    }

    /// The snapshot this ATM was sent has replaced its state.
    pub(crate) fn compacted(&mut self, snapshot: Arc<Snapshot>, keep: u64) {
        self.log.compact(&snapshot, keep);
        self.snapshot = Some(Arc::clone(&snapshot));
        self.write(Write::Snapshot { snapshot, keep });
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.count).filter(move |it| *it != me)
    }

    fn is_quorum(&self, votes: u32) -> bool {
        votes as usize > self.count / 2
    }

    fn wait_for_leader(&mut self, chance: &mut Chance, now: Instant) {
        let (min, max) = (self.timing.election_min, self.timing.election_max);
        let spread = u64::try_from((max - min).as_nanos()).unwrap_or(0);
        let random = std::time::Duration::from_nanos(chance.below(spread));
        self.timer = now + max + min + random;
    }

    fn write(&mut self, write: Write) {
        self.issued += 1;
        self.out.push(Out::Write(write));
    }

    /// At once, when nothing is under way: `synced` is not called then.
    fn when_synced(&mut self, waiting: Waiting) {
        if self.done < self.issued {
            self.waiting.push_back((self.issued, waiting));
            return;
        }
        match waiting {
            Waiting::Grant { to, of, term } => self.out.push(Out::Granted { to, of, term }),
            Waiting::Matched {
                to,
                term,
                sent,
                index,
            } => {
                let result = Appended::Matched(index);
                self.out
                    .push(Out::Send(to, Message::Appended { term, sent, result }));
            }
            Waiting::Own { .. } | Waiting::OwnVote { .. } => {}
        }
    }
}
