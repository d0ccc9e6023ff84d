//! The three system calls of the tunnel that no safe wrapper offers.
//!
//! Invariant: every pointer handed to the kernel points into memory that outlives the call, with the length beside
//! it; nothing here keeps a pointer.
#![expect(
    unsafe_code,
    reason = "TUNSETIFF, recvmmsg and SO_MEMINFO have no safe wrapper; each block says why it holds"
)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams taken from the socket at once: at 1500 bytes the touched part of the buffers stays inside L2.
pub(super) const BATCH: usize = 32;

/// No IPv4 datagram is longer (RFC 791 §3.1), so none is ever cut off.
const DATAGRAM_MAX: usize = 65_535;

/// Buffers for one batch of datagrams: 2 MiB, allocated once.
pub(super) struct Batch {
    buffers: Vec<[u8; DATAGRAM_MAX]>,
    lengths: [usize; BATCH],
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![[0; DATAGRAM_MAX]; BATCH],
            lengths: [0; BATCH],
        }
    }

    /// Fills the batch with what waits in the socket, without blocking, and says how many datagrams that are.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = [const { mem::MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        for (part, buffer) in parts.iter_mut().zip(&mut self.buffers) {
            part.write(libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            });
        }
        // SAFETY: `mmsghdr` is a C struct of integers and pointers, for which all zeroes is a valid value.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for (header, part) in headers.iter_mut().zip(&mut parts) {
            header.msg_hdr.msg_iov = part.as_mut_ptr();
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the kernel writes at most `iov_len` bytes to each of the BATCH buffers, which are borrowed
        // mutably for the whole call, and only `msg_len` and `msg_flags` of the headers; both arrays live here.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                libc::c_uint::try_from(BATCH).unwrap_or(1),
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            return Err(io::Error::last_os_error());
        };
        for (length, header) in self.lengths.iter_mut().zip(&headers).take(received) {
            *length = (header.msg_len as usize).min(DATAGRAM_MAX);
        }
        Ok(received.min(BATCH))
    }

    /// The first `count` datagrams of the batch.
    pub(super) fn datagrams(&mut self, count: usize) -> impl Iterator<Item = &mut [u8]> {
        self.buffers
            .iter_mut()
            .zip(self.lengths)
            .take(count)
            .map(|(buffer, length)| &mut buffer[..length])
    }
}

/// Makes the opened `/dev/net/tun` the device `name`: layer 3, no packet information, a virtio header before each
/// packet. The device is not persistent: it goes with the descriptor, also when the process is killed.
pub(super) fn attach_tun(tun: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is a C struct of integers and a union of plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: the kernel reads the name as a C string.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    request.ifr_ifru.ifru_flags = u16::try_from(flags)
        .map_err(io::Error::other)?
        .cast_signed();
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, and `request` is one, borrowed mutably for the call.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Datagrams that the kernel threw away because the socket's receive buffer was full.
pub(super) fn receive_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // include/uapi/linux/sock_diag.h: SK_MEMINFO_DROPS is the last of nine counters.
    const SK_MEMINFO_DROPS: usize = 8;
    let mut info = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes into `info`, which is that long, and the length it wrote.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(info[SK_MEMINFO_DROPS])
    }
}

/// include/uapi/asm-generic/socket.h; libc does not name it.
const SO_MEMINFO: libc::c_int = 55;
