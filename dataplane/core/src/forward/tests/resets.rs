//! `on-down=reset`: clients of a server that is down are told to connect anew.

use super::ipv6::{CLIENT6, SIX_IN_SIX, VIP6};
use super::*;
use crate::testing::{FIN, Packet6, RST};

/// The table with server 0 down, out of rotation, and its connections to be reset.
fn down(mut table: ForwardingTable, service: usize, server: u16) -> ForwardingTable {
    table.applied_index += 1;
    let service = &mut table.services[service];
    service
        .share
        .retain(|(other, _)| *other != ServerId(server));
    service.reset = vec![ServerId(server)];
    table
}

/// Sequence number, acknowledgement and flags of a TCP segment without options.
fn said(segment: &[u8]) -> (u32, u32, u8) {
    let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
    (word(4), word(8), segment[13])
}

/// What the client's packets begin at.
const SEQUENCE: u32 = 0x0102_0304;

#[test]
fn a_segment_is_answered_with_the_reset_that_its_sender_expects() {
    for (what, flags, data, expected) in [
        ("data", ACK, &b"hello"[..], (0x0a0b_0c0d, 0, RST)),
        ("the end", ACK | FIN, b"", (0x0a0b_0c0d, 0, RST)),
        ("another SYN", SYN, b"", (0, SEQUENCE + 1, RST | ACK)),
        ("without ACK", FIN, b"abc", (0, SEQUENCE + 4, RST | ACK)),
    ] {
        let mut rig = Rig::active();
        rig.established(1);
        rig.forwarder.install(down(table(), 0, 0), rig.now);
        let packet = tcp(1, QUORUM, flags, data).with(|packet| {
            packet.payload[8..12].copy_from_slice(&0x0a0b_0c0d_u32.to_be_bytes());
            packet.set_tcp_checksum();
        });
        assert_eq!(rig.packet(&packet), Verdict::Reset, "{what}");
        let sent = rig.sent();
        let [frame] = sent.as_slice() else {
            panic!("{what}: {sent:?}")
        };
        assert_eq!(said(&frame[34..]), expected, "{what}");
        let mut answer = Packet::tcp((VIP, QUORUM), (CLIENT, 1), expected.2, b"").with(|packet| {
            packet.payload[4..8].copy_from_slice(&expected.0.to_be_bytes());
            packet.payload[8..12].copy_from_slice(&expected.1.to_be_bytes());
            packet.payload[14..16].fill(0);
            packet.set_tcp_checksum();
        });
        answer.ttl = 64;
        answer.id = u16::from_be_bytes([frame[18], frame[19]]);
        assert_eq!(*frame, answer.frame(ATM, ROUTER), "{what}");
    }
}

#[test]
fn in_ipv6_as_well() {
    let mut rig = Rig::active6();
    let syn = Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_SIX), SYN, b"");
    assert_eq!(rig.raw(&syn.frame(ROUTER, ATM)), Verdict::Transmit);
    rig.out.frames.clear();
    let six = 6;
    let table = down(ipv6::table6(), six, 10);
    rig.forwarder.install(table, rig.now);
    let ack = Packet6::tcp((CLIENT6, 1), (VIP6, SIX_IN_SIX), ACK, b"x");
    assert_eq!(rig.raw(&ack.frame(ROUTER, ATM)), Verdict::Reset);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    assert!(checker::is_right(&sent[0], Offload::default()));
    assert_eq!(said(&sent[0][54..]), (0, 0, RST));
    assert_eq!(sent[0][22..38], VIP6.octets());
}

#[test]
fn the_connection_ends_and_the_next_one_meets_another_server() {
    let mut rig = Rig::active();
    rig.established(1);
    let mut table = down(table(), 0, 0);
    table.services[0].share = vec![(ServerId(1), 1)];
    rig.forwarder.install(table, rig.now);
    assert_eq!(rig.packet(&tcp(1, QUORUM, ACK, b"x")), Verdict::Reset);
    rig.sleep(Duration::from_millis(1_100));
    assert_eq!(rig.out.closed, [key(1, 1)], "its record ends");
    rig.commit(&[ConnectionChange::Close(key(1, 1))]);
    assert_eq!(rig.packet(&tcp(1, QUORUM, SYN, b"")), Verdict::Held);
    assert_eq!(rig.out.opened, [(key(1, 1), ServerId(1).into())]);
}

#[test]
fn a_clients_own_reset_goes_to_the_server_and_others_are_left_alone() {
    let mut rig = Rig::active();
    rig.established(1);
    assert_eq!(rig.packet(&tcp(1, ASYNC, SYN, b"")), Verdict::Transmit);
    rig.forwarder.install(down(table(), 0, 0), rig.now);
    assert_eq!(rig.packet(&tcp(1, QUORUM, RST, b"")), Verdict::Transmit);
    assert_eq!(rig.packet(&tcp(1, ASYNC, ACK, b"x")), Verdict::Transmit);
    assert_eq!(
        rig.packet(&tcp(2, QUORUM, SYN, b"")),
        drop(DropReason::NoServer)
    );
}

#[test]
fn a_backup_resets_nothing() {
    let mut rig = Rig::backup();
    rig.commit(&[ConnectionChange::Open(key(1, 1), ServerId(0).into())]);
    rig.forwarder.install(down(table(), 0, 0), rig.now);
    assert_eq!(
        rig.packet(&tcp(1, QUORUM, ACK, b"x")),
        drop(DropReason::NotActive)
    );
}
