//! The server's end of the tunnel: a raw socket for protocol 4, and every checksum looked at.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use super::lab::{ATM, Lab, SERVER};

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) packets: AtomicU64,
    pub(crate) wrong: AtomicU64,
    pub(crate) longest: AtomicU64,
}

/// Starts to hand inner packets to the server's own kernel. Sent to a local address with the header included, a packet
/// goes over lo with its route already chosen, so neither a TUN device nor a filter on sources is in the way.
pub(crate) fn start(lab: &Lab) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let counted = Arc::clone(&seen);
    let (ready, started) = std::sync::mpsc::channel();
    lab.spawn("server", move || {
        let flags = SocketFlags::CLOEXEC;
        let tunnel = socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            flags,
            Some(ipproto::IPIP),
        )
        .unwrap();
        let inject = socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            flags,
            Some(ipproto::RAW),
        )
        .unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&tunnel, 32 << 20).unwrap();
        let timeout = Some(std::time::Duration::from_secs(10));
        rustix::net::sockopt::set_socket_timeout(
            &tunnel,
            rustix::net::sockopt::Timeout::Recv,
            timeout,
        )
        .unwrap();
        ready.send(()).unwrap();
        let mut buffer = vec![0; 70_000];
        while let Ok((length, _)) = recv(&tunnel, &mut buffer[..], RecvFlags::empty()) {
            let packet = &buffer[..length];
            counted.packets.fetch_add(1, Ordering::Relaxed);
            counted.longest.fetch_max(length as u64, Ordering::Relaxed);
            if !outer_is_right(packet) || !inner_is_right(&packet[20..]) {
                counted.wrong.fetch_add(1, Ordering::Relaxed);
            }
            let inner = &packet[20..];
            let to = Ipv4Addr::from(<[u8; 4]>::try_from(&inner[16..20]).unwrap());
            sendto(
                &inject,
                inner,
                SendFlags::empty(),
                &SocketAddrV4::new(to, 0),
            )
            .unwrap();
        }
    });
    started.recv().unwrap();
    seen
}

fn outer_is_right(packet: &[u8]) -> bool {
    packet[0] == 0x45
        && sum(&packet[..20], 0) == 0xffff
        && packet[12..16] == ATM.octets()
        && packet[16..20] == SERVER.octets()
}

/// RFC 1071 §4.1: over data and its checksum the sum is all ones.
fn inner_is_right(inner: &[u8]) -> bool {
    let total = usize::from(u16::from_be_bytes([inner[2], inner[3]]));
    let segment = &inner[20..];
    let pseudo = sum(&inner[12..20], 6 + u32::try_from(segment.len()).unwrap());
    inner[0] == 0x45
        && total == inner.len()
        && sum(&inner[..20], 0) == 0xffff
        && sum(segment, pseudo) == 0xffff
}

fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
