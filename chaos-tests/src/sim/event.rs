//! What happens in a run, in order of true time; of what happens at once, what was decided first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::clock::True;
use super::raft::Message;

#[derive(Debug)]
pub(crate) enum Event {
    /// A message of one ATM to another. `of`: an answer to this life of the receiver, and to no other.
    Arrive {
        from: usize,
        from_of: u32,
        to: usize,
        of: Option<u32>,
        message: Box<Message>,
    },
    /// A frame reaches a host's interface.
    Frame { to: usize, bytes: Vec<u8> },
    /// A server's answer reaches a client; it does not pass the ATMs.
    Answer {
        client: usize,
        server: usize,
        port: u16,
        kind: AnswerKind,
    },
    /// Something an ATM's process has to do later in this life of it.
    Later { atm: usize, of: u32, later: Later },
    /// A client looks at what it has to do.
    Client(usize),
    /// A stopped ATM goes on.
    Resume(usize),
    /// A dead ATM starts.
    Start(usize),
    /// A dead server starts.
    ServerUp(usize),
    /// A fault of the schedule, by its place in it.
    Fault(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    SynAck,
    Ack,
    FinAck,
    Reset,
}

/// What a process does after a while.
#[derive(Debug)]
pub(crate) enum Later {
    /// Raft's timer.
    Timer,
    /// The disk has finished its oldest write.
    Disk,
    /// Raft sees an append that was stamped before.
    Append {
        from: usize,
        from_of: u32,
        message: Box<Message>,
    },
    /// The planted bug: an append is stamped when somebody comes to it.
    Stamp,
    /// A granted vote leaves.
    Grant { to: usize, of: u32, term: u64 },
    /// Committed entries are applied.
    Apply,
    /// The engine takes a batch.
    Batch,
    /// The engine sends what a batch made.
    Flush,
    /// The replicator looks at what waits for it.
    Replicate,
    /// The tenure task looks at Raft, because something changed.
    Notice,
    /// The tenure task's wait is over.
    Wake,
    /// The tenure task's tick.
    Tick,
    /// A proposal of the tenure task took too long, by its number.
    ProposalTimeout(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Entry>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    at: True,
    number: u64,
    event: Event,
}

impl Queue {
    pub(crate) fn put(&mut self, at: True, event: Event) {
        self.count += 1;
        let number = self.count;
        self.heap.push(Entry { at, number, event });
    }

    pub(crate) fn next(&mut self) -> Option<(True, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap gives the greatest: the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
