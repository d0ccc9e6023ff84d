//! TCP and UDP to a virtual service: known connections go on, first packets are scheduled.

use std::ops::Deref;

use model::Instant;
use model::conf::{Protocol, Replication};
use model::ids::ServerId;
use model::planted::{self, Bug};

use super::way::Piece;
use super::{Forwarder, Received, protocol};
use crate::connections::{Flow, Record, Sign};
use crate::counters::Event;
use crate::gate::Voice;
use crate::rewrite::{self, Plan, Refusal};
use crate::wire::ip::Ip;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;
use crate::{DropReason, MacAddr, Sink, Verdict, resets};

/// What the transport header says that matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) protocol: Protocol,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// About the life of its connection.
    sign: Sign,
    /// It may be the first packet of one.
    opens: bool,
}

impl Segment {
    /// It ends its connection at once.
    pub(super) fn resets(&self) -> bool {
        self.sign == Sign::Reset
    }

    /// Reads the transport header of a packet that is no later fragment.
    // `super` says why.
    #[inline(always)]
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
    // `super` says why.
    #[inline(always)]
    pub(super) fn flow<B: Deref<Target = [u8]>>(
        &mut self,
        packet: &Ip<B>,
        segment: &Segment,
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
        segment: &Segment,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let flow = self.flow(packet, segment)?;
        let Some(id) = self.connections.find(flow) else {
            if !segment.opens {
                return Err(DropReason::NoConnection);
            }
            return self.first_packet(frame, packet, flow, now, voice);
        };
        let pin = self.connections.pin(id)?;
        // The client lives, whatever becomes of this packet.
        self.connections.touch(id, segment.sign, now);
        if segment.protocol == Protocol::Tcp
            && !segment.resets()
            && self.routes.service_of(flow.service())?.resets(pin.server)
        {
            return self.reset(id, packet, frame.link.source, now, voice);
        }
        let way = self.way(flow, pin);
        let way = way.as_ref().map_err(|reason| *reason)?;
        if way.translation.is_some() && self.group.is_direct(frame.link.source) {
            self.connections.came_from(id, frame.link.source);
        }
        if way.translation.is_some() && packet.ttl() <= 1 {
            return self.time_exceeded(packet, frame.link.source, now, voice);
        }
        self.go(frame, packet, way, Piece::WithHeader, now, voice)
    }

    /// Its server is down, and the service wants its clients to connect anew.
    fn reset<S: Sink>(
        &mut self,
        id: u32,
        packet: &Ip<&mut [u8]>,
        sender: MacAddr,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        // Its end, as if the server had said so; whatever else the client sends gets the same answer until the record is gone.
        self.connections.touch(id, Sign::Reset, now);
        let ends = (self.interface.mac, sender);
        let identification = &mut self.identification;
        resets::reset(packet, ends, identification, voice).map_err(DropReason::Malformed)?;
        Ok(Verdict::Reset)
    }

    fn first_packet<S: Sink>(
        &mut self,
        frame: Received,
        packet: &mut Ip<&mut [u8]>,
        flow: Flow,
        now: Instant,
        voice: &mut Voice<'_, S>,
    ) -> Result<Verdict, DropReason> {
        let service = flow.service();
        let known = self.routes.service_of(service)?;
        let protocol = known.protocol;
        let replication = if planted::is(Bug::ConnectionNotReplicated) {
            Replication::None
        } else {
            known.replication
        };
        self.connections.admit(false)?;
        let server = self.server_for(flow)?;
        let pin = self.pin(flow, server)?;
        // The port of a full NAT connection must be nobody else's, so its record always comes first.
        let hold = replication == Replication::Quorum || pin.source_port.is_some();
        self.connections.admit(hold)?;
        let way = self.way(flow, pin)?;
        let plan = match rewrite::plan(packet, frame.offload, &way.route) {
            Ok(plan) => plan,
            Err(Refusal::TooBig) => {
                return self.too_big(packet, way.route.mtu, frame.link.source, now, voice);
            }
            Err(Refusal::Drop(reason)) => return Err(reason),
        };
        if way.translation.is_some() && packet.ttl() <= 1 {
            return self.time_exceeded(packet, frame.link.source, now, voice);
        }
        if hold {
            if matches!(plan, Plan::Segments(_)) || packet.len() > usize::from(self.interface.mtu) {
                return Err(DropReason::FirstPacketTooBig);
            }
            rewrite::finish(packet, frame.offload)?;
        }
        let recorded = hold || replication != Replication::None;
        if recorded && !voice.open(flow.key(), pin) {
            return Err(DropReason::ReplicatorFull);
        }
        self.counters.note(Event::ConnectionOpened);
        let id = if hold {
            self.connections
                .open_held(flow, protocol, pin, packet.bytes(), now)
                .ok_or(DropReason::PendingFull)?
        } else {
            let record = if recorded {
                Record::Asked
            } else {
                Record::Local
            };
            self.connections.open(flow, protocol, pin, record, now)
        };
        self.link(id);
        if way.translation.is_some() && self.group.is_direct(frame.link.source) {
            self.connections.came_from(id, frame.link.source);
        }
        let sticky = &mut self.connections.sticky;
        sticky.set(flow, server, false, true, now);
        if hold {
            return Ok(Verdict::Held);
        }
        self.send(packet, plan, frame.offload, &way, Piece::WithHeader, voice)?;
        Ok(way.route.verdict())
    }

    /// The server of a new connection: the one its client belongs to, else whose turn it is.
    fn server_for(&mut self, flow: Flow) -> Result<ServerId, DropReason> {
        let service = self.routes.service_mut_of(flow.service())?;
        if let Some(server) = self.connections.sticky.server(flow)
            && service.is_healthy(server)
        {
            return Ok(server);
        }
        service.picker.pick(flow.client(), flow.port(), |server| {
            self.connections.load(flow.service(), server)
        })
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
