//! What the engine did, readable from any thread without asking it.

use std::sync::atomic::{AtomicU64, Ordering};

use model::Instant;
use model::ids::Epoch;

/// Counters and instants of one engine. The engine alone writes.
#[derive(Debug, Default)]
pub struct Stats {
    epoch: AtomicU64,
    first_transmit: AtomicU64,
    last_transmit: AtomicU64,
    first_gratuitous_arp: AtomicU64,
    counts: [AtomicU64; Count::ALL.len()],
}

/// What happened to frames between the core and the wire, and to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Handed to the kernel.
    Sent,
    /// Thrown away because the lease that authorised them was no longer held just before the send.
    WithheldAtSend,
    /// The device's queue was full (`ENOBUFS`).
    NoBuffers,
    /// The socket's send buffer was full (`EAGAIN`).
    SendBufferFull,
    /// The kernel found the frame longer than the device's MTU (`EMSGSIZE`).
    FrameTooLong,
    /// Longer than any frame of the interface: never offered to the kernel.
    FrameBeyondMtu,
    /// Any other refusal of the kernel.
    SendFailed,
    /// There was no open port (the interface is gone or down).
    NoPort,
    /// Given to the host's own stack.
    Delivered,
    /// The host's own stack had no room (`ENOBUFS`, `EAGAIN`).
    DeliverNoRoom,
    /// Longer than the loopback interface's MTU (`EMSGSIZE`).
    DeliverTooLong,
    /// Any other refusal of the host's own stack, or there is no way to it.
    DeliverFailed,
    /// The port failed and was closed.
    PortFailures,
    /// The port was opened again.
    PortReopened,
    /// An event found the channel to the node full; the core refused the connection or asks again later.
    EventsFull,
    /// Turns of the engine's loop, each with any number of frames.
    Batches,
}

impl Count {
    /// All of them, each at its place.
    pub const ALL: [Self; 16] = [
        Self::Sent,
        Self::WithheldAtSend,
        Self::NoBuffers,
        Self::SendBufferFull,
        Self::FrameTooLong,
        Self::FrameBeyondMtu,
        Self::SendFailed,
        Self::NoPort,
        Self::Delivered,
        Self::DeliverNoRoom,
        Self::DeliverTooLong,
        Self::DeliverFailed,
        Self::PortFailures,
        Self::PortReopened,
        Self::EventsFull,
        Self::Batches,
    ];

    /// The name in telemetry: kebab-case, never given to another.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::WithheldAtSend => "withheld-at-send",
            Self::NoBuffers => "no-buffers",
            Self::SendBufferFull => "send-buffer-full",
            Self::FrameTooLong => "frame-too-long",
            Self::FrameBeyondMtu => "frame-beyond-mtu",
            Self::SendFailed => "send-failed",
            Self::NoPort => "no-port",
            Self::Delivered => "delivered",
            Self::DeliverNoRoom => "deliver-no-room",
            Self::DeliverTooLong => "deliver-too-long",
            Self::DeliverFailed => "deliver-failed",
            Self::PortFailures => "port-failures",
            Self::PortReopened => "port-reopened",
            Self::EventsFull => "events-full",
            Self::Batches => "batches",
        }
    }
}

impl Stats {
    /// How often this happened since the engine started.
    pub fn count(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Ordering::Relaxed)
    }

    /// The epoch that the two "first" instants belong to: the last one in which anything was sent under a lease.
    pub fn epoch(&self) -> Option<Epoch> {
        Some(self.epoch.load(Ordering::Acquire))
            .filter(|epoch| *epoch != 0)
            .map(Epoch)
    }

    /// When the last packet was forwarded, in any epoch. ARP and ICMP do not count.
    pub fn last_transmit_at(&self) -> Option<Instant> {
        instant(&self.last_transmit)
    }

    /// When the first packet of [`epoch`](Self::epoch) was forwarded. ARP and ICMP do not count.
    pub fn first_transmit_of_epoch_at(&self) -> Option<Instant> {
        instant(&self.first_transmit)
    }

    /// When the first gratuitous ARP of [`epoch`](Self::epoch) was sent.
    pub fn first_gratuitous_arp_of_epoch_at(&self) -> Option<Instant> {
        instant(&self.first_gratuitous_arp)
    }

    pub(crate) fn add(&self, what: Count, n: usize) {
        if n > 0 {
            self.counts[what as usize].fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    /// Notes what a send carried. One call per send, not per frame.
    pub(crate) fn note_send(&self, epoch: Epoch, now: Instant, forwarded: bool, gratuitous: bool) {
        if self.epoch.load(Ordering::Relaxed) != epoch.0 {
            self.first_transmit.store(0, Ordering::Relaxed);
            self.first_gratuitous_arp.store(0, Ordering::Relaxed);
            self.epoch.store(epoch.0, Ordering::Release);
        }
        if forwarded {
            self.last_transmit.store(now.as_nanos(), Ordering::Relaxed);
            set_once(&self.first_transmit, now);
        }
        if gratuitous {
            set_once(&self.first_gratuitous_arp, now);
        }
    }
}

fn set_once(cell: &AtomicU64, now: Instant) {
    if cell.load(Ordering::Relaxed) == 0 {
        cell.store(now.as_nanos(), Ordering::Relaxed);
    }
}

fn instant(cell: &AtomicU64) -> Option<Instant> {
    Some(cell.load(Ordering::Relaxed))
        .filter(|nanos| *nanos != 0)
        .map(Instant::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firsts_belong_to_one_epoch() {
        let stats = Stats::default();
        let at = Instant::from_nanos;
        assert_eq!((stats.epoch(), stats.last_transmit_at()), (None, None));
        stats.note_send(Epoch(1), at(5), false, true);
        stats.note_send(Epoch(1), at(7), true, false);
        stats.note_send(Epoch(1), at(9), true, true);
        assert_eq!(stats.first_gratuitous_arp_of_epoch_at(), Some(at(5)));
        assert_eq!(stats.first_transmit_of_epoch_at(), Some(at(7)));
        assert_eq!(stats.last_transmit_at(), Some(at(9)));
        stats.note_send(Epoch(2), at(20), false, true);
        assert_eq!(
            (stats.epoch(), stats.first_transmit_of_epoch_at()),
            (Some(Epoch(2)), None)
        );
        assert_eq!(stats.last_transmit_at(), Some(at(9)));
    }

    #[test]
    fn every_count_is_at_its_place() {
        for (index, count) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, index, "{}", count.name());
        }
    }
}
