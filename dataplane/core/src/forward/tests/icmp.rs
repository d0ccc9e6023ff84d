//! ICMP to a VIP.

use super::*;
use crate::Malformed;

/// An error of a router in the net, about what the VIP sent to the client.
fn error(kind: u8, quoted: &Packet, keep: usize) -> Packet {
    let mut quote = quoted.bytes();
    quote.truncate(keep);
    Packet::icmp(
        Ipv4Addr::new(198, 51, 100, 9),
        VIP,
        kind,
        4,
        [0, 0, 5, 0],
        &quote,
    )
}

fn reply(from: u16, to: u16) -> Packet {
    Packet::tcp((VIP, from), (CLIENT, to), ACK, b"some data of the server")
}

#[test]
fn an_echo_request_is_answered_with_its_own_bytes() {
    let mut rig = Rig::active();
    let ask =
        Packet::icmp(CLIENT, VIP, 8, 0, [1, 2, 3, 4], b"an odd number").with(|p| p.tos = 0x28);
    let mut frame = ask.frame(ROUTER, ATM);
    frame.resize(60, 0xee);
    assert_eq!(rig.raw(&frame), Verdict::Answered);
    let sent = rig.sent();
    let id = u16::from_be_bytes([sent[0][18], sent[0][19]]);
    let answer = Packet::icmp(VIP, CLIENT, 0, 0, [1, 2, 3, 4], b"an odd number")
        .with(|p| (p.tos, p.id, p.fragment, p.ttl) = (0x28, id, 0, 64));
    assert_eq!(sent, [answer.frame(ATM, ROUTER)]);
}

#[test]
fn damage_is_not_hidden_by_the_answer() {
    let mut rig = Rig::active();
    rig.out.damaged = true;
    let ask = Packet::icmp(CLIENT, VIP, 8, 0, [0; 4], b"data").with(|p| p.payload[9] ^= 0x10);
    assert_eq!(rig.packet(&ask), Verdict::Answered);
    assert_ne!(crate::testing::sum(&rig.sent()[0][34..]), 0xffff);
}

#[test]
fn errors_follow_the_connection_they_quote() {
    for keep in [28, 43] {
        for kind in [3, 11, 12] {
            let mut rig = Rig::active();
            rig.established(40000);
            let packet = error(kind, &reply(QUORUM, 40000), keep);
            assert_eq!(
                rig.packet(&packet),
                Verdict::Transmit,
                "type {kind}, {keep} bytes"
            );
            let sent = rig.sent();
            assert_eq!(sent, [tunnelled(&packet, &sent[0])]);
        }
    }
}

#[test]
fn icmp_as_a_table() {
    let udp = Packet::new(VIP, CLIENT, 17, vec![0; 8]);
    let elsewhere = reply(QUORUM, 40000).with(|p| p.source = SERVERS[0]);
    let later = reply(QUORUM, 40000).with(|p| p.fragment = 5);
    let malformed = |reason| drop(DropReason::Malformed(reason));
    let cases = [
        (
            "redirect",
            error(5, &reply(QUORUM, 40000), 28),
            drop(DropReason::UnsupportedIcmp),
        ),
        (
            "echo reply",
            Packet::icmp(CLIENT, VIP, 0, 0, [0; 4], b""),
            drop(DropReason::UnsupportedIcmp),
        ),
        (
            "echo request with a code",
            Packet::icmp(CLIENT, VIP, 8, 1, [0; 4], b""),
            drop(DropReason::UnsupportedIcmp),
        ),
        (
            "about UDP that nobody serves",
            error(3, &udp, 28),
            drop(DropReason::NoService),
        ),
        (
            "about SCTP",
            error(3, &udp.clone().with(|p| p.protocol = 132), 28),
            drop(DropReason::UnsupportedIcmp),
        ),
        (
            "about another's packet",
            error(3, &elsewhere, 28),
            drop(DropReason::UnsupportedIcmp),
        ),
        (
            "about a later fragment",
            error(3, &later, 28),
            drop(DropReason::UnsupportedIcmp),
        ),
        (
            "about no connection",
            error(3, &reply(QUORUM, 40001), 28),
            drop(DropReason::NoConnection),
        ),
        (
            "about no service",
            error(3, &reply(9, 40000), 28),
            drop(DropReason::NoService),
        ),
        (
            "quote without ports",
            error(3, &reply(QUORUM, 40000), 27),
            malformed(Malformed::Truncated),
        ),
        (
            "quote of another version",
            error(3, &reply(QUORUM, 40000), 28).with(|p| p.payload[8] = 0x65),
            malformed(Malformed::Version),
        ),
        (
            "quote with a short header",
            error(3, &reply(QUORUM, 40000), 28).with(|p| p.payload[8] = 0x44),
            malformed(Malformed::HeaderLength),
        ),
        (
            "too short",
            Packet::new(CLIENT, VIP, 1, vec![8, 0, 0, 0, 0, 0, 0]),
            malformed(Malformed::Truncated),
        ),
    ];
    for (name, packet, verdict) in cases {
        let mut rig = Rig::active();
        rig.established(40000);
        assert_eq!(rig.packet(&packet), verdict, "{name}");
        assert!(rig.sent().is_empty(), "{name}");
    }
}

#[test]
fn fragmentation_needed_quotes_what_fits_and_names_the_mtu() {
    for (service, mtu) in [(QUORUM, 1480_u16), (DIRECT, 1500)] {
        let mut rig = Rig::active();
        rig.established(1);
        assert_eq!(rig.packet(&tcp(1, DIRECT, SYN, b"")), Verdict::Transmit);
        rig.out.frames.clear();
        let fits = tcp(1, service, ACK, &vec![7; usize::from(mtu) - 40]);
        assert_eq!(rig.packet(&fits), Verdict::Transmit);
        rig.out.frames.clear();
        let big = tcp(1, service, ACK, &vec![7; usize::from(mtu) - 39]);
        assert_eq!(rig.packet(&big), Verdict::FragmentationNeeded);
        let sent = rig.sent();
        let id = u16::from_be_bytes([sent[0][18], sent[0][19]]);
        let [high, low] = mtu.to_be_bytes();
        let answer = Packet::icmp(VIP, CLIENT, 3, 4, [0, 0, high, low], &big.bytes()[..548])
            .with(|p| (p.tos, p.id, p.fragment, p.ttl) = (0xc0, id, 0, 64));
        assert_eq!(sent, [answer.frame(ATM, ROUTER)]);
    }
}

#[test]
fn a_first_packet_that_is_too_big_opens_nothing() {
    let mut rig = Rig::active();
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, SYN, &[7; 1450])),
        Verdict::FragmentationNeeded
    );
    assert_eq!((rig.out.opened.len(), rig.forwarder.connections()), (0, 0));
}

#[test]
fn fragmentation_needed_has_a_rate() {
    let mut rig = Rig::active();
    rig.established(1);
    let big = tcp(1, QUORUM, ACK, &[7; 1441]);
    for _ in 0..100 {
        assert_eq!(rig.packet(&big), Verdict::FragmentationNeeded);
    }
    assert_eq!(rig.packet(&big), drop(DropReason::IcmpLimited));
    rig.now = rig.now + Duration::from_millis(10);
    assert_eq!(rig.packet(&big), Verdict::FragmentationNeeded);
    assert_eq!(rig.packet(&big), drop(DropReason::IcmpLimited));
}

#[test]
fn no_error_is_sent_about_an_error() {
    let mut rig = Rig::active();
    rig.established(40000);
    let big = Packet::icmp(
        CLIENT,
        VIP,
        3,
        1,
        [0; 4],
        &[&reply(QUORUM, 40000).bytes()[..], &[0; 1460]].concat(),
    );
    assert_eq!(rig.packet(&big), drop(DropReason::PathTooNarrow));
    assert!(rig.sent().is_empty());
}
