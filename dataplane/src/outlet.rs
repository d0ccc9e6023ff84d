//! The way out: where the core's frames wait for the end of the batch, and the last look at the lease before they leave.
//!
//! Invariant: between the last read of clock and lease and the send there is nothing but the system call. What the lease
//! no longer covers at that moment is thrown away and counted, never kept for later.

use std::io;
use std::sync::Arc;

use dataplane_core::{Lease, Sink};
use model::Instant;
use model::connections::{ConnectionKey, Pin};
use model::ids::Epoch;
use model::planted::{self, Bug};
use model::sticky::StickyKey;
use rustix::io::Errno;
use tokio::sync::mpsc;
use tracing::warn;

use crate::clock;
use crate::lease_cell::LeaseCell;
use crate::offload::{EgressGate, VOICE_MARK};
use crate::own_stack::OwnStack;
use crate::port::{Outbox, Push, Sender};
use crate::stats::{Count, Stats};

/// What the engine tells the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection is to be opened: replicate it and give it back with `commit` (or `refuse`).
    Open(ConnectionKey, Pin),
    /// A connection is over: replicate that.
    Close(ConnectionKey),
    /// A sticky client's time is over: replicate that.
    Unstick(StickyKey),
}

/// The core's [`Sink`].
pub(crate) struct Outlet {
    sender: Option<Sender>,
    /// The kernel's look at the lease, where there is one.
    pub(crate) gate: Option<Arc<EgressGate>>,
    /// Whether the sender's frames carry the gate's mark.
    marked: bool,
    /// The error that closed the port, for the engine to see after a flush.
    pub(crate) fault: Option<io::Error>,
    outbox: Outbox,
    /// The way to the host's own stack, once the table has a server there.
    own_stack: Option<OwnStack>,
    frame_len_max: usize,
    lease: Arc<LeaseCell>,
    /// The tenure this batch was decided under; `None`: no lease was held.
    authorised: Option<Epoch>,
    /// This epoch and every earlier one was given up by [`relinquish`](Self::relinquish).
    barred: Option<Epoch>,
    staged: Staged,
    events: mpsc::Sender<Event>,
    stats: Arc<Stats>,
}

/// What the outbox holds.
#[derive(Clone, Copy, Debug, Default)]
struct Staged {
    /// A packet of a client on its way to a server.
    forwarded: bool,
    /// A gratuitous ARP.
    gratuitous: bool,
    /// Anything that only the holder of the lease may send: everything but a question of our own and what is passed to another ATM.
    voice: bool,
}

impl Outlet {
    pub(crate) fn new(
        frame_len_max: usize,
        lease: Arc<LeaseCell>,
        events: mpsc::Sender<Event>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            sender: None,
            gate: None,
            marked: false,
            fault: None,
            outbox: Outbox::new(frame_len_max),
            own_stack: None,
            frame_len_max,
            lease,
            authorised: None,
            barred: None,
            staged: Staged::default(),
            events,
            stats,
        }
    }

    /// Sends through this port from now on; `None`: through none.
    pub(crate) fn use_sender(&mut self, sender: Option<Sender>) {
        self.sender = sender;
        self.marked = false;
    }

    /// A server of the table is this very host: opens the way to it, unless it is open. Where it cannot be opened, what is for it is
    /// thrown away and counted, and the next table tries again.
    pub(crate) fn reach_own_stack(&mut self) {
        // A simulated host has no stack.
        if self.own_stack.is_some() || cfg!(atm_sim) {
            return;
        }
        match OwnStack::open(self.frame_len_max, self.gate.as_deref()) {
            Ok(own_stack) => self.own_stack = Some(own_stack),
            Err(error) => {
                warn!(%error, "this host's own server cannot be reached: no raw socket");
            }
        }
    }

    /// Reads the lease for a batch that begins at `now`: what the core is to be told.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Lease> {
        let lease = self
            .lease
            .read()
            .filter(|lease| self.barred.is_none_or(|barred| lease.epoch > barred));
        self.authorised = lease
            .filter(|lease| now < lease.until)
            .map(|lease| lease.epoch);
        lease
    }

    /// Sends what is staged and then nothing more for the present epoch, whatever the cell says.
    pub(crate) fn relinquish(&mut self) {
        self.flush();
        let present = self.lease.read().map(|lease| lease.epoch);
        self.barred = self.barred.max(present).max(self.authorised);
        self.authorised = None;
    }

    /// Sends or throws away everything staged.
    pub(crate) fn flush(&mut self) {
        let mut next = 0;
        self.mark();
        while next < self.outbox.len() {
            let left = self.outbox.len() - next;
            let now = clock::boottime();
            if !self.covered(now) {
                self.stats.add(Count::WithheldAtSend, left);
                break;
            }
            let Some(sender) = &mut self.sender else {
                self.stats.add(Count::NoPort, left);
                break;
            };
            match sender.send(&self.outbox, next) {
                Ok(sent) => {
                    // A port never reports zero frames sent; a loop that cannot end must not hang on that.
                    next += sent.max(1);
                    self.stats.add(Count::Sent, sent);
                    if let Some(epoch) = self.authorised {
                        self.stats.note_send(
                            epoch,
                            now,
                            self.staged.forwarded,
                            self.staged.gratuitous,
                        );
                    }
                }
                Err(error) => match Errno::from_io_error(&error) {
                    // The kernel reports an error only for the first frame of a send: that one is lost, the next may pass.
                    Some(Errno::NOBUFS) => {
                        self.stats.add(Count::NoBuffers, 1);
                        next += 1;
                    }
                    Some(Errno::MSGSIZE) => {
                        self.stats.add(Count::FrameTooLong, 1);
                        next += 1;
                    }
                    Some(Errno::INTR) => {}
                    _ if error.kind() == io::ErrorKind::WouldBlock => {
                        // Waiting would make the frames older than the lease that covers them.
                        self.stats.add(Count::SendBufferFull, left);
                        break;
                    }
                    _ => {
                        self.stats.add(Count::SendFailed, left);
                        self.fault = Some(error);
                        break;
                    }
                },
            }
        }
        self.outbox.clear();
        self.flush_own_stack();
        self.staged = Staged::default();
    }

    /// The same for what goes to the host's own stack. Each packet is a system call, so each has a look at the lease of its own.
    fn flush_own_stack(&mut self) {
        let Some(own_stack) = &self.own_stack else {
            return;
        };
        let staged = own_stack.outbox.len();
        for index in 0..staged {
            let now = clock::boottime();
            if !self.covered(now) {
                self.stats.add(Count::WithheldAtSend, staged - index);
                break;
            }
            let refused = match own_stack.send(index) {
                Ok(()) => {
                    self.stats.add(Count::Delivered, 1);
                    if let Some(epoch) = self.authorised {
                        self.stats.note_send(epoch, now, true, false);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let count = match Errno::from_io_error(&refused) {
                Some(Errno::NOBUFS | Errno::AGAIN) => Count::DeliverNoRoom,
                Some(Errno::MSGSIZE) => Count::DeliverTooLong,
                _ => Count::DeliverFailed,
            };
            self.stats.add(count, 1);
        }
        if let Some(own_stack) = &mut self.own_stack {
            own_stack.outbox.clear();
        }
    }

    /// Has the gate look at what needs the lease, and at nothing else: a backup's ARP requests and relayed frames pass without one.
    fn mark(&mut self) {
        let voice = self.authorised.is_some();
        let Some(sender) = self.sender.as_ref() else {
            return;
        };
        if self.gate.is_none() || self.marked == voice || self.outbox.len() == 0 {
            return;
        }
        match sender.set_mark(if voice { VOICE_MARK } else { 0 }) {
            Ok(()) => self.marked = voice,
            Err(error) => self.fault = Some(error),
        }
    }

    /// Whether what is staged may leave at `now`.
    fn covered(&self, now: Instant) -> bool {
        if planted::is(Bug::LeaseOff) || planted::is(Bug::StaleFramesAfterPause) {
            return true;
        }
        match self.authorised {
            // A backup asks for Ethernet addresses and passes frames to the active ATM, and says nothing else.
            None => !self.staged.voice,
            Some(epoch) => self
                .lease
                .read()
                .is_some_and(|lease| lease.epoch == epoch && now < lease.until),
        }
    }
}

impl Sink for Outlet {
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        if self.stage(head, body) {
            self.staged.note(head, body);
        }
    }

    /// Staged like any other frame: a batch that was decided under a lease leaves under it or not at all.
    fn relay(&mut self, head: &[u8], body: &[u8]) {
        let _counted_if_too_long = self.stage(head, body);
    }

    fn deliver(&mut self, head: &[u8], body: &[u8]) {
        let own_stack = self.own_stack.as_mut();
        let mut push = own_stack.map(|own_stack| own_stack.outbox.push(head, body));
        if push == Some(Push::Full) {
            self.flush();
            let own_stack = self.own_stack.as_mut();
            push = own_stack.map(|own_stack| own_stack.outbox.push(head, body));
        }
        match push {
            Some(Push::Stored) => self.staged.voice = true,
            Some(Push::Full | Push::TooLong) => self.stats.add(Count::DeliverTooLong, 1),
            None => self.stats.add(Count::DeliverFailed, 1),
        }
    }

    fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool {
        self.tell(Event::Open(key, pin))
    }

    fn close(&mut self, key: ConnectionKey) -> bool {
        self.tell(Event::Close(key))
    }

    fn unstick(&mut self, key: StickyKey) -> bool {
        self.tell(Event::Unstick(key))
    }
}

impl Outlet {
    /// Stores a frame until the end of the batch, or counts it as too long.
    fn stage(&mut self, head: &[u8], body: &[u8]) -> bool {
        let mut push = self.outbox.push(head, body);
        if push == Push::Full {
            self.flush();
            push = self.outbox.push(head, body);
        }
        match push {
            Push::Stored => true,
            Push::Full | Push::TooLong => {
                self.stats.add(Count::FrameBeyondMtu, 1);
                false
            }
        }
    }

    fn tell(&self, event: Event) -> bool {
        let told = self.events.try_send(event).is_ok();
        self.stats.add(Count::EventsFull, usize::from(!told));
        told
    }
}

impl Staged {
    /// Looks at a frame the core built (no VLAN tag), wherever it is divided.
    fn note(&mut self, head: &[u8], body: &[u8]) {
        const ARP: [Option<u8>; 2] = [Some(0x08), Some(0x06)];
        const ARP_REQUEST: [Option<u8>; 2] = [Some(0), Some(1)];
        const IPV6: [Option<u8>; 2] = [Some(0x86), Some(0xdd)];
        const IP_PROTOCOL_ICMP: u8 = 1;
        const IP_PROTOCOL_ICMPV6: u8 = 58;
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        let byte = |at: usize| {
            let at_body = at.checked_sub(head.len());
            at_body
                .map_or_else(|| head.get(at), |at| body.get(at))
                .copied()
        };
        let ethertype = [byte(12), byte(13)];
        if ethertype == IPV6 {
            let is_icmp = byte(20) == Some(IP_PROTOCOL_ICMPV6);
            let announces = is_icmp && byte(54) == Some(ADVERTISEMENT);
            // RFC 4861 §7.2.6: to all nodes, ff02::1.
            self.gratuitous |= announces && byte(38) == Some(0xff);
            self.voice |= !(is_icmp && byte(54) == Some(SOLICITATION));
            self.forwarded |= !is_icmp;
        } else if ethertype == ARP {
            // RFC 826: operation at 20, sender's protocol address at 28, target's at 38; both equal: gratuitous (RFC 5227 §3).
            let gratuitous = (28..32).map(byte).eq((38..42).map(byte));
            self.gratuitous |= gratuitous;
            self.voice |= gratuitous || [byte(20), byte(21)] != ARP_REQUEST;
        } else {
            self.voice = true;
            self.forwarded |= byte(23).is_some_and(|protocol| protocol != IP_PROTOCOL_ICMP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sender 10.0.0.1.
    fn arp(operation: u8, target: u8) -> Vec<u8> {
        let mut frame = vec![0xff; 12];
        frame.extend([
            8, 6, 0, 1, 8, 0, 6, 4, 0, operation, 2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0,
            10, 0, 0, target,
        ]);
        frame
    }

    fn outlet() -> (Outlet, Arc<LeaseCell>, Arc<Stats>, mpsc::Receiver<Event>) {
        let (lease, stats) = (Arc::new(LeaseCell::new()), Arc::new(Stats::default()));
        let (events, receiver) = mpsc::channel(1);
        (
            Outlet::new(1518, Arc::clone(&lease), events, Arc::clone(&stats)),
            lease,
            stats,
            receiver,
        )
    }

    fn soon() -> Instant {
        clock::boottime() + std::time::Duration::from_secs(60)
    }

    /// Without a port, what the lease covers ends as `NoPort`; what it does not as `WithheldAtSend`.
    fn fate(outlet: &mut Outlet, stats: &Stats, frame: &[u8]) -> (u64, u64) {
        let before = (
            stats.count(Count::NoPort),
            stats.count(Count::WithheldAtSend),
        );
        outlet.transmit(frame, &[]);
        outlet.flush();
        (
            stats.count(Count::NoPort) - before.0,
            stats.count(Count::WithheldAtSend) - before.1,
        )
    }

    const ALLOWED: (u64, u64) = (1, 0);
    const WITHHELD: (u64, u64) = (0, 1);

    #[cfg(feature = "planted")]
    #[test]
    fn the_planted_fault_withholds_nothing() {
        let _planted = planted::on_this_thread(Bug::LeaseOff);
        let (mut outlet, _lease, stats, _events) = outlet();
        assert_eq!(outlet.begin(clock::boottime()), None);
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), ALLOWED);
    }

    #[test]
    fn a_backup_may_only_ask() {
        let (mut outlet, _lease, stats, _events) = outlet();
        assert_eq!(outlet.begin(clock::boottime()), None);
        assert_eq!(fate(&mut outlet, &stats, &arp(1, 9)), ALLOWED, "request");
        assert_eq!(
            fate(&mut outlet, &stats, &arp(1, 1)),
            WITHHELD,
            "gratuitous"
        );
        assert_eq!(fate(&mut outlet, &stats, &arp(2, 9)), WITHHELD, "reply");
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), WITHHELD, "packet");
        let neighbour = |kind: u8| {
            let mut frame = vec![0; 86];
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame[20] = 58;
            frame[54] = kind;
            frame
        };
        assert_eq!(
            fate(&mut outlet, &stats, &neighbour(135)),
            ALLOWED,
            "solicitation"
        );
        assert_eq!(
            fate(&mut outlet, &stats, &neighbour(136)),
            WITHHELD,
            "advertisement"
        );
        assert_eq!(
            fate(&mut outlet, &stats, &neighbour(1)),
            WITHHELD,
            "ICMPv6 error"
        );
    }

    #[test]
    fn a_backup_may_pass_a_packet_to_another_atm() {
        let (mut outlet, _lease, stats, _events) = outlet();
        assert_eq!(outlet.begin(clock::boottime()), None);
        outlet.relay(&[0; 60], &[]);
        outlet.flush();
        let counts =
            |stats: &Stats| [Count::NoPort, Count::WithheldAtSend].map(|count| stats.count(count));
        assert_eq!(counts(&stats), [1, 0]);
        // Nothing rides along with it.
        outlet.relay(&[0; 60], &[]);
        outlet.transmit(&[0; 60], &[]);
        outlet.flush();
        assert_eq!(counts(&stats), [1, 2]);
    }

    /// A way that takes nothing: what the lease covers ends as `DeliverFailed`.
    #[test]
    fn what_goes_to_the_own_stack_is_withheld_like_a_frame() {
        let (mut outlet, lease, stats, _events) = outlet();
        let counts = |stats: &Stats| {
            [Count::DeliverFailed, Count::WithheldAtSend].map(|count| stats.count(count))
        };
        lease.grant(Epoch(1), soon());
        outlet.begin(clock::boottime());
        outlet.deliver(&[0x45; 60], &[]);
        assert_eq!(counts(&stats), [1, 0], "there is no way yet");
        outlet.own_stack = Some(OwnStack::closed(1518));
        outlet.deliver(&[0x45; 60], &[0; 1460]);
        outlet.flush();
        assert_eq!(counts(&stats), [2, 0]);
        outlet.deliver(&[0x45; 60], &[]);
        lease.revoke();
        outlet.flush();
        assert_eq!(counts(&stats), [2, 1], "revoked after the decision");
        assert_eq!(outlet.begin(clock::boottime()), None);
        outlet.deliver(&[0x45; 60], &[]);
        outlet.relay(&[0; 60], &[]);
        outlet.flush();
        assert_eq!(counts(&stats), [2, 3], "and nothing rides along with it");
        outlet.deliver(&[0x45; 1600], &[]);
        assert_eq!(stats.count(Count::DeliverTooLong), 1);
    }

    #[test]
    fn a_full_batch_for_the_own_stack_is_sent_and_goes_on() {
        let (mut outlet, lease, stats, _events) = outlet();
        outlet.own_stack = Some(OwnStack::closed(1518));
        lease.grant(Epoch(1), soon());
        outlet.begin(clock::boottime());
        for _packet in 0..600 {
            outlet.deliver(&[0x45; 60], &[]);
        }
        outlet.flush();
        assert_eq!(stats.count(Count::DeliverFailed), 600);
    }

    #[test]
    fn what_the_lease_no_longer_covers_is_withheld() {
        let (mut outlet, lease, stats, _events) = outlet();
        lease.grant(Epoch(1), soon());
        assert!(outlet.begin(clock::boottime()).is_some());
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), ALLOWED);
        lease.grant(Epoch(2), soon());
        assert_eq!(
            fate(&mut outlet, &stats, &[0; 60]),
            WITHHELD,
            "decided under another epoch"
        );
        outlet.begin(clock::boottime());
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), ALLOWED);
        lease.revoke();
        assert_eq!(
            fate(&mut outlet, &stats, &[0; 60]),
            WITHHELD,
            "revoked after the decision"
        );
    }

    #[test]
    fn a_lease_that_runs_out_between_decision_and_send_withholds() {
        let (mut outlet, lease, stats, _events) = outlet();
        let until = clock::boottime() + std::time::Duration::from_millis(5);
        lease.grant(Epoch(1), until);
        outlet.begin(clock::boottime());
        while clock::boottime() < until {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), WITHHELD);
    }

    #[test]
    fn a_relinquished_epoch_stays_silent_although_the_cell_holds_it() {
        let (mut outlet, lease, stats, _events) = outlet();
        lease.grant(Epoch(3), soon());
        outlet.begin(clock::boottime());
        outlet.relinquish();
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), WITHHELD);
        assert_eq!(outlet.begin(clock::boottime()), None);
        lease.grant(Epoch(4), soon());
        assert!(outlet.begin(clock::boottime()).is_some());
        assert_eq!(fate(&mut outlet, &stats, &[0; 60]), ALLOWED);
    }

    #[test]
    fn a_frame_is_told_wherever_it_is_divided() {
        let mut packet = vec![0; 60];
        packet[12] = 8;
        packet[23] = 6;
        let mut ping = packet.clone();
        ping[23] = 1;
        for at in [0, 12, 14, 23, 24, 34] {
            let told = |frame: &[u8]| {
                let mut staged = Staged::default();
                staged.note(&frame[..at], &frame[at..]);
                (staged.forwarded, staged.gratuitous, staged.voice)
            };
            assert_eq!(told(&packet), (true, false, true), "{at}");
            assert_eq!(told(&ping), (false, false, true), "{at}");
            assert_eq!(told(&arp(1, 1)), (false, true, true), "{at}");
            assert_eq!(told(&arp(1, 9)), (false, false, false), "{at}");
        }
    }

    #[test]
    fn a_full_channel_is_a_refusal() {
        let (mut outlet, _lease, stats, _events) = outlet();
        let key = ConnectionKey {
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 1,
            service: model::ids::VirtualServiceId(1),
        };
        assert!(outlet.open(key, model::ids::ServerId(1).into()));
        assert!(!outlet.close(key));
        assert_eq!(stats.count(Count::EventsFull), 1);
    }
}
