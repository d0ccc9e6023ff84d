//! A small Raft: pre-vote, elections, replication, snapshots, leadership transfer. It is the environment of what is tested.
//!
//! Pure: what it wants done it leaves in `out`. What must be on disk before it is said waits for [`Raft::synced`].

use std::collections::VecDeque;
use std::sync::Arc;

use model::Instant;
use model::lease::Term;

use super::chance::Chance;
use super::disk::{Durable, Write};
use super::log::{Entry, Log, Snapshot};
use super::timing::Timing;

/// Entries in one append at most.
const APPEND_MAX: usize = 32;

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

    /// Stands for election, whatever was promised to whom: a leader wants it.
    pub(crate) fn stand(&mut self, transfer: bool, chance: &mut Chance, now: Instant) {
        if self.leads().is_some() {
            return;
        }
        self.term += 1;
        self.voted_for = Some(self.me);
        self.role = Role::Candidate { granted: 0 };
        self.wait_for_leader(chance, now);
        self.write_vote();
        let term = self.term;
        self.when_synced(Waiting::OwnVote { term, transfer });
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

    fn vote(&mut self, from: usize, of: u32, ballot: Ballot, chance: &mut Chance, now: Instant) {
        let again = ballot.term == self.term && self.voted_for == Some(from);
        let granted = again
            || (ballot.term > self.term
                && (ballot.transfer || !self.has_promised(now))
                && self.is_up_to_date(ballot));
        if !granted {
            let message = Message::Voted {
                term: self.term,
                granted: false,
                age: std::time::Duration::ZERO,
            };
            self.out.push(Out::Send(from, message));
            return;
        }
        let term = ballot.term;
        if !again {
            self.follow(term, Some(from), chance, now);
        }
        self.when_synced(Waiting::Grant { to: from, of, term });
    }

    fn voted(&mut self, from: usize, term: Term, granted: bool, chance: &mut Chance, now: Instant) {
        if term > self.term {
            self.follow(term, None, chance, now);
            return;
        }
        if let Role::Candidate { granted: votes, .. } = &mut self.role
            && granted
            && term == self.term
        {
            *votes |= 1 << from;
            self.count_votes(now);
        }
    }

    fn own_vote(&mut self, term: Term, transfer: bool, chance: &mut Chance, now: Instant) {
        let me = self.me;
        let Role::Candidate { granted, .. } = &mut self.role else {
            return;
        };
        if term != self.term {
            return;
        }
        *granted |= 1 << me;
        self.wait_for_leader(chance, now);
        self.out.push(Out::Campaign(term));
        let ballot = self.ballot(term, transfer);
        self.tell_all(|_| Message::Vote(ballot));
        self.count_votes(now);
    }

    fn count_pre_votes(&mut self, chance: &mut Chance, now: Instant) {
        if let Role::PreCandidate { granted } = self.role
            && self.is_quorum(granted.count_ones())
        {
            self.stand(false, chance, now);
        }
    }

    fn count_votes(&mut self, now: Instant) {
        let Role::Candidate { granted, .. } = self.role else {
            return;
        };
        if !self.is_quorum(granted.count_ones()) {
            return;
        }
        let peer = Peer {
            next: self.log.last() + 1,
            matched: 0,
            heard: now,
            fresh: true,
        };
        self.role = Role::Leader(vec![peer; self.count]);
        let term = self.term;
        self.append_own(Entry {
            term,
            bytes: Arc::new([]),
        });
        self.timer = now + self.timing.heartbeat;
        self.heartbeat(now);
    }

    fn append(&mut self, from: usize, append: Append, chance: &mut Chance, now: Instant) {
        let (term, sent) = (append.term, append.sent);
        if !self.accepts(from, term, sent, chance, now) {
            return;
        }
        // What a snapshot has taken the place of is committed, and so the same everywhere.
        let skip = self.log.base().saturating_sub(append.before);
        let before = append.before.max(self.log.base());
        let fits = skip > 0 || self.log.term_of(before) == Some(append.before_term);
        if !fits {
            let hint = self.log.last().min(append.before.saturating_sub(1)) + 1;
            let result = Appended::Conflict(hint.max(self.commit + 1));
            self.out
                .push(Out::Send(from, Message::Appended { term, sent, result }));
            return;
        }
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let sent_last = append.before + append.entries.len() as u64;
        let mut entries = append.entries;
        entries.drain(..skip.min(entries.len()));
        let same = entries
            .iter()
            .zip(before + 1..)
            .take_while(|(entry, index)| self.log.term_of(*index) == Some(entry.term))
            .count();
        let first = before + 1 + same as u64;
        let new = entries.split_off(same);
        if !new.is_empty() {
            if first <= self.log.last() {
                self.log.truncate(first);
                self.durable = self.durable.min(first - 1);
                for (_, waiting) in &mut self.waiting {
                    if let Waiting::Own { last } = waiting {
                        *last = (*last).min(first - 1);
                    }
                }
                self.write(Write::Truncate { from: first });
            }
            self.log.extend(new.clone());
            let last = self.log.last();
            self.write(Write::Append {
                first,
                entries: new,
            });
            self.when_synced(Waiting::Own { last });
        }
        let matched = sent_last.max(self.log.base());
        self.commit = self.commit.max(append.commit.min(matched));
        self.when_synced(Waiting::Matched {
            to: from,
            term,
            sent,
            index: matched,
        });
    }

    fn install(
        &mut self,
        from: usize,
        term: Term,
        snapshot: Arc<Snapshot>,
        sent: Instant,
        chance: &mut Chance,
        now: Instant,
    ) {
        if !self.accepts(from, term, sent, chance, now) {
            return;
        }
        let index = snapshot.index;
        if index > self.commit {
            self.commit = index;
            self.durable = self.durable.max(index);
            self.compacted(snapshot, 0);
            self.durable = self.durable.min(self.log.last());
        }
        self.when_synced(Waiting::Matched {
            to: from,
            term,
            sent,
            index,
        });
    }

    /// Follows the sender, if its term counts.
    fn accepts(
        &mut self,
        from: usize,
        term: Term,
        sent: Instant,
        chance: &mut Chance,
        now: Instant,
    ) -> bool {
        if term < self.term {
            let (term, result) = (self.term, Appended::HigherTerm);
            self.out
                .push(Out::Send(from, Message::Appended { term, sent, result }));
            return false;
        }
        if term > self.term {
            self.follow(term, Some(from), chance, now);
        }
        self.role = Role::Follower;
        self.heard = Some(now);
        self.wait_for_leader(chance, now);
        true
    }

    fn appended(
        &mut self,
        from: usize,
        term: Term,
        sent: Instant,
        result: Appended,
        chance: &mut Chance,
        now: Instant,
    ) {
        if term > self.term {
            self.follow(term, None, chance, now);
            return;
        }
        if term < self.term {
            return;
        }
        let Role::Leader(peers) = &mut self.role else {
            return;
        };
        let peer = &mut peers[from];
        peer.fresh = true;
        peer.heard = peer.heard.max(sent);
        match result {
            Appended::Matched(index) => {
                peer.matched = peer.matched.max(index);
                peer.next = peer.next.max(index + 1);
                self.commit_by_quorum();
            }
            Appended::Conflict(hint) => {
                peer.next = hint.min(peer.next).max(peer.matched + 1);
                self.send_to(from, now);
            }
            Appended::HigherTerm => {}
        }
    }

    fn follow(&mut self, term: Term, vote: Option<usize>, chance: &mut Chance, now: Instant) {
        self.term = term;
        self.voted_for = vote;
        self.role = Role::Follower;
        self.wait_for_leader(chance, now);
        self.write_vote();
    }

    fn append_own(&mut self, entry: Entry) -> u64 {
        let last = self.log.push(entry.clone());
        self.write(Write::Append {
            first: last,
            entries: vec![entry],
        });
        self.when_synced(Waiting::Own { last });
        last
    }

    /// A round to everybody; what was not acknowledged since the last one is sent again.
    fn heartbeat(&mut self, now: Instant) {
        if let Role::Leader(peers) = &mut self.role {
            for peer in peers.iter_mut() {
                if !peer.fresh {
                    peer.next = peer.matched + 1;
                }
                peer.fresh = false;
            }
        }
        for to in self.others() {
            self.send_to(to, now);
        }
    }

    /// New entries to everybody who has the ones before, as far as is known.
    fn replicate(&mut self, now: Instant) {
        for to in self.others() {
            self.send_to(to, now);
        }
    }

    fn send_to(&mut self, to: usize, now: Instant) {
        let term = self.term;
        let Role::Leader(peers) = &mut self.role else {
            return;
        };
        let peer = &mut peers[to];
        let before = peer.next - 1;
        let message = match (self.log.term_of(before), &self.snapshot) {
            (Some(before_term), _) => {
                let entries = self.log.from(peer.next, APPEND_MAX);
                peer.next += entries.len() as u64;
                Message::Append(Append {
                    term,
                    before,
                    before_term,
                    entries,
                    commit: self.commit,
                    sent: now,
                })
            }
            (None, Some(snapshot)) => {
                peer.next = snapshot.index + 1;
                Message::Install {
                    term,
                    snapshot: Arc::clone(snapshot),
                    sent: now,
                }
            }
            (None, None) => return,
        };
        self.out.push(Out::Send(to, message));
    }

    fn commit_by_quorum(&mut self) {
        let Role::Leader(peers) = &self.role else {
            return;
        };
        let mut matched: Vec<u64> = peers.iter().map(|peer| peer.matched).collect();
        matched[self.me] = self.durable;
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let index = matched[self.count / 2];
        if index > self.commit && self.log.term_of(index) == Some(self.term) {
            self.commit = index;
        }
    }

    /// A leader was heard lately, or this is one whom a quorum heard: no vote against it.
    fn has_promised(&self, now: Instant) -> bool {
        let since = match &self.role {
            Role::Leader(peers) => {
                let mut heard: Vec<Instant> = peers.iter().map(|peer| peer.heard).collect();
                heard[self.me] = now;
                heard.sort_unstable_by(|a, b| b.cmp(a));
                Some(heard[self.count / 2])
            }
            Role::Follower | Role::PreCandidate { .. } | Role::Candidate { .. } => self.heard,
        };
        since.is_some_and(|since| now < since + self.timing.election_max)
    }

    fn is_up_to_date(&self, ballot: Ballot) -> bool {
        (ballot.last_term, ballot.last) >= (self.log.last_term(), self.log.last())
    }

    fn ballot(&self, term: Term, transfer: bool) -> Ballot {
        Ballot {
            term,
            last_term: self.log.last_term(),
            last: self.log.last(),
            transfer,
        }
    }

    fn tell_all(&mut self, message: impl Fn(usize) -> Message) {
        for to in self.others() {
            self.out.push(Out::Send(to, message(to)));
        }
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

    fn write_vote(&mut self) {
        self.write(Write::Vote {
            term: self.term,
            voted_for: self.voted_for,
        });
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
