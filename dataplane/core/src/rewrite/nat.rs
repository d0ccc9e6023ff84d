//! Other addresses and ports in a packet that passes: network address translation (RFC 3022), with incremental checksums.
//!
//! Every length stays as it is.

use std::net::IpAddr;

use crate::frame::Checksum;
use crate::wire::checksum::Sum;
use crate::wire::icmp::Quote;
use crate::wire::ip::Ip;
use crate::wire::{icmp, ipv4, tcp, udp};

/// What is written over the ends of a packet; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) source: Option<(IpAddr, u16)>,
    pub(crate) destination: Option<(IpAddr, u16)>,
}

impl Translation {
    /// The same for the quote of an error about such a packet, which went the other way.
    pub(crate) const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    /// Only who it is for.
    pub(crate) const fn without_source(self) -> Self {
        Self {
            source: None,
            destination: self.destination,
        }
    }
}

/// Translates a packet. `ports`: its transport header is there, that is, it is no later fragment. `checksum`: what the sender's
/// stack left of the transport checksum to be done.
pub(crate) fn translate(
    packet: &mut Ip<&mut [u8]>,
    to: Translation,
    ports: bool,
    checksum: Checksum,
) {
    let change = set_addresses(packet, to);
    if ports {
        let protocol = packet.protocol();
        set_ports(packet.payload_mut(), protocol, to, change, checksum);
    }
}

/// Translates an ICMP error: its own addresses as `outer` says, the packet it quotes as `inner` says. Its checksum is changed, not
/// made anew.
pub(crate) fn translate_error(
    packet: &mut Ip<&mut [u8]>,
    quote: &Quote,
    outer: Translation,
    inner: Translation,
) {
    let pseudo = set_addresses(packet, outer);
    let is_v6 = matches!(packet, Ip::V6(_));
    let message = packet.payload_mut();
    let Some(quoted) = message.get_mut(icmp::HEADER_LEN..) else {
        return;
    };
    let transport_at = quote.transport_at - icmp::HEADER_LEN;
    let before = Sum::default().bytes(even(quoted));
    let Some((header, transport)) = quoted.split_at_mut_checked(transport_at) else {
        return;
    };
    let change = if is_v6 {
        addresses(header, 8, 16, inner)
    } else {
        let change = addresses(header, 12, 4, inner);
        adjust(header, 10, change, false, false);
        change
    };
    set_ports(transport, quote.protocol, inner, change, Checksum::Complete);
    let after = Sum::default().bytes(even(quoted));
    let mut delta = Sum::default().word(!before.folded()).word(after.folded());
    if is_v6 {
        // Its pseudo-header is under an ICMPv6 checksum (RFC 4443 §2.3), and not under an ICMP one.
        delta = delta.word(pseudo.folded());
    }
    adjust(message, 2, delta, false, false);
}

/// One router fewer to pass (RFC 1812 §5.3.1, RFC 8200 §3). `false`: there was none left.
pub(crate) fn decrement_ttl(packet: &mut Ip<&mut [u8]>) -> bool {
    if packet.ttl() <= 1 {
        return false;
    }
    match packet {
        Ip::V4(v4) => {
            let bytes = v4.bytes_mut();
            let old = u16::from_be_bytes([bytes[8], bytes[9]]);
            bytes[8] -= 1;
            let new = u16::from_be_bytes([bytes[8], bytes[9]]);
            adjust(bytes, 10, Sum::default().word(!old).word(new), false, false);
        }
        Ip::V6(v6) => v6.bytes_mut()[7] -= 1,
    }
    true
}

/// Lowers the maximum segment size that a SYN tells (RFC 9293 §3.7.1) to `max`, where both directions pass here and so both
/// ends are told. A segment that says nothing, or less, stays.
pub(crate) fn clamp_mss(packet: &mut Ip<&mut [u8]>, max: u16, checksum: Checksum) {
    const KIND: u8 = 2;
    const LEN: usize = 4;
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    let flags = packet.payload().get(tcp::FLAGS_AT);
    if packet.protocol() != ipv4::TCP || flags.is_none_or(|flags| flags & tcp::SYN == 0) {
        return;
    }
    let segment = packet.payload_mut();
    let Ok(parsed) = tcp::Tcp::parse(segment) else {
        return;
    };
    let mut at = tcp::MIN_HEADER_LEN;
    while at < parsed.header_len {
        let len = match segment[at] {
            END => return,
            NO_OPERATION => 1,
            _ => match segment.get(at + 1) {
                Some(&len) if len >= 2 => usize::from(len),
                _ => return,
            },
        };
        if at + len > parsed.header_len {
            return;
        }
        if segment[at] == KIND && len == LEN {
            let value = u16::from_be_bytes([segment[at + 2], segment[at + 3]]);
            if value > max {
                let words = at & !1..(at + LEN).next_multiple_of(2);
                let before = Sum::default().bytes(&segment[words.clone()]);
                segment[at + 2..at + LEN].copy_from_slice(&max.to_be_bytes());
                let after = Sum::default().bytes(&segment[words]);
                if checksum == Checksum::Complete {
                    let delta = Sum::default().word(!before.folded()).word(after.folded());
                    adjust(segment, tcp::CHECKSUM_AT, delta, false, false);
                }
            }
            return;
        }
        at += len;
    }
}

/// Writes the addresses, and returns what that changes in every sum they are under.
fn set_addresses(packet: &mut Ip<&mut [u8]>, to: Translation) -> Sum {
    match packet {
        Ip::V4(v4) => {
            let bytes = v4.bytes_mut();
            let change = addresses(bytes, 12, 4, to);
            adjust(bytes, 10, change, false, false);
            change
        }
        Ip::V6(v6) => addresses(v6.bytes_mut(), 8, 16, to),
    }
}

/// Source at `at`, destination after it, `len` bytes each. An address of the other version changes nothing: no configuration
/// pairs them.
fn addresses(bytes: &mut [u8], at: usize, len: usize, to: Translation) -> Sum {
    let mut change = Sum::default();
    for (at, end) in [(at, to.source), (at + len, to.destination)] {
        match end.map(|(address, _)| address) {
            Some(IpAddr::V4(v4)) if len == 4 => change = write(bytes, at, v4.octets(), change),
            Some(IpAddr::V6(v6)) if len == 16 => change = write(bytes, at, v6.octets(), change),
            Some(_) | None => {}
        }
    }
    change
}

/// Writes the ports, and what the addresses changed, into a transport header of which at least the first eight bytes are there.
fn set_ports(
    transport: &mut [u8],
    protocol: u8,
    to: Translation,
    addresses: Sum,
    checksum: Checksum,
) {
    let at = match protocol {
        ipv4::TCP => tcp::CHECKSUM_AT,
        ipv4::UDP => udp::CHECKSUM_AT,
        _ => return,
    };
    let mut change = addresses;
    for (at, end) in [(0, to.source), (2, to.destination)] {
        if let Some((_, port)) = end {
            change = write(transport, at, port.to_be_bytes(), change);
        }
    }
    let is_udp = protocol == ipv4::UDP;
    match checksum {
        // No checksum was made, so none is changed (RFC 768).
        Checksum::Complete if is_udp && transport.get(at..at + 2) == Some(&[0, 0]) => {}
        Checksum::Complete => adjust(transport, at, change, false, is_udp),
        // The field holds the sum of the pseudo-header alone.
        Checksum::Partial { .. } => adjust(transport, at, addresses, true, false),
    }
}

/// Writes `new` at `at`, and adds what that changes: `~m + m'` (RFC 1624 §3). Places are even.
fn write<const LEN: usize>(bytes: &mut [u8], at: usize, new: [u8; LEN], change: Sum) -> Sum {
    let place = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    let Some(place) = place else {
        return change;
    };
    let old = std::mem::replace(place, new);
    change.without(&old).bytes(&new)
}

/// Puts a change into the checksum at `at`, if that is there: `HC' = ~(~HC + change)` (RFC 1624 §3, eqn. 3). `sum`: the field is
/// the sum itself, not its complement.
fn adjust(bytes: &mut [u8], at: usize, change: Sum, sum: bool, is_udp: bool) {
    let Some(field) = bytes.get_mut(at..at + 2) else {
        return;
    };
    let old = u16::from_be_bytes([field[0], field[1]]);
    let new = if sum {
        change.word(old).folded()
    } else {
        match change.word(!old).finish() {
            0 if is_udp => 0xffff,
            checksum => checksum,
        }
    };
    field.copy_from_slice(&new.to_be_bytes());
}

/// Without an odd last byte: nothing is changed there.
fn even(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() & !1]
}
