//! For a port that reads nothing but bytes: which frames are another VLAN's. The kernel takes a tag out of the bytes, and only a filter
//! of the socket still sees it (BPF; `PACKET_AUXDATA` would take other calls than pnet's).

use std::io;
use std::os::fd::AsFd;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};

use super::socket;

/// What is left of another VLAN's frame: both Ethernet addresses. No whole frame is that short.
pub(super) const CUT_LEN: u32 = 12;
/// More than a frame can have.
const ALL: u32 = 1 << 18;

/// What a filter knows of a packet beside its bytes begins here (linux/filter.h).
const BESIDE: u32 = libc::SKF_AD_OFF.cast_unsigned();
const TAG_PRESENT: u32 = BESIDE + libc::SKF_AD_VLAN_TAG_PRESENT.cast_unsigned();
const TAG: u32 = BESIDE + libc::SKF_AD_VLAN_TAG.cast_unsigned();
/// Of a tag, the VLAN (IEEE 802.1Q); 0: it is only a priority.
const VLAN: u32 = 0x0fff;

/// From now on this packet socket gives frames that are tagged for another VLAN cut to [`CUT_LEN`].
pub(super) fn cut_tagged(socket: &impl AsFd) -> io::Result<()> {
    let load = |from| instruction(BPF_LD | BPF_W | BPF_ABS, from, 0);
    let skip_if_zero = |skipped| instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, skipped);
    let give = |length| instruction(BPF_RET | BPF_K, length, 0);
    let mut filter = [
        load(TAG_PRESENT)?,
        skip_if_zero(4)?,
        load(TAG)?,
        instruction(BPF_ALU | BPF_AND | BPF_K, VLAN, 0)?,
        skip_if_zero(1)?,
        give(CUT_LEN)?,
        give(ALL)?,
    ];
    socket::set_filter(socket, &mut filter)
}

/// If it compares, and finds what it looks for, the next `skipped` are passed over.
fn instruction(code: u32, operand: u32, skipped: u8) -> io::Result<libc::sock_filter> {
    Ok(libc::sock_filter {
        code: u16::try_from(code).map_err(io::Error::other)?,
        jt: skipped,
        jf: 0,
        k: operand,
    })
}
