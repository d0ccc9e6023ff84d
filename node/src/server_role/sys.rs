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
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams taken from the socket at once: at 1500 bytes the touched part of the buffers stays inside L2.
pub(super) const BATCH: usize = 32;

/// No IPv4 datagram (RFC 791 §3.1) and no payload of IPv6 without the jumbo option (RFC 8200 §3) is longer, so none is
/// ever cut off.
const DATAGRAM_MAX: usize = 65_535;

/// Free bytes in front of each datagram: room for the header that the tunnel device wants there.
pub(super) const HEADROOM: usize = 16;

/// Buffers for one batch of datagrams: 2 MiB, allocated once.
pub(super) struct Batch {
    buffers: Vec<[u8; HEADROOM + DATAGRAM_MAX]>,
    facts: [Facts; BATCH],
}

/// What the kernel says of one datagram.
#[derive(Clone, Copy, Default)]
struct Facts {
    length: usize,
    outer: Option<OuterIpv6>,
}

/// What a socket says of the IPv6 header that it keeps to itself.
#[derive(Clone, Copy)]
pub(super) struct OuterIpv6 {
    pub(super) source: Ipv6Addr,
    /// 0 unless the socket was told to deliver it.
    pub(super) traffic_class: u8,
}

/// One datagram of a batch.
pub(super) struct Received<'a> {
    /// [`HEADROOM`] free bytes, then the datagram.
    pub(super) bytes: &'a mut [u8],
    /// `None` when it came over IPv4, whose header is among the bytes.
    pub(super) outer: Option<OuterIpv6>,
}

/// Room for the one control message that the kernel may send along: the traffic class, an `int` (RFC 3542 §6.5).
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    value: libc::c_int,
    padding: libc::c_int,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![[0; HEADROOM + DATAGRAM_MAX]; BATCH],
            facts: [Facts::default(); BATCH],
        }
    }

    /// Fills the batch with what waits in the socket, without blocking, and says how many datagrams that are.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = [const { mem::MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        for (part, buffer) in parts.iter_mut().zip(&mut self.buffers) {
            let room = &mut buffer[HEADROOM..];
            part.write(libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            });
        }
        // SAFETY: all three are C structs of integers and pointers, for which all zeroes is a valid value.
        let (mut headers, mut senders, mut controls): (
            [libc::mmsghdr; BATCH],
            [libc::sockaddr_in6; BATCH],
            [Control; BATCH],
        ) = unsafe { mem::zeroed() };
        let places = parts.iter_mut().zip(&mut senders).zip(&mut controls);
        for (header, ((part, sender), control)) in headers.iter_mut().zip(places) {
            header.msg_hdr.msg_iov = part.as_mut_ptr();
            header.msg_hdr.msg_iovlen = 1;
            // A sender over IPv4 is shorter and tells its family in the same place.
            header.msg_hdr.msg_name = (&raw mut *sender).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>()
                .try_into()
                .unwrap_or_default();
            header.msg_hdr.msg_control = (&raw mut *control).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        // SAFETY: the kernel writes at most `iov_len` bytes to each of the BATCH buffers, which are borrowed mutably
        // for the whole call, at most `msg_namelen` and `msg_controllen` bytes to `senders` and `controls`, which are
        // that long, and lengths and flags of the headers; all these arrays live here.
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
        let told = headers.iter().zip(&senders).zip(&controls);
        for (facts, ((header, sender), control)) in self.facts.iter_mut().zip(told).take(received) {
            *facts = Facts {
                length: (header.msg_len as usize).min(DATAGRAM_MAX),
                outer: outer_ipv6(&header.msg_hdr, sender, control),
            };
        }
        Ok(received.min(BATCH))
    }

    /// The first `count` datagrams of the batch.
    pub(super) fn datagrams(&mut self, count: usize) -> impl Iterator<Item = Received<'_>> {
        self.buffers
            .iter_mut()
            .zip(self.facts)
            .take(count)
            .map(|(buffer, facts)| Received {
                bytes: &mut buffer[..HEADROOM + facts.length],
                outer: facts.outer,
            })
    }
}

fn outer_ipv6(
    header: &libc::msghdr,
    sender: &libc::sockaddr_in6,
    control: &Control,
) -> Option<OuterIpv6> {
    if libc::c_int::from(sender.sin6_family) != libc::AF_INET6 {
        return None;
    }
    let complete = mem::offset_of!(Control, value) + size_of::<libc::c_int>();
    let is_class = header.msg_controllen >= complete
        && control.header.cmsg_level == libc::IPPROTO_IPV6
        && control.header.cmsg_type == libc::IPV6_TCLASS;
    let traffic_class = if is_class {
        u8::try_from(control.value).unwrap_or(0)
    } else {
        0
    };
    Some(OuterIpv6 {
        source: Ipv6Addr::from(sender.sin6_addr.s6_addr),
        traffic_class,
    })
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
