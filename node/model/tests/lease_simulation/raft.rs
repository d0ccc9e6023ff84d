//! As much of Raft as the lease leans on: terms, durable votes, a log with leader completeness, joint membership.
//!
//! Weaker than the real one on purpose: a voter grants any higher term at once, as under leadership transfer, so nothing
//! here keeps an old leader's lease safe. Every append carries the whole log, which saves the search for the match.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use model::command::{Command, Control};
use model::ids::{Epoch, NodeId};
use model::lease::{Term, Voters};

pub(crate) const PROCESSES_MAX: usize = 5;

/// Processes as bits.
pub(crate) type Set = u8;

/// The voters: `old` and `new` differ while a change is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) old: Set,
    pub(crate) new: Set,
}

impl Members {
    pub(crate) const fn fixed(set: Set) -> Self {
        Self { old: set, new: set }
    }

    pub(crate) const fn is_joint(self) -> bool {
        self.old != self.new
    }

    pub(crate) const fn contains(self, process: usize) -> bool {
        (self.old | self.new) & (1 << process) != 0
    }

    const fn has_quorum(self, set: Set) -> bool {
        is_majority(set, self.old) && is_majority(set, self.new)
    }

    pub(crate) fn voters(self) -> Voters {
        let ids = |set: Set| -> BTreeSet<NodeId> {
            (0..PROCESSES_MAX)
                .filter(|process| set & (1 << process) != 0)
                .map(node_id)
                .collect()
        };
        if self.is_joint() {
            vec![ids(self.old), ids(self.new)]
        } else {
            vec![ids(self.new)]
        }
    }
}

const fn is_majority(set: Set, of: Set) -> bool {
    (set & of).count_ones() * 2 > of.count_ones()
}

pub(crate) const fn node_id(process: usize) -> NodeId {
    NodeId(process as u64 + 1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Begin {
        by: usize,
        lease: Duration,
    },
    End {
        epoch: Epoch,
    },
    Members(Members),
    /// Any other command.
    Noise {
        by: usize,
    },
}

impl Entry {
    /// The command that the state applies; `None` for a membership.
    pub(crate) fn command(&self) -> Option<Command> {
        let control = match self.what {
            What::Begin { by, lease } => Control::BeginEpoch {
                node: node_id(by),
                name: String::new(),
                term: self.term,
                lease,
            },
            What::End { epoch } => Control::EndEpoch { epoch },
            What::Noise { by } => Control::Register {
                node: node_id(by),
                incarnation: String::new(),
            },
            What::Members(_) => return None,
        };
        Some(Command::Control(control))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct VoteRequest {
    pub(crate) term: Term,
    last_term: Term,
    len: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) term: Term,
    log: Rc<Vec<Entry>>,
    commit: usize,
}

#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate { granted: Set },
    Leader { matched: [usize; PROCESSES_MAX] },
}

pub(crate) struct Raft {
    me: usize,
    // Durable.
    pub(crate) term: Term,
    voted: Option<usize>,
    log: Rc<Vec<Entry>>,
    first_members: Members,
    // Volatile.
    role: Role,
    pub(crate) commit: usize,
    /// The last membership in the log: in force as soon as it stands there.
    pub(crate) members: Members,
    /// Where it stands; `None`: it is older than the log.
    members_at: Option<usize>,
}

impl Raft {
    pub(crate) fn new(me: usize, members: Members) -> Self {
        Self {
            me,
            term: 0,
            voted: None,
            log: Rc::default(),
            first_members: members,
            role: Role::Follower,
            commit: 0,
            members,
            members_at: None,
        }
    }

    /// Forgets what is not on disk.
    pub(crate) fn restart(&mut self) {
        self.role = Role::Follower;
        self.commit = 0;
    }

    pub(crate) fn entry(&self, index: usize) -> Entry {
        self.log[index]
    }

    /// The term this process leads, as Raft itself knows.
    pub(crate) fn leads(&self) -> Option<Term> {
        matches!(self.role, Role::Leader { .. }).then_some(self.term)
    }

    /// A new election. `None`: not a voter. Who is only about to be removed may have to bring that about (Raft thesis §4.2.2).
    pub(crate) fn campaign(&mut self) -> Option<VoteRequest> {
        let settled = self.members_at.is_none_or(|at| at < self.commit);
        if settled && !self.members.contains(self.me) {
            return None;
        }
        self.term += 1;
        self.voted = Some(self.me);
        self.role = Role::Candidate { granted: 0 };
        let request = VoteRequest {
            term: self.term,
            last_term: self.last_term(),
            len: self.log.len(),
        };
        self.granted(self.term, self.me);
        Some(request)
    }

    /// Whether the vote is granted.
    pub(crate) fn vote(&mut self, from: usize, request: VoteRequest) -> bool {
        self.see(request.term);
        let up_to_date = (request.last_term, request.len) >= (self.last_term(), self.log.len());
        if request.term < self.term || !up_to_date || self.voted.is_some_and(|to| to != from) {
            return false;
        }
        self.voted = Some(from);
        true
    }

    /// A vote was granted; it may be the one that decides.
    pub(crate) fn granted(&mut self, term: Term, from: usize) {
        if term != self.term {
            return;
        }
        if let Role::Candidate { granted } = &mut self.role {
            *granted |= 1 << from;
            if self.members.has_quorum(*granted) {
                self.role = Role::Leader {
                    matched: [0; PROCESSES_MAX],
                };
            }
        }
    }

    pub(crate) fn round(&self) -> Append {
        Append {
            term: self.term,
            log: Rc::clone(&self.log),
            commit: self.commit,
        }
    }

    /// How much of the log is the leader's after this append; `None`: the leader is stale and is not acknowledged.
    pub(crate) fn append(&mut self, append: &Append) -> Option<usize> {
        if append.term < self.term {
            return None;
        }
        self.see(append.term);
        self.role = Role::Follower;
        let matched = append.log.len();
        let same = matched == 0
            || self.log.get(matched - 1).map(|entry| entry.term)
                == Some(append.log[matched - 1].term);
        if !same {
            self.log = Rc::clone(&append.log);
            self.find_members();
        }
        self.commit = self.commit.max(append.commit.min(matched));
        Some(matched)
    }

    pub(crate) fn acknowledged(&mut self, term: Term, from: usize, len: usize) {
        if term != self.term {
            return;
        }
        if let Role::Leader { matched } = &mut self.role {
            matched[from] = matched[from].max(len);
            self.advance();
        }
    }

    /// The new entry's index. `None`: not the leader.
    pub(crate) fn propose(&mut self, what: What) -> Option<usize> {
        let term = self.leads()?;
        Rc::make_mut(&mut self.log).push(Entry { term, what });
        if let What::Members(members) = what {
            self.members = members;
            self.members_at = Some(self.log.len() - 1);
        }
        self.advance();
        Some(self.log.len() - 1)
    }

    /// Whether everything in the log is committed, by this term's leader.
    pub(crate) fn is_settled(&self) -> bool {
        self.commit == self.log.len() && self.last_term() == self.term
    }

    /// A leader that is no voter any more leaves.
    pub(crate) fn retire(&mut self) {
        self.role = Role::Follower;
    }

    fn advance(&mut self) {
        let Role::Leader { matched } = &self.role else {
            return;
        };
        // Entries of older terms are committed only along with one of this term (Raft §5.4.2).
        for len in (self.commit + 1..=self.log.len()).rev() {
            if self.log[len - 1].term != self.term {
                break;
            }
            let holds = |process: &usize| *process == self.me || matched[*process] >= len;
            let set = (0..PROCESSES_MAX)
                .filter(holds)
                .fold(0, |set, process| set | 1 << process);
            if self.members.has_quorum(set) {
                self.commit = len;
                break;
            }
        }
    }

    fn see(&mut self, term: Term) {
        if term > self.term {
            self.term = term;
            self.voted = None;
            self.role = Role::Follower;
        }
    }

    fn last_term(&self) -> Term {
        self.log.last().map_or(0, |entry| entry.term)
    }

    fn find_members(&mut self) {
        let found = self
            .log
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, entry)| match entry.what {
                What::Members(members) => Some((at, members)),
                What::Begin { .. } | What::End { .. } | What::Noise { .. } => None,
            });
        self.members = found.map_or(self.first_members, |(_, members)| members);
        self.members_at = found.map(|(at, _)| at);
    }
}
