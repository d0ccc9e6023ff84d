//! Who leads: votes before the vote, votes, and promises.

use std::sync::Arc;

use model::Instant;
use model::lease::Term;

use super::{Ballot, Message, Out, Peer, Raft, Role, Waiting};
use crate::sim::chance::Chance;
use crate::sim::disk::Write;
use crate::sim::log::Entry;

impl Raft {
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

    pub(super) fn vote(
        &mut self,
        from: usize,
        of: u32,
        ballot: Ballot,
        chance: &mut Chance,
        now: Instant,
    ) {
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

    pub(super) fn voted(
        &mut self,
        from: usize,
        term: Term,
        granted: bool,
        chance: &mut Chance,
        now: Instant,
    ) {
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

    pub(super) fn own_vote(
        &mut self,
        term: Term,
        transfer: bool,
        chance: &mut Chance,
        now: Instant,
    ) {
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

    pub(super) fn count_pre_votes(&mut self, chance: &mut Chance, now: Instant) {
        if let Role::PreCandidate { granted } = self.role
            && self.is_quorum(granted.count_ones())
        {
            self.stand(false, chance, now);
        }
    }

    pub(super) fn count_votes(&mut self, now: Instant) {
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

    /// A leader was heard lately, or this is one whom a quorum heard: no vote against it.
    pub(super) fn has_promised(&self, now: Instant) -> bool {
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

    pub(super) fn is_up_to_date(&self, ballot: Ballot) -> bool {
        (ballot.last_term, ballot.last) >= (self.log.last_term(), self.log.last())
    }

    pub(super) fn ballot(&self, term: Term, transfer: bool) -> Ballot {
        Ballot {
            term,
            last_term: self.log.last_term(),
            last: self.log.last(),
            transfer,
        }
    }

    pub(super) fn tell_all(&mut self, message: impl Fn(usize) -> Message) {
        for to in self.others() {
            self.out.push(Out::Send(to, message(to)));
        }
    }

    pub(super) fn write_vote(&mut self) {
        self.write(Write::Vote {
            term: self.term,
            voted_for: self.voted_for,
        });
    }

    pub(super) fn follow(
        &mut self,
        term: Term,
        vote: Option<usize>,
        chance: &mut Chance,
        now: Instant,
    ) {
        self.term = term;
        self.voted_for = vote;
        self.role = Role::Follower;
        self.wait_for_leader(chance, now);
        self.write_vote();
    }
}
