//! The smallest ATM: sees what the client sends to a VIP and sends it on inside the packets of a tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use super::lab::VIPS;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What was seen on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Packets sent through the tunnel.
    pub(crate) tunnelled: u64,
    /// Of them those that left with an unfinished checksum. What a kernel answers without a socket it finishes itself.
    pub(crate) unfinished: u64,
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

/// The way to one server: raw sockets whose kernel writes the outer header, as every tunnel's sender does.
pub(crate) struct Way {
    server: IpAddr,
    /// For IPv4 inside (protocol 4) and for IPv6 inside (protocol 41).
    pub(crate) sockets: [OwnedFd; 2],
}

impl Way {
    /// The IP version of `server` is the outer one.
    pub(crate) fn to(server: IpAddr) -> Self {
        let family = if server.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let sockets = [ipproto::IPIP, ipproto::IPV6].map(|protocol| {
            socket_with(
                family,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(protocol),
            )
            .unwrap()
        });
        Self { server, sockets }
    }

    /// Sends a packet of the version that its first byte tells.
    pub(crate) fn send(&self, packet: &[u8]) {
        let index = if packet[0] >> 4 == 6 { 1 } else { 0 };
        self.send_as(index, packet);
    }

    /// Sends anything through one of the sockets.
    pub(crate) fn send_as(&self, index: usize, packet: &[u8]) {
        let to = SocketAddr::new(self.server, 0);
        sendto(&self.sockets[index], packet, SendFlags::empty(), &to).unwrap();
    }

    fn overhead(&self) -> usize {
        if self.server.is_ipv4() { 20 } else { 40 }
    }
}

/// The parts of a packet without options and extension headers.
struct Parts {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    header_len: usize,
    /// Where the addresses begin, which stand right before the transport header.
    addresses: usize,
}

impl Parts {
    fn of(packet: &[u8]) -> Option<Self> {
        let v4 = |at: usize| IpAddr::V4(Ipv4Addr::from(*packet[at..].first_chunk::<4>().unwrap()));
        let v6 = |at: usize| IpAddr::V6(Ipv6Addr::from(*packet[at..].first_chunk::<16>().unwrap()));
        match packet.first()? {
            0x45 if packet.len() >= 20 => Some(Self {
                source: v4(12),
                destination: v4(16),
                protocol: packet[9],
                header_len: 20,
                addresses: 12,
            }),
            0x60..=0x6f if packet.len() >= 40 => Some(Self {
                source: v6(8),
                destination: v6(24),
                protocol: packet[6],
                header_len: 40,
                addresses: 8,
            }),
            _ => None,
        }
    }
}

impl Encapsulator {
    pub(crate) fn start(checksums: Checksums, server: IpAddr) -> Self {
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
        set_socket_timeout(&tap, Timeout::Recv, Some(Duration::from_millis(20))).unwrap();
        let way = Way::to(server);
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
                let Some(parts) = Parts::of(packet) else {
                    continue;
                };
                if ![TCP, UDP].contains(&parts.protocol) {
                    continue;
                }
                let mut record = record.lock().unwrap();
                if VIPS.contains(&parts.destination) {
                    record.tunnelled += 1;
                    record.longest = record.longest.max(length + way.overhead());
                    if checksums == Checksums::Finished {
                        finish(packet, &parts);
                    }
                    let mut finished = packet.to_vec();
                    finish(&mut finished, &parts);
                    record.unfinished += u64::from(finished != *packet);
                    way.send(packet);
                } else if VIPS.contains(&parts.source) && parts.protocol == TCP {
                    record.mss.extend(syn_ack_mss(&packet[parts.header_len..]));
                }
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// Sends nothing more, and returns all that it saw.
    pub(crate) fn end(mut self) -> Seen {
        self.join();
        self.seen.lock().unwrap().clone()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Encapsulator {
    fn drop(&mut self) {
        self.join();
    }
}

/// Computes the checksum of a TCP segment (RFC 9293 §3.1) or UDP datagram (RFC 768) behind its IP header.
fn finish(packet: &mut [u8], parts: &Parts) {
    let length = u32::try_from(packet.len() - parts.header_len).unwrap();
    let field = parts.header_len + if parts.protocol == TCP { 16 } else { 6 };
    packet[field..field + 2].fill(0);
    // The addresses stand before the segment; protocol and length complete the pseudo header.
    let mut sum = u32::from(parts.protocol) + length;
    for word in packet[parts.addresses..].chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let mut checksum = !u16::try_from(sum).unwrap();
    if parts.protocol == UDP && checksum == 0 {
        // 0 says that there is none.
        checksum = 0xffff;
    }
    packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
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
