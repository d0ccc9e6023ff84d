//! Frames and a sink for tests: built field by field and by hand, so that they share no code with what they test.
//!
//! Panics are fine here: nothing of it ships.

use std::net::{Ipv4Addr, Ipv6Addr};

use model::connections::{ConnectionKey, Pin};
use model::sticky::StickyKey;

use crate::{Checksum, MacAddr, Offload, Sink};

/// TCP flags (RFC 9293 §3.1, RFC 3168 §6.1).
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const PSH: u8 = 0x08;
/// See [`FIN`].
pub const ACK: u8 = 0x10;
/// See [`FIN`].
pub const CWR: u8 = 0x80;

/// Keeps everything that is emitted.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// Frames, head and body joined.
    pub frames: Vec<Vec<u8>>,
    /// Packets given to the host's own stack, likewise.
    pub delivered: Vec<Vec<u8>>,
    /// Frames passed to another ATM, likewise.
    pub relayed: Vec<Vec<u8>>,
    /// Connections to be opened.
    pub opened: Vec<(ConnectionKey, Pin)>,
    /// Connections to be closed.
    pub closed: Vec<ConnectionKey>,
    /// Sticky clients to be forgotten.
    pub unstuck: Vec<StickyKey>,
    /// The replicator takes nothing.
    pub full: bool,
}

impl Sink for Recorder {
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        self.frames.push([head, body].concat());
    }

    fn deliver(&mut self, head: &[u8], body: &[u8]) {
        self.delivered.push([head, body].concat());
    }

    fn relay(&mut self, head: &[u8], body: &[u8]) {
        self.relayed.push([head, body].concat());
    }

    fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool {
        if !self.full {
            self.opened.push((key, pin));
        }
        !self.full
    }

    fn close(&mut self, key: ConnectionKey) -> bool {
        if !self.full {
            self.closed.push(key);
        }
        !self.full
    }

    fn unstick(&mut self, key: StickyKey) -> bool {
        if !self.full {
            self.unstuck.push(key);
        }
        !self.full
    }
}

/// An IPv4 packet in the making.
#[derive(Clone, Debug)]
pub struct Packet {
    /// TOS byte.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, the whole word; Don't Fragment is 0x4000.
    pub fragment: u16,
    /// TTL.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// IP options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet with a payload as it is: DF set, TTL 61, identification 0x1234.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            tos: 0,
            id: 0x1234,
            fragment: 0x4000,
            ttl: 61,
            protocol,
            source,
            destination,
            options: Vec::new(),
            payload,
        }
    }

    /// A TCP packet with the right checksum.
    pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8, data: &[u8]) -> Self {
        let mut segment = vec![0; 20];
        segment[0..2].copy_from_slice(&from.1.to_be_bytes());
        segment[2..4].copy_from_slice(&to.1.to_be_bytes());
        segment[4..8].copy_from_slice(&0x0102_0304_u32.to_be_bytes());
        segment[12] = 5 << 4;
        segment[13] = flags;
        segment[14..16].copy_from_slice(&0x7210_u16.to_be_bytes());
        segment.extend(data);
        let mut packet = Self::new(from.0, to.0, 6, segment);
        packet.set_tcp_checksum();
        packet
    }

    /// A UDP datagram with the right checksum.
    pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Self {
        let mut packet = Self::new(from.0, to.0, 17, udp(from.1, to.1, data));
        let checksum = !fold(u32::from(packet.pseudo_sum()) + u32::from(sum(&packet.payload)));
        packet.payload[6..8].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// An ICMP message with the right checksum; `rest` are the four bytes after it.
    pub fn icmp(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: &[u8],
    ) -> Self {
        let mut message = [&[kind, code, 0, 0], &rest[..], data].concat();
        let checksum = !sum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Self {
            protocol: 1,
            ..Self::new(source, destination, 1, message)
        }
    }

    /// This packet inside another (RFC 2003), as the tunnel is promised to make it.
    pub fn in_tunnel(&self, source: Ipv4Addr, destination: Ipv4Addr, id: u16) -> Self {
        let outer = Self::new(source, destination, 4, self.bytes());
        Self {
            tos: self.tos,
            id,
            fragment: self.fragment & 0x4000,
            ttl: 64,
            ..outer
        }
    }

    /// Changes fields.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Puts the right checksum into a TCP payload.
    pub fn set_tcp_checksum(&mut self) {
        self.payload[16..18].fill(0);
        let checksum = !fold(u32::from(self.pseudo_sum()) + u32::from(sum(&self.payload)));
        self.payload[16..18].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Leaves the TCP checksum to the device, as a local stack does, and returns how it says so.
    pub fn set_partial_checksum(&mut self) -> Offload {
        let pseudo = self.pseudo_sum();
        self.payload[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let start = u16::try_from(34 + self.options.len()).unwrap_or(u16::MAX);
        Offload {
            checksum: Checksum::Partial { start, offset: 16 },
            ..Offload::default()
        }
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let len = 20 + self.options.len() + self.payload.len();
        let mut header = vec![0; 20];
        header[0] = 0x40 | u8::try_from(5 + self.options.len() / 4).unwrap_or(15);
        header[1] = self.tos;
        header[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        header.extend(&self.options);
        let checksum = !sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header.extend(&self.payload);
        header
    }

    /// The packet as an Ethernet frame.
    pub fn frame(&self, source: MacAddr, destination: MacAddr) -> Vec<u8> {
        ethernet(source, destination, 0x0800, &self.bytes())
    }

    fn pseudo_sum(&self) -> u16 {
        let mut pseudo = [self.source.octets(), self.destination.octets()].concat();
        pseudo.extend([0, self.protocol]);
        pseudo.extend(
            u16::try_from(self.payload.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        sum(&pseudo)
    }
}

/// An IPv6 packet in the making.
#[derive(Clone, Debug)]
pub struct Packet6 {
    /// Traffic class.
    pub class: u8,
    /// Hop limit.
    pub hops: u8,
    /// Number of the first header of `payload`.
    pub next: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Extension headers: whole, the last one naming the transport protocol; `next` is then the first one's number.
    pub extensions: Vec<u8>,
    /// What follows them.
    pub payload: Vec<u8>,
}

impl Packet6 {
    /// A packet with a payload as it is, hop limit 61.
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: Vec<u8>) -> Self {
        Self {
            class: 0,
            hops: 61,
            next,
            source,
            destination,
            extensions: Vec::new(),
            payload,
        }
    }

    /// A TCP packet with the right checksum.
    pub fn tcp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), flags: u8, data: &[u8]) -> Self {
        let any = Ipv4Addr::UNSPECIFIED;
        let segment = Packet::tcp((any, from.1), (any, to.1), flags, data).payload;
        Self::new(from.0, to.0, 6, segment).sealed(16)
    }

    /// A UDP datagram with the right checksum.
    pub fn udp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), data: &[u8]) -> Self {
        Self::new(from.0, to.0, 17, udp(from.1, to.1, data)).sealed(6)
    }

    /// An ICMPv6 message with the right checksum; `rest` are the four bytes after it.
    pub fn icmp(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: &[u8],
    ) -> Self {
        let message = [&[kind, code, 0, 0], &rest[..], data].concat();
        Self::new(source, destination, 58, message).sealed(2)
    }

    /// Changes fields.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Puts the right checksum at this place of the payload.
    #[must_use]
    pub fn sealed(mut self, at: usize) -> Self {
        self.payload[at..at + 2].fill(0);
        let checksum = !fold(u32::from(self.pseudo_sum()) + u32::from(sum(&self.payload)));
        self.payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        self
    }

    /// Leaves the transport checksum at this place to the device, as a local stack does, and returns how it says so.
    pub fn set_partial_checksum(&mut self, at: u16) -> Offload {
        let pseudo = self.pseudo_sum();
        let field = usize::from(at);
        self.payload[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        let start = u16::try_from(54 + self.extensions.len()).unwrap_or(u16::MAX);
        Offload {
            checksum: Checksum::Partial { start, offset: at },
            ..Offload::default()
        }
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let len = self.extensions.len() + self.payload.len();
        let mut bytes = vec![0x60 | self.class >> 4, self.class << 4, 0, 0];
        bytes.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend([self.next, self.hops]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.extensions);
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet as an Ethernet frame.
    pub fn frame(&self, source: MacAddr, destination: MacAddr) -> Vec<u8> {
        ethernet(source, destination, 0x86dd, &self.bytes())
    }

    fn pseudo_sum(&self) -> u16 {
        let mut pseudo = [self.source.octets(), self.destination.octets()].concat();
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        pseudo.extend(len.to_be_bytes());
        // With extension headers the protocol is the last one's next header; tests with any use one of eight bytes.
        let protocol = self.extensions.first().copied().unwrap_or(self.next);
        pseudo.extend([0, 0, 0, protocol]);
        sum(&pseudo)
    }
}

/// A UDP datagram without checksum.
fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let header = [from, to, len, 0].map(u16::to_be_bytes).concat();
    [&header[..], data].concat()
}

/// A neighbour solicitation (kind 135) or advertisement (136) with its link-layer option (RFC 4861 §4.3, §4.4).
pub fn neighbour(
    link: (MacAddr, MacAddr),
    kind: u8,
    flags: u8,
    addresses: (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
    option: Option<MacAddr>,
) -> Vec<u8> {
    let mut data = target.octets().to_vec();
    if let Some(mac) = option {
        data.extend([kind - 134, 1]);
        data.extend(mac.0);
    }
    Packet6::icmp(addresses.0, addresses.1, kind, 0, [flags, 0, 0, 0], &data)
        .with(|packet| packet.hops = 255)
        .frame(link.0, link.1)
}

/// An Ethernet frame.
pub fn ethernet(source: MacAddr, destination: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        &destination.0[..],
        &source.0,
        &ethertype.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// An ARP frame (RFC 826): operation 1 asks, 2 answers.
pub fn arp(
    link: (MacAddr, MacAddr),
    operation: u8,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let body = [
        &[0, 1, 8, 0, 6, 4, 0, operation],
        &sender.0.0[..],
        &sender.1.octets(),
        &target.0.0,
        &target.1.octets(),
    ];
    ethernet(link.0, link.1, 0x0806, &body.concat())
}

/// The one's complement sum as RFC 1071 §4.1 writes it.
pub fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |total, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        fold(u32::from(total) + u32::from(word))
    })
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX)
}
