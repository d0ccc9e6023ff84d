//! What happens next: a queue of events in true time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use model::Instant;
use model::lease::Term;

use crate::clock::True;
use crate::raft::{Append, Set, VoteRequest};

/// Between two processes.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Vote(VoteRequest),
    Granted {
        term: Term,
        age: Duration,
    },
    /// `sent` is the leader's, and comes back with the acknowledgement.
    Append {
        append: Append,
        sent: Instant,
    },
    Acknowledged {
        term: Term,
        sent: Instant,
        matched: usize,
    },
    /// Leadership transfer: stand for election at once.
    Stand,
}

/// Something a process comes to only after a while, whatever else happens in between.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    /// Raft gets the append, which was stamped when it arrived.
    Append {
        from: usize,
        of: u32,
        append: Append,
        sent: Instant,
    },
    /// The planted late stamp.
    Stamp(Instant),
    /// Raft has granted the vote; the reply leaves.
    Grant { to: usize, of: u32, term: Term },
    /// The lease rules learn of an acknowledged round.
    Acknowledged {
        from: usize,
        term: Term,
        sent: Instant,
    },
    /// The tasks see what Raft's role is by now.
    Notice,
    /// The wait-out may be over.
    Wake,
    /// Heartbeat or election timer.
    Tick,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// `of` is the incarnation of the receiver that a reply belongs to; requests reach any.
    Arrive {
        from: usize,
        from_of: u32,
        to: usize,
        of: Option<u32>,
        message: Message,
    },
    Later {
        process: usize,
        of: u32,
        later: Later,
    },
    Start(usize),
    Strike {
        half: Set,
        successor: usize,
    },
    Chaos,
}

struct Due {
    at: True,
    /// Events of one instant come in the order they were put in.
    order: u64,
    event: Event,
}

#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Due>,
    put: u64,
}

impl Queue {
    pub(crate) fn put(&mut self, at: True, event: Event) {
        self.put += 1;
        self.heap.push(Due {
            at,
            order: self.put,
            event,
        });
    }

    pub(crate) fn next(&mut self) -> Option<(True, Event)> {
        self.heap.pop().map(|due| (due.at, due.event))
    }
}

impl Ord for Due {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}
