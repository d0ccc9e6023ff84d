//! TCP to a virtual service: known connections go on, first packets are scheduled.

use model::Instant;
use model::conf::Replication;
use model::planted::{self, Bug};

use super::Forwarder;
use crate::connections::{Flow, Record, Sign};
use crate::counters::Event;
use crate::frame::Offload;
use crate::gate::Voice;
use crate::rewrite::{self, Plan, Refusal};
use crate::wire::ethernet::Ethernet;
use crate::wire::ipv4::Ipv4;
use crate::wire::tcp::{self, Tcp};
use crate::{DropReason, Sink, Verdict};

impl Forwarder {
    pub(super) fn tcp<S: Sink>(
        &mut self,
        link: Ethernet,
        packet: &mut Ipv4<&mut [u8]>,
        offload: Offload,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let tcp = Tcp::parse(packet.payload()).map_err(DropReason::Malformed)?;
        let service = self
            .routes
            .tcp(packet.destination(), tcp.destination_port)?;
        let id = self.routes.service(service)?.id;
        self.about.service = Some(id);
        let flow = Flow::new(packet.source(), tcp.source_port, id);
        let Some(id) = self.connections.find(flow) else {
            if !tcp.opens() {
                return Err(DropReason::NoConnection);
            }
            return self.first_packet(link, packet, offload, service, flow, now, voice);
        };
        let server = self.connections.server(id)?;
        // The client lives, whatever becomes of this packet.
        self.connections.touch(id, sign(&tcp), now);
        let route = self.route(server)?;
        match rewrite::plan(packet, offload, &route) {
            Ok(plan) => {
                self.send(packet, plan, offload, &route, voice)?;
                Ok(Verdict::Transmit)
            }
            Err(Refusal::TooBig) => self.too_big(packet, route.mtu, link.source, now, voice),
            Err(Refusal::Drop(reason)) => Err(reason),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is known of one packet, once, on the way from its parsing to its fate"
    )]
    fn first_packet<S: Sink>(
        &mut self,
        link: Ethernet,
        packet: &mut Ipv4<&mut [u8]>,
        offload: Offload,
        service: usize,
        flow: Flow,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let service = self.routes.service_mut(service)?;
        let replication = if planted::is(Bug::ConnectionNotReplicated) {
            Replication::None
        } else {
            service.replication
        };
        let hold = replication == Replication::Quorum;
        self.connections.admit(hold)?;
        let server = service.picker.pick()?;
        let route = self.route(server)?;
        let plan = match rewrite::plan(packet, offload, &route) {
            Ok(plan) => plan,
            Err(Refusal::TooBig) => {
                return self.too_big(packet, route.mtu, link.source, now, voice);
            }
            Err(Refusal::Drop(reason)) => return Err(reason),
        };
        if hold {
            if matches!(plan, Plan::Segments(_)) || packet.len() > usize::from(self.interface.mtu) {
                return Err(DropReason::FirstPacketTooBig);
            }
            rewrite::finish(packet, offload)?;
        }
        if replication != Replication::None && !voice.open(flow.key(), server.into()) {
            return Err(DropReason::ReplicatorFull);
        }
        self.counters.note(Event::ConnectionOpened);
        let record = match replication {
            Replication::Quorum => {
                return if self
                    .connections
                    .open_held(flow, server, packet.bytes(), now)
                {
                    Ok(Verdict::Held)
                } else {
                    Err(DropReason::PendingFull)
                };
            }
            Replication::Async => Record::Asked,
            Replication::None => Record::Local,
        };
        self.connections.open(flow, server, record, now);
        self.send(packet, plan, offload, &route, voice)?;
        Ok(Verdict::Transmit)
    }
}

/// What the flags say about the life of a connection that is known.
fn sign(tcp: &Tcp) -> Sign {
    if tcp.flags & tcp::RST != 0 {
        Sign::Reset
    } else if tcp.opens() {
        Sign::Open
    } else if tcp.flags & tcp::FIN != 0 {
        Sign::Finish
    } else {
        Sign::Data
    }
}
