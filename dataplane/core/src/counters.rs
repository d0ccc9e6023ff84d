//! What happened, counted. Only the forwarder writes; the engine copies.

use crate::tally::{Tallied, Tally};
use crate::{About, DropReason, ForwardingTable, Verdict};

/// Counters since the forwarder was made; they never wrap in practice (2^64) and are never reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    verdicts: [u64; Verdict::COUNT],
    held_dropped: [u64; Verdict::COUNT],
    events: [u64; Event::COUNT],
    tally: Tally,
}

/// What is worth counting besides the verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A gratuitous ARP frame was sent.
    GratuitousArp,
    /// An ARP request for a server's next hop was sent.
    ArpRequest,
    /// An unsolicited neighbour advertisement was sent.
    UnsolicitedAdvertisement,
    /// A neighbour solicitation for a server's next hop was sent.
    NeighbourSolicitation,
    /// A next hop stopped answering, and its Ethernet address was given up.
    NeighbourLost,
    /// A router on the way to a server by tunnel told a smaller MTU than was known.
    PathMtuLearned,
    /// A host that is no ATM claimed a VIP, or any other while this ATM held the lease.
    ForeignClaim,
    /// A held frame was sent when its record was committed.
    HeldReleased,
    /// A connection was admitted here.
    ConnectionOpened,
    /// A connection ended by its own FIN or RST.
    ConnectionClosed,
    /// A connection ended because it was idle.
    ConnectionExpired,
    /// A connection came alive again while its end was being replicated, and was opened once more.
    ConnectionReopened,
    /// Two committed connections are the same to their server behind NAT: what it sends goes to the older one.
    NatCollision,
    /// A sticky client was forgotten after its time.
    ClientForgotten,
    /// A committed record found no room in this table.
    RecordIgnored,
    /// A claim of a VIP found no room in the list of conflicts.
    ConflictIgnored,
}

impl Event {
    /// All events, each at its place.
    pub const ALL: [Self; Self::COUNT] = [
        Self::GratuitousArp,
        Self::ArpRequest,
        Self::UnsolicitedAdvertisement,
        Self::NeighbourSolicitation,
        Self::NeighbourLost,
        Self::PathMtuLearned,
        Self::ForeignClaim,
        Self::HeldReleased,
        Self::ConnectionOpened,
        Self::ConnectionClosed,
        Self::ConnectionExpired,
        Self::ConnectionReopened,
        Self::NatCollision,
        Self::ClientForgotten,
        Self::RecordIgnored,
        Self::ConflictIgnored,
    ];
    /// How many events there are.
    pub const COUNT: usize = Self::ConflictIgnored as usize + 1;

    /// The event's name in telemetry: kebab-case, and never given to another event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GratuitousArp => "gratuitous-arp",
            Self::ArpRequest => "arp-request",
            Self::UnsolicitedAdvertisement => "unsolicited-advertisement",
            Self::NeighbourSolicitation => "neighbour-solicitation",
            Self::NeighbourLost => "neighbour-lost",
            Self::PathMtuLearned => "path-mtu-learned",
            Self::ForeignClaim => "foreign-claim",
            Self::HeldReleased => "held-released",
            Self::ConnectionOpened => "connection-opened",
            Self::ConnectionClosed => "connection-closed",
            Self::ConnectionExpired => "connection-expired",
            Self::ConnectionReopened => "connection-reopened",
            Self::NatCollision => "nat-collision",
            Self::ClientForgotten => "client-forgotten",
            Self::RecordIgnored => "record-ignored",
            Self::ConflictIgnored => "conflict-ignored",
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            verdicts: [0; Verdict::COUNT],
            held_dropped: [0; Verdict::COUNT],
            events: [0; Event::COUNT],
            tally: Tally::default(),
        }
    }
}

impl Counters {
    /// Frames that ended in this verdict.
    pub const fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict.index()]
    }

    /// Frames of every verdict, at the verdict's [`index`](Verdict::index). Their sum is the number of frames received.
    pub const fn verdicts(&self) -> &[u64; Verdict::COUNT] {
        &self.verdicts
    }

    /// Frames whose verdict was [`Held`](Verdict::Held) and that were later thrown away for this reason.
    pub const fn held_dropped(&self, reason: DropReason) -> u64 {
        self.held_dropped[Verdict::Drop(reason).index()]
    }

    /// Frames whose verdict was [`Held`](Verdict::Held) and that were later thrown away, each reason at the
    /// [`index`](Verdict::index) of its verdict.
    pub const fn all_held_dropped(&self) -> &[u64; Verdict::COUNT] {
        &self.held_dropped
    }

    /// Frames of every virtual service and server in the table by verdict, and what became later of those that were
    /// [`Held`](Verdict::Held), in the order of these three.
    pub fn tallied(&self) -> Vec<Tallied> {
        self.tally.rows()
    }

    /// How often this happened.
    pub const fn event(&self, event: Event) -> u64 {
        self.events[event as usize]
    }

    pub(crate) fn count(&mut self, verdict: Verdict, about: About) {
        self.verdicts[verdict.index()] += 1;
        self.tally.count(about, verdict);
    }

    /// Services and servers that are not in this table are not told apart any more.
    pub(crate) fn keep(&mut self, table: &ForwardingTable) {
        self.tally.keep(table);
    }

    pub(crate) fn count_held_dropped(&mut self, reason: DropReason, about: About) {
        let end = Verdict::Drop(reason);
        self.held_dropped[end.index()] += 1;
        self.tally.count_held(about, end);
    }

    pub(crate) fn count_held_released(&mut self, about: About) {
        self.note(Event::HeldReleased);
        self.tally.count_held(about, Verdict::Transmit);
    }

    pub(crate) const fn note(&mut self, event: Event) {
        self.events[event as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_at_its_place_and_has_its_own_name() {
        for (index, event) in Event::ALL.iter().enumerate() {
            assert_eq!(*event as usize, index, "{event:?}");
        }
        let names: std::collections::BTreeSet<_> =
            Event::ALL.iter().map(|event| event.name()).collect();
        assert_eq!(names.len(), Event::COUNT);
    }
}
