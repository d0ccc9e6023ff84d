//! The network between processes, and the delays inside one.

use crate::clock::{MS, True};
use crate::event::{Event, Later, Message};
use crate::judge::Violation;
use crate::world::World;

impl World {
    /// Sends; `of` binds a reply to the incarnation that asked. Losses, doubles and long delays end with the faults.
    pub(crate) fn send(&mut self, from: usize, to: usize, of: Option<u32>, message: Message) {
        let healed = self.is_healed();
        if !healed && (self.cut[from] & (1 << to) != 0 || self.chance.percent(8)) {
            return;
        }
        let from_of = self.processes[from].incarnation;
        let copies = if !healed && self.chance.percent(4) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let at = self.now + self.on_the_way(healed);
            let message = message.clone();
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

    /// One round of appends to everybody, stamped with its send time.
    pub(crate) fn send_round(&mut self, me: usize) {
        let process = &self.processes[me];
        if process.raft.leads().is_none() {
            return;
        }
        let sent = process.now(self.now);
        let append = process.raft.round();
        for to in 0..self.processes.len() {
            if to != me {
                self.send(
                    me,
                    to,
                    None,
                    Message::Append {
                        append: append.clone(),
                        sent,
                    },
                );
            }
        }
    }

    /// Most often at once, else in a while.
    pub(crate) fn soon(&mut self, process: usize, later: Later) -> Result<(), Violation> {
        if self.is_healed() || self.chance.percent(70) {
            self.come_to(process, later)
        } else {
            self.later(process, later);
            Ok(())
        }
    }

    /// After one of the delays that a task, a queue or a channel may have.
    pub(crate) fn later(&mut self, process: usize, later: Later) {
        let of = self.processes[process].incarnation;
        let longest = if self.is_healed() {
            MS
        } else {
            self.chance.pick(&[MS, 3 * MS, 30 * MS, 120 * MS])
        };
        let at = self.now + self.chance.below(longest);
        self.queue.put(at, Event::Later { process, of, later });
    }

    fn on_the_way(&mut self, healed: bool) -> True {
        let longest = if healed {
            2 * MS
        } else {
            self.chance
                .pick(&[MS / 2, MS / 2, MS, 2 * MS, 5 * MS, 20 * MS, 60 * MS])
        };
        self.chance.below(longest)
    }
}
