//! Raft's messages as the daemon's network and service handle them, and what each means for the lease.
//!
//! Invariants, the daemon's: a round's send time is read before it leaves; an append is stamped before Raft sees it; an
//! acknowledgement is told to the lease before Raft hears it; a granted vote leaves only after this process is fenced.

use std::sync::Arc;

use model::command::Command;
use model::planted::{self, Bug};

use super::atm::{Waiter, name, node};
use super::clock::{MS, True, US};
use super::disk::Write;
use super::event::{Event, Later};
use super::network::ATM;
use super::raft::{Appended, Message, Out};
use super::world::World;

impl World {
    /// A message reaches a process.
    pub(crate) fn arrive(&mut self, from: usize, from_of: u32, to: usize, message: Message) {
        let now = self.now;
        let local = self.atms[to].now(now);
        let Some(process) = self.atms[to].process() else {
            return;
        };
        if let Message::Append(_) | Message::Install { .. } = &message {
            if planted::is(Bug::LateStamp) {
                self.soon(to, 10 * MS, Later::Stamp);
            } else {
                process.keeper.append_received(local);
            }
            if self.chance.percent(10) {
                // Raft is busy: it sees the append a while after it was stamped.
                let later = Later::Append {
                    from,
                    from_of,
                    message: Box::new(message),
                };
                self.soon(to, 10 * MS, later);
                return;
            }
        } else if let Message::Voted {
            term,
            granted: true,
            age,
        } = &message
        {
            process
                .keeper
                .grant_received(*term, node(from), *age, local);
        } else if let Message::Appended { term, sent, result } = &message
            && *result != Appended::HigherTerm
        {
            // A conflict is an acknowledgement too: the follower follows this leader, its log just differs.
            process
                .keeper
                .round_acknowledged(*term, node(from), *sent, local);
            self.spoke_up(to);
        }
        self.raft_receives(to, from, from_of, message);
    }

    pub(crate) fn raft_receives(&mut self, me: usize, from: usize, of: u32, message: Message) {
        let local = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        let snapshot = if let Message::Install { snapshot, .. } = &message {
            Some(Arc::clone(snapshot))
        } else {
            None
        };
        let before = process.raft.commit;
        process
            .raft
            .receive(from, of, message, &mut self.chance, local);
        let installed = snapshot.filter(|snapshot| {
            snapshot.index > before && process.raft.log.base() == snapshot.index
        });
        if let Some(snapshot) = installed {
            self.install(me, &snapshot);
        }
        self.after_raft(me);
        self.look_at_log(me);
    }

    /// What the transport does before Raft sees an append, if it does it later.
    pub(crate) fn stamp(&mut self, me: usize) {
        let local = self.atms[me].now(self.now);
        if let Some(process) = self.atms[me].process() {
            process.keeper.append_received(local);
        }
    }

    pub(crate) fn raft_timer(&mut self, me: usize) {
        let local = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        if process.timer_at.is_some_and(|at| at > self.now) {
            return;
        }
        process.timer_at = None;
        process.raft.timer(&mut self.chance, local);
        self.after_raft(me);
    }

    pub(crate) fn disk_synced(&mut self, me: usize) {
        let now = self.now;
        let local = self.atms[me].now(now);
        if self.atms[me].full_until > now {
            // The daemon ends when a write fails; the host's supervisor starts it again.
            self.kill(me);
            let at = now + 50 * MS;
            self.queue.put(at, Event::Start(me));
            return;
        }
        if self.atms[me].disk.synced(local) {
            self.begin_write(me);
        }
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        process.raft.synced(&mut self.chance, local);
        self.after_raft(me);
    }

    fn begin_write(&mut self, me: usize) {
        let (until, each) = self.atms[me].slow;
        let takes = if until > self.now {
            self.chance.between(each / 2, each + 1)
        } else {
            self.chance.between(50 * US, 1500 * US)
        };
        self.later(me, self.now + takes, Later::Disk);
    }

    /// The vote is on disk: this process is fenced, and then it leaves.
    pub(crate) fn grant(&mut self, me: usize, to: usize, of: u32, term: u64) {
        let local = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let age = process.keeper.vote_granted(term, local);
        let granted = true;
        self.send(me, to, Some(of), Message::Voted { term, granted, age });
    }

    /// Does what Raft wants done.
    pub(crate) fn after_raft(&mut self, me: usize) {
        loop {
            let Some(process) = self.atms[me].process.as_deref_mut() else {
                return;
            };
            if process.raft.out.is_empty() {
                break;
            }
            for out in std::mem::take(&mut process.raft.out) {
                self.does(me, out);
            }
        }
        self.arm(me);
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        let leading = process.raft.leads();
        if leading != process.leading_seen {
            process.leading_seen = leading;
            let gone = if leading.is_none() {
                std::mem::take(&mut process.waiters)
            } else {
                Default::default()
            };
            self.tell(|_| match leading {
                Some(term) => format!("{} leads term {term}", name(me)),
                None => format!("{} follows", name(me)),
            });
            for (_, (_, waiter)) in gone {
                self.refused(me, waiter, "this ATM does not lead any more");
            }
            self.soon(me, 2 * MS, Later::Notice);
        }
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        self.judge.committed(&name(me), process);
        if process.raft.commit > process.machine.applied && !process.apply_due {
            process.apply_due = true;
            self.soon(me, 200 * US, Later::Apply);
        }
    }

    fn does(&mut self, me: usize, out: Out) {
        match out {
            Out::Send(to, message) => {
                let of = match message {
                    Message::PreVoted { .. } | Message::Voted { .. } | Message::Appended { .. } => {
                        Some(self.atms[to].life)
                    }
                    Message::PreVote(_)
                    | Message::Vote(_)
                    | Message::Append(_)
                    | Message::Install { .. }
                    | Message::Transfer { .. } => None,
                };
                self.send(me, to, of, message);
            }
            Out::Write(write) => self.write(me, write),
            Out::Granted { to, of, term } => {
                self.soon(me, MS, Later::Grant { to, of, term });
            }
            Out::Campaign(term) => {
                if let Some(process) = self.atms[me].process() {
                    process.keeper.campaign_started(term);
                }
            }
        }
    }

    fn write(&mut self, me: usize, write: Write) {
        let local = self.atms[me].now(self.now);
        if self.atms[me].disk.write(write, local) {
            self.begin_write(me);
        }
    }

    /// Puts a command into the log; whoever waits for it hears when it was applied.
    pub(crate) fn propose(&mut self, me: usize, command: &Command, waiter: Option<Waiter>) -> bool {
        let local = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return false;
        };
        let term = process.raft.term;
        let Some(index) = process.raft.propose(command.encode().into(), local) else {
            return false;
        };
        if let Some(waiter) = waiter {
            process.waiters.insert(index, (term, waiter));
        }
        self.after_raft(me);
        true
    }
}

impl World {
    /// The process's own network address.
    pub(crate) const fn host(me: usize) -> usize {
        ATM + me
    }

    /// How long true time is by this host's clock.
    pub(crate) fn local_after(&self, me: usize, duration: std::time::Duration) -> True {
        let atm = &self.atms[me];
        let at = atm.now(self.now) + duration;
        atm.clock.when(at, self.now)
    }
}
