//! What goes wrong, and what operators do meanwhile.

use crate::clock::{MS, True};
use crate::event::{Event, Message};
use crate::fault::Planted;
use crate::judge::Violation;
use crate::process::Claim;
use crate::raft::{Members, Set, What};
use crate::world::{Group, World};

impl World {
    /// One fault, and the next one in a while; at the end all links are whole again.
    pub(crate) fn chaos(&mut self) -> Result<(), Violation> {
        if self.is_healed() {
            self.cut = [0; 5];
            return Ok(());
        }
        let next = self.now + self.chance.below(50 * MS);
        self.queue.put(next, Event::Chaos);
        let it = self.chance.index(self.processes.len());
        match self.chance.below(100) {
            0..20 => self.if_running(it, Self::stand),
            20..30 => self.hand_over(),
            30..36 => self.leader(|world, me| {
                world.transfer(me);
                Ok(())
            }),
            36..44 => {
                self.kill(it, 40 * MS);
                Ok(())
            }
            44..54 => {
                self.pause(it);
                Ok(())
            }
            54..66 => {
                self.cut_links(it);
                Ok(())
            }
            66..72 => {
                self.split();
                Ok(())
            }
            72..78 => {
                self.ambush();
                Ok(())
            }
            78..86 => {
                self.cut = [0; 5];
                Ok(())
            }
            86..89 => {
                // A change of rate: the clock itself goes on from where it is.
                let now = self.now;
                self.processes[it].clock.drift(&mut self.chance, now);
                Ok(())
            }
            89..93 => self.leader(|world, me| {
                world.processes[me].raft.propose(What::Noise { by: me });
                world.send_round(me);
                world.after_raft(me)
            }),
            _ => self.leader(Self::change_members),
        }
    }

    /// An orderly hand-over: silence first, then `EndEpoch`, then the transfer (once it is applied).
    fn hand_over(&mut self) -> Result<(), Violation> {
        let unbegun = self.planted == Planted::EndsUnbegunTenure;
        let ready = |claim: Claim| match claim {
            Claim::Active { epoch } => Some(epoch),
            Claim::Waiting { epoch, .. } if unbegun => Some(epoch),
            Claim::None | Claim::Proposed { .. } | Claim::Waiting { .. } | Claim::Ending { .. } => {
                None
            }
        };
        let now = self.now;
        let found = self.processes.iter_mut().find_map(|process| {
            let runs = process.is_up && process.paused_until <= now;
            ready(process.claim)
                .filter(|_| runs)
                .map(|epoch| (process, epoch))
        });
        let Some((process, epoch)) = found else {
            return Ok(());
        };
        let me = process.me;
        process.keeper.tenure_ended();
        process.claim = match process.raft.propose(What::End { epoch }) {
            Some(index) => Claim::Ending { index },
            None => Claim::None,
        };
        self.tally.handovers += 1;
        self.tell(|_| format!("{me} ends epoch {epoch}"));
        self.send_round(me);
        self.after_raft(me)
    }

    fn kill(&mut self, it: usize, longest: True) {
        if self.processes[it].is_up {
            self.tell(|_| format!("{it} dies"));
            self.processes[it].kill();
            self.tally.restarts += 1;
            let at = self.now + self.chance.below(longest);
            self.queue.put(at, Event::Start(it));
        }
    }

    pub(crate) fn start(&mut self, it: usize) {
        let now = self.now;
        self.tell(|_| format!("{it} starts again"));
        self.processes[it].start(&mut self.chance, now);
        self.tick(it);
    }

    /// SIGSTOP: nothing runs, messages queue up; what the packet path was promised stands.
    fn pause(&mut self, it: usize) {
        let until = self.now + self.chance.below(250 * MS);
        self.tell(|_| format!("{it} is stopped until {} ms", until / MS));
        self.processes[it].paused_until = until;
    }

    /// Two halves that do not hear each other, and somebody who wants to lead.
    fn split(&mut self) {
        let half = self.chance.pick(&[
            0b1, 0b10, 0b100, 0b11, 0b101, 0b110, 0b1001, 0b1_0001, 0b1_1000,
        ]);
        let it = self.chance.index(self.processes.len());
        self.strike(half, it);
    }

    fn split_off(&mut self, half: Set) {
        for (from, cut) in self.cut.iter_mut().enumerate() {
            *cut = if half & (1 << from) != 0 { !half } else { half };
        }
    }

    /// An election just when it hurts: by voters who lost their memory and cannot hear the leader, or, a while after its
    /// successor heard it last, by the leader's own vote.
    fn ambush(&mut self) {
        let Some(leader) = self.leading() else { return };
        let others: Vec<usize> = (0..self.processes.len())
            .filter(|it| *it != leader)
            .collect();
        if others.is_empty() {
            return;
        }
        let successor = self.chance.pick(&others);
        if self.chance.percent(50) {
            for it in others {
                if self.chance.percent(70) {
                    self.kill(it, MS);
                }
            }
            self.strike(1 << leader, successor);
        } else {
            let mut half = 1 << leader | 1 << successor;
            if self.processes.len() > 3 {
                half |= 1 << self.chance.pick(&others);
            }
            self.cut[leader] |= 1 << successor;
            let at = self.now + 20 * MS + self.chance.below(80 * MS);
            self.queue.put(at, Event::Strike { half, successor });
        }
    }

    /// Splits the processes in two; somebody wants to lead.
    pub(crate) fn strike(&mut self, half: Set, successor: usize) {
        if self.is_healed() {
            return;
        }
        self.split_off(half);
        self.ask_to_stand(successor);
    }

    fn ask_to_stand(&mut self, it: usize) {
        let at = self.now + self.chance.below(20 * MS);
        let message = Message::Stand;
        self.queue.put(
            at,
            Event::Arrive {
                from: it,
                from_of: 0,
                to: it,
                of: None,
                message,
            },
        );
    }

    /// One direction, both directions, or nothing in or out at all.
    fn cut_links(&mut self, it: usize) {
        let other = self.chance.index(self.processes.len());
        match self.chance.below(4) {
            0 => self.cut[it] |= 1 << other,
            1 => {
                self.cut[it] |= 1 << other;
                self.cut[other] |= 1 << it;
            }
            2 => self.cut[it] = u8::MAX,
            _ => {
                self.cut[it] = u8::MAX;
                for from in &mut self.cut {
                    *from |= 1 << it;
                }
            }
        }
    }

    /// The next step of a membership change: out of a joint one as soon as that is committed, into one at times.
    pub(crate) fn change_members(&mut self, me: usize) -> Result<(), Violation> {
        let raft = &mut self.processes[me].raft;
        if self.group != Group::Changing || raft.leads().is_none() || !raft.is_settled() {
            return Ok(());
        }
        let members = raft.members;
        let next = if members.is_joint() {
            Members::fixed(members.new)
        } else if self.now >= self.heal_at || self.chance.percent(50) {
            return Ok(());
        } else {
            let new = self
                .chance
                .pick(&[0b1, 0b111, 0b1_1100, 0b1_1001, 0b1_1111, 0b0_0110, 0b1_0000]);
            Members {
                old: members.new,
                new,
            }
        };
        if next == members {
            return Ok(());
        }
        self.tally.changes += 1;
        self.tell(|_| format!("{me} changes the members to {next:?}"));
        self.processes[me].raft.propose(What::Members(next));
        self.processes[me].follow_members();
        self.send_round(me);
        if members.is_joint() && self.chance.percent(30) {
            // Those who leave hear nothing more of those who stay.
            let it = self.chance.index(self.processes.len());
            self.strike(members.old & !members.new | 1 << me, it);
        }
        self.after_raft(me)
    }

    fn leading(&self) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.raft.leads().is_some())
    }

    fn leader(
        &mut self,
        act: impl Fn(&mut Self, usize) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        match self.leading() {
            Some(me) => self.if_running(me, act),
            None => Ok(()),
        }
    }

    fn if_running(
        &mut self,
        me: usize,
        act: impl Fn(&mut Self, usize) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let process = &self.processes[me];
        if process.is_up && process.paused_until <= self.now {
            act(self, me)
        } else {
            Ok(())
        }
    }
}
