//! The port of a simulated interface: its frames come from a [`Cable`] and go there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use dataplane_core::{Frame, Offload};
use model::Instant;

use super::{BATCH_FRAMES_MAX, Outbox};
use crate::simulation::Cable;
use crate::{clock, wake};

/// The receiving half.
pub(crate) struct Receiver {
    cable: Cable,
    batch: Vec<(Instant, Vec<u8>)>,
    /// There is nothing to poll; whoever polls it waits for its timeout.
    never: Arc<OwnedFd>,
}

/// The sending half.
pub(crate) struct Sender(Cable);

/// Opens both halves.
pub(crate) fn open(cable: &Cable) -> io::Result<(Receiver, Sender)> {
    let receiver = Receiver {
        cable: cable.clone(),
        batch: Vec::new(),
        never: wake::waker()?,
    };
    Ok((receiver, Sender(cable.clone())))
}

impl Receiver {
    pub(crate) fn fill(&mut self) -> usize {
        self.batch = self.cable.take_received(BATCH_FRAMES_MAX);
        self.batch.len()
    }

    pub(crate) fn frame(&mut self, index: usize) -> Option<(Frame<'_>, Duration)> {
        let (at, bytes) = self.batch.get_mut(index)?;
        let waited = clock::boottime().saturating_since(*at);
        let offload = Offload::default();
        Some((Frame { bytes, offload }, waited))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

impl Sender {
    /// Sends everything from slot `from` on.
    pub(crate) fn send(&mut self, outbox: &Outbox, from: usize) -> usize {
        for slot in from..outbox.len() {
            self.0.send(outbox.frame(slot).to_vec());
        }
        outbox.len() - from
    }
}
