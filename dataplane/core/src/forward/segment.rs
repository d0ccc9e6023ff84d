//! TCP and UDP to a virtual service: known connections go on, first packets are scheduled.

use std::ops::Deref;

use model::Instant;
use model::conf::{Protocol, Replication};
use model::planted::{self, Bug};

use super::{Forwarder, Received, protocol};
use crate::connections::{Flow, Record, Sign};
use crate::counters::Event;
use crate::gate::Voice;
use crate::rewrite::{self, Plan, Refusal};
use crate::wire::ip::Ip;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;
use crate::{DropReason, Sink, Verdict};

/// What the transport header says that matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    protocol: Protocol,
    source_port: u16,
    destination_port: u16,
    /// About the life of its connection.
    sign: Sign,
    /// It may be the first packet of one.
    opens: bool,
}

impl Segment {
    /// Reads the transport header of a packet that is no later fragment.
    pub(super) fn of<B: Deref<Target = [u8]>>(packet: &Ip<B>) -> Result<Self, DropReason> {
        match protocol(packet.protocol()).ok_or(DropReason::UnsupportedProtocol)? {
            Protocol::Tcp => {
                let tcp = Tcp::parse(packet.payload()).map_err(DropReason::Malformed)?;
                Ok(Self {
                    protocol: Protocol::Tcp,
                    source_port: tcp.source_port,
                    destination_port: tcp.destination_port,
                    sign: sign(&tcp),
                    opens: tcp.opens(),
                })
            }
            Protocol::Udp => {
                let whole = !packet.is_fragment();
                let udp = Udp::parse(packet.payload(), whole).map_err(DropReason::Malformed)?;
                Ok(Self {
                    protocol: Protocol::Udp,
                    source_port: udp.source_port,
                    destination_port: udp.destination_port,
                    sign: Sign::Data,
                    opens: true,
                })
            }
        }
    }
}

impl Forwarder {
    /// The connection that a packet to a VIP is of, known or not.
    pub(super) fn flow<B: Deref<Target = [u8]>>(
        &mut self,
        packet: &Ip<B>,
        segment: Segment,
    ) -> Result<Flow, DropReason> {
        let (vip, port) = (packet.destination(), segment.destination_port);
        let service = self.routes.at(vip, segment.protocol, port)?;
        let id = self.routes.service(service)?.id;
        self.about.service = Some(id);
        Ok(Flow::new(packet.source(), segment.source_port, id))
    }

    pub(super) fn segment<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        segment: Segment,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let (vip, port) = (packet.destination(), segment.destination_port);
        let service = self.routes.at(vip, segment.protocol, port)?;
        let id = self.routes.service(service)?.id;
        self.about.service = Some(id);
        let flow = Flow::new(packet.source(), segment.source_port, id);
        let Some(id) = self.connections.find(flow) else {
            if !segment.opens {
                return Err(DropReason::NoConnection);
            }
            return self.first_packet(frame, packet, service, flow, now, voice);
        };
        let server = self.connections.server(id)?;
        // The client lives, whatever becomes of this packet.
        self.connections.touch(id, segment.sign, now);
        let route = self.route(server)?;
        match rewrite::plan(packet, frame.offload, &route) {
            Ok(plan) => {
                self.send(packet, plan, frame.offload, &route, voice)?;
                Ok(Verdict::Transmit)
            }
            Err(Refusal::TooBig) => self.too_big(packet, route.mtu, frame.link.source, now, voice),
            Err(Refusal::Drop(reason)) => Err(reason),
        }
    }

    fn first_packet<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
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
        let key = flow.key();
        let server = service.picker.pick(key.client, key.port, |server| {
            self.connections.load(key.service, server)
        })?;
        let route = self.route(server)?;
        let plan = match rewrite::plan(packet, frame.offload, &route) {
            Ok(plan) => plan,
            Err(Refusal::TooBig) => {
                return self.too_big(packet, route.mtu, frame.link.source, now, voice);
            }
            Err(Refusal::Drop(reason)) => return Err(reason),
        };
        if hold {
            if matches!(plan, Plan::Segments(_)) || packet.len() > usize::from(self.interface.mtu) {
                return Err(DropReason::FirstPacketTooBig);
            }
            rewrite::finish(packet, frame.offload)?;
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
        self.send(packet, plan, frame.offload, &route, voice)?;
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
