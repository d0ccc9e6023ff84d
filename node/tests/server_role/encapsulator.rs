//! The smallest ATM: sees what the client sends to a VIP and sends it on inside IP-in-IP packets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use super::lab::{SERVER, VIP, VIP2};

/// What was seen on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Packets sent through the tunnel.
    pub(crate) tunnelled: u64,
    /// The longest of them, in bytes, outer header included.
    pub(crate) longest: usize,
    /// The MSS option of each SYN-ACK that came directly from a VIP.
    pub(crate) mss: Vec<u16>,
}

/// What becomes of the checksums that the client's stack leaves to a network card it does not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Checksums {
    /// Computed here, as an ATM does.
    Finished,
    /// Left as they are, as they are where sender and server share a machine.
    Unfinished,
}

/// Runs until it is dropped, in the namespace of the thread that started it.
pub(crate) struct Encapsulator {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A raw socket whose kernel writes the outer header, as every tunnel's sender does.
pub(crate) fn tunnel_socket() -> OwnedFd {
    socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::IPIP),
    )
    .unwrap()
}

/// Sends one inner packet to the server.
pub(crate) fn send_inside(socket: &OwnedFd, packet: &[u8]) {
    sendto(
        socket,
        packet,
        SendFlags::empty(),
        &SocketAddrV4::new(SERVER, 0),
    )
    .unwrap();
}

impl Encapsulator {
    pub(crate) fn start(checksums: Checksums) -> Self {
        // ETH_P_ALL: outgoing packets are shown to no other protocol.
        let all =
            Protocol::from_raw(std::num::NonZero::new(u32::from(0x0003_u16.to_be())).unwrap());
        let tap = socket_with(
            AddressFamily::PACKET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(all),
        )
        .unwrap();
        let tick = Some(Duration::from_millis(20));
        rustix::net::sockopt::set_socket_timeout(&tap, rustix::net::sockopt::Timeout::Recv, tick)
            .unwrap();
        let out = tunnel_socket();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (record, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ended.load(Ordering::Relaxed) {
                let Ok((_, length)) = recv(&tap, &mut buffer[..], RecvFlags::empty()) else {
                    continue;
                };
                let packet = &mut buffer[..length];
                let Some(header) = packet.first_chunk::<20>() else {
                    continue;
                };
                if header[0] != 0x45 || header[9] != 6 {
                    continue;
                }
                let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
                let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
                let mut record = record.lock().unwrap();
                if [VIP, VIP2].contains(&destination) {
                    record.tunnelled += 1;
                    record.longest = record.longest.max(length + 20);
                    if checksums == Checksums::Finished {
                        finish(packet);
                    }
                    send_inside(&out, packet);
                } else if [VIP, VIP2].contains(&source) {
                    record.mss.extend(syn_ack_mss(&packet[20..]));
                }
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Encapsulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Computes the checksum of a TCP segment behind an IPv4 header without options (RFC 9293 §3.1).
fn finish(packet: &mut [u8]) {
    let length = u32::try_from(packet.len() - 20).unwrap();
    packet[36..38].fill(0);
    // The addresses stand before the segment; protocol and length complete the pseudo header.
    let mut sum = 6 + length;
    for word in packet[12..].chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[36..38].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
}

/// The MSS option (kind 2, RFC 9293 §3.2) of a SYN-ACK.
fn syn_ack_mss(segment: &[u8]) -> Option<u16> {
    const SYN_ACK: u8 = 0x12;
    let header_len = usize::from(segment.get(12)? >> 4) * 4;
    if segment.get(13)? & SYN_ACK != SYN_ACK {
        return None;
    }
    let mut options = segment.get(20..header_len)?;
    loop {
        match options {
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [1, rest @ ..] => options = rest,
            [_, length, ..] => options = options.get(usize::from(*length).max(1)..)?,
            _ => return None,
        }
    }
}
