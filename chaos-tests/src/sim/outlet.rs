//! The way out of one ATM, as the daemon's engine has it: frames wait for the end of the batch, and leave only if the
//! lease still covers them then.

use std::collections::VecDeque;
use std::sync::Arc;

use dataplane::LeaseCell;
use dataplane_core::{Lease, Sink};
use model::Instant;
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::Epoch;
use model::planted::{self, Bug};
use model::sticky::StickyKey;

use super::packets;

/// Events that wait for the replicator. Small, so that it is full at times.
const EVENTS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Outlet {
    cell: Arc<LeaseCell>,
    /// The tenure this batch was decided under; `None`: no lease was held.
    authorised: Option<Epoch>,
    /// This epoch and every earlier one was given up.
    barred: Option<Epoch>,
    staged: Vec<Vec<u8>>,
    pub(crate) events: VecDeque<ConnectionChange>,
}

/// Frames that leave, and the tenure they were decided under.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) epoch: Option<Epoch>,
    pub(crate) frames: Vec<Vec<u8>>,
}

impl Outlet {
    pub(crate) fn new(cell: Arc<LeaseCell>) -> Self {
        Self {
            cell,
            authorised: None,
            barred: None,
            staged: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// The lease for a batch that begins at `now`.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Lease> {
        let lease = self
            .cell
            .read()
            .filter(|lease| self.barred.is_none_or(|barred| lease.epoch > barred));
        self.authorised = lease
            .filter(|lease| now < lease.until)
            .map(|lease| lease.epoch);
        lease
    }

    /// Nothing of the present epoch leaves any more, once this has been flushed.
    pub(crate) fn relinquish(&mut self, now: Instant) -> Sent {
        let sent = self.flush(now);
        let present = self.cell.read().map(|lease| lease.epoch);
        self.barred = self.barred.max(present).max(self.authorised);
        self.authorised = None;
        sent
    }

    /// What is staged leaves, or is thrown away.
    pub(crate) fn flush(&mut self, now: Instant) -> Sent {
        let mut frames = std::mem::take(&mut self.staged);
        if !self.covered(&frames, now) {
            frames.clear();
        }
        Sent {
            epoch: self.authorised,
            frames,
        }
    }

    fn covered(&self, frames: &[Vec<u8>], now: Instant) -> bool {
        if planted::is(Bug::LeaseOff) || planted::is(Bug::StaleFramesAfterPause) {
            return true;
        }
        match self.authorised {
            None => !frames.iter().any(|frame| packets::speaks_for_vip(frame)),
            Some(epoch) => self
                .cell
                .read()
                .is_some_and(|lease| lease.epoch == epoch && now < lease.until),
        }
    }

    fn tell(&mut self, change: ConnectionChange) -> bool {
        let room = self.events.len() < EVENTS_MAX;
        if room {
            self.events.push_back(change);
        }
        room
    }
}

impl Sink for Outlet {
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        self.staged.push([head, body].concat());
    }

    fn relay(&mut self, head: &[u8], body: &[u8]) {
        self.transmit(head, body);
    }

    /// No simulated server is an ATM.
    fn deliver(&mut self, _head: &[u8], _body: &[u8]) {
        unreachable!("the table of a simulated ATM has no server that is this ATM");
    }

    fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool {
        self.tell(ConnectionChange::Open(key, pin))
    }

    fn close(&mut self, key: ConnectionKey) -> bool {
        self.tell(ConnectionChange::Close(key))
    }

    fn unstick(&mut self, key: StickyKey) -> bool {
        self.tell(ConnectionChange::Unstick(key))
    }
}
