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
    pub(crate) fn start() -> Self {
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
                let packet = &buffer[..length];
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
