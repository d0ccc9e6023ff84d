//! An endless stream of packets of one connection, made by hand so that nothing slows down when nobody answers.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::Instant;
use model::connections::{ConnectionChange, ConnectionKey};
use model::ids::{ServerId, VirtualServiceId};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use crate::lab::{ATM_MAC, CLIENT, Lab, PORT, VIP};

const CLIENT_PORT: u16 = 5555;

/// The connection's committed record.
pub(crate) fn record() -> ConnectionChange {
    let key = ConnectionKey {
        client: CLIENT.into(),
        port: CLIENT_PORT,
        service: VirtualServiceId(1),
    };
    ConnectionChange::Open(key, ServerId(1).into())
}

/// Sends until dropped.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
}

impl Stream {
    /// Pauses between two packets; no pause is a flood.
    pub(crate) fn start(lab: &Lab, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        lab.spawn("client", move || {
            let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
            let socket = socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW)).unwrap();
            let packet = packet();
            while !stopped.load(Ordering::Relaxed) {
                // Without an answer to ARP the kernel reports EHOSTUNREACH now and then: that is the point.
                let to = SocketAddrV4::new(VIP, 0);
                let _unreachable = sendto(&socket, &packet, SendFlags::empty(), &to);
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
        });
        Self { stop }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A TCP segment of the connection (ACK, four bytes of data).
pub(crate) fn packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(CLIENT.octets());
    packet.extend(VIP.octets());
    packet.extend(CLIENT_PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    packet.extend(*b"data");
    // Of the pseudo-header and the segment, then of the header.
    let checksum = checksum_of(&packet[12..], 6 + 24);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    let checksum = checksum_of(&packet[..20], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// RFC 1071, of an even number of bytes.
fn checksum_of(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = start + words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// When the server received packets for the VIP from the ATM.
pub(crate) fn forwarded(frames: &[(Instant, Vec<u8>)]) -> Vec<Instant> {
    let ours = frames.iter().filter(|(_, frame)| {
        frame.len() >= 34
            && frame[6..12] == ATM_MAC
            && frame[12..14] == [8, 0]
            && frame[30..34] == VIP.octets()
    });
    ours.map(|(at, _)| *at).collect()
}

/// When the ATM said in an ARP packet that it has the VIP.
pub(crate) fn claims(frames: &[(Instant, Vec<u8>)]) -> Vec<Instant> {
    let ours = frames.iter().filter(|(_, frame)| {
        frame.len() >= 42
            && frame[12..14] == [8, 6]
            && frame[22..28] == ATM_MAC
            && frame[28..32] == VIP.octets()
    });
    ours.map(|(at, _)| *at).collect()
}
