//! First packets that were held for the record of their connection: sent, or thrown away, and counted by what they were about.

use model::Instant;

use super::way::Piece;
use super::{About, Forwarder};
use crate::connections::Flow;
use crate::frame::Offload;
use crate::gate::Voice;
use crate::rewrite;
use crate::wire::ip::Ip;
use crate::{DropReason, Sink};

impl Forwarder {
    /// Sends the held frame of a connection whose record is committed.
    pub(super) fn release<S: Sink>(&mut self, id: u32, now: Instant, out: &mut S) {
        let Some(flow) = self
            .connections
            .get(id)
            .filter(|entry| entry.has_held())
            .map(|entry| entry.flow)
        else {
            return;
        };
        let about = self.about_flow(flow);
        match self.gate.voice(now, out).and_then(|mut voice| {
            self.send_held(id, &mut voice)?;
            self.release_parts(flow, &mut voice);
            Ok(())
        }) {
            Ok(()) => self.counters.count_held_released(about),
            Err(reason) => {
                self.counters.count_held_dropped(reason, about);
                self.drop_parts(flow, about, reason);
            }
        }
        self.connections.release_held(id);
    }

    fn send_held<S: Sink>(&mut self, id: u32, voice: &mut Voice<'_, S>) -> Result<(), DropReason> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(self.connections.held(id).unwrap_or_default());
        let sent = self.send_copy(id, &mut bytes, voice);
        self.scratch = bytes;
        sent
    }

    fn send_copy<S: Sink>(
        &mut self,
        id: u32,
        bytes: &mut [u8],
        voice: &mut Voice<'_, S>,
    ) -> Result<(), DropReason> {
        let pin = self.connections.pin(id)?;
        let flow = self
            .connections
            .get(id)
            .map(|entry| entry.flow)
            .ok_or(DropReason::NoConnection)?;
        let way = self.way(flow, pin)?;
        let mut packet = Ip::parse_mut(bytes).map_err(DropReason::Malformed)?;
        let offload = Offload::default();
        // The server may be another than the one it was planned for, when an older record was committed first.
        let plan =
            rewrite::plan(&packet, offload, &way.route).map_err(|refusal| match refusal {
                rewrite::Refusal::TooBig => DropReason::FirstPacketTooBig,
                rewrite::Refusal::Drop(reason) => reason,
            })?;
        self.send(&mut packet, plan, offload, &way, Piece::WithHeader, voice)
    }

    /// Throws away every held frame, and forgets the connections that waited.
    pub(super) fn drop_held(&mut self, reason: DropReason) {
        let mut from = 0;
        while let Some((id, next)) = self.connections.pending_from(from) {
            self.forget_held(id, reason);
            from = next;
        }
        self.drop_all_parts(reason);
    }

    /// Throws away the held frame of one connection with the parts of its datagram, and forgets the connection.
    pub(super) fn forget_held(&mut self, id: u32, reason: DropReason) {
        let Some(flow) = self.connections.get(id).map(|entry| entry.flow) else {
            return;
        };
        let about = self.about_flow(flow);
        self.counters.count_held_dropped(reason, about);
        self.connections.remove(id);
        self.drop_parts(flow, about, reason);
    }

    /// The service and the server of a connection.
    pub(super) fn about_flow(&self, flow: Flow) -> About {
        let entry = self
            .connections
            .find(flow)
            .and_then(|id| self.connections.get(id));
        About {
            service: Some(flow.service()),
            server: entry.map(|entry| entry.pin.server),
        }
    }
}
