//! The traffic: what is sent to both sides, step by step, and where they may answer differently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_core::MacAddr;
use dataplane_core::testing::{ACK, FIN, PSH, Packet, Packet6, RST, SYN};

use crate::world::{
    CLIENT4, CLIENT6, FAR4, FAR6, MTU, Method, ROUTER4, UPLINK4, VIP4, VIP6, WAYS, Way, mac,
};

/// Ports of clients: every case has one of its own, so that no connection of another one matters.
const FIRST_CLIENT_PORT: u16 = 40_000;
/// Nobody serves it.
const CLOSED_PORT: u16 = 99;
/// What a router far away says is too big.
const FAR_MTU: u16 = 1400;

/// One story of one virtual service.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) way: &'static Way,
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<Step>,
}

/// Frames that are sent together; what they bring about is compared.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) from: Side,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) expected: Expected,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What both sides shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The same.
    Same,
    /// The same, or else exactly this, for a reason.
    Unlike {
        ipvs: Shape,
        ours: Shape,
        why: &'static str,
    },
}

/// What came out, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Nothing,
    /// One packet, passed on.
    Forwarded,
    /// TCP's reset, made by the router.
    Reset,
    /// Port unreachable.
    PortUnreachable,
    TimeExceeded,
    /// Anything else.
    Other,
}

const FOREIGN_CONNECTION: &str = "IPVS leaves what it does not know to its host's own stack, which has the VIP and resets; our VIP is on no \
     stack, and a reset would break a connection that only a table of another ATM knows";
const CLOSED: &str =
    "IPVS leaves it to its host's own stack, which has the VIP and refuses; our VIP is on no stack";
const NO_HOP: &str = "IPVS counts as a router (RFC 1812 §5.3.1), an ATM counts no hop: in tunnel and direct mode the inner packet stays as \
     it was sent";

/// All cases of these ways.
pub(crate) fn cases(ways: &[&'static Way]) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in ways {
        let mut story = Story { way, port: 0 };
        let mut add = |name, make: fn(&Story) -> Vec<Step>| {
            story.port = FIRST_CLIENT_PORT + u16::try_from(cases.len()).unwrap_or_default();
            let steps = make(&story);
            if !steps.is_empty() {
                cases.push(Case { way, name, steps });
            }
        };
        add("connection", connection);
        add("answer", answer);
        add("tos and ttl", tos_and_ttl);
        add("last hop", last_hop);
        add("without df", without_df);
        add("options", options);
        add("fits exactly", fits_exactly);
        add("too big", too_big);
        add("to be cut", to_be_cut);
        add("udp", datagram);
        add("fragments", fragments);
        add("error", error);
        add("short error", short_error);
        add("server's error", error_of_server);
        add("unknown connection", unknown);
        add("damaged header", damaged_header);
        add("damaged segment", damaged_segment);
        add("echo", echo);
        add("closed port", closed);
    }
    cases
}

/// What a case is told with.
struct Story {
    way: &'static Way,
    /// The client's.
    port: u16,
}

/// What can be said about an IP header.
#[derive(Clone, Copy)]
struct Look {
    tos: u8,
    ttl: u8,
    df: bool,
}

const PLAIN: Look = Look {
    tos: 0,
    ttl: 61,
    df: true,
};

fn connection(story: &Story) -> Vec<Step> {
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("ack", story.tcp(ACK, b"")),
        story.client("data", story.tcp(PSH | ACK, b"GET / HTTP/1.1\r\n\r\n")),
        story.client("odd length", story.tcp(PSH | ACK, b"odd")),
        story.client("fin", story.tcp(FIN | ACK, b"")),
        story.client("rst", story.tcp(RST, b"")),
    ]
}

/// Only with NAT do answers pass the router.
fn answer(story: &Story) -> Vec<Step> {
    let (Method::Nat, IpAddr::V4(server)) = (story.way.method, story.way.server) else {
        return Vec::new();
    };
    let (own, client) = ((server, story.way.port), (CLIENT4, story.port));
    let segment = |flags, data: &[u8]| {
        story.frame_from(server.into(), &Packet::tcp(own, client, flags, data))
    };
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.server("syn-ack", segment(SYN | ACK, b"")),
        story.client("ack", story.tcp(ACK, b"")),
        story.server("data", segment(PSH | ACK, b"HTTP/1.1 200 OK\r\n\r\n!")),
        story.server("fin", segment(FIN | ACK, b"")),
        story.client("question by udp", story.udp(b"who is there")),
        story.server(
            "answer by udp",
            story.frame_from(server.into(), &Packet::udp(own, client, b"I am")),
        ),
    ]
}

fn tos_and_ttl(story: &Story) -> Vec<Step> {
    let look = |tos, ttl| Look { tos, ttl, df: true };
    let segment = |look| story.segment(look, SYN, b"");
    vec![
        story.client("EF, 64 hops", segment(look(0xb8, 64))),
        story.client("CS1 and ECT(0), 255 hops", segment(look(0x22, 255))),
        story.client("ECN CE, 2 hops", segment(look(0x03, 2))),
    ]
}

fn last_hop(story: &Story) -> Vec<Step> {
    let look = Look { ttl: 1, ..PLAIN };
    let step = story.client("ttl 1", story.segment(look, SYN, b""));
    vec![step.unlike(Shape::TimeExceeded, Shape::Forwarded, NO_HOP)]
}

fn without_df(story: &Story) -> Vec<Step> {
    if story.way.vip.is_ipv6() {
        return Vec::new();
    }
    let look = Look { df: false, ..PLAIN };
    vec![story.client("syn", story.segment(look, SYN, b""))]
}

fn options(story: &Story) -> Vec<Step> {
    if story.way.vip.is_ipv6() {
        return Vec::new();
    }
    // Three no-operations and the end of the list (RFC 791 §3.1).
    let packet = story
        .v4(PLAIN, SYN, b"")
        .with(|p| p.options = vec![1, 1, 1, 0]);
    vec![story.client("syn", story.frame(&packet))]
}

/// TCP data so that the packet has `len` bytes.
fn filled(story: &Story, look: Look, len: usize) -> Vec<u8> {
    let headers = if story.way.vip.is_ipv4() { 40 } else { 60 };
    story.segment(look, ACK, &vec![0x5a; len - headers])
}

fn fits_exactly(story: &Story) -> Vec<Step> {
    let len = MTU - story.way.overhead();
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("data", filled(story, PLAIN, len)),
    ]
}

fn too_big(story: &Story) -> Vec<Step> {
    if story.way.overhead() == 0 {
        return Vec::new();
    }
    let len = MTU - story.way.overhead() + 1;
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("one byte more", filled(story, PLAIN, len)),
        story.client("a full frame", filled(story, PLAIN, MTU)),
    ]
}

fn to_be_cut(story: &Story) -> Vec<Step> {
    if story.way.overhead() == 0 || story.way.vip.is_ipv6() {
        return Vec::new();
    }
    let look = Look { df: false, ..PLAIN };
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("a full frame without df", filled(story, look, MTU)),
    ]
}

fn datagram(story: &Story) -> Vec<Step> {
    vec![
        story.client("first", story.udp(b"who is there")),
        story.client("second", story.udp(b"!")),
    ]
}

/// A datagram of two fragments, which come together. Its identification is its own: a router may remember that of another case's.
fn fragments(story: &Story) -> Vec<Step> {
    const FIRST: usize = 1000;
    const WHOLE: usize = 1300;
    let data = vec![0xa5; WHOLE];
    let from = story.port;
    let to = story.way.port;
    let frames = match story.way.vip {
        IpAddr::V4(vip) => {
            let whole = Packet::udp((CLIENT4, from), (vip, to), &data).with(|p| p.id = from);
            let (first, second) = whole.payload.split_at(FIRST);
            let part = |payload: &[u8], word: u16| {
                let payload = payload.to_vec();
                let part = whole
                    .clone()
                    .with(|p| (p.payload, p.fragment) = (payload, word));
                story.frame(&part)
            };
            let behind = u16::try_from(FIRST / 8).unwrap_or_default();
            vec![part(first, 0x2000), part(second, behind)]
        }
        IpAddr::V6(vip) => {
            let whole = Packet6::udp((CLIENT6, from), (vip, to), &data);
            let (first, second) = whole.payload.split_at(FIRST);
            let part = |payload: &[u8], place: u16| {
                // Next header, reserved, offset and more, identification (RFC 8200 §4.5).
                let id = u32::from(from).to_be_bytes();
                let header = [&[17, 0][..], &place.to_be_bytes(), &id].concat();
                let payload = [&header, payload].concat();
                story.frame6(&Packet6::new(CLIENT6, vip, 44, payload))
            };
            let behind = u16::try_from(FIRST).unwrap_or_default();
            vec![part(first, 1), part(second, behind)]
        }
    };
    vec![Step {
        name: "two fragments",
        from: Side::Client,
        frames,
        expected: Expected::Same,
    }]
}

/// A router on the way back says that a server's packet is too big, and quotes all of it.
fn error(story: &Story) -> Vec<Step> {
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("too big, quoted whole", story.far_error(usize::MAX)),
    ]
}

/// The same with no more of the segment than RFC 792 demands.
fn short_error(story: &Story) -> Vec<Step> {
    if story.way.vip.is_ipv6() {
        return Vec::new();
    }
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("too big, 8 bytes quoted", story.far_error(28)),
    ]
}

/// The server refuses a datagram: with NAT the router must put the VIP into the message and into its quote.
fn error_of_server(story: &Story) -> Vec<Step> {
    let (Method::Nat, IpAddr::V4(server)) = (story.way.method, story.way.server) else {
        return Vec::new();
    };
    let got = Packet::udp(
        (CLIENT4, story.port),
        (server, story.way.port),
        b"who is there",
    );
    let got = got.with(|p| p.ttl -= 1).bytes();
    let refusal = |quote: &[u8]| {
        let message = Packet::icmp(server, CLIENT4, 3, 3, [0; 4], quote);
        story.frame_from(server.into(), &message)
    };
    vec![
        story.client("datagram", story.udp(b"who is there")),
        story.server("port unreachable", refusal(&got)),
        story.server("port unreachable, 8 bytes quoted", refusal(&got[..28])),
    ]
}

fn unknown(story: &Story) -> Vec<Step> {
    let step = story.client("ack", story.tcp(ACK, b"late"));
    vec![step.unlike(Shape::Reset, Shape::Nothing, FOREIGN_CONNECTION)]
}

fn damaged_header(story: &Story) -> Vec<Step> {
    if story.way.vip.is_ipv6() {
        return Vec::new();
    }
    let mut frame = story.tcp(SYN, b"");
    // The header checksum's first byte.
    frame[14 + 10] ^= 0x55;
    vec![story.client("wrong header checksum", frame)]
}

/// Its end, not the router, looks at the checksum of a segment.
fn damaged_segment(story: &Story) -> Vec<Step> {
    let mut frame = story.tcp(PSH | ACK, b"damaged");
    if let Some(last) = frame.last_mut() {
        *last ^= 0x55;
    }
    vec![
        story.client("syn", story.tcp(SYN, b"")),
        story.client("wrong tcp checksum", frame),
    ]
}

/// One a VIP is enough.
fn echo(story: &Story) -> Vec<Step> {
    if !story.is_first_of_its_vip() {
        return Vec::new();
    }
    let rest = [0x12, 0x34, 0, 1];
    let frame = match story.way.vip {
        IpAddr::V4(vip) => {
            let packet = Packet::icmp(CLIENT4, vip, 8, 0, rest, b"are you there?");
            story.frame(&packet.with(|p| p.tos = 0x20))
        }
        IpAddr::V6(vip) => story.frame6(&Packet6::icmp(
            CLIENT6,
            vip,
            128,
            0,
            rest,
            b"are you there?",
        )),
    };
    vec![story.client("echo request", frame)]
}

fn closed(story: &Story) -> Vec<Step> {
    if !story.is_first_of_its_vip() {
        return Vec::new();
    }
    let from = story.port;
    let (syn, datagram) = match story.way.vip {
        IpAddr::V4(vip) => (
            story.frame(&Packet::tcp((CLIENT4, from), (vip, CLOSED_PORT), SYN, b"")),
            story.frame(&Packet::udp((CLIENT4, from), (vip, CLOSED_PORT), b"?")),
        ),
        IpAddr::V6(vip) => (
            story.frame6(&Packet6::tcp((CLIENT6, from), (vip, CLOSED_PORT), SYN, b"")),
            story.frame6(&Packet6::udp((CLIENT6, from), (vip, CLOSED_PORT), b"?")),
        ),
    };
    vec![
        story
            .client("syn", syn)
            .unlike(Shape::Reset, Shape::Nothing, CLOSED),
        story
            .client("datagram", datagram)
            .unlike(Shape::PortUnreachable, Shape::Nothing, CLOSED),
    ]
}

impl Story {
    fn is_first_of_its_vip(&self) -> bool {
        let first = WAYS.iter().find(|way| way.vip == self.way.vip);
        first.is_some_and(|way| way.port == self.way.port)
    }

    fn client(&self, name: &'static str, frame: Vec<u8>) -> Step {
        Step {
            name,
            from: Side::Client,
            frames: vec![frame],
            expected: Expected::Same,
        }
    }

    fn server(&self, name: &'static str, frame: Vec<u8>) -> Step {
        Step {
            from: Side::Server,
            ..self.client(name, frame)
        }
    }

    fn tcp(&self, flags: u8, data: &[u8]) -> Vec<u8> {
        self.segment(PLAIN, flags, data)
    }

    fn segment(&self, look: Look, flags: u8, data: &[u8]) -> Vec<u8> {
        match self.way.vip {
            IpAddr::V4(_) => self.frame(&self.v4(look, flags, data)),
            IpAddr::V6(vip) => {
                let packet = Packet6::tcp((CLIENT6, self.port), (vip, self.way.port), flags, data);
                self.frame6(&packet.with(|p| (p.class, p.hops) = (look.tos, look.ttl)))
            }
        }
    }

    /// A segment to the IPv4 VIP.
    fn v4(&self, look: Look, flags: u8, data: &[u8]) -> Packet {
        let packet = Packet::tcp((CLIENT4, self.port), (VIP4, self.way.port), flags, data);
        packet.with(|p| {
            (p.tos, p.ttl) = (look.tos, look.ttl);
            p.fragment = if look.df { 0x4000 } else { 0 };
        })
    }

    fn udp(&self, data: &[u8]) -> Vec<u8> {
        match self.way.vip {
            IpAddr::V4(vip) => self.frame(&Packet::udp(
                (CLIENT4, self.port),
                (vip, self.way.port),
                data,
            )),
            IpAddr::V6(vip) => self.frame6(&Packet6::udp(
                (CLIENT6, self.port),
                (vip, self.way.port),
                data,
            )),
        }
    }

    /// Too big, says a router far away, of a packet from the VIP to the client, and quotes at most `quoted` bytes of it.
    fn far_error(&self, quoted: usize) -> Vec<u8> {
        let [high, low] = FAR_MTU.to_be_bytes();
        let data = [0x33; 200];
        match self.way.vip {
            IpAddr::V4(vip) => {
                let about = Packet::tcp((vip, self.way.port), (CLIENT4, self.port), ACK, &data);
                let about = about.bytes();
                let quote = about.get(..quoted).unwrap_or(&about);
                self.frame(&Packet::icmp(FAR4, vip, 3, 4, [0, 0, high, low], quote))
            }
            IpAddr::V6(vip) => {
                let about = Packet6::tcp((vip, self.way.port), (CLIENT6, self.port), ACK, &data);
                let about = about.bytes();
                let quote = about.get(..quoted).unwrap_or(&about);
                self.frame6(&Packet6::icmp(FAR6, vip, 2, 0, [0, 0, high, low], quote))
            }
        }
    }

    fn frame(&self, packet: &Packet) -> Vec<u8> {
        self.frame_from(UPLINK4.into(), packet)
    }

    fn frame_from(&self, sender: IpAddr, packet: &Packet) -> Vec<u8> {
        packet.frame(mac(sender), router())
    }

    fn frame6(&self, packet: &Packet6) -> Vec<u8> {
        packet.frame(mac(UPLINK4.into()), router())
    }
}

fn router() -> MacAddr {
    mac(ROUTER4.into())
}

impl Step {
    fn unlike(self, ipvs: Shape, ours: Shape, why: &'static str) -> Self {
        let expected = Expected::Unlike { ipvs, ours, why };
        Self { expected, ..self }
    }
}

/// Whether an address is one that the router answers for.
pub(crate) fn is_vip(address: IpAddr) -> bool {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (VIP4, VIP6);
    address == v4 || address == v6
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::packet::deliveries;

    fn all() -> Vec<Case> {
        cases(&WAYS.iter().collect::<Vec<_>>())
    }

    #[test]
    fn every_frame_fits_the_network_and_is_sound_unless_its_case_says_otherwise() {
        for case in all() {
            for step in &case.steps {
                let damaged = case.name.starts_with("damaged");
                let longest = step.frames.iter().map(Vec::len).max().unwrap();
                assert!(longest <= MTU + 14, "{} {}", case.way.name, case.name);
                match deliveries(&step.frames) {
                    Ok(sent) => assert!(damaged || sent.iter().all(|d| d.packet.is_sound())),
                    Err(_) => assert_eq!(case.name, "damaged header"),
                }
            }
        }
    }

    #[test]
    fn every_way_has_cases_and_no_two_have_one_client_port() {
        let all = all();
        for way in &WAYS {
            let count = all.iter().filter(|c| c.way.port == way.port).count();
            assert!(count >= 9, "{}: {count}", way.name);
        }
        let ports: BTreeSet<_> = all
            .iter()
            .map(|case| deliveries(&case.steps[0].frames))
            .filter_map(|sent| Some(sent.ok()?.first()?.packet.payload.get(..2)?.to_vec()))
            .collect();
        // Echo requests have no ports, and a damaged header cannot be read.
        let portless = all
            .iter()
            .filter(|c| matches!(c.name, "echo" | "damaged header"));
        assert!(ports.len() >= all.len() - portless.count());
    }
}
