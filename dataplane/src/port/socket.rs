//! What both ports need of AF_PACKET and `rustix` does not have (packet(7), netdevice(7)).
#![expect(
    unsafe_code,
    reason = "socket options and ioctls of packet(7) exist only as C structures"
)]

use std::ffi::c_int;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Asked of the kernel for frames it queues for the device: four full outboxes.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A packet socket that receives nothing yet (protocol 0), and never what this host itself sends. The kernel may queue
/// frames of `receive_buffer_bytes` for it, twice that with its own bookkeeping (socket(7)).
pub(super) fn open(receive_buffer_bytes: usize) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // Without it a port would read what another port on the same interface sends, and forward it again.
    set_option(&socket, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    // SO_*BUFFORCE needs CAP_NET_ADMIN in the first user namespace; the plain option is cut to the host's bound.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, receive_buffer_bytes)
        .is_err()
    {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, receive_buffer_bytes)?;
    }
    enlarge_send_buffer(&socket)?;
    Ok(socket)
}

/// As above, for what is sent.
pub(super) fn enlarge_send_buffer(socket: &impl AsFd) -> io::Result<()> {
    if rustix::net::sockopt::set_socket_send_buffer_size_force(socket, SEND_BUFFER_BYTES).is_err() {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES)?;
    }
    Ok(())
}

/// Binds to one interface and starts to receive every protocol.
pub(super) fn bind(socket: &impl AsFd, interface_index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is a C structure of integers, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
        .map_err(io::Error::other)?
        .to_be();
    address.sll_ifindex = c_int::try_from(interface_index).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a live `sockaddr_ll`, which the call only reads.
    let result = unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            length_of::<libc::sockaddr_ll>()?,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Marks what the socket sends from now on (`SO_MARK`).
pub(super) fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    set_option_at(socket, libc::SOL_SOCKET, libc::SO_MARK, &mark)
}

/// What the socket receives from now on passes this filter, which says how much of it is kept (`SO_ATTACH_FILTER`, socket(7)).
pub(super) fn set_filter(
    socket: &impl AsFd,
    instructions: &mut [libc::sock_filter],
) -> io::Result<()> {
    // The kernel copies the instructions, behind a pointer to live ones of this number, and keeps no pointer.
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        filter: instructions.as_mut_ptr(),
    };
    set_option_at(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets an option of level `SOL_PACKET`. `T` is the C structure that packet(7) names for it.
pub(super) fn set_option<T: Copy>(socket: &impl AsFd, option: c_int, value: &T) -> io::Result<()> {
    set_option_at(socket, libc::SOL_PACKET, option, value)
}

fn set_option_at<T: Copy>(
    socket: &impl AsFd,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live `T`, which the call only reads; what a `T` points to is its maker's to keep.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            length_of::<T>()?,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Frames the kernel dropped because nobody fetched them, since the last call (`PACKET_STATISTICS` resets itself).
pub(super) fn take_drops(socket: &impl AsFd) -> u64 {
    let mut stats = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let Ok(mut length) = length_of::<libc::tpacket_stats>() else {
        return 0;
    };
    // SAFETY: the kernel writes at most `length` bytes, the size of the live structure behind the pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        u64::from(stats.tp_drops)
    } else {
        0
    }
}

/// `CLOCK_REALTIME` nanoseconds at which the frame arrived that this socket handed out last (`SIOCGSTAMPNS`, socket(7)).
/// `None` before the first: asking is what switches the stamps on.
pub(super) fn last_stamp(socket: &impl AsFd) -> Option<u64> {
    /// asm-generic/sockios.h; the same on every 64-bit architecture of Rust's Linux targets but sparc and mips.
    const SIOCGSTAMPNS: libc::Ioctl = 0x8907;
    let mut stamp = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: this request writes one `timespec`, the size of the live structure behind the pointer.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSTAMPNS, &raw mut stamp) };
    if result != 0 || stamp.tv_sec <= 0 {
        return None;
    }
    let (seconds, nanos) = (
        u64::try_from(stamp.tv_sec).ok()?,
        u64::try_from(stamp.tv_nsec).ok()?,
    );
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// The interface's MTU in bytes (`SIOCGIFMTU`, netdevice(7)).
pub(super) fn mtu(socket: &impl AsFd, interface: &str) -> io::Result<u32> {
    /// asm-generic/sockios.h
    const SIOCGIFMTU: libc::Ioctl = 0x8921;
    /// `struct ifreq`: a name and a union of 24 bytes, of which this request uses the first four.
    #[repr(C)]
    struct IfReq {
        name: [u8; libc::IFNAMSIZ],
        mtu: c_int,
        rest: [c_int; 5],
    }
    let mut request = IfReq {
        name: [0; libc::IFNAMSIZ],
        mtu: 0,
        rest: [0; 5],
    };
    // The kernel wants a terminating zero, so a name has at most IFNAMSIZ - 1 bytes.
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: this request reads and writes one `struct ifreq` (40 bytes), the size of the live structure behind the pointer.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGIFMTU, &raw mut request) };
    if result == 0 {
        u32::try_from(request.mtu).map_err(io::Error::other)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn length_of<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}
