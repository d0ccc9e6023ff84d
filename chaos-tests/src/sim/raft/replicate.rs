//! A leader's log to the others, and what they say of it.

use std::sync::Arc;

use model::Instant;
use model::lease::Term;

use super::{Append, Appended, Message, Out, Raft, Role, Waiting};
use crate::sim::chance::Chance;
use crate::sim::disk::Write;
use crate::sim::log::{Entry, Snapshot};

/// Entries in one append at most.
const APPEND_MAX: usize = 32;

impl Raft {
    pub(super) fn append(
        &mut self,
        from: usize,
        append: Append,
        chance: &mut Chance,
        now: Instant,
    ) {
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

    pub(super) fn install(
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
    pub(super) fn accepts(
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

    pub(super) fn appended(
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

    pub(super) fn append_own(&mut self, entry: Entry) -> u64 {
        let last = self.log.push(entry.clone());
        self.write(Write::Append {
            first: last,
            entries: vec![entry],
        });
        self.when_synced(Waiting::Own { last });
        last
    }

    /// A round to everybody; what was not acknowledged since the last one is sent again.
    pub(super) fn heartbeat(&mut self, now: Instant) {
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
    pub(super) fn replicate(&mut self, now: Instant) {
        for to in self.others() {
            self.send_to(to, now);
        }
    }

    pub(super) fn send_to(&mut self, to: usize, now: Instant) {
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

    pub(super) fn commit_by_quorum(&mut self) {
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
}
