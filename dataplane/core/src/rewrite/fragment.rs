//! Cuts a packet that is too big for the route, and may be cut, into fragments (RFC 791 §2.3, §3.2).

use std::ops::Deref;

use super::{HEAD_MAX, Head, Route};
use crate::Sink;
use crate::gate::Voice;
use crate::wire::ip::Ip;
use crate::wire::ipv4::{self, Ipv4};

/// Fragment offsets count units of 8 bytes.
const UNIT: usize = 8;
/// End of option list and no operation: the options of one byte (RFC 791 §3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
/// Set in the type of an option that every fragment carries.
const COPIED: u8 = 0x80;

/// Payload of all fragments but the last; `None` when the path is too narrow for even 8 bytes.
pub(super) fn piece<B: Deref<Target = [u8]>>(packet: &Ipv4<B>, mtu: usize) -> Option<usize> {
    let room = mtu.checked_sub(packet.header().len())? / UNIT * UNIT;
    (room > 0).then_some(room)
}

/// Sends the fragments of `packet`, which is `whole`.
pub(super) fn send<B: Deref<Target = [u8]>, S: Sink>(
    whole: &Ip<B>,
    packet: &Ipv4<B>,
    route: &Route,
    identification: &mut u32,
    voice: &mut Voice<'_, S>,
) {
    let Some(piece) = piece(packet, usize::from(route.mtu)) else {
        return;
    };
    let later = later_header(packet.header());
    let last = packet.payload().len().div_ceil(piece).saturating_sub(1);
    for (at, body) in packet.payload().chunks(piece).enumerate() {
        let header = if at == 0 {
            packet.header()
        } else {
            later.bytes()
        };
        let inner_len = header.len() + body.len();
        let mut head = Head::<HEAD_MAX>::EMPTY;
        head.begin(route, whole, inner_len, false, identification);
        // What is cut here may itself be a part of something, whose last piece is not the last of the whole.
        let more = if at == last {
            packet.more_fragments()
        } else {
            ipv4::MORE_FRAGMENTS
        };
        let offset = usize::from(packet.fragment_offset()) + at * piece;
        let offset = u16::try_from(offset / UNIT).unwrap_or(u16::MAX);
        let len = u16::try_from(header.len() + body.len()).unwrap_or(u16::MAX);
        let ip = head.push(header);
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        ip[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        ipv4::seal(ip);
        route.emit(head.bytes(), body, identification, voice);
    }
}

/// The header of the fragments after the first: only the options that are to be copied.
struct Later {
    bytes: [u8; ipv4::MAX_HEADER_LEN],
    len: usize,
}

impl Later {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn later_header(header: &[u8]) -> Later {
    let mut later = Later {
        bytes: [0; ipv4::MAX_HEADER_LEN],
        len: ipv4::MIN_HEADER_LEN,
    };
    let (fixed, mut options) = header.split_at(ipv4::MIN_HEADER_LEN);
    later.bytes[..ipv4::MIN_HEADER_LEN].copy_from_slice(fixed);
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, [len, ..]) if (2..=options.len()).contains(&usize::from(*len)) => usize::from(*len),
            // An option that runs past the header: what follows means nothing.
            _ => break,
        };
        let (option, after) = options.split_at(len);
        if kind & COPIED != 0 {
            later.bytes[later.len..later.len + len].copy_from_slice(option);
            later.len += len;
        }
        options = after;
    }
    // Padded with "end of option list", which is zero, to whole words.
    later.len = later.len.next_multiple_of(4);
    later.bytes[0] = 0x40 | u8::try_from(later.len / 4).unwrap_or(5);
    later
}
