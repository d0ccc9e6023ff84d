//! How a packet reaches its server: by tunnel (RFC 2003, RFC 2473, RFC 4213) or with another MAC address, whole, in segments or in fragments.
//!
//! The inner packet is left as the client sent it, but for work the sender's stack had left to its device.

mod fragment;
pub(crate) mod nat;
mod outer;
mod segment;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};

use crate::frame::{Checksum, Gso, Offload};
use crate::gate::Voice;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ip::Ip;
use crate::wire::tcp::{self, Tcp};
use crate::wire::{ipv4, ipv6, udp};
use crate::{DropReason, MacAddr, Malformed, Sink, Verdict};

/// TTL of the outer header (RFC 1700's default; the way to a server is short).
const TTL: u8 = 64;
/// Segments smaller than this are refused: Linux never makes them (TCP_MIN_SND_MSS), and it bounds the frames that one
/// frame becomes to 1,364.
const SEGMENT_MIN: usize = 48;
/// The longest head: Ethernet, outer IP, inner IP and TCP, both with all options.
const HEAD_MAX: usize = ethernet::HEADER_LEN
    + ipv6::HEADER_LEN
    + ipv6::HEADER_LEN
    + ipv6::EXTENSIONS_LEN_MAX
    + tcp::MAX_HEADER_LEN;

/// The longest head of a packet that goes whole: Ethernet and outer IP. A short one is quicker to make.
const WHOLE_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// The way to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) source: MacAddr,
    /// `None`: to the host's own stack, without an Ethernet header.
    pub(crate) next_hop: Option<MacAddr>,
    /// The outer header; `None`: the packet goes as it is.
    pub(crate) tunnel: Option<Tunnel>,
    /// The largest packet of a client that fits, in bytes.
    pub(crate) mtu: u16,
    /// The largest packet on the wire, in bytes, its outer header included: a tunnel's packet above that goes in fragments.
    pub(crate) outer_mtu: u16,
}

impl Route {
    /// What becomes of a packet that goes this way.
    pub(crate) const fn verdict(&self) -> Verdict {
        match self.next_hop {
            Some(_) => Verdict::Transmit,
            None => Verdict::Deliver,
        }
    }

    /// Sends one piece.
    fn emit<S: Sink>(
        &self,
        head: &[u8],
        body: &[u8],
        identification: &mut u32,
        voice: &mut Voice<'_, S>,
    ) {
        let packet_len = (head.len() + body.len()).saturating_sub(ethernet::HEADER_LEN);
        if packet_len > usize::from(self.outer_mtu)
            && let Some(tunnel) = self.tunnel
        {
            let whole = (head, body);
            outer::send(whole, tunnel, self.outer_mtu, identification, voice);
            return;
        }
        match self.next_hop {
            Some(_) => voice.transmit(head, body),
            None => voice.deliver(head, body),
        }
    }
}

/// The ends of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tunnel {
    V4 {
        source: Ipv4Addr,
        destination: Ipv4Addr,
    },
    V6 {
        source: Ipv6Addr,
        destination: Ipv6Addr,
    },
}

impl Tunnel {
    /// Bytes that it adds.
    pub(crate) const fn overhead(self) -> u16 {
        match self {
            Self::V4 { .. } => 20,
            Self::V6 { .. } => 40,
        }
    }
}

/// In which pieces a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Whole,
    /// TCP segments or UDP datagrams with this much payload each.
    Segments(usize),
    /// IP fragments.
    Fragments,
}

/// Why a packet goes not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Larger than the route's MTU, and the sender forbids fragments.
    TooBig,
    Drop(DropReason),
}

/// Decides in which pieces a packet goes. What is compared with the MTU is what will be on the wire: a segment, not
/// the frame that carries many.
pub(crate) fn plan<B: Deref<Target = [u8]>>(
    packet: &Ip<B>,
    offload: Offload,
    route: &Route,
) -> Result<Plan, Refusal> {
    partial_at(packet, offload.checksum)
        .map_err(|malformed| Refusal::Drop(DropReason::Malformed(malformed)))?;
    let mtu = usize::from(route.mtu);
    let unsupported = Refusal::Drop(DropReason::UnsupportedOffload);
    match offload.gso {
        Gso::None => whole(packet, mtu),
        Gso::Other(_) => Err(unsupported),
        Gso::Udp { segment } => datagrams(packet, usize::from(segment), mtu),
        Gso::Tcp { segment } => {
            if packet.protocol() != ipv4::TCP || packet.is_fragment() {
                return Err(unsupported);
            }
            let tcp = Tcp::parse(packet.payload())
                .map_err(|malformed| Refusal::Drop(DropReason::Malformed(malformed)))?;
            let headers = packet.header().len() + tcp.header_len;
            let segment = usize::from(segment);
            if segment < SEGMENT_MIN {
                return Err(unsupported);
            }
            if packet.len() <= headers + segment {
                whole(packet, mtu)
            } else if headers + segment <= mtu {
                Ok(Plan::Segments(segment))
            } else if packet.dont_fragment() {
                Err(Refusal::TooBig)
            } else if headers + SEGMENT_MIN <= mtu {
                // The sender allows smaller pieces, and this frame was never one piece: smaller segments, no fragments.
                Ok(Plan::Segments(mtu - headers))
            } else {
                Err(Refusal::Drop(DropReason::PathTooNarrow))
            }
        }
    }
}

fn whole<B: Deref<Target = [u8]>>(packet: &Ip<B>, mtu: usize) -> Result<Plan, Refusal> {
    if packet.len() <= mtu {
        return Ok(Plan::Whole);
    }
    let narrow = Err(Refusal::Drop(DropReason::PathTooNarrow));
    match packet {
        Ip::V6(_) => Err(Refusal::TooBig),
        Ip::V4(v4) if v4.dont_fragment() => Err(Refusal::TooBig),
        Ip::V4(v4) if fragment::piece(v4, mtu).is_some() => Ok(Plan::Fragments),
        Ip::V4(_) => narrow,
    }
}

/// UDP segments are datagrams that the application wrote: their borders are its own and cannot be moved.
fn datagrams<B: Deref<Target = [u8]>>(
    packet: &Ip<B>,
    segment: usize,
    mtu: usize,
) -> Result<Plan, Refusal> {
    let unsupported = Err(Refusal::Drop(DropReason::UnsupportedOffload));
    if packet.protocol() != ipv4::UDP || packet.is_fragment() || segment < SEGMENT_MIN {
        return unsupported;
    }
    let headers = packet.header().len() + udp::HEADER_LEN;
    if packet.len() <= headers + segment {
        whole(packet, mtu)
    } else if headers + segment <= mtu {
        Ok(Plan::Segments(segment))
    } else if packet.dont_fragment() {
        Err(Refusal::TooBig)
    } else {
        unsupported
    }
}

/// Finishes a partial transport checksum in place (VIRTIO 1.2 §5.1.6.2: the field holds the pseudo-header's sum).
pub(crate) fn finish<B: DerefMut<Target = [u8]>>(
    packet: &mut Ip<B>,
    offload: Offload,
) -> Result<(), DropReason> {
    let Some((start, field)) =
        partial_at(packet, offload.checksum).map_err(DropReason::Malformed)?
    else {
        return Ok(());
    };
    let is_udp = packet.protocol() == ipv4::UDP;
    let payload = packet.payload_mut();
    let mut checksum = Sum::default().bytes(&payload[start..]).finish();
    if is_udp && checksum == 0 {
        // Zero says that there is no checksum (RFC 768).
        checksum = 0xffff;
    }
    payload[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// Where a partial checksum is: first byte to sum and first byte of the field, both in the IP payload.
/// Invariant: `start <= field`, and `field + 2` lies in the payload.
fn partial_at<B: Deref<Target = [u8]>>(
    packet: &Ip<B>,
    checksum: Checksum,
) -> Result<Option<(usize, usize)>, Malformed> {
    let Checksum::Partial { start, offset } = checksum else {
        return Ok(None);
    };
    let before = ethernet::HEADER_LEN + packet.header().len();
    let start = usize::from(start)
        .checked_sub(before)
        .ok_or(Malformed::Offload)?;
    let field = start + usize::from(offset);
    if field + 2 > packet.payload().len() {
        return Err(Malformed::Offload);
    }
    Ok(Some((start, field)))
}

/// Sends a packet as planned; its checksum is finished, unless the plan is segments (each gets its own).
pub(crate) fn send<B: Deref<Target = [u8]>, S: Sink>(
    packet: &Ip<B>,
    plan: Plan,
    route: &Route,
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) {
    match plan {
        Plan::Whole => {
            let dont_fragment = packet.dont_fragment();
            let len = packet.len();
            let mut head = Head::<WHOLE_MAX>::EMPTY;
            head.begin(route, packet, len, dont_fragment, identification);
            route.emit(head.bytes(), packet.bytes(), identification, voice);
        }
        Plan::Segments(size) => segment::send(packet, size, route, identification, voice),
        Plan::Fragments => {
            if let Ip::V4(v4) = packet {
                fragment::send(packet, v4, route, identification, voice);
            }
        }
    }
}

/// The headers in front of a body: Ethernet, the outer one of a tunnel, and what the pieces need.
struct Head<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Head<MAX> {
    const EMPTY: Self = Self {
        bytes: [0; MAX],
        len: 0,
    };

    /// Ethernet, and the outer header if there is a tunnel (RFC 2003 §3.1, RFC 2473 §6: TOS copied, DF copied when set).
    /// Around an IPv6 packet DF stays clear: the tunnel's MTU is fixed (RFC 4213 §3.2.1), so where the way to the server is
    /// narrower a router must be able to cut it; nobody could tell the client. `inner_len`: bytes of this piece.
    fn begin<B: Deref<Target = [u8]>>(
        &mut self,
        route: &Route,
        packet: &Ip<B>,
        inner_len: usize,
        dont_fragment: bool,
        identification: &mut u32,
    ) {
        let ethertype = match (route.tunnel, packet) {
            (Some(Tunnel::V4 { .. }), _) | (None, Ip::V4(_)) => ethernet::IPV4,
            (Some(Tunnel::V6 { .. }), _) | (None, Ip::V6(_)) => ethernet::IPV6,
        };
        if let (Some(destination), Some(first)) = (
            route.next_hop,
            self.bytes.first_chunk_mut::<{ ethernet::HEADER_LEN }>(),
        ) {
            let link = Ethernet {
                destination,
                source: route.source,
                ethertype,
            };
            link.write(first);
            self.len = ethernet::HEADER_LEN;
        }
        // `plan` keeps the inner packet within an MTU that leaves room for the outer header.
        let len = |more: usize| u16::try_from(inner_len + more).unwrap_or(u16::MAX);
        match route.tunnel {
            None => {}
            Some(Tunnel::V4 {
                source,
                destination,
            }) => {
                let outer = ipv4::Header {
                    tos: packet.tos(),
                    total_len: len(ipv4::MIN_HEADER_LEN),
                    identification: ipv4::next_identification(identification),
                    dont_fragment: dont_fragment && matches!(packet, Ip::V4(_)),
                    ttl: TTL,
                    protocol: packet.as_payload(),
                    source,
                    destination,
                };
                self.push(&outer.bytes());
            }
            Some(Tunnel::V6 {
                source,
                destination,
            }) => {
                let outer = ipv6::Header {
                    traffic_class: packet.tos(),
                    payload_len: len(0),
                    next_header: packet.as_payload(),
                    hop_limit: TTL,
                    source,
                    destination,
                };
                self.push(&outer.bytes());
            }
        }
    }

    /// Appends; what does not fit is a mistake of this module, and cut off.
    fn push(&mut self, bytes: &[u8]) -> &mut [u8] {
        let end = (self.len + bytes.len()).min(MAX);
        let room = &mut self.bytes[self.len..end];
        room.copy_from_slice(&bytes[..room.len()]);
        self.len = end;
        room
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
