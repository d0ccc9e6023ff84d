//! The `ring` port: a TPACKET_V2 receive ring with virtio-net headers, and sendmmsg.
//!
//! Each frame is in a slot as soon as the kernel has it (V3 would hand over blocks by a timer: see ADR 0004). A slot holds
//! one frame of the MTU. A longer one (GSO, GRO: up to 64 KiB) is queued whole at the socket as well, by
//! `PACKET_COPY_THRESH`, and its slot says so. So the ring stays small and nothing is truncated.
//!
//! Invariant: slots are taken and given back in ring order; a frame lent out lies in a slot that is ours.
#![expect(
    unsafe_code,
    reason = "the ring is memory shared with the kernel, and sendmmsg takes C structures"
)]

use std::ffi::c_uint;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dataplane_core::Frame;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::outbox::{Outbox, VNET_HDR_LEN};
use super::{BATCH_FRAMES_MAX, ETHERNET_OVERHEAD, FRAME_LEN_MAX, ReceiveCounters, offload, socket};
use crate::clock;

/// Memory of the ring: 4096 slots of 2 KiB, 11 ms of frames at 365,000 a second, the most this port can forward.
const RING_BYTES: usize = 8 << 20;
/// What the kernel allocates at a time: a multiple of the page and of every slot size.
const BLOCK_BYTES: usize = 256 << 10;
/// Room for frames longer than a slot: some 250 of 64 KiB, the windows of a few bulk transfers; 30 ms of work.
const LONG_FRAMES_BYTES: usize = 8 << 20;
/// Before the frame in its slot: `tpacket2_hdr`, `sockaddr_ll`, the virtio-net header and alignment (packet_mmap.rst).
const SLOT_HEADERS: usize = 128;
/// Frames in one sendmmsg: one batch.
const SEND_FRAMES_MAX: usize = BATCH_FRAMES_MAX;

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: Arc<OwnedFd>,
    ring: Mapping,
    slot_len: usize,
    slots: usize,
    /// The first slot not yet given back.
    head: usize,
    /// Slots from `head` on that hold frames of this batch.
    ready: usize,
    /// `CLOCK_REALTIME` when this batch was taken.
    taken_at: u64,
    /// A frame that is longer than a slot, after its virtio-net header.
    long: Box<[u8]>,
    counters: ReceiveCounters,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: Arc<OwnedFd>,
}

/// Opens both halves on one socket.
pub(crate) fn open(interface_index: u32, mtu: u16) -> io::Result<(Receiver, Sender)> {
    let fd = socket::open(LONG_FRAMES_BYTES)?;
    let version = tpacket_version()?;
    socket::set_option(&fd, libc::PACKET_VERSION, &version)?;
    socket::set_option(&fd, libc::PACKET_VNET_HDR, &1_i32)?;
    socket::set_option(&fd, libc::PACKET_COPY_THRESH, &1_i32)?;
    let slot_len = (SLOT_HEADERS + ETHERNET_OVERHEAD + usize::from(mtu))
        .next_power_of_two()
        .max(2048);
    let slots = RING_BYTES / slot_len;
    let request = libc::tpacket_req {
        tp_block_size: c_uint::try_from(BLOCK_BYTES).map_err(io::Error::other)?,
        tp_block_nr: c_uint::try_from(RING_BYTES / BLOCK_BYTES).map_err(io::Error::other)?,
        tp_frame_size: c_uint::try_from(slot_len).map_err(io::Error::other)?,
        tp_frame_nr: c_uint::try_from(slots).map_err(io::Error::other)?,
    };
    socket::set_option(&fd, libc::PACKET_RX_RING, &request)?;
    let ring = Mapping::new(&fd)?;
    socket::bind(&fd, interface_index)?;
    let socket = Arc::new(fd);
    let receiver = Receiver {
        socket: Arc::clone(&socket),
        ring,
        slot_len,
        slots,
        head: 0,
        ready: 0,
        taken_at: 0,
        long: vec![0; VNET_HDR_LEN + FRAME_LEN_MAX].into_boxed_slice(),
        counters: ReceiveCounters::default(),
    };
    Ok((receiver, Sender { socket }))
}

fn tpacket_version() -> io::Result<i32> {
    i32::try_from(libc::tpacket_versions::TPACKET_V2 as u32).map_err(io::Error::other)
}

impl Receiver {
    /// Takes what has arrived, at most [`BATCH_FRAMES_MAX`] frames, without waiting.
    pub(crate) fn fill(&mut self) -> usize {
        self.ready = 0;
        while self.ready < BATCH_FRAMES_MAX
            && self.status(self.ready).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
        {
            self.ready += 1;
        }
        if self.ready > 0 {
            self.taken_at = clock::realtime_nanos();
        }
        self.ready
    }

    /// Frame `index` of this batch and how long it waited in the ring. `None`: not a frame for us; it is counted.
    pub(crate) fn frame(&mut self, index: usize) -> Option<(Frame<'_>, Duration)> {
        if index >= self.ready {
            return None;
        }
        let at = self.offset(index);
        let header = self.header(at);
        // A step of the wall clock makes this too long or zero for one batch, nothing worse.
        let stamp = u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec);
        let waited = Duration::from_nanos(self.taken_at.saturating_sub(stamp));
        if header.tp_status & libc::TP_STATUS_COPY != 0 {
            return self.long_frame(header, waited);
        }
        if !self.is_ours(&header) {
            return None;
        }
        let start = usize::from(header.tp_mac);
        let len = usize::try_from(header.tp_snaplen).ok()?;
        if header.tp_snaplen < header.tp_len || start < VNET_HDR_LEN || start + len > self.slot_len
        {
            // The queue for long frames was full, so the slot has only the beginning.
            self.counters.truncated += 1;
            return None;
        }
        // SAFETY: `at` is the start of slot `head + index`, the slot is `slot_len` bytes inside the mapping and
        // `start + len <= slot_len`. The slot's status is TP_STATUS_USER (checked with acquire in `fill`), so the
        // kernel leaves it alone until `release`, which needs `&mut self` and so ends this borrow. No other reference
        // into the slot's data lives: `header` is a copy.
        let slot = unsafe {
            std::slice::from_raw_parts_mut(self.ring.base.as_ptr().add(at), self.slot_len)
        };
        let vnet: [u8; VNET_HDR_LEN] = slot.get(start - VNET_HDR_LEN..start)?.try_into().ok()?;
        let bytes = slot.get_mut(start..start + len)?;
        Some((
            Frame {
                bytes,
                offload: offload::from_vnet_header(&vnet),
            },
            waited,
        ))
    }

    /// Gives this batch's slots back to the kernel.
    pub(crate) fn release(&mut self) {
        for index in 0..self.ready {
            self.status(index)
                .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.head = (self.head + self.ready) % self.slots;
        self.ready = 0;
    }

    /// What went wrong so far.
    pub(crate) fn counters(&mut self) -> ReceiveCounters {
        self.counters.kernel_dropped += socket::take_drops(&self.socket);
        self.counters
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes a frame longer than its slot from the socket's queue. Both are in the same order (the kernel appends to
    /// both under one lock), and each queued frame is complete in itself.
    fn long_frame(
        &mut self,
        header: libc::tpacket2_hdr,
        waited: Duration,
    ) -> Option<(Frame<'_>, Duration)> {
        let received = rustix::net::recv(
            &*self.socket,
            &mut self.long[..],
            rustix::net::RecvFlags::TRUNC,
        );
        let whole = match received {
            // With MSG_TRUNC the second number is the frame's own length.
            Ok((_, whole)) if whole <= self.long.len() && whole > VNET_HDR_LEN => whole,
            Ok(_) | Err(_) => {
                self.counters.truncated += 1;
                return None;
            }
        };
        if !self.is_ours(&header) {
            return None;
        }
        let (vnet, frame) = self.long.split_first_chunk_mut::<VNET_HDR_LEN>()?;
        let bytes = frame.get_mut(..whole - VNET_HDR_LEN)?;
        Some((
            Frame {
                bytes,
                offload: offload::from_vnet_header(vnet),
            },
            waited,
        ))
    }

    /// A frame of a VLAN belongs to that VLAN's own interface (the kernel took the tag out of the bytes). Tag 0 is only a priority.
    fn is_ours(&mut self, header: &libc::tpacket2_hdr) -> bool {
        let tagged =
            header.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && header.tp_vlan_tci & 0x0fff != 0;
        self.counters.other_vlan += u64::from(tagged);
        !tagged
    }

    /// Byte offset of the slot of frame `index` of this batch.
    fn offset(&self, index: usize) -> usize {
        (self.head + index) % self.slots * self.slot_len
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        let at = self.offset(index);
        // SAFETY: `at` is a slot's start inside the mapping, aligned to the slot size (a power of two >= 2048);
        // `tp_status` is the slot's first field, a u32 that kernel and user space access atomically.
        unsafe { AtomicU32::from_ptr(self.ring.base.as_ptr().add(at).cast()) }
    }

    fn header(&self, at: usize) -> libc::tpacket2_hdr {
        // SAFETY: as in `status`; a slot begins with a `tpacket2_hdr`, and all bit patterns are values of it. The slot is ours.
        unsafe {
            self.ring
                .base
                .as_ptr()
                .add(at)
                .cast::<libc::tpacket2_hdr>()
                .read()
        }
    }
}

impl Sender {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends frames from `from` on, at most [`SEND_FRAMES_MAX`]. `Ok(n)`: the first n went out, n > 0.
    pub(crate) fn send(&self, outbox: &Outbox, from: usize) -> io::Result<usize> {
        let count = (outbox.len() - from).min(SEND_FRAMES_MAX);
        // SAFETY: `iovec` and `mmsghdr` are C structures of integers and pointers; all zeroes is a value of them.
        let (mut parts, mut messages): (
            [libc::iovec; SEND_FRAMES_MAX],
            [libc::mmsghdr; SEND_FRAMES_MAX],
        ) = unsafe { (zeroed(), zeroed()) };
        for (index, part) in parts.iter_mut().enumerate().take(count) {
            let bytes = outbox.with_vnet_header(from + index);
            *part = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            messages[index].msg_hdr.msg_iov = part;
            messages[index].msg_hdr.msg_iovlen = 1;
        }
        let vlen = c_uint::try_from(count).map_err(io::Error::other)?;
        // SAFETY: the first `count` messages each point to one live iovec, which points into the borrowed outbox; sending only reads them.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                vlen,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
    }
}

/// The ring's memory.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
}

// SAFETY: the memory belongs to this value alone (the kernel aside) and is not tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd) -> io::Result<Self> {
        // SAFETY: no address is asked for, so no existing mapping is touched.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                RING_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        NonNull::new(base.cast())
            .map(|base| Self { base })
            .ok_or_else(|| io::Error::other("mmap gave address 0"))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new` with this length, and nothing borrows from it any more: every borrow is of the `Receiver`.
        let _still_mapped = unsafe { munmap(self.base.as_ptr().cast(), RING_BYTES) };
    }
}

const _: () = assert!(
    size_of::<libc::tpacket2_hdr>() == 32,
    "SLOT_HEADERS counts on it"
);
const _: () = assert!(
    RING_BYTES.is_multiple_of(BLOCK_BYTES),
    "the ring is whole blocks"
);
