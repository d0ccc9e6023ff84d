//! IP fragments: the first of a datagram goes as its ports say, the others go after it.

use model::Instant;

use super::segment::Segment;
use super::way::Piece;
use super::{About, Forwarder, Received};
use crate::connections::Flow;
use crate::fragments::part::{Part, Place};
use crate::fragments::{Key, Later};
use crate::frame::Offload;
use crate::gate::Voice;
use crate::rewrite::{self, Refusal};
use crate::wire::icmp;
use crate::wire::ip::Ip;
use crate::{DropReason, Sink, Verdict};

impl Forwarder {
    pub(super) fn fragment<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        (key, part): (Key, Part),
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        match part.place().map_err(|_suspect| DropReason::Fragment)? {
            // Nobody puts an ICMP message together here, and nothing in its other parts says whose they are.
            Place::Whole | Place::First if packet.protocol() == icmp::protocol(packet) => {
                Err(DropReason::Fragment)
            }
            Place::Whole | Place::First => {
                let segment = Segment::of(packet)?;
                let flow = self.flow(packet, &segment)?;
                let verdict = self.segment(frame, packet, &segment, now, voice)?;
                let waits = verdict == Verdict::Held;
                if waits || matches!(verdict, Verdict::Transmit | Verdict::Deliver) {
                    let early = self.fragments.first(key, flow, waits, now);
                    self.send_parts(early, flow, voice);
                }
                Ok(verdict)
            }
            Place::Later => match self.fragments.later(key, packet.bytes(), now) {
                Later::Follow(flow) => {
                    self.about.service = Some(flow.service());
                    self.follow(packet, flow, voice)
                }
                Later::Held => Ok(Verdict::Held),
                Later::Full(_bound) => Err(DropReason::FragmentFull),
            },
        }
    }

    /// The connection's first packet has left: what was held of its datagram leaves after it.
    pub(super) fn release_parts<S: Sink>(&mut self, flow: Flow, voice: &mut Voice<'_, S>) {
        let parts = self.fragments.release(|held| *held == flow);
        self.send_parts(parts, flow, voice);
    }

    /// The connection's first packet will not leave, and with it nothing of its datagram.
    pub(super) fn drop_parts(&mut self, flow: Flow, about: About, reason: DropReason) {
        for _part in self.fragments.release(|held| *held == flow) {
            self.counters.count_held_dropped(reason, about);
        }
    }

    /// Forgets every datagram: the end of a lease. Whose they are is not asked.
    pub(super) fn drop_all_parts(&mut self, reason: DropReason) {
        for _part in 0..self.fragments.clear() {
            self.counters.count_held_dropped(reason, About::default());
        }
        self.count_parts();
    }

    /// Counts what the table of fragments threw away, whose first had not come.
    pub(super) fn count_parts(&mut self) {
        let dropped = self.fragments.take_dropped();
        for (count, reason) in [
            (dropped.expired, DropReason::FragmentExpired),
            (dropped.displaced, DropReason::FragmentDisplaced),
        ] {
            for _part in 0..count {
                self.counters.count_held_dropped(reason, About::default());
            }
        }
    }

    fn send_parts<S: Sink>(&mut self, parts: Vec<Box<[u8]>>, flow: Flow, voice: &mut Voice<'_, S>) {
        if parts.is_empty() {
            return;
        }
        let about = self.about_flow(flow);
        for mut part in parts {
            let sent = Ip::parse_mut(&mut part)
                .map_err(DropReason::Malformed)
                .and_then(|mut packet| self.follow(&mut packet, flow, voice));
            match sent {
                Ok(_left) => self.counters.count_held_released(about),
                Err(reason) => self.counters.count_held_dropped(reason, about),
            }
        }
    }

    /// Sends a later fragment the way of its connection.
    fn follow<S: Sink>(
        &mut self,
        packet: &mut Ip<&mut [u8]>,
        flow: Flow,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let id = self
            .connections
            .find(flow)
            .ok_or(DropReason::NoConnection)?;
        let way = self.way(flow, self.connections.pin(id)?)?;
        let offload = Offload::default();
        let plan = rewrite::plan(packet, offload, &way.route).map_err(|refusal| match refusal {
            // The sender was told when the first did not fit; this one is no larger.
            Refusal::TooBig => DropReason::PathTooNarrow,
            Refusal::Drop(reason) => reason,
        })?;
        self.send(packet, plan, offload, &way, Piece::Later, voice)?;
        Ok(way.route.verdict())
    }
}
