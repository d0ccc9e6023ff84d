//! Two sides' answers to one step, field by field. Pure.
//!
//! A difference is allowed only where a rule with a reason says exactly how the two sides differ; everything else that differs, and
//! everything that is wrong on our side alone, is a failure.

use serde::Serialize;

use crate::cases::{Expected, Shape, Side, Step, is_vip};
use crate::packet::{Delivery, ICMP, ICMPV6, Packet, TCP, deliveries};

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Agreement {
    Same,
    /// Different, as a rule allows.
    Allowed,
    Different,
}

/// One field in which the sides differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) field: &'static str,
    pub(crate) ipvs: String,
    pub(crate) ours: String,
    pub(crate) agreement: Agreement,
    /// The rule, where one allows it.
    pub(crate) why: &'static str,
}

/// The comparison of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) agreement: Agreement,
    /// What each side did, in a few words.
    pub(crate) ipvs: String,
    pub(crate) ours: String,
    pub(crate) findings: Vec<Finding>,
}

const INNER_TTL: &str =
    "IPVS is a router and takes one from the TTL; an ATM leaves the packet as it was sent";
const OUTER_TTL: &str = "IPVS copies the inner TTL outside; ours is 64, so that a packet near its end still reaches the server";
const OUTER_ECN: &str = "of a packet marked CE, IPVS makes ECT(0) outside (RFC 3168 §9.1.1), and we copy the mark (RFC 6040 §4.1, which replaces \
     that); the server sees CE in both cases";
const FLOW_LABEL: &str =
    "Linux gives its own packets a flow label, ours have none (RFC 6437 §3: both may)";
const PIECES: &str = "IPVS puts fragments together and cuts the tunnel's packet; we pass fragments on and cut the inner one, so that no server \
     has to put a tunnel together";
const QUOTED_HOP: &str =
    "the packet is quoted as it was when it did not fit: IPVS had taken one from its TTL";
const QUOTED_SUM: &str = "NAT puts back what an error quotes; IPVS leaves the transport checksum in it as it was, ours fits again (RFC 5508 §4)";
const ERROR_CLASS: &str = "ICMPv6 errors have no class of their own in Linux; ours are internetwork control, as those of IPv4 (RFC 1812 §4.3.2.5)";
/// TTL of our tunnels.
const OURS_OUTER_TTL: u8 = 64;
/// Internetwork control (RFC 2474 §4.2.2.2).
const CONTROL: u8 = 0xc0;
/// The two bits of congestion notification, and two of their values (RFC 3168 §5).
const ECN: u8 = 0x03;
const CE: u8 = 0x03;
const ECT0: u8 = 0x02;

/// Compares what both sides sent on account of `step`.
pub(crate) fn compare(step: &Step, ipvs: &[Vec<u8>], ours: &[Vec<u8>]) -> Verdict {
    let mut comparison = Comparison {
        step,
        sent: deliveries(&step.frames).ok().and_then(only),
        findings: Vec::new(),
    };
    let (ipvs, ours) = match (deliveries(ipvs), deliveries(ours)) {
        (Ok(ipvs), Ok(ours)) => (ipvs, ours),
        (ipvs, ours) => {
            let said = |side: Result<Vec<Delivery>, String>| match side {
                Ok(fine) => describe(&fine),
                Err(why) => why,
            };
            let (ipvs, ours) = (said(ipvs), said(ours));
            comparison.differ("frames", &ipvs, &ours);
            return comparison.end(ipvs, ours);
        }
    };
    let shapes = (shape(step, &ipvs), shape(step, &ours));
    match step.expected {
        Expected::Unlike {
            ipvs: theirs,
            ours: own,
            why,
        } if shapes == (theirs, own) => {
            comparison.note(
                "outcome",
                &describe(&ipvs),
                &describe(&ours),
                Agreement::Allowed,
                why,
            );
        }
        Expected::Same | Expected::Unlike { .. } => comparison.all(&ipvs, &ours),
    }
    for delivery in &ours {
        comparison.soundness(delivery);
    }
    comparison.end(describe(&ipvs), describe(&ours))
}

fn only<T>(all: Vec<T>) -> Option<T> {
    let [one] = <[T; 1]>::try_from(all).ok()?;
    Some(one)
}

struct Comparison<'a> {
    step: &'a Step,
    /// The one packet that was sent, put together.
    sent: Option<Delivery>,
    findings: Vec<Finding>,
}

impl Comparison<'_> {
    fn end(self, ipvs: String, ours: String) -> Verdict {
        let agreements = self.findings.iter().map(|finding| finding.agreement);
        Verdict {
            agreement: agreements.max().unwrap_or(Agreement::Same),
            ipvs,
            ours,
            findings: self.findings,
        }
    }

    fn note(
        &mut self,
        field: &'static str,
        ipvs: &str,
        ours: &str,
        agreement: Agreement,
        why: &'static str,
    ) {
        self.findings.push(Finding {
            field,
            ipvs: ipvs.to_owned(),
            ours: ours.to_owned(),
            agreement,
            why,
        });
    }

    fn differ(&mut self, field: &'static str, ipvs: &str, ours: &str) {
        self.note(field, ipvs, ours, Agreement::Different, "");
    }

    /// A field that must agree.
    fn must<T: PartialEq + std::fmt::Debug>(&mut self, field: &'static str, ipvs: &T, ours: &T) {
        if ipvs != ours {
            self.differ(field, &short(ipvs), &short(ours));
        }
    }

    /// A field that may differ in one way.
    fn may<T: PartialEq + std::fmt::Debug>(
        &mut self,
        field: &'static str,
        (ipvs, ours): (&T, &T),
        allowed: bool,
        why: &'static str,
    ) {
        if ipvs == ours {
            return;
        }
        if allowed {
            self.note(field, &short(ipvs), &short(ours), Agreement::Allowed, why);
        } else {
            self.differ(field, &short(ipvs), &short(ours));
        }
    }

    fn all(&mut self, ipvs: &[Delivery], ours: &[Delivery]) {
        if ipvs.len() != ours.len() {
            self.differ("outcome", &describe(ipvs), &describe(ours));
            return;
        }
        for (ipvs, ours) in ipvs.iter().zip(ours) {
            self.one(ipvs, ours);
        }
    }

    fn one(&mut self, ipvs: &Delivery, ours: &Delivery) {
        self.must("link source", &ipvs.link_source, &ours.link_source);
        self.must(
            "link destination",
            &ipvs.link_destination,
            &ours.link_destination,
        );
        let in_pieces = self.step.frames.len() > 1 || ipvs.frames > 1 || ours.frames > 1;
        self.may("frames", (&ipvs.frames, &ours.frames), in_pieces, PIECES);
        self.outer(ipvs, ours);
        let (theirs, own) = (&ipvs.packet, &ours.packet);
        self.must("source", &theirs.source, &own.source);
        self.must("destination", &theirs.destination, &own.destination);
        self.must("protocol", &theirs.protocol, &own.protocol);
        self.must("df", &theirs.df, &own.df);
        self.must("options", &theirs.extra, &own.extra);
        self.must("fragment", &theirs.part, &own.part);
        if is_made(self.step, ipvs) && is_made(self.step, ours) {
            self.may(
                "flow label",
                (&theirs.flow, &own.flow),
                own.flow == 0,
                FLOW_LABEL,
            );
            self.made(theirs, own);
            return;
        }
        self.must("flow label", &theirs.flow, &own.flow);
        // The identification belongs to who made the packet.
        self.must("id", &theirs.id, &own.id);
        self.must("tos", &theirs.tos, &own.tos);
        let sent = self.sent.as_ref().map(|sent| sent.packet.ttl);
        let counted = |ttl: u8| Some(ttl) == sent.and_then(|sent| sent.checked_sub(1));
        if !counted(theirs.ttl) {
            self.differ(
                "ttl of IPVS",
                &theirs.ttl.to_string(),
                &format!("of {sent:?}, less one"),
            );
        }
        let allowed = counted(theirs.ttl) && Some(own.ttl) == sent;
        self.may("ttl", (&theirs.ttl, &own.ttl), allowed, INNER_TTL);
        let (Some(_), Some(_)) = (theirs.quote(), own.quote()) else {
            self.must("payload", &theirs.payload, &own.payload);
            return;
        };
        let [but_sums, but_own_sums] = [theirs, own].map(Packet::error_without_sums);
        let allowed = but_sums == but_own_sums && own.is_sound();
        let payloads = (&theirs.payload, &own.payload);
        self.may("payload", payloads, allowed, QUOTED_SUM);
    }

    fn outer(&mut self, ipvs: &Delivery, ours: &Delivery) {
        let inner_ttl = ipvs.packet.ttl;
        match (&ipvs.outer, &ours.outer) {
            (None, None) => {}
            (Some(theirs), Some(own)) => {
                self.must("outer source", &theirs.source, &own.source);
                self.must("outer destination", &theirs.destination, &own.destination);
                self.must("outer protocol", &theirs.protocol, &own.protocol);
                let marked = ipvs.packet.tos & ECN == CE && own.tos == ours.packet.tos;
                let allowed = marked && theirs.tos == ipvs.packet.tos & !ECN | ECT0;
                self.may("outer tos", (&theirs.tos, &own.tos), allowed, OUTER_ECN);
                self.must("outer df", &theirs.df, &own.df);
                self.must("outer flow label", &theirs.flow, &own.flow);
                let allowed = theirs.ttl == inner_ttl && own.ttl == OURS_OUTER_TTL;
                self.may("outer ttl", (&theirs.ttl, &own.ttl), allowed, OUTER_TTL);
            }
            (theirs, own) => self.differ("tunnel", &short(theirs), &short(own)),
        }
    }

    /// What the router itself says to a client: an echo reply or an error. Its identification is its own.
    fn made(&mut self, theirs: &Packet, own: &Packet) {
        self.must("ttl", &theirs.ttl, &own.ttl);
        let is_error = theirs.quote().is_some() && own.quote().is_some();
        let allowed = is_error && theirs.source.is_ipv6() && (theirs.tos, own.tos) == (0, CONTROL);
        self.may("tos", (&theirs.tos, &own.tos), allowed, ERROR_CLASS);
        let (Some(quoted), Some(quotes)) = (theirs.quote(), own.quote()) else {
            self.must("payload", &theirs.payload, &own.payload);
            return;
        };
        self.must("icmp type and code", &theirs.icmp(), &own.icmp());
        self.must("next-hop mtu", &theirs.next_hop_mtu(), &own.next_hop_mtu());
        self.must("length of the quote", &quoted.len(), &quotes.len());
        let sent = self.step.frames.last().and_then(|frame| frame.get(14..));
        let sent = sent.unwrap_or_default();
        let (as_sent, counted) = (sent.get(..quotes.len()), one_hop_on(sent));
        let allowed = Some(quotes) == as_sent && Some(quoted) == counted.get(..quoted.len());
        if Some(quotes) != as_sent && Some(quotes) != counted.get(..quotes.len()) {
            self.differ("quote", "the packet that was sent", &short(&quotes));
        }
        self.may("quote", (&quoted, &quotes), allowed, QUOTED_HOP);
    }

    /// Sums that end to end must be right were right when they came, so they leave right.
    fn soundness(&mut self, ours: &Delivery) {
        let came_sound = self.sent.as_ref().is_none_or(|sent| sent.packet.is_sound());
        if came_sound && !ours.packet.is_sound() {
            self.differ("checksum", "right", "wrong");
        }
    }
}

/// The packet after one more router: its TTL less one, and its header checksum made anew.
fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => {
            packet[8] = packet[8].saturating_sub(1);
            packet[10..12].fill(0);
            let header_len = usize::from(packet[0] & 0x0f) * 4;
            let mut sum: u32 = 0;
            for pair in packet[..header_len.min(packet.len())].chunks_exact(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
            }
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX);
            packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        }
        Some(6) if packet.len() >= 40 => packet[7] = packet[7].saturating_sub(1),
        _ => {}
    }
    packet
}

/// Whether the router itself speaks: to a client, in the VIP's name, though no server said anything.
fn is_made(step: &Step, delivery: &Delivery) -> bool {
    step.from == Side::Client && delivery.outer.is_none() && is_vip(delivery.packet.source)
}

fn shape(step: &Step, found: &[Delivery]) -> Shape {
    let [one] = found else {
        return if found.is_empty() {
            Shape::Nothing
        } else {
            Shape::Other
        };
    };
    // An error about a TTL comes from the address of the router itself.
    let packet = &one.packet;
    match (packet.source.is_ipv4(), packet.icmp()) {
        (true, Some((11, 0))) | (false, Some((3, 0))) if one.outer.is_none() => {
            return Shape::TimeExceeded;
        }
        (true, Some((3, 3))) | (false, Some((1, 4))) if is_made(step, one) => {
            return Shape::PortUnreachable;
        }
        _ => {}
    }
    if !is_made(step, one) {
        return Shape::Forwarded;
    }
    let is_reset =
        packet.protocol == TCP && packet.payload.get(13).is_some_and(|flags| flags & 4 != 0);
    if is_reset { Shape::Reset } else { Shape::Other }
}

/// A few words for a table.
pub(crate) fn describe(found: &[Delivery]) -> String {
    match found {
        [] => "nothing".to_owned(),
        [one] => phrase(one),
        [one, ..] => format!("{} packets: {} …", found.len(), phrase(one)),
    }
}

fn phrase(delivery: &Delivery) -> String {
    let packet = &delivery.packet;
    let what = match (packet.source.is_ipv4(), packet.icmp(), packet.protocol) {
        (true, Some((3, 4)), _) | (false, Some((2, 0)), _) => {
            format!("too big, mtu {}", packet.next_hop_mtu().unwrap_or_default())
        }
        (true, Some((0, 0)), _) | (false, Some((129, 0)), _) => "echo reply".to_owned(),
        (true, Some((11, 0)), _) | (false, Some((3, 0)), _) => "time exceeded".to_owned(),
        (true, Some((3, 3)), _) | (false, Some((1, 4)), _) => "port unreachable".to_owned(),
        (_, _, TCP) if packet.payload.get(13).is_some_and(|flags| flags & 4 != 0) => {
            "tcp rst".to_owned()
        }
        (_, _, TCP) => "tcp".to_owned(),
        (_, _, ICMP | ICMPV6) => "icmp".to_owned(),
        (_, _, 17) => "udp".to_owned(),
        (_, _, other) => format!("protocol {other}"),
    };
    let tunnel = match &delivery.outer {
        Some(outer) => format!(" in a tunnel to {}", outer.destination),
        None => format!(" to {}", packet.destination),
    };
    let pieces = match delivery.frames {
        1 => String::new(),
        frames => format!(", {frames} frames"),
    };
    format!("{what}{tunnel}{pieces}")
}

/// Bytes of a value that are shown.
const SHOWN_MAX: usize = 120;

fn short<T: std::fmt::Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use dataplane_core::testing::{ACK, Packet as Built, RST};

    use super::*;
    use crate::cases::cases;
    use crate::world::{CLIENT4, ROUTER4, UPLINK4, VIP4, WAYS, mac};

    const SERVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 0, 11);

    fn step(frame: Vec<u8>, expected: Expected) -> Step {
        Step {
            name: "step",
            from: Side::Client,
            frames: vec![frame],
            expected,
        }
    }

    fn built() -> Built {
        Built::tcp((CLIENT4, 4000), (VIP4, 81), ACK, b"data")
    }

    fn sent(packet: &Built) -> Step {
        let frame = packet.frame(mac(UPLINK4.into()), mac(ROUTER4.into()));
        step(frame, Expected::Same)
    }

    fn to_server(packet: &Built) -> Vec<Vec<u8>> {
        vec![packet.frame(mac(ROUTER4.into()), mac(SERVER.into()))]
    }

    fn to_client(packet: &Built) -> Vec<Vec<u8>> {
        vec![packet.frame(mac(ROUTER4.into()), mac(UPLINK4.into()))]
    }

    fn counted(packet: &Built) -> Built {
        packet.clone().with(|p| p.ttl -= 1)
    }

    /// As IPVS and as we send it.
    fn tunnelled(change: impl Fn(&mut Built)) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let inner = counted(&built());
        let theirs = inner
            .in_tunnel(ROUTER4, SERVER, 77)
            .with(|p| p.ttl = inner.ttl);
        let own = built().in_tunnel(ROUTER4, SERVER, 5).with(change);
        (to_server(&theirs), to_server(&own))
    }

    #[test]
    fn the_known_differences_of_a_tunnel_are_allowed() {
        let (theirs, own) = tunnelled(|_| {});
        let verdict = compare(&sent(&built()), &theirs, &own);
        assert_eq!(verdict.agreement, Agreement::Allowed, "{verdict:#?}");
        let fields: Vec<_> = verdict.findings.iter().map(|f| f.field).collect();
        assert_eq!(fields, ["outer ttl", "ttl"]);
    }

    #[test]
    fn a_mark_of_congestion_may_be_told_in_two_ways_outside() {
        let marked = |tos: u8| built().with(|p| p.tos = tos);
        let (inner, sent) = (counted(&marked(0xbb)), sent(&marked(0xbb)));
        let theirs = |tos: u8| {
            let outer = inner.in_tunnel(ROUTER4, SERVER, 77);
            to_server(&outer.with(|p| (p.tos, p.ttl) = (tos, inner.ttl)))
        };
        let own = to_server(&marked(0xbb).in_tunnel(ROUTER4, SERVER, 5));
        assert_eq!(
            compare(&sent, &theirs(0xbb), &own).agreement,
            Agreement::Allowed
        );
        assert_eq!(
            compare(&sent, &theirs(0xba), &own).agreement,
            Agreement::Allowed
        );
        for wrong in [0xb8, 0xb9, 0x02] {
            assert_eq!(
                compare(&sent, &theirs(wrong), &own).agreement,
                Agreement::Different
            );
        }
    }

    #[test]
    fn each_field_that_must_agree_is_looked_at() {
        type Change = fn(&mut Built);
        let changes: [(&str, Change); 6] = [
            ("outer source", |p| p.source = UPLINK4),
            ("outer destination", |p| p.destination = VIP4),
            ("outer tos", |p| p.tos = 8),
            ("outer df", |p| p.fragment = 0),
            ("outer ttl", |p| p.ttl = 63),
            ("payload", |p| *p.payload.last_mut().unwrap() ^= 1),
        ];
        for (field, change) in changes {
            let (theirs, own) = tunnelled(change);
            let verdict = compare(&sent(&built()), &theirs, &own);
            let found = verdict.findings.iter().find(|f| f.field == field).unwrap();
            assert_eq!(found.agreement, Agreement::Different, "{field}");
            assert_eq!(verdict.agreement, Agreement::Different);
        }
    }

    #[test]
    fn one_side_that_says_nothing_is_different() {
        let (theirs, own) = tunnelled(|_| {});
        let step = sent(&built());
        for (theirs, own) in [(&theirs, &vec![]), (&vec![], &own)] {
            assert_eq!(compare(&step, theirs, own).agreement, Agreement::Different);
        }
        assert_eq!(compare(&step, &[], &[]).agreement, Agreement::Same);
    }

    #[test]
    fn the_mtu_and_the_quote_of_an_error_must_agree() {
        let error = |mtu: u8, quote: &[u8]| {
            let message = Built::icmp(VIP4, CLIENT4, 3, 4, [0, 0, 5, mtu], quote);
            to_client(&message.with(|p| (p.fragment, p.tos, p.ttl) = (0, 0xc0, 64)))
        };
        let step = sent(&built());
        let (as_sent, later) = (built().bytes(), counted(&built()).bytes());
        let theirs = error(200, &later);
        let allowed = compare(&step, &theirs, &error(200, &as_sent));
        assert_eq!(allowed.agreement, Agreement::Allowed, "{allowed:#?}");
        assert_eq!(allowed.findings[0].field, "quote");
        assert_eq!(compare(&step, &theirs, &theirs).agreement, Agreement::Same);
        let mut other = as_sent.clone();
        other[25] ^= 1;
        for (wrong, field) in [
            (error(201, &as_sent), "next-hop mtu"),
            (error(200, &as_sent[..28]), "length of the quote"),
            (error(200, &other), "quote"),
        ] {
            let verdict = compare(&step, &theirs, &wrong);
            assert_eq!(verdict.agreement, Agreement::Different);
            let found = verdict.findings.iter().find(|f| f.field == field);
            assert!(found.is_some(), "{field}: {verdict:#?}");
        }
    }

    #[test]
    fn an_outcome_may_be_unlike_only_as_it_is_written() {
        let why = "a reason";
        let (ipvs, ours) = (Shape::Reset, Shape::Nothing);
        let expected = Expected::Unlike { ipvs, ours, why };
        let step = Step {
            expected,
            ..sent(&built())
        };
        let reset = to_client(&Built::tcp((VIP4, 81), (CLIENT4, 4000), RST, b""));
        let verdict = compare(&step, &reset, &[]);
        assert_eq!(
            (verdict.agreement, verdict.findings[0].why),
            (Agreement::Allowed, why)
        );
        assert_eq!(compare(&step, &[], &reset).agreement, Agreement::Different);
        assert_eq!(compare(&step, &[], &[]).agreement, Agreement::Same);
    }

    #[test]
    fn a_sum_that_we_spoil_is_seen_though_ipvs_spoils_it_too() {
        let mut spoilt = counted(&built());
        spoilt.payload[16] ^= 1;
        let frames = to_server(&spoilt);
        let verdict = compare(&sent(&built()), &frames, &frames);
        assert_eq!(
            verdict.findings.iter().map(|f| f.field).collect::<Vec<_>>(),
            ["checksum"]
        );
    }

    #[test]
    fn no_frames_make_it_panic() {
        let steps: Vec<Step> = cases(&WAYS.iter().collect::<Vec<_>>())
            .into_iter()
            .flat_map(|case| case.steps)
            .collect();
        bolero::check!()
            .with_type::<(u16, Vec<u8>)>()
            .for_each(|(which, bytes)| {
                let step = &steps[usize::from(*which) % steps.len()];
                let frame = [&step.frames[0][..14], bytes].concat();
                let _ = compare(step, &step.frames, std::slice::from_ref(&frame));
                let _ = compare(step, &[frame], &step.frames);
            });
    }
}
