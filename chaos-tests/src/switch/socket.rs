//! The packet socket of a port: what packet(7) offers and no safe wrapper has.
#![expect(
    unsafe_code,
    reason = "options of level SOL_PACKET exist only as integers behind setsockopt(2)"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt,
};

use crate::observer::link_address;

/// The kernel may queue so many bytes for a port, twice that with its own bookkeeping: 100 frames of 64 KiB.
const BUFFER_BYTES: usize = 8 << 20;

/// A socket for every frame that comes in by `interface` of the calling thread's network namespace, with virtio-net headers.
pub(super) fn open(interface: &str) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )?;
    set(&fd, libc::PACKET_VNET_HDR, 1)?;
    // A switch that hears what it sends itself sends it again.
    set(&fd, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // Inside a user namespace only the bounded options are allowed.
    if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    if setsockopt(&fd, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&fd, sockopt::SndBuf, &BUFFER_BYTES)?;
    }
    bind(fd.as_raw_fd(), &link_address(interface)?)?;
    // Until it was bound it heard all interfaces.
    let mut scrap = [0; 1];
    while rustix::net::recv(&fd, &mut scrap[..], rustix::net::RecvFlags::TRUNC).is_ok() {}
    Ok(fd)
}

fn set(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a live `c_int`, which the call only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
