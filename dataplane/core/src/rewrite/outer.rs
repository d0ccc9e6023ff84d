//! Cuts a packet of a tunnel that is too big for its path, and whose client must not be told so, into fragments (RFC 791 §3.2, RFC
//! 8200 §4.5). The server's kernel puts them together before the tunnel is unpacked.

use super::{HEAD_MAX, Head, Tunnel};
use crate::Sink;
use crate::gate::Voice;
use crate::wire::{ethernet, ipv4, ipv6};

/// The longest head of a fragment: that of the whole, and a fragment header.
const FRAGMENT_HEAD_MAX: usize = HEAD_MAX + ipv6::FRAGMENT_LEN;
/// Fragment offsets count units of 8 bytes.
const UNIT: usize = 8;

/// Sends `whole` over Ethernet, its head and its body, in packets of `mtu` bytes at most. What is in front of the tunnel's load is in
/// the head. An `mtu` in which nothing fits is none that a path has: IPv6 has 1280 bytes at least, IPv4 68 (RFC 791 §3.2).
pub(super) fn send<S: Sink>(
    (head, body): (&[u8], &[u8]),
    tunnel: Tunnel,
    mtu: u16,
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) {
    let overhead = usize::from(tunnel.overhead());
    let own = match tunnel {
        Tunnel::V4 { .. } => overhead,
        Tunnel::V6 { .. } => overhead + ipv6::FRAGMENT_LEN,
    };
    let room = usize::from(mtu).saturating_sub(own) / UNIT * UNIT;
    let Some((headers, load)) = head.split_at_checked(ethernet::HEADER_LEN + overhead) else {
        return;
    };
    if room < load.len() {
        return;
    }
    *identification = identification.wrapping_add(1);
    let len = load.len() + body.len();
    for offset in (0..len).step_by(room) {
        let end = len.min(offset + room);
        let mut head = Head::<FRAGMENT_HEAD_MAX>::EMPTY;
        let outer = &mut head.push(headers)[ethernet::HEADER_LEN..];
        let (place, more) = (word(offset), end < len);
        match tunnel {
            Tunnel::V4 { .. } => {
                let more = if more { ipv4::MORE_FRAGMENTS } else { 0 };
                let total_len = word(overhead + end - offset);
                outer[2..4].copy_from_slice(&total_len.to_be_bytes());
                outer[6..8].copy_from_slice(&(more | place >> 3).to_be_bytes());
                ipv4::seal(outer);
            }
            Tunnel::V6 { .. } => {
                let payload_len = word(ipv6::FRAGMENT_LEN + end - offset);
                outer[4..6].copy_from_slice(&payload_len.to_be_bytes());
                let next_header = std::mem::replace(&mut outer[6], ipv6::FRAGMENT);
                let fragment = ipv6::fragment_header(next_header, place, more, *identification);
                head.push(&fragment);
            }
        }
        // The first has all of the load that is in the head.
        let (first, from) = match offset.checked_sub(load.len()) {
            None => (load, 0),
            Some(from) => (&[][..], from),
        };
        head.push(first);
        voice.transmit(head.bytes(), &body[from..end - load.len()]);
    }
}

/// What is cut is an IP packet, and no part of it is longer.
fn word(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
