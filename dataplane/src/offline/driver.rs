//! Plays the engine, the cluster and the wire around one forwarder: the lease is held, every server is healthy, each
//! record is committed at once, every neighbour answers, and the clock is that of the capture.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use dataplane_core::{
    DropReason, Forwarder, ForwardingTable, Frame, Lease, Limits, MacAddr, NextHop, Offload, Sink,
    Verdict,
};
use model::Instant;
use model::command::{BATCH_CHANGES_MAX, Command, Response};
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::{Epoch, ServerId};
use model::state::State;
use model::sticky::StickyKey;

use super::capture::Captured;
use super::network::Network;
use super::setup::{self, Setup, SetupError};
use super::vlan;

/// How long before the first frame the ATM gets its table, so that all next hops are known by then: they are asked
/// for at 6,400 a second, and a table has at most 65,535.
const TABLE_BEFORE: Duration = Duration::from_secs(15);
/// How long before the first frame it becomes active: its announcements at a takeover are over after half a second.
const ACTIVE_BEFORE: Duration = Duration::from_secs(1);
/// Wakings of the forwarder between two frames that come at their own instants: at the shortest `SendArpDelay` those of
/// seven minutes. In a longer gap (or one that a damaged file pretends) the others come at its end.
const WAKINGS_MAX: usize = 4096;
/// What one call of the core brings about is settled in this many rounds: a question is answered in one, a record in two
/// (its connection may be opened anew). More would be an endless talk.
const ROUNDS_MAX: usize = 8;

/// Takes a frame that is sent, and the time (nanoseconds since 1970) of the frame or moment that caused it.
pub type Emit<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + 'a;

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<'a> {
    /// What was decided.
    pub outcome: Outcome,
    /// Name of the server it went to, or would have gone to.
    pub server: Option<&'a str>,
    /// Frames that were sent on its account.
    pub emitted: u64,
}

impl Explained<'_> {
    /// The ATM does not get the frame.
    const fn unseen(outcome: Outcome) -> Self {
        Self {
            outcome,
            server: None,
            emitted: 0,
        }
    }
}

/// What was decided about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By the core, at once.
    Decided(Verdict),
    /// Held for its connection's record, which was committed, and then sent.
    Recorded,
    /// The same, and its server is the ATM itself: given to its own stack.
    RecordedHere,
    /// Held, and then thrown away.
    HeldDropped(DropReason),
    /// The capture does not have all of it: nobody can tell what the ATM would do.
    CutOff,
    /// Of another VLAN than that of the ATM's interface, which never sees it.
    OtherVlan,
}

impl Outcome {
    /// Its name: that of a verdict, or `cut-off` or `other-vlan`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decided(verdict) => verdict.name(),
            Self::Recorded => Verdict::Transmit.name(),
            Self::RecordedHere => Verdict::Deliver.name(),
            Self::HeldDropped(reason) => Verdict::Drop(reason).name(),
            Self::CutOff => "cut-off",
            Self::OtherVlan => "other-vlan",
        }
    }

    /// Why, in one short sentence.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Decided(verdict) => verdict.why(),
            Self::Recorded => "first packet, connection recorded",
            Self::RecordedHere => {
                "first packet, connection recorded; given to this host's own stack"
            }
            Self::HeldDropped(reason) => Verdict::Drop(reason).why(),
            Self::CutOff => "the capture does not have the whole frame, so nothing can be said",
            Self::OtherVlan => {
                "of another VLAN than the ATM's interface (--vlan says which that is)"
            }
        }
    }
}

/// An active ATM that lives in a capture.
#[derive(Debug)]
pub struct Offline {
    state: State,
    epoch: Epoch,
    table: Option<ForwardingTable>,
    forwarder: Forwarder,
    network: Network,
    mac: MacAddr,
    vlan: Option<u16>,
    /// The time of the latest frame; `None` before the first.
    now: Option<Instant>,
}

impl Offline {
    /// An ATM that is about to become active.
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        let (state, epoch) = setup::replicated(setup.source, setup.hosts)?;
        let network = Network::new(setup.neighbours);
        let interface = setup::interface(&setup.own, setup.mtu, &state, &network)?;
        let mac = interface.mac;
        // Servers behind a router are taken to be their own next hops: there is no routing table to ask.
        let own = [
            Some(interface.address.into()),
            interface.address6.map(IpAddr::V6),
        ];
        let table = ForwardingTable::compile(&state, 1, NextHop::default(), |address| {
            own.contains(&Some(address))
        });
        let limits = Limits {
            // A held frame is released before the next one comes.
            pending_max: BATCH_CHANGES_MAX,
            connections_max: state.connections_max(),
        };
        Ok(Self {
            forwarder: Forwarder::new(interface, limits),
            table: Some(table),
            state,
            epoch,
            network,
            mac,
            vlan: setup.vlan,
            now: None,
        })
    }

    /// The ATM's Ethernet address.
    pub const fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Whether the ATM speaks for this address.
    pub fn is_virtual(&self, address: IpAddr) -> bool {
        setup::is_virtual(&self.state, address)
    }

    /// Takes one frame at its time; a frame that is older than the one before is taken at that one's. `bytes` may be
    /// changed. What is sent meanwhile and on its account goes to `emit`, whose errors are returned.
    pub fn frame(
        &mut self,
        captured: Captured,
        bytes: &mut [u8],
        emit: &mut Emit<'_>,
    ) -> io::Result<Explained<'_>> {
        let vlan = self.vlan;
        let mut below = |time, frame: &[u8]| emit(time, &vlan::sent(frame, vlan));
        let emit: &mut Emit<'_> = &mut below;
        let at = instant(captured.time);
        let now = match self.now {
            None => {
                self.begin(at);
                at
            }
            Some(last) => {
                let now = last.max(at);
                self.pass(last, now, emit)?;
                now
            }
        };
        self.now = Some(now);
        if u32::try_from(bytes.len()).is_ok_and(|have| have < captured.length) {
            return Ok(Explained::unseen(Outcome::CutOff));
        }
        let Some(bytes) = vlan::received(bytes, vlan) else {
            return Ok(Explained::unseen(Outcome::OtherVlan));
        };
        let mut wire = Wire::new(captured.time, emit);
        let before = *self.forwarder.counters().all_held_dropped();
        let verdict = self
            .forwarder
            .receive(whole(bytes), Duration::ZERO, now, &mut wire);
        let about = self.forwarder.about();
        self.settle(now, &mut wire);
        let delivered = wire.delivered;
        let emitted = wire.finish()?;
        let outcome = match verdict {
            Verdict::Held if delivered > 0 => Outcome::RecordedHere,
            Verdict::Held if emitted > 0 => Outcome::Recorded,
            Verdict::Held => self
                .held_dropped_since(&before)
                .map_or(Outcome::Decided(verdict), Outcome::HeldDropped),
            Verdict::Transmit
            | Verdict::Deliver
            | Verdict::Answered
            | Verdict::FragmentationNeeded
            | Verdict::TimeExceeded
            | Verdict::Reset
            | Verdict::Relayed
            | Verdict::Host
            | Verdict::Drop(_) => Outcome::Decided(verdict),
        };
        Ok(Explained {
            outcome,
            server: about.server.and_then(|id| self.server(id)),
            emitted,
        })
    }

    fn server(&self, id: ServerId) -> Option<&str> {
        Some(&self.state.servers().get(&id)?.name)
    }

    /// Everything before the first frame, which nobody wants to see: the ATM has long been the active one.
    fn begin(&mut self, first: Instant) {
        let mut unseen = |_, _: &[u8]| Ok(());
        let (ready, active) = (
            first.saturating_sub(TABLE_BEFORE),
            first.saturating_sub(ACTIVE_BEFORE),
        );
        if let Some(table) = self.table.take() {
            self.forwarder.install(table, ready);
        }
        let held = Lease {
            epoch: self.epoch,
            until: Instant::from_nanos(u64::MAX),
        };
        // Nothing is written, so nothing can fail.
        let _ = self.pass(ready, active, &mut unseen);
        let mut wire = Wire::new(0, &mut unseen);
        self.forwarder.set_lease(Some(held), active, &mut wire);
        self.settle(active, &mut wire);
        let _ = self.pass(active, first, &mut unseen);
    }

    /// Lets time pass.
    fn pass(&mut self, from: Instant, to: Instant, emit: &mut Emit<'_>) -> io::Result<()> {
        let mut moment = from;
        for waking in 0..2 * WAKINGS_MAX {
            let Some(due) = self.forwarder.poll_timeout().filter(|&due| due <= to) else {
                return Ok(());
            };
            moment = if waking < WAKINGS_MAX {
                moment.max(due)
            } else {
                to
            };
            let mut wire = Wire::new(time(moment), emit);
            self.forwarder.handle_timeout(moment, &mut wire);
            self.settle(moment, &mut wire);
            wire.finish()?;
        }
        Ok(())
    }

    /// Commits what the core wants recorded and answers what it asks, until it wants nothing more.
    fn settle(&mut self, now: Instant, wire: &mut Wire<'_, '_>) {
        for _ in 0..ROUNDS_MAX {
            let changes = std::mem::take(&mut wire.changes);
            let questions = std::mem::take(&mut wire.questions);
            if changes.is_empty() && questions.is_empty() {
                return;
            }
            for batch in changes.chunks(BATCH_CHANGES_MAX) {
                self.commit(batch.to_vec(), now, wire);
            }
            for question in questions {
                if let Some(mut answer) = self.network.answer(&question) {
                    let _counted =
                        self.forwarder
                            .receive(whole(&mut answer), Duration::ZERO, now, wire);
                }
            }
        }
    }

    fn commit(&mut self, changes: Vec<ConnectionChange>, now: Instant, wire: &mut Wire<'_, '_>) {
        let epoch = self.epoch;
        let response = self.state.apply(Command::Connections { epoch, changes });
        if let Response::Connections {
            accepted, refused, ..
        } = response
        {
            self.forwarder.commit(&accepted, now, wire);
            for (key, _) in refused {
                self.forwarder.refuse(key, now);
            }
        }
    }

    /// Why a held frame was thrown away since then.
    fn held_dropped_since(&self, before: &[u64; Verdict::COUNT]) -> Option<DropReason> {
        let now = self.forwarder.counters().all_held_dropped();
        Verdict::ALL.into_iter().find_map(|verdict| match verdict {
            Verdict::Drop(reason) if now[verdict.index()] > before[verdict.index()] => Some(reason),
            Verdict::Transmit
            | Verdict::Deliver
            | Verdict::Held
            | Verdict::Answered
            | Verdict::FragmentationNeeded
            | Verdict::TimeExceeded
            | Verdict::Reset
            | Verdict::Relayed
            | Verdict::Host
            | Verdict::Drop(_) => None,
        })
    }
}

/// A frame that left its sender finished: a capture does not tell what a sending stack left undone.
fn whole(bytes: &mut [u8]) -> Frame<'_> {
    Frame {
        bytes,
        offload: Offload::default(),
    }
}

/// The core's clock is the capture's, moved so that there is time before a first frame of 1970.
fn instant(time: u64) -> Instant {
    Instant::from_nanos(time) + TABLE_BEFORE
}

/// The inverse of [`instant`].
fn time(instant: Instant) -> u64 {
    instant.saturating_sub(TABLE_BEFORE).as_nanos()
}

/// Where the core's output goes during one call.
struct Wire<'e, 'f> {
    time: u64,
    emit: &'e mut Emit<'f>,
    emitted: u64,
    /// Packets for the ATM's own stack: nothing of them is sent.
    delivered: u64,
    failed: Option<io::Error>,
    changes: Vec<ConnectionChange>,
    /// Asked of the neighbours: part of the make-believe around the core, and not of what is sent.
    questions: Vec<Vec<u8>>,
}

impl<'e, 'f> Wire<'e, 'f> {
    fn new(time: u64, emit: &'e mut Emit<'f>) -> Self {
        Self {
            time,
            emit,
            emitted: 0,
            delivered: 0,
            failed: None,
            changes: Vec::new(),
            questions: Vec::new(),
        }
    }

    /// How many frames were sent, or why they could not be kept.
    fn finish(self) -> io::Result<u64> {
        self.failed.map_or(Ok(self.emitted), Err)
    }
}

impl Sink for Wire<'_, '_> {
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        let frame = [head, body].concat();
        if Network::is_question(&frame) {
            self.questions.push(frame);
            return;
        }
        self.emitted += 1;
        if self.failed.is_none() {
            self.failed = (self.emit)(self.time, &frame).err();
        }
    }

    fn relay(&mut self, head: &[u8], body: &[u8]) {
        self.transmit(head, body);
    }

    fn deliver(&mut self, _head: &[u8], _body: &[u8]) {
        self.delivered += 1;
    }

    fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool {
        self.changes.push(ConnectionChange::Open(key, pin));
        true
    }

    fn unstick(&mut self, key: StickyKey) -> bool {
        self.changes.push(ConnectionChange::Unstick(key));
        true
    }

    fn close(&mut self, key: ConnectionKey) -> bool {
        self.changes.push(ConnectionChange::Close(key));
        true
    }
}
